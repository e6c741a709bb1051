//! What callers and the writing thread share: the queue, the log as asked for, the entries in memory.
//!
//! Callers encode records straight into the pending batch. The writer swaps it for an empty one, so that two
//! buffers serve for ever and an entry costs no allocation and, while the writer is busy, no system call.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use openraft::storage::IOFlushed;
use tokio::sync::{oneshot, watch};

use super::Stamp;
use super::index::{Extent, Index};
use super::record::{self, Kind};
use super::stats::WalStats;
use super::tail::Tail;
use crate::codec;
use crate::types::{Entry, LogId, Types, Vote};

/// Who wants to hear of a sync.
pub enum Waiter {
    Append(IOFlushed<Types>),
    Vote(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    pub fn done(self, result: io::Result<()>) {
        match self {
            Self::Append(callback) => callback.io_completed(result),
            Self::Vote(reply) => drop(reply.send(result)),
        }
    }
}

/// Records on their way to the disk together.
#[derive(Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub records: u64,
    pub entries: u64,
    pub waiters: Vec<Waiter>,
    /// The lowest last log id that a truncation in this batch leaves.
    #[expect(
        clippy::option_option,
        reason = "no truncation, and a truncation that leaves nothing, are two things"
    )]
    pub truncated: Option<Option<LogId>>,
    /// Holds a vote: the high-water file follows at once.
    pub vote: bool,
    /// Something in it must be durable.
    pub sync: bool,
}

impl Batch {
    fn put(&mut self, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.records += 1;
        record::put(&mut self.bytes, kind, body)
    }

    /// Empty it, keeping the buffers unless they have grown beyond use.
    pub fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.shrink_to(8 << 20);
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.clear();
        *self = Self { bytes, waiters, ..Self::default() };
    }
}

/// What the writing thread is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    Busy,
    /// Waiting, but it will look again within a tick.
    Dozing,
    Asleep,
}

pub struct State {
    /// The log as asked for.
    pub stamp: Stamp,
    /// Log index of the oldest entry, or of the next one if there is none.
    pub first: u64,
    pub tail: Tail,
    pub index: Index,
    pub pending: Batch,
    /// Number of the pending batch.
    pub batch: u64,
    /// `stamp.committed` has not been written yet.
    pub committed_changed: bool,
    pub writer: Writer,
    pub closing: bool,
    pub failure: Option<Arc<str>>,
}

pub struct Shared {
    state: Mutex<State>,
    pub wake: Condvar,
    pub stats: Arc<WalStats>,
    pub failed: watch::Sender<Option<Arc<str>>>,
    full: AtomicBool,
}

/// Entries of a range: what is in memory, and where the rest is.
pub struct Found {
    /// What the log holds of the range asked for.
    pub range: Range<u64>,
    pub on_disk: Vec<Extent>,
    pub in_memory: Vec<Entry>,
}

impl Shared {
    pub fn new(stamp: Stamp, first: u64, tail: Tail, index: Index) -> Self {
        let state = State {
            stamp,
            first,
            tail,
            index,
            pending: Batch::default(),
            batch: 1,
            committed_changed: false,
            writer: Writer::Busy,
            closing: false,
            failure: None,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            stats: Arc::default(),
            failed: watch::Sender::new(None),
            full: AtomicBool::new(false),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    pub fn log_bytes(&self) -> u64 {
        let state = self.lock();
        state.index.bytes_after(state.stamp.purged.map(|id| id.index))
    }

    pub fn segments(&self) -> usize {
        self.lock().index.segments()
    }

    pub fn stamp(&self) -> Stamp {
        self.lock().stamp
    }

    pub fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// Stop for good: nothing is accepted any more.
    pub fn fail(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        self.lock().failure.get_or_insert_with(|| reason.clone());
        self.failed.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        });
    }

    /// Queue entries; they can be read when this returns.
    pub fn append(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        callback: IOFlushed<Types>,
    ) -> io::Result<()> {
        let mut state = match self.accepting() {
            Ok(state) => state,
            Err(e) => {
                callback.io_completed(Err(copy(&e)));
                return Err(e);
            }
        };
        let before = state.before();
        for entry in entries {
            if let Err(e) = state.push(entry) {
                // Leave the log as it was: nothing of this call is queued.
                state.undo(&before);
                drop(state);
                callback.io_completed(Err(copy(&e)));
                return Err(e);
            }
        }
        state.pending.sync = true;
        state.pending.waiters.push(Waiter::Append(callback));
        self.wake_writer(&mut state);
        Ok(())
    }

    /// Queue a vote; the answer tells when it is durable.
    pub fn vote(&self, vote: &Vote) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let mut state = self.accepting()?;
        state.stamp.vote = Some(*vote);
        state.pending.put(Kind::Vote, |out| codec::put_vote(out, vote));
        let (reply, durable) = oneshot::channel();
        state.pending.waiters.push(Waiter::Vote(reply));
        state.pending.vote = true;
        state.pending.sync = true;
        self.wake_writer(&mut state);
        Ok(durable)
    }

    /// Queue the removal of everything after `last`.
    pub fn truncate(&self, last: Option<LogId>) -> io::Result<()> {
        let mut state = self.accepting()?;
        let last = last.max(state.stamp.purged);
        if state.stamp.last.map(|id| id.index) <= last.map(|id| id.index) {
            return Ok(());
        }
        state.stamp.last = last;
        state.tail.truncate(last.as_ref());
        state.pending.put(Kind::Truncate, |out| codec::put_option(out, last.as_ref(), codec::put_log_id));
        let lowest = state.pending.truncated.map_or(last, |other| other.min(last));
        state.pending.truncated = Some(lowest);
        state.pending.sync = true;
        self.wake_writer(&mut state);
        Ok(())
    }

    /// Queue the removal of everything up to and including `upto`.
    pub fn purge(&self, upto: LogId) -> io::Result<()> {
        let mut state = self.accepting()?;
        if state.stamp.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        record::Change::Purge(upto).apply(&mut state.stamp);
        state.first = upto.index + 1;
        state.tail.purge(upto.index);
        state.pending.put(Kind::Purge, |out| codec::put_log_id(out, &upto));
        state.pending.sync = true;
        self.wake_writer(&mut state);
        Ok(())
    }

    /// Note the committed log id; it travels with the next batch, or alone after a tick, and is never waited for.
    pub fn committed(&self, committed: Option<LogId>) -> io::Result<()> {
        let mut state = self.accepting()?;
        if state.stamp.committed != committed {
            state.stamp.committed = committed;
            state.committed_changed = true;
            if state.writer == Writer::Asleep {
                self.wake_writer(&mut state);
            }
        }
        Ok(())
    }

    /// Entries from `start` (included) to `end` (excluded) that the log holds. With a limit in bytes the answer may
    /// be cut short, but has at least one entry if there is one.
    pub fn find(&self, start: u64, end: u64, limit: Option<usize>) -> Found {
        let state = self.lock();
        let start = start.max(state.first);
        let end = end.min(state.stamp.last.map_or(0, |id| id.index + 1));
        let mut found = Found { range: start..end, on_disk: Vec::new(), in_memory: Vec::new() };
        if found.range.is_empty() {
            found.range = start..start;
            return found;
        }
        let held = state.tail.first().unwrap_or(u64::MAX);
        if start < held {
            found.on_disk =
                state.index.extents(start, end.min(held), limit.map_or(u64::MAX, |limit| limit as u64));
        }
        if start >= held || limit.is_none() {
            found.in_memory = state.tail.range(start.max(held), end, limit.unwrap_or(usize::MAX));
        }
        found
    }

    fn accepting(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.failure {
            None => Ok(state),
            Some(reason) => Err(stopped(reason)),
        }
    }

    fn wake_writer(&self, state: &mut State) {
        if state.writer != Writer::Busy {
            state.writer = Writer::Busy;
            self.wake.notify_one();
        }
    }
}

/// What an append changes step by step, as it was before.
struct Before {
    records: u64,
    entries: u64,
    bytes: usize,
    last: Option<LogId>,
    first: u64,
}

impl State {
    fn push(&mut self, entry: Entry) -> io::Result<()> {
        let id = entry.log_id;
        let expected = match self.stamp.last {
            Some(last) => last.index + 1,
            None => id.index,
        };
        if id.index != expected {
            let message = format!("append leaves a gap: index={} expected={expected}", id.index);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.pending.put(Kind::Append, |out| codec::put_entry(out, &entry));
        if self.stamp.last.is_none() {
            self.first = id.index;
        }
        self.pending.entries += 1;
        self.stamp.last = Some(id);
        self.tail.push(entry, self.batch);
        Ok(())
    }

    fn before(&self) -> Before {
        let Batch { records, entries, .. } = self.pending;
        Before { records, entries, bytes: self.pending.bytes.len(), last: self.stamp.last, first: self.first }
    }

    fn undo(&mut self, before: &Before) {
        self.pending.records = before.records;
        self.pending.entries = before.entries;
        self.pending.bytes.truncate(before.bytes);
        self.tail.truncate(before.last.as_ref());
        self.stamp.last = before.last;
        self.first = before.first;
    }

    /// Move what is pending into `batch`, which is empty, and answer its number; `None` if nothing is.
    pub fn take(&mut self, batch: &mut Batch) -> Option<u64> {
        if self.committed_changed {
            self.committed_changed = false;
            let committed = self.stamp.committed;
            let put = |out: &mut Vec<u8>| codec::put_option(out, committed.as_ref(), codec::put_log_id);
            self.pending.put(Kind::Committed, put);
        }
        if self.pending.records == 0 {
            return None;
        }
        std::mem::swap(&mut self.pending, batch);
        self.batch += 1;
        Some(self.batch - 1)
    }
}

/// The error every caller gets once the log has stopped.
pub fn stopped(reason: &str) -> io::Error {
    io::Error::other(format!("the log has stopped: {reason}"))
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
