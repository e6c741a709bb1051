//! ⑤ The state machine: apply entries, answer reads.

use std::sync::Arc;

use crate::checkpoint::Delta;
use crate::command::Settings;
use crate::ids::{Key, Revision, SessionId, Timestamp};
use crate::program::Program;
use crate::record::{Change, Event, Record};
use crate::reply::Reply;
use crate::session::Session;
use crate::txn::View;

/// All replicated state, in memory.
pub struct State {}

/// The state machine with its recipes.
pub struct Store {
    state: State,
    program: Box<dyn Program>,
}

/// A range of keys to read. Keys carry their family; a range never leaves one family.
#[derive(Debug, Clone)]
pub struct Range {
    /// First key, inclusive.
    pub start: Key,
    /// End, exclusive; `None` is the end of the family of `start`.
    pub end: Option<Key>,
    pub order: Order,
    /// At most so many items.
    pub limit: usize,
    /// Read the past: a revision in compact_revision ..= revision. `None` is now.
    pub at: Option<Revision>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// Answer of a range read.
#[derive(Debug, Clone)]
pub struct Page {
    pub items: Vec<(Key, Arc<Record>)>,
    /// More items follow beyond the limit.
    pub more: bool,
    /// The revision the page shows.
    pub revision: Revision,
}

/// The asked-for history is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryError {
    /// The oldest revision that can still be read is this one.
    Compacted(Revision),
    /// The revision has not happened here yet; this is the newest.
    Future(Revision),
}

impl Store {
    #[must_use]
    pub fn new(program: Box<dyn Program>) -> Self {
        Self { state: State {}, program }
    }

    /// Apply one log entry. Total: any bytes give a reply. Log time becomes `max(now, time)`.
    pub fn apply(&mut self, time: Timestamp, command: &[u8]) -> Reply {
        let _ = (time, command, &self.program);
        todo!()
    }

    #[must_use]
    pub fn view(&self) -> View<'_> {
        View { state: &self.state }
    }
    #[must_use]
    pub fn revision(&self) -> Revision {
        todo!()
    }
    /// Revisions below this one cannot be read; watches resume after a revision ≥ this one.
    #[must_use]
    pub fn compact_revision(&self) -> Revision {
        todo!()
    }
    #[must_use]
    pub fn now(&self) -> Timestamp {
        todo!()
    }
    /// Restore counter: raised when a backup is restored.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        todo!()
    }
    /// Running hash of the replicated state; equal on all nodes at equal revision.
    #[must_use]
    pub fn hash(&self) -> u128 {
        todo!()
    }
    #[must_use]
    pub fn settings(&self) -> &Settings {
        todo!()
    }
    /// Bytes counted against the quota.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        todo!()
    }
    /// Sizes for metrics and compaction duty: number of changes, their bytes, time of the oldest.
    #[must_use]
    pub fn history(&self) -> HistorySize {
        todo!()
    }
    /// Number of keys in the KV family.
    #[must_use]
    pub fn key_count(&self) -> usize {
        todo!()
    }

    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        todo!("{key:?}")
    }
    /// The key as it was at `at`.
    ///
    /// # Errors
    /// If that revision is compacted or in the future.
    pub fn get_at(&self, key: &Key, at: Revision) -> Result<Option<Arc<Record>>, HistoryError> {
        todo!("{key:?} {at}")
    }
    /// A page of a range.
    ///
    /// # Errors
    /// If `at` is compacted or in the future.
    pub fn range(&self, range: &Range) -> Result<Page, HistoryError> {
        todo!("{range:?}")
    }
    /// Number of keys in a range, ignoring its limit.
    ///
    /// # Errors
    /// If `at` is compacted or in the future.
    pub fn count(&self, range: &Range) -> Result<usize, HistoryError> {
        todo!("{range:?}")
    }
    /// Events of one key that history still has, oldest first, with their revision and time.
    #[must_use]
    pub fn key_history(&self, key: &Key) -> Vec<(Revision, Timestamp, Event)> {
        todo!("{key:?}")
    }
    /// The changes after a revision, oldest first, for a watch to resume.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] if some of them are gone. `after` in the future is fine: nothing yet.
    pub fn changes_after(&self, after: Revision) -> Result<impl Iterator<Item = &Arc<Change>>, HistoryError> {
        let _ = after;
        Ok(std::iter::empty())
    }
    /// Living sessions in id order.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        std::iter::empty()
    }
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        todo!("{id}")
    }
    /// What changed since the last call, for the checkpoint. The first call on a new store gives everything.
    pub fn take_delta(&mut self) -> Delta {
        todo!()
    }
}

/// How much history there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistorySize {
    pub changes: usize,
    pub bytes: usize,
    pub oldest: Option<Timestamp>,
}
