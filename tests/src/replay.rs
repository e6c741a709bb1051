//! The state at every revision, computed from the log.

use std::collections::BTreeMap;

use crate::log::Log;

/// A key as it was after one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub value: String,
    pub create_revision: u64,
    pub mod_revision: u64,
    pub version: u64,
    pub session: Option<String>,
}

/// Every key with its states, by the revision from which they held; `None` while it did not exist.
#[derive(Debug, Default)]
pub struct Replay {
    keys: BTreeMap<String, Vec<(u64, Option<Item>)>>,
    revision: u64,
}

impl Replay {
    /// The replay, and what is wrong with the log itself: order, uniqueness, versions, previous revisions.
    #[must_use]
    pub fn of(log: &Log) -> (Self, Vec<String>) {
        let (mut replay, mut wrong) = (Self::default(), Vec::new());
        for change in &log.changes {
            if change.revision <= replay.revision {
                wrong.push(format!("log: revision {} after {}", change.revision, replay.revision));
            }
            replay.revision = change.revision;
            for event in change.events.iter().filter(|event| event.family == "kv") {
                let states = replay.keys.entry(event.name.clone()).or_default();
                let before = states.last().and_then(|(_, item)| item.clone());
                let at = format!("log: {} of {} at {}", event.op, event.name, change.revision);
                if states.last().is_some_and(|(revision, _)| *revision == change.revision) {
                    wrong.push(format!("{at}: twice in one revision"));
                }
                let previous = before.as_ref().map_or(0, |item| item.mod_revision);
                if event.previous_revision != previous {
                    wrong.push(format!(
                        "{at}: previous revision {} is not {previous}",
                        event.previous_revision
                    ));
                }
                let after = match event.op.as_str() {
                    "put" => {
                        let version = before.as_ref().map_or(0, |item| item.version) + 1;
                        if event.version != version || event.create != before.is_none() {
                            wrong.push(format!(
                                "{at}: version {} create {} after {before:?}",
                                event.version, event.create
                            ));
                        }
                        Some(Item {
                            value: event.value.clone().unwrap_or_default(),
                            create_revision: before.map_or(change.revision, |item| item.create_revision),
                            mod_revision: change.revision,
                            version,
                            session: event.session.clone(),
                        })
                    }
                    "delete" if before.is_some() => None,
                    _ => {
                        wrong.push(format!("{at}: of {before:?}"));
                        None
                    }
                };
                states.push((change.revision, after));
            }
        }
        (replay, wrong)
    }

    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A key as of a revision.
    #[must_use]
    pub fn at(&self, key: &str, revision: u64) -> Option<&Item> {
        let states = self.keys.get(key)?;
        let after = states.partition_point(|(from, _)| *from <= revision);
        states[..after].last()?.1.as_ref()
    }

    /// All keys with a prefix as of a revision, in order.
    #[must_use]
    pub fn list(&self, prefix: &str, revision: u64) -> Vec<(String, Item)> {
        let range = self.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        range.filter_map(|(key, _)| Some((key.clone(), self.at(key, revision)?.clone()))).collect()
    }

    /// Revisions at which a key changed.
    pub fn changes(&self, key: &str) -> impl Iterator<Item = (u64, Option<&Item>)> {
        self.keys.get(key).into_iter().flatten().map(|(revision, item)| (*revision, item.as_ref()))
    }
}
