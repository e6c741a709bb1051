//! The write-ahead log: station ④, the durability of everything acknowledged.
//!
//! One directory of numbered segments ([`segment`]), each a chain of checksummed records ([`record`]). Callers
//! encode into one shared buffer and return ([`queue`]); one thread drains the whole queue, writes it in one
//! piece, syncs once and only then fires all callbacks ([`writer`]). The newest entries stay in memory
//! ([`tail`]), older ones are read back from the segments ([`index`], [`storage`]). Starting up reads every
//! segment ([`recovery`]) and compares the result with a mark kept beside the log ([`high_water`]).
//!
//! Invariants: nothing is signalled before its sync; entries, votes, truncations and purges take effect on the
//! disk in the order they were asked for; an error of a write or a sync stops the log for good; recovery drops
//! only what was never acknowledged, and refuses to start when it cannot be sure of that.
//!
//! Deliberately not here: compression, encryption, more than one log per directory.
//! Tested by openraft's own suite, a model, a crash at every operation, and damage of every byte: `tests/it/wal`.

mod high_water;
mod index;
mod queue;
mod record;
mod recovery;
mod segment;
mod stats;
mod storage;
mod tail;
mod writer;

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use high_water::Mark;
pub use stats::{Histogram, WalStats};

use self::queue::Shared;
use crate::codec::{self, Input, Malformed};
use crate::files::Files;
use crate::types::{LogId, NodeId, Vote};

/// Whose log it is. Written into every segment and compared when the log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Chosen once, when the cluster is founded.
    pub cluster: u128,
    /// The node within it.
    pub node: NodeId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster={:032x} node={}", self.cluster, self.node)
    }
}

/// How the log is kept. Start from [`Options::new`].
#[derive(Debug, Clone)]
pub struct Options {
    pub identity: Identity,
    /// Size of a segment file in bytes: a multiple of 4096, at least 8192, below 4 GiB. Bounds the size of an
    /// entry. May be changed between runs.
    pub segment_bytes: u32,
    /// Memory for the newest entries, in bytes.
    pub tail_bytes: usize,
    /// A new segment is zero-filled this many bytes ahead of the records, so that most syncs move data only. A
    /// recycled one needs no filling.
    pub fill_bytes: u32,
    /// Purged segments kept for use again. At least one spare is always kept if the disk has room.
    pub spares: usize,
    /// Where the high-water file lives; by default in the log's directory.
    pub high_water: Option<PathBuf>,
    /// Least time between two writes of the high-water file, votes excepted.
    pub high_water_interval: Duration,
    /// How long a committed index may wait for a batch to travel with before it is written alone, and how often
    /// a full disk is tried again.
    pub tick: Duration,
}

impl Options {
    /// 64 MiB segments, 8 MiB of entries in memory, 1 MiB filled ahead, two spares.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            segment_bytes: 64 << 20,
            tail_bytes: 8 << 20,
            fill_bytes: 1 << 20,
            spares: 2,
            high_water: None,
            high_water_interval: Duration::from_secs(1),
            tick: Duration::from_millis(100),
        }
    }
}

/// Vote and marks of the log at one point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    pub vote: Option<Vote>,
    /// Entries up to and including this one are gone.
    pub purged: Option<LogId>,
    /// The last entry, or `purged` if there is none after it.
    pub last: Option<LogId>,
    /// The last committed entry this node knew of; it may lag.
    pub committed: Option<LogId>,
}

impl Stamp {
    fn put(&self, out: &mut Vec<u8>) {
        codec::put_option(out, self.vote.as_ref(), codec::put_vote);
        for id in [&self.purged, &self.last, &self.committed] {
            codec::put_option(out, id.as_ref(), codec::put_log_id);
        }
    }

    fn read(input: &mut Input<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            vote: input.option(codec::vote)?,
            purged: input.option(codec::log_id)?,
            last: input.option(codec::log_id)?,
            committed: input.option(codec::log_id)?,
        })
    }
}

/// What recovery found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub stamp: Stamp,
    /// Entries after the purged one.
    pub entries: u64,
    /// Segments read.
    pub segments: usize,
    /// Whether a torn, never acknowledged batch was found at the end and cut off.
    pub torn: bool,
}

/// Why a log cannot be opened. None of these changes what is on the disk.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("data directory locked: another process is using it path={}", path.display())]
    Locked { path: PathBuf },
    #[error("cannot {what}: path={}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "log damaged: {what}; acknowledged writes may be lost, so this node refuses to start: restore the disk, or \
         remove the node from the cluster and let it join again with an empty directory path={} offset={offset}",
        path.display()
    )]
    Corrupt { path: PathBuf, offset: u64, what: &'static str },
    #[error("log written by a newer version, upgrade this node: path={} format={found} known={known}", path.display())]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    #[error("log of another node: path={} found: {found} expected: {expected}", path.display())]
    Foreign { path: PathBuf, found: Identity, expected: Identity },
    #[error(
        "log went backwards: it once held more than it does now (a restored or swapped directory?), so this node \
         must not vote; remove it from the cluster and let it join again with an empty directory \
         path={} once: {} found: {}",
        path.display(), Position(mark.vote, mark.last), Position(*vote, *last)
    )]
    RolledBack { path: PathBuf, mark: Box<Mark>, vote: Option<Vote>, last: Option<LogId> },
    #[error("bad log option: {0}")]
    Options(&'static str),
}

impl WalError {
    fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}

struct Position(Option<Vote>, Option<LogId>);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(vote, last) = self;
        match vote {
            Some(vote) => write!(f, "vote={vote}")?,
            None => f.write_str("vote=none")?,
        }
        match last {
            Some(last) => write!(f, " last={last}"),
            None => f.write_str(" last=none"),
        }
    }
}

/// The log: openraft's storage and log reader at once. Clones share it; when the last one goes, everything
/// queued is written, the thread ends and the directory is unlocked (dropping it blocks for that long).
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _lock: Box<dyn Any + Send + Sync>,
}

impl Wal {
    /// Open the log in `dir`, creating it if the directory is empty or absent. Blocks: reads the whole log.
    ///
    /// # Errors
    /// See [`WalError`].
    pub fn open(files: Arc<dyn Files>, dir: &Path, options: Options) -> Result<(Self, Recovered), WalError> {
        if options.segment_bytes < 2 * segment::HEADER
            || !options.segment_bytes.is_multiple_of(segment::HEADER)
        {
            return Err(WalError::Options("segment_bytes must be a multiple of 4096 and at least 8192"));
        }
        files.create_dir(dir).map_err(|e| WalError::io("create the directory", dir, e))?;
        let lock_path = dir.join("lock");
        let lock = files.lock(&lock_path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => WalError::Locked { path: dir.to_owned() },
            _ => WalError::io("lock", &lock_path, e),
        })?;
        let (state, recovered) = recovery::recover(files, dir, options)?;
        let (shared, writer) = writer::prepare(state);
        let thread = thread::Builder::new()
            .name("wal".into())
            .spawn(move || writer.run())
            .map_err(|e| WalError::io("start the thread of the log", dir, e))?;
        let inner = Inner { shared, thread: Some(thread), _lock: lock };
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    /// Whether the disk has no room for the next segment. The log goes on in the reserved space of the current
    /// and the spare segment: refuse new writes of clients (507), let internal ones pass. It ends by itself once
    /// there is room, or a purge has freed a segment.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.inner.shared.is_full()
    }

    /// Why the log has stopped, if it has: a write or a sync failed. The node must stop; nothing will be written
    /// or acknowledged any more.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.inner.shared.failed.borrow().clone()
    }

    /// Wait until the log has stopped because of an error; answers the reason. For ever if all is well.
    pub async fn failed(&self) -> Arc<str> {
        let mut failed = self.inner.shared.failed.subscribe();
        loop {
            if let Some(reason) = failed.borrow_and_update().clone() {
                return reason;
            }
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Bytes of durable log since the last purge, rounded up by at most the records that are not entries.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.inner.shared.log_bytes()
    }

    /// Number of segment files in use, spares excluded.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.inner.shared.segments()
    }

    /// Counters since the log was opened.
    #[must_use]
    pub fn stats(&self) -> Arc<WalStats> {
        self.inner.shared.stats.clone()
    }

    /// Vote, purged, last and committed as asked for so far, durable or not.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.inner.shared.stamp()
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("stamp", &self.stamp()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic of that thread has been reported as the failure of the log.
            let _ = thread.join();
        }
    }
}
