//! What a client does next.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use crate::history::{Action, Answer, Op, Outcome};

/// The choices of one client, and what it knows of the keys.
pub struct Draw {
    random: StdRng,
    client: usize,
    keys: usize,
    count: u64,
    /// Revision of the last change of each key, as last seen; 0 if it was absent.
    seen: BTreeMap<String, u64>,
    newest: u64,
}

impl Draw {
    pub fn new(random: StdRng, client: usize, keys: usize) -> Self {
        Self { random, client, keys, count: 0, seen: BTreeMap::new(), newest: 0 }
    }

    fn key(&mut self) -> String {
        format!("load/{:02}", self.random.random_range(0..self.keys))
    }

    /// Never drawn twice.
    fn value(&mut self) -> String {
        self.count += 1;
        format!("op-{}-{}", self.client, self.count)
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    pub fn choose(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    pub fn action(&mut self, session: Option<&str>) -> Action {
        let key = self.key();
        let seen = self.seen.get(&key).copied().unwrap_or(0);
        match self.random.random_range(0..100) {
            0..35 => {
                let session = session.filter(|_| self.chance(15)).map(str::to_owned);
                Action::Put { key, value: self.value(), if_match: None, session }
            }
            35..50 => Action::Put { key, value: self.value(), if_match: Some(seen), session: None },
            50..56 => Action::Delete { key, if_match: None },
            56..60 => Action::Delete { key, if_match: Some(seen).filter(|seen| *seen > 0) },
            60..72 => self.txn(key, seen),
            72..86 => Action::Get { key, stale: false, min_revision: 0 },
            86..94 => {
                Action::Get { key, stale: true, min_revision: if self.chance(50) { self.newest } else { 0 } }
            }
            _ => Action::List { prefix: "load/".to_owned() },
        }
    }

    fn txn(&mut self, key: String, seen: u64) -> Action {
        let puts = vec![
            ("load/a".to_owned(), self.value()),
            ("load/b".to_owned(), self.value()),
            (key.clone(), self.value()),
        ];
        let other = self.key();
        Action::Txn {
            delete: (other != key && self.chance(30)).then_some(other),
            guard: (key, seen),
            puts,
            otherwise: ("load/else".to_owned(), self.value()),
        }
    }

    /// Remembers what an answer told of the keys.
    pub fn learn(&mut self, op: &Op) {
        match (&op.action, &op.outcome) {
            (Action::Put { key, .. }, Outcome::No { current: Some(current), .. }) => {
                self.seen.insert(key.clone(), *current);
            }
            (Action::Put { key, .. }, Outcome::Ok { revision, .. })
            | (
                Action::Txn { guard: (key, _), .. },
                Outcome::Ok { revision, answer: Answer::Succeeded(true) },
            ) => {
                self.seen.insert(key.clone(), *revision);
            }
            (Action::Delete { key, .. }, Outcome::Ok { .. }) => {
                self.seen.insert(key.clone(), 0);
            }
            (Action::Get { key, stale: false, .. }, Outcome::Ok { answer: Answer::Item(item), .. }) => {
                self.seen.insert(key.clone(), item.as_ref().map_or(0, |item| item.mod_revision));
            }
            (_, Outcome::Ok { answer: Answer::Items(items), .. }) => {
                self.seen = items.iter().map(|(key, item)| (key.clone(), item.mod_revision)).collect();
            }
            _ => {}
        }
        self.newest = self.newest.max(op.revision().unwrap_or(0));
    }
}
