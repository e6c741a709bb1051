//! The current keys, with what is counted over them: live bytes, the number of keys, the sum of row hashes.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;
use std::sync::Arc;

use crate::hash;
use crate::ids::{Family, Key};
use crate::limits::KEY_OVERHEAD;
use crate::record::Record;
use crate::steps::step;

#[derive(Default)]
pub(crate) struct Keys {
    records: BTreeMap<Key, Arc<Record>>,
    /// Bytes counted against the quota.
    pub live_bytes: u64,
    /// Keys of the KV family.
    pub kv_count: usize,
    /// Wrapping sum of the row hashes.
    pub sum: u128,
    scratch: Vec<u8>,
}

impl Keys {
    /// All keys at once; fastest when `rows` is sorted.
    pub fn build(rows: Vec<(Key, Arc<Record>)>) -> Self {
        let mut keys = Self { records: rows.into_iter().collect(), ..Self::default() };
        for (key, record) in &keys.records {
            keys.sum = keys.sum.wrapping_add(hash::row(key, record, &mut keys.scratch));
            keys.live_bytes += size(key, record.value.len());
            keys.kv_count += usize::from(key.family() == Family::KV);
        }
        keys
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        let record = self.records.get(key);
        step(record.map_or(0, |record| record.value.len()));
        record
    }

    /// The key as it is stored, with its record: to share its bytes instead of holding them twice.
    pub fn stored(&self, key: &Key) -> Option<(&Key, &Arc<Record>)> {
        step(0);
        self.records.get_key_value(key)
    }

    /// Keys that start with `prefix`, from the first on.
    pub fn front(&self, prefix: Key) -> impl Iterator<Item = (&Key, &Arc<Record>)> + use<'_> {
        let from = self.records.range::<Key, _>((Bound::Included(&prefix), Bound::Unbounded));
        from.take_while(move |(key, _)| key.as_bytes().starts_with(prefix.as_bytes()))
    }

    pub fn iter(&self) -> btree_map::Iter<'_, Key, Arc<Record>> {
        self.records.iter()
    }

    /// Keys of a range.
    pub fn range(&self, bounds: Bounds) -> btree_map::Range<'_, Key, Arc<Record>> {
        self.records.range(bounds)
    }

    /// Write what is made of the present record. Answers the key as it is stored, what it was, and what it is.
    pub fn write(&mut self, key: Key, make: impl FnOnce(Option<&Record>) -> Record) -> Written {
        let (key, previous, record) = match self.records.entry(key) {
            btree_map::Entry::Vacant(place) => {
                let record = Arc::new(make(None));
                let key = place.key().clone();
                place.insert(record.clone());
                (key, None, record)
            }
            btree_map::Entry::Occupied(mut place) => {
                let record = Arc::new(make(Some(place.get())));
                let key = place.key().clone();
                (key, Some(place.insert(record.clone())), record)
            }
        };
        self.count(&key, previous.as_deref(), Some(&record));
        Written { key, previous, record }
    }

    /// Set or remove a key and answer what it was.
    pub fn replace(&mut self, key: &Key, record: Option<&Arc<Record>>) -> Option<Arc<Record>> {
        let previous = match record {
            Some(new) => self.records.insert(key.clone(), new.clone()),
            None => self.records.remove(key),
        };
        self.count(key, previous.as_deref(), record.map(|record| &**record));
        previous
    }

    /// A key went from one record to another, or to none.
    fn count(&mut self, key: &Key, previous: Option<&Record>, record: Option<&Record>) {
        let kv = usize::from(key.family() == Family::KV);
        step(record.map_or(0, |record| record.value.len()));
        if let Some(new) = record {
            self.sum = self.sum.wrapping_add(hash::row(key, new, &mut self.scratch));
            self.live_bytes += size(key, new.value.len());
            self.kv_count += kv;
        }
        if let Some(old) = previous {
            self.sum = self.sum.wrapping_sub(hash::row(key, old, &mut self.scratch));
            self.live_bytes -= size(key, old.value.len());
            self.kv_count -= kv;
        }
    }
}

/// What a write did.
pub(crate) struct Written {
    /// As it is stored, to share its bytes instead of holding them twice.
    pub key: Key,
    pub previous: Option<Arc<Record>>,
    pub record: Arc<Record>,
}

/// Bytes a key counts against the quota.
pub(crate) fn size(key: &Key, value_bytes: usize) -> u64 {
    (key.as_bytes().len() + value_bytes + KEY_OVERHEAD) as u64
}

/// Bounds of a range of keys. They are keys, so that a search compares keys and not bytes (see [`Key`]).
pub(crate) type Bounds = (Bound<Key>, Bound<Key>);

/// The keys from `start` to before `end`, never leaving the family of `start`; `None` is its end.
pub(crate) fn between(start: &Key, end: Option<&Key>) -> Bounds {
    let family_end = Key::after_prefix(&[start.family().0]);
    let end = match (end, &family_end) {
        (Some(end), Some(family_end)) => Some(end.min(family_end)),
        (end, family_end) => end.or(family_end.as_ref()),
    };
    // An end before the start is an empty range, not a mistake worth a panic.
    let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.max(start).clone()));
    (Bound::Included(start.clone()), end)
}

/// The keys that start with `prefix`, family byte first; all of them without one.
pub(crate) fn under(prefix: Option<Key>) -> Bounds {
    let after = prefix.as_ref().and_then(|prefix| Key::after_prefix(prefix.as_bytes()));
    (prefix.map_or(Bound::Unbounded, Bound::Included), after.map_or(Bound::Unbounded, Bound::Excluded))
}
