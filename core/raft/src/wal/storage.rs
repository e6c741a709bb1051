//! The log as openraft sees it: storage and reader.
//!
//! Entries in memory are answered at once; those on disk are read on a blocking thread, a few hundred KiB at a
//! time. Streams go in pieces of [`PIECE`], so that replaying a long log never holds all of it in memory.

use std::fmt::{Debug, Display};
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use openraft::errors::LeaderChanged;
use openraft::storage::{IOFlushed, LeaderBoundedStreamError, LeaderBoundedStreamResult, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use super::Wal;
use super::index::Extent;
use super::queue::{Found, Shared, stopped};
use super::record::Kind;
use super::segment::Scan;
use crate::codec;
use crate::types::{Entry, LeaderId, LogId, Types, Vote};

/// Most bytes of entries in one answer of `limited_get_log_entries`, unless one entry alone is larger.
pub const PIECE: usize = 2 << 20;

impl Wal {
    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    async fn read(&self, start: u64, end: u64, limit: Option<usize>) -> io::Result<Vec<Entry>> {
        let Found { range, on_disk, in_memory } = self.shared().find(start, end, limit);
        let mut entries = Vec::new();
        if !on_disk.is_empty() {
            let reading = tokio::task::spawn_blocking(move || read_extents(&on_disk));
            entries = reading.await.map_err(io::Error::other)??;
        }
        // Only a limit may cut the answer short, and nothing may leave a hole in it.
        let next = entries.last().map_or(range.start, |last: &Entry| last.log_id.index + 1);
        let reached = in_memory.last().map_or(next, |last| last.log_id.index + 1);
        let joined = in_memory.first().is_none_or(|first| first.log_id.index == next);
        let enough =
            if limit.is_some() { reached > range.start || range.is_empty() } else { reached >= range.end };
        if !joined || !enough {
            return Err(damaged("entries are missing", next));
        }
        entries.extend(in_memory);
        Ok(entries)
    }

    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        (start, end.min(self.stamp().last.map_or(0, |id| id.index + 1)))
    }
}

fn read_extents(extents: &[Extent]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(extents.iter().map(|e| e.places.len()).sum());
    for Extent { segment, first, places } in extents {
        let mut scan = Scan::new(segment)?;
        for (index, place) in (*first..).zip(places) {
            let record = scan.record_at(*place)?.filter(|record| record.kind == Kind::Append);
            let record = record.ok_or_else(|| damaged(segment.path.display(), index))?;
            let entry = codec::entry(&Bytes::copy_from_slice(record.body))?;
            if entry.log_id.index != index {
                return Err(damaged(segment.path.display(), index));
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn damaged(what: impl Display, index: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("log damaged: {what} index={index}"))
}

/// A stream over part of the log that fetches piece after piece.
struct Pieces {
    wal: Wal,
    next: u64,
    end: u64,
    piece: vec::IntoIter<Entry>,
    over: bool,
}

impl Pieces {
    fn new(wal: &Wal, range: &impl RangeBounds<u64>) -> Self {
        let (next, end) = wal.bounds(range);
        Self { wal: wal.clone(), next, end, piece: Vec::new().into_iter(), over: false }
    }

    /// Whether the next entry needs another piece.
    fn is_spent(&self) -> bool {
        self.piece.as_slice().is_empty() && self.next < self.end
    }

    async fn fetch(&mut self) -> io::Result<()> {
        let piece = self.wal.read(self.next, self.end, Some(PIECE)).await?;
        match piece.last() {
            Some(last) => self.next = last.log_id.index + 1,
            None => self.over = true,
        }
        self.piece = piece.into_iter();
        Ok(())
    }
}

impl RaftLogReader<Types> for Wal {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.bounds(&range);
        self.read(start, end, None).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, Some(PIECE)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.stamp().vote)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let pieces = Pieces::new(self, &range);
        Box::pin(stream::unfold(pieces, |mut pieces| async move {
            if pieces.is_spent()
                && !pieces.over
                && let Err(e) = pieces.fetch().await
            {
                pieces.end = 0;
                return Some((Err(e), pieces));
            }
            pieces.piece.next().map(|entry| (Ok(entry), pieces))
        }))
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<Types>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut pieces = Pieces::new(self, &range);
        pieces.over = !leads(&pieces.wal, leader);
        let changed = pieces.over;
        Box::pin(stream::unfold((pieces, changed), move |(mut pieces, changed)| async move {
            if changed {
                let vote = pieces.wal.stamp().vote;
                pieces.end = 0;
                return Some((Err(LeaderChanged::new(leader, vote).into()), (pieces, false)));
            }
            if pieces.is_spent() && !pieces.over {
                let fetched = pieces.fetch().await;
                // The entries are this leader's only if it still led after they were read.
                let failed = match fetched {
                    Err(e) => Some(LeaderBoundedStreamError::IoError(e)),
                    Ok(()) if !leads(&pieces.wal, leader) => {
                        Some(LeaderChanged::new(leader, pieces.wal.stamp().vote).into())
                    }
                    Ok(()) => None,
                };
                if let Some(e) = failed {
                    pieces.end = 0;
                    pieces.piece = Vec::new().into_iter();
                    return Some((Err(e), (pieces, false)));
                }
            }
            pieces.piece.next().map(|entry| (Ok(entry), (pieces, false)))
        }))
    }
}

fn leads(wal: &Wal, leader: LeaderId) -> bool {
    wal.stamp().vote.is_some_and(|vote| vote.committed && vote.leader_id == leader)
}

impl RaftLogStorage<Types> for Wal {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let stamp = self.stamp();
        Ok(LogState { last_purged_log_id: stamp.purged, last_log_id: stamp.last })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let durable = self.shared().vote(vote)?;
        durable.await.map_err(|_| stopped("the writing thread is gone"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared().committed(committed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.stamp().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared().append(entries, callback)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.shared().truncate(last)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.shared().purge(upto)
    }
}
