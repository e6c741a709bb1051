//! ⑥ Which watchers a change concerns: an index from keys to watchers that does not grow with the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{Key, SessionId};
use crate::ranges::Ranges;
use crate::record::{Change, Event, Record};
use crate::session;
use crate::steps::step;

/// Keys somebody watches. Keys carry their family byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selection {
    /// Everything, all families.
    All,
    /// One key.
    Key(Key),
    /// Keys that start with these bytes (family byte first; a lone family byte selects the family).
    Prefix(Vec<u8>),
    /// Keys in [start, end).
    Range(Key, Key),
    /// A session, and whatever comes to hang on it, hangs on it, or leaves it.
    Session(SessionId),
}

impl Selection {
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Key(k) => k == key,
            Self::Prefix(p) => key.as_bytes().starts_with(p),
            Self::Range(start, end) => start <= key && key < end,
            Self::Session(id) => session::id_of(key) == Some(*id),
        }
    }

    /// Whether it selects what happened.
    #[must_use]
    pub fn concerns(&self, event: &Event) -> bool {
        match self {
            Self::Session(id) => sessions_of(event).any(|session| session == *id),
            _ => self.contains(&event.key),
        }
    }
}

/// Watchers by what they watch. `matching` costs the key's length, not the number of watchers that do not match.
#[derive(Default)]
pub struct Watchers {
    next: u64,
    selections: BTreeMap<WatcherId, Selection>,
    all: BTreeSet<WatcherId>,
    keys: BTreeMap<Key, BTreeSet<WatcherId>>,
    prefixes: BTreeMap<Vec<u8>, BTreeSet<WatcherId>>,
    /// Lengths of the prefixes, with how many prefixes have each: what to cut from a key to look it up.
    lengths: BTreeMap<usize, usize>,
    ranges: Ranges,
    sessions: BTreeMap<SessionId, BTreeSet<WatcherId>>,
}

/// Identity of a registered watcher, unique in one [`Watchers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatcherId(pub u64);

impl Watchers {
    pub fn insert(&mut self, selection: Selection) -> WatcherId {
        let id = WatcherId(self.next);
        self.next += 1;
        match &selection {
            Selection::All => {
                self.all.insert(id);
            }
            Selection::Key(key) => {
                self.keys.entry(key.clone()).or_default().insert(id);
            }
            Selection::Prefix(prefix) => {
                let watchers = self.prefixes.entry(prefix.clone()).or_insert_with(|| {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                    BTreeSet::new()
                });
                watchers.insert(id);
            }
            Selection::Range(start, end) => {
                self.ranges.insert(id, start.clone(), end.clone());
            }
            Selection::Session(session) => {
                self.sessions.entry(*session).or_default().insert(id);
            }
        }
        self.selections.insert(id, selection);
        id
    }

    /// Forget a watcher; one that is unknown or already gone is fine.
    pub fn remove(&mut self, id: WatcherId) {
        match self.selections.remove(&id) {
            None => {}
            Some(Selection::All) => {
                self.all.remove(&id);
            }
            Some(Selection::Key(key)) => {
                drop_from(&mut self.keys, &key, id);
            }
            Some(Selection::Prefix(prefix)) => {
                if drop_from(&mut self.prefixes, &prefix, id)
                    && let Some(count) = self.lengths.get_mut(&prefix.len())
                {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&prefix.len());
                    }
                }
            }
            Some(Selection::Range(start, _)) => {
                self.ranges.remove(id, &start);
            }
            Some(Selection::Session(session)) => {
                drop_from(&mut self.sessions, &session, id);
            }
        }
    }

    /// Call `found` once for each watcher that at least one event of the change concerns.
    pub fn matching(&self, change: &Change, found: &mut dyn FnMut(WatcherId)) {
        let found = &mut |id| {
            step(0);
            found(id);
        };
        self.all.iter().for_each(|id| found(*id));
        if let [event] = &*change.events {
            // A watcher selects one thing, so one event finds it once.
            self.of_event(event, found);
            return;
        }
        let mut seen = BTreeSet::new();
        for event in &change.events {
            self.of_event(event, &mut |id| {
                if seen.insert(id) {
                    found(id);
                }
            });
        }
    }

    /// Number of watchers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.selections.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.selections.is_empty()
    }

    fn of_event(&self, event: &Event, found: &mut dyn FnMut(WatcherId)) {
        self.of_key(&event.key, found);
        if !self.sessions.is_empty() {
            let watchers = sessions_of(event).filter_map(|session| self.sessions.get(&session));
            watchers.flatten().for_each(|id| found(*id));
        }
    }

    fn of_key(&self, key: &Key, found: &mut dyn FnMut(WatcherId)) {
        let bytes = key.as_bytes();
        let by_key = self.keys.get(key).into_iter().flatten();
        let by_prefix = self
            .lengths
            .keys()
            .take_while(|length| **length <= bytes.len())
            .filter_map(|length| self.prefixes.get(&bytes[..*length]))
            .flatten();
        by_key.chain(by_prefix).for_each(|id| found(*id));
        self.ranges.containing(key, found);
    }
}

/// The sessions an event concerns, each once: the one it is about, the one the key left, the one it came to.
fn sessions_of(event: &Event) -> impl Iterator<Item = SessionId> {
    let session = |record: &Option<Arc<Record>>| record.as_ref().and_then(|record| record.session);
    let (about, from, to) = (session::id_of(&event.key), session(&event.previous), session(&event.record));
    let from = from.filter(|_| from != about);
    let to = to.filter(|_| to != from && to != about);
    [about, from, to].into_iter().flatten()
}

/// Take a watcher off a list; true if the list is gone with it.
fn drop_from<K: Ord>(lists: &mut BTreeMap<K, BTreeSet<WatcherId>>, key: &K, id: WatcherId) -> bool {
    let Some(watchers) = lists.get_mut(key) else { return false };
    watchers.remove(&id);
    let emptied = watchers.is_empty();
    if emptied {
        lists.remove(key);
    }
    emptied
}
