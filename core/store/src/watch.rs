//! ⑥ Which watchers a change concerns: an index from keys to watchers that does not grow with the others.

use crate::ids::Key;
use crate::record::Change;

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
}

impl Selection {
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Key(k) => k == key,
            Self::Prefix(p) => key.as_bytes().starts_with(p),
            Self::Range(start, end) => start <= key && key < end,
        }
    }
}

/// Watchers by what they watch. `matching` costs the key's length, not the number of watchers that do not match
/// (range watchers excepted: they are scanned).
#[derive(Default)]
pub struct Watchers {}

/// Identity of a registered watcher, unique in one [`Watchers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatcherId(pub u64);

impl Watchers {
    pub fn insert(&mut self, selection: Selection) -> WatcherId {
        todo!("{selection:?}")
    }
    pub fn remove(&mut self, id: WatcherId) {
        todo!("{id:?}")
    }
    /// Call `found` once for each watcher that at least one event of the change concerns.
    pub fn matching(&self, change: &Change, found: &mut dyn FnMut(WatcherId)) {
        let _ = (change, found);
        todo!()
    }
}
