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

    pub fn iter(&self) -> btree_map::Iter<'_, Key, Arc<Record>> {
        self.records.iter()
    }

    /// Keys from `start` to before `end`, never leaving the family of `start`.
    pub fn span(&self, start: &[u8], end: Option<&[u8]>) -> btree_map::Range<'_, Key, Arc<Record>> {
        span(&self.records, start, end)
    }

    /// Keys that start with `prefix`, family byte first.
    pub fn under(&self, prefix: &[u8]) -> btree_map::Range<'_, Key, Arc<Record>> {
        under(&self.records, prefix)
    }

    /// Set or remove a key and answer what it was.
    pub fn replace(&mut self, key: &Key, record: Option<&Arc<Record>>) -> Option<Arc<Record>> {
        let kv = usize::from(key.family() == Family::KV);
        step(record.map_or(0, |record| record.value.len()));
        if let Some(new) = record {
            self.sum = self.sum.wrapping_add(hash::row(key, new, &mut self.scratch));
            self.live_bytes += size(key, new.value.len());
            self.kv_count += kv;
        }
        let previous = match record {
            Some(new) => self.records.insert(key.clone(), new.clone()),
            None => self.records.remove(key),
        };
        if let Some(old) = &previous {
            self.sum = self.sum.wrapping_sub(hash::row(key, old, &mut self.scratch));
            self.live_bytes -= size(key, old.value.len());
            self.kv_count -= kv;
        }
        previous
    }
}

/// Bytes a key counts against the quota.
pub(crate) fn size(key: &Key, value_bytes: usize) -> u64 {
    (key.as_bytes().len() + value_bytes + KEY_OVERHEAD) as u64
}

/// Entries of a map by key from `start` to before `end`, never leaving the family of `start`; `None` is its end.
pub(crate) fn span<'a, V>(
    map: &'a BTreeMap<Key, V>,
    start: &[u8],
    end: Option<&[u8]>,
) -> btree_map::Range<'a, Key, V> {
    let family_end = start.first().and_then(|family| family.checked_add(1)).map(|next| [next]);
    let family_end = family_end.as_ref().map(<[u8; 1]>::as_slice);
    let end = match (end, family_end) {
        (Some(end), Some(family_end)) => Some(end.min(family_end)),
        (end, family_end) => end.or(family_end),
    };
    // An end before the start is an empty range, not a mistake worth a panic.
    let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.max(start)));
    map.range::<[u8], _>((Bound::Included(start), end))
}

/// Entries of a map by key that start with `prefix` (family byte first, never empty).
pub(crate) fn under<'a, V>(map: &'a BTreeMap<Key, V>, prefix: &[u8]) -> btree_map::Range<'a, Key, V> {
    prefix_bounds(prefix, |bounds| map.range::<[u8], _>(bounds))
}

/// The bounds of what starts with `prefix`, lent to `read`.
pub(crate) fn prefix_bounds<T>(prefix: &[u8], read: impl FnOnce((Bound<&[u8]>, Bound<&[u8]>)) -> T) -> T {
    let after = Key::after_prefix(prefix);
    let end = after.as_ref().map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_bytes()));
    read((Bound::Included(prefix), end))
}
