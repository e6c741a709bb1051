//! The newest entries in memory.
//!
//! Bounded by bytes, with one exception: an entry that is not yet durable stays, because it can be read nowhere
//! else. Cloning an entry shares its command.

use std::collections::VecDeque;

use crate::codec;
use crate::types::{Entry, LogId};

/// Memory an entry takes beside its encoded length.
const OVERHEAD: usize = 96;

#[derive(Debug)]
struct Held {
    entry: Entry,
    bytes: usize,
    /// The batch that makes it durable.
    batch: u64,
}

/// Consecutive entries at the end of the log.
#[derive(Debug)]
pub struct Tail {
    entries: VecDeque<Held>,
    bytes: usize,
    limit: usize,
}

impl Tail {
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit }
    }

    /// Log index of the oldest entry held.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.entries.front().map(|held| held.entry.log_id.index)
    }

    /// Add the next entry, which batch number `batch` will make durable.
    pub fn push(&mut self, entry: Entry, batch: u64) {
        let bytes = codec::entry_length(&entry) + OVERHEAD;
        self.bytes += bytes;
        self.entries.push_back(Held { entry, bytes, batch });
    }

    /// Forget old entries above the limit, as far as they are durable: their batch is `durable` or older.
    pub fn trim(&mut self, durable: u64) {
        while self.bytes > self.limit && self.entries.front().is_some_and(|held| held.batch <= durable) {
            self.pop_front();
        }
    }

    /// Drop the entries after `last`.
    pub fn truncate(&mut self, last: Option<&LogId>) {
        let keep = last.map_or(0, |id| id.index + 1);
        while self.entries.back().is_some_and(|held| held.entry.log_id.index >= keep) {
            let held = self.entries.pop_back();
            self.bytes -= held.map_or(0, |held| held.bytes);
        }
    }

    /// Drop the entries up to and including `index`.
    pub fn purge(&mut self, index: u64) {
        while self.first().is_some_and(|first| first <= index) {
            self.pop_front();
        }
    }

    /// Clones of the entries from `start` (included) to `end` (excluded) that are held, at most `limit` bytes of
    /// them but at least one. The answer starts at `start` or is empty.
    #[must_use]
    pub fn range(&self, start: u64, end: u64, limit: usize) -> Vec<Entry> {
        let Some(skip) = self.first().and_then(|first| start.checked_sub(first)) else { return Vec::new() };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let count = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let held = self.entries.iter().skip(skip).take(count).enumerate();
        held.take_while(|(at, held)| {
            bytes += held.bytes - OVERHEAD;
            *at == 0 || bytes <= limit
        })
        .map(|(_, held)| held.entry.clone())
        .collect()
    }

    fn pop_front(&mut self) {
        let held = self.entries.pop_front();
        self.bytes -= held.map_or(0, |held| held.bytes);
    }
}
