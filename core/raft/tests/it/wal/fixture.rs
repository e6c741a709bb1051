//! Small logs on simulated disks.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_raft::files::Files;
use coracle_raft::files::sim::SimDisk;
use coracle_raft::types::{Entry, EntryPayload, LogId, Payload, Types, Vote};
use coracle_raft::wal::{Identity, Options, Recovered, Stamp, Wal, WalError};
use coracle_store::Timestamp;
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

pub const IDENTITY: Identity = Identity { cluster: 0x00c0_ffee, node: 7 };

pub fn dir() -> &'static Path {
    Path::new("/data/wal")
}

/// 16 KiB segments, 2 KiB of entries in memory, the high-water file written after each batch.
pub fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        tail_bytes: 2 << 10,
        fill_bytes: 2048,
        high_water_interval: Duration::ZERO,
        // Long enough that nothing is ever written by the clock unless a test wants it.
        tick: Duration::from_hours(1),
        ..Options::new(IDENTITY)
    }
}

pub fn open_with(disk: &SimDisk, options: Options) -> Result<(Wal, Recovered), WalError> {
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    Wal::open(files, dir(), options)
}

pub fn open(disk: &SimDisk) -> Result<(Wal, Recovered), WalError> {
    open_with(disk, options())
}

pub fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub fn vote(term: u64) -> Vote {
    Vote::new(term, 3)
}

/// An entry whose contents follow from its log id and size.
pub fn entry(term: u64, index: u64, size: usize) -> Entry {
    let command: Vec<u8> = (0..size as u64).map(|i| (i ^ index ^ (term << 4)).to_le_bytes()[0]).collect();
    let payload = Payload { time: Timestamp(index * 1000 + term), command: Bytes::from(command) };
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(payload) }
}

pub fn entries(term: u64, indexes: std::ops::Range<u64>, size: usize) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, size)).collect()
}

/// Queue entries; the answer is awaited for their durability.
pub async fn queue(
    wal: &Wal,
    entries: Vec<Entry>,
) -> io::Result<impl Future<Output = io::Result<()>> + use<>> {
    let (tx, rx) = Types::oneshot();
    wal.clone().append(entries, IOFlushed::signal(tx)).await?;
    Ok(async move { rx.await.map_err(|_| io::Error::other("the callback was dropped"))? })
}

pub async fn append(wal: &Wal, entries: Vec<Entry>) -> io::Result<()> {
    queue(wal, entries).await?.await
}

/// The log as somebody outside sees it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub entries: BTreeMap<u64, Entry>,
}

impl View {
    pub fn append(&mut self, entry: Entry) {
        self.last = Some(entry.log_id);
        self.entries.insert(entry.log_id.index, entry);
    }

    pub fn truncate(&mut self, last: Option<LogId>) {
        self.entries.retain(|index, _| last.is_some_and(|last| *index <= last.index));
        self.last = last.max(self.purged);
    }

    pub fn purge(&mut self, upto: LogId) {
        self.entries.retain(|index, _| *index > upto.index);
        self.purged = Some(upto);
        if self.entries.is_empty() {
            self.last = Some(upto);
        }
    }
}

pub async fn view(wal: &Wal) -> View {
    let Stamp { vote, purged, last, .. } = wal.stamp();
    let entries = wal.clone().try_get_log_entries(..).await.expect("the whole log can be read");
    View { vote, purged, last, entries: entries.into_iter().map(|e| (e.log_id.index, e)).collect() }
}

/// Run on a fresh single-threaded runtime; a minute is far more than any test needs.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_mins(1), test).await })
        .expect("the test hangs")
}
