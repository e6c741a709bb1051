//! The state, and what can be read of it.

use std::sync::Arc;

use crate::checkpoint::{Delta, Row, Unsaved};
use crate::command::Settings;
use crate::hash;
use crate::history::History;
use crate::idempotency::Replies;
use crate::ids::{Key, Revision, SessionId, Timestamp};
use crate::mvcc::{Keys, Written};
use crate::program::Program;
use crate::record::{Change, Event, Record};
use crate::session::{Session, Sessions};
use crate::txn::View;

/// Room for so many events is kept from entry to entry.
const SCRATCH_EVENTS: usize = 1_024;

/// All replicated state, in memory.
#[derive(Default)]
pub struct State {
    pub(crate) revision: Revision,
    pub(crate) now: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) settings: Settings,
    pub(crate) keys: Keys,
    pub(crate) sessions: Sessions,
    pub(crate) history: History,
    pub(crate) replies: Replies,
    pub(crate) unsaved: Unsaved,
    /// Where the events of an entry are gathered, only there to be reused.
    pub(crate) scratch: Vec<Event>,
}

impl State {
    /// Set or remove one key with everything that is counted or indexed over keys; answers what it was.
    pub(crate) fn replace(&mut self, key: &Key, record: Option<&Arc<Record>>) -> Option<Arc<Record>> {
        let previous = self.keys.replace(key, record);
        self.sessions.replaced(key, previous.as_deref(), record.map(|record| &**record));
        previous
    }

    /// Write what is made of the present record of a key, with everything that is counted or indexed over keys.
    pub(crate) fn write(&mut self, key: Key, make: impl FnOnce(Option<&Record>) -> Record) -> Written {
        let written = self.keys.write(key, make);
        self.sessions.replaced(&written.key, written.previous.as_deref(), Some(&written.record));
        written
    }

    /// Reuse what the events of an entry were gathered in, unless one entry has made it large.
    pub(crate) fn keep_scratch(&mut self, events: Vec<Event>) {
        if events.capacity() <= SCRATCH_EVENTS {
            self.scratch = events;
        }
    }

    pub(crate) fn hash(&self) -> u128 {
        hash::state(self.keys.sum, self.revision, self.epoch)
    }
}

/// The state machine with its recipes.
pub struct Store {
    pub(crate) state: State,
    pub(crate) program: Box<dyn Program>,
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
    /// Read the past: a revision in `compact_revision` ..= revision. `None` is now.
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
    /// The empty store, at revision 0, with default settings.
    #[must_use]
    pub fn new(program: Box<dyn Program>) -> Self {
        Self { state: State::default(), program }
    }

    /// Whether an encoded operation of the program only gives something back: see [`Program::drains`].
    #[must_use]
    pub fn program_drains(&self, operation: &[u8]) -> bool {
        self.program.drains(operation)
    }

    /// When log time has something to do, by an [`crate::Action::Advance`]: a session stalls, or the program wants it
    /// ([`Program::due`]).
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let stall = self.state.sessions.next_stall().map(|(at, _)| at);
        stall.into_iter().chain(self.program.due(self.view())).min()
    }

    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::of(&self.state)
    }
    /// The state as it was at a revision.
    ///
    /// # Errors
    /// If that revision is compacted or in the future.
    pub fn view_at(&self, at: Revision) -> Result<View<'_>, HistoryError> {
        View::at(&self.state, at)
    }
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.revision
    }
    /// Revisions below this one cannot be read; watches resume after a revision ≥ this one.
    #[must_use]
    pub fn compact_revision(&self) -> Revision {
        self.state.history.compacted()
    }
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.state.now
    }
    /// Restore counter: raised when a backup is restored.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.state.epoch
    }
    /// Running hash of the replicated state; equal on all nodes at equal revision.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.state.hash()
    }
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }
    /// Bytes counted against the quota.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.state.keys.live_bytes
    }
    /// Sizes for metrics and compaction duty: number of changes, their bytes, time of the oldest.
    #[must_use]
    pub fn history(&self) -> HistorySize {
        self.state.history.size()
    }
    /// Number of keys in the KV family.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.state.keys.kv_count
    }

    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        self.state.keys.get(key)
    }
    /// The key as it was at `at`.
    ///
    /// # Errors
    /// If that revision is compacted or in the future.
    pub fn get_at(&self, key: &Key, at: Revision) -> Result<Option<Arc<Record>>, HistoryError> {
        Ok(self.view_at(at)?.get(key).cloned())
    }
    /// A page of a range.
    ///
    /// # Errors
    /// If `at` is compacted or in the future.
    pub fn range(&self, range: &Range) -> Result<Page, HistoryError> {
        self.state.page(range)
    }
    /// Number of keys in a range, ignoring its limit.
    ///
    /// # Errors
    /// If `at` is compacted or in the future.
    pub fn count(&self, range: &Range) -> Result<usize, HistoryError> {
        self.state.count(range)
    }
    /// Events of one key that history still has, newest first, with their revision and time. Costs a search in each
    /// block of history that it passes: take no more than is needed.
    pub fn key_history(&self, key: &Key) -> impl Iterator<Item = (Revision, Timestamp, &Event)> + use<'_> {
        self.state.history.events_of(key).map(|(change, event)| (change.revision, change.time, event))
    }
    /// The changes after a revision, oldest first, for a watch to resume.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] if some of them are gone. `after` in the future is fine: nothing yet.
    pub fn changes_after(&self, after: Revision) -> Result<impl Iterator<Item = &Arc<Change>>, HistoryError> {
        if after < self.compact_revision() {
            return Err(HistoryError::Compacted(self.compact_revision()));
        }
        Ok(self.state.history.changes_after(after))
    }
    /// Living sessions in id order.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.state.sessions.iter()
    }
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.state.sessions.get(id)
    }
    /// How keys left a living session after a revision, as far as history tells, in the order of the keys: the newest
    /// event of each that does not hang on the session now.
    pub fn left(&self, id: SessionId, after: Revision) -> impl Iterator<Item = (Revision, &Event)> {
        let gone = move |key: &Key| self.get(key).is_none_or(|record| record.session != Some(id));
        let left = self.state.history.left(id, &[], after);
        left.map(|(change, event)| (change.revision, event)).filter(move |(_, event)| gone(&event.key))
    }
    /// What changed since the last call, for the checkpoint. The first call on a new store gives everything.
    pub fn take_delta(&mut self) -> Delta {
        self.state.take_delta()
    }
    /// The whole store as rows, in table and key order. Two stores with the same state give the same rows, whatever
    /// their checkpoints were.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.state.rows()
    }
}

/// How much history there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistorySize {
    pub changes: usize,
    /// Bytes of keys and values, with a fixed overhead an event.
    pub bytes: usize,
    pub oldest: Option<Timestamp>,
}
