//! Reading the log back when a node starts.
//!
//! Every segment but the last must end exactly where its successor says. In the last one the records stop at the
//! first that is broken: that is the torn end of a batch nobody was told about, unless a valid record further on
//! says that this place had been synced before it was written; then the disk has lost something acknowledged and
//! the node refuses to start. Nothing is repaired before all checks have passed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::high_water::HighWater;
use super::index::Index;
use super::record::{self, ALIGN, Change};
use super::segment::{self, End, HEADER, Header, SPARE, Scan, Segment, Spare};
use super::tail::Tail;
use super::writer::{ZEROS, length};
use super::{Options, Recovered, Stamp, WalError};
use crate::codec;
use crate::files::Files;

/// A log ready to be written to.
pub struct Opened {
    pub files: Arc<dyn Files>,
    pub dir: PathBuf,
    pub options: Options,
    pub high_water: HighWater,
    pub spares: Vec<Spare>,
    pub segment: Arc<Segment>,
    pub end: End,
    pub stamp: Stamp,
    /// Log index of the oldest entry, or of the next one if there is none.
    pub first: u64,
    pub tail: Tail,
    pub index: Index,
}

/// Open the log in `dir`, or begin one.
pub fn recover(files: Arc<dyn Files>, dir: &Path, options: Options) -> Result<(Opened, Recovered), WalError> {
    let names = files.list(dir).map_err(|e| WalError::io("list", dir, e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
    numbers.sort_unstable();
    if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(corrupt(&dir.join(segment::name(gap[0] + 1)), 0, "a segment is missing"));
    }

    let mark_path = options.high_water.clone().unwrap_or_else(|| dir.join("high-water"));
    let mut high_water = HighWater::open(&*files, &mark_path, numbers.is_empty())?;
    let mut replay = Replay::new(&options);
    for (at, number) in numbers.iter().enumerate() {
        let after = numbers.len() - 1 - at;
        let keep = after as u64 * u64::from(options.segment_bytes) < options.tail_bytes as u64;
        replay.segment(&*files, dir, *number, keep)?;
    }
    let ending = replay.ending()?;
    high_water.check(&mark_path, replay.stamp.vote, replay.stamp.last)?;
    let first = replay.first(dir)?;

    let mut spares = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(SPARE)) {
        let path = dir.join(name);
        if spares.len() < options.spares.max(1) {
            let spare = Spare::adopt(&*files, &path, options.segment_bytes);
            spares.extend(spare.map_err(|e| WalError::io("open", &path, e))?);
        } else {
            files.remove(&path).map_err(|e| WalError::io("remove", &path, e))?;
        }
    }
    let segment = match replay.last.take() {
        Some(segment) => {
            // All that was found may so far only be in memory: names, records and mark.
            files.sync_dir(dir).map_err(|e| WalError::io("sync", dir, e))?;
            repair(&segment, &ending).map_err(|e| WalError::io("repair", &segment.path, e))?;
            high_water.write(*high_water.mark()).map_err(|e| WalError::io("write", &mark_path, e))?;
            segment
        }
        None => replay.begin(&*files, dir, &options, spares.pop())?,
    };

    let Replay { stamp, tail, index, end, .. } = replay;
    let entries = stamp.last.map_or(0, |last| last.index + 1 - first.min(last.index + 1));
    let recovered =
        Recovered { stamp, entries, segments: index.segments(), torn: ending.leftovers.is_some() };
    let dir = dir.to_owned();
    let opened = Opened { files, dir, options, high_water, spares, segment, end, stamp, first, tail, index };
    Ok((opened, recovered))
}

/// The log as far as it has been read.
struct Replay {
    options: Options,
    stamp: Stamp,
    tail: Tail,
    index: Index,
    last: Option<Arc<Segment>>,
    end: End,
    /// Offset in the last segment that its last record says was synced.
    synced: u32,
    /// The oldest segment found is the first there ever was.
    whole: bool,
}

/// How the last segment ends.
#[derive(Default)]
struct Ending {
    /// The last batch: it may have been written without having been synced.
    last_batch: Option<(u32, u32)>,
    /// Where records of an unfinished batch lie behind a broken one.
    leftovers: Option<(u32, u32)>,
}

impl Replay {
    fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            stamp: Stamp::default(),
            tail: Tail::new(options.tail_bytes),
            index: Index::default(),
            last: None,
            end: End { offset: 0, crc: 0 },
            synced: HEADER,
            whole: false,
        }
    }

    /// Read the next segment; hold its entries in memory if `keep`.
    fn segment(&mut self, files: &dyn Files, dir: &Path, number: u64, keep: bool) -> Result<(), WalError> {
        let (segment, header) = Segment::open(files, dir, number)?;
        if header.identity != self.options.identity {
            let (found, expected) = (header.identity, self.options.identity);
            return Err(WalError::Foreign { path: segment.path, found, expected });
        }
        match &self.last {
            None => {
                self.stamp = header.stamp;
                self.whole = header.previous.is_none();
            }
            Some(before) if header.previous != Some(self.end) => {
                let what = "a segment in the middle of the log ends too early";
                return Err(corrupt(&before.path, self.end.offset, what));
            }
            Some(_) if header.stamp != self.stamp => {
                return Err(corrupt(&segment.path, 0, "the header contradicts the segment before"));
            }
            Some(_) => {}
        }
        let segment = Arc::new(segment);
        self.end = End { offset: HEADER, crc: segment.header_crc };
        self.synced = HEADER;
        self.index.push(segment.clone(), HEADER);
        self.last = Some(segment.clone());
        let mut scan = Scan::new(&segment).map_err(|e| WalError::io("read", &segment.path, e))?;
        loop {
            let found =
                scan.record_at(self.end.offset).map_err(|e| WalError::io("read", &segment.path, e))?;
            let Some(record) = found.filter(|record| record.previous == self.end.crc) else { return Ok(()) };
            self.record(&record, keep).map_err(|what| corrupt(&segment.path, self.end.offset, what))?;
            self.synced = record.synced;
            self.end.crc = record.crc;
            self.end.offset += length(record.size);
        }
    }

    fn record(&mut self, record: &record::Record<'_>, keep: bool) -> Result<(), &'static str> {
        let change = Change::decode(record.kind, record.body).map_err(|e| e.0)?;
        let end = self.end.offset + length(record.size);
        if !self.index.apply(&change, self.end.offset, end) {
            return Err("entries are out of order");
        }
        match change {
            Change::Append(_) if keep => {
                let entry = codec::entry(&Bytes::copy_from_slice(record.body)).map_err(|e| e.0)?;
                self.tail.push(entry, 0);
                self.tail.trim(0);
            }
            Change::Truncate(last) => self.tail.truncate(last.as_ref()),
            Change::Purge(id) => self.tail.purge(id.index),
            Change::Append(_) | Change::Vote(_) | Change::Committed(_) => {}
        }
        change.apply(&mut self.stamp);
        Ok(())
    }

    /// Judge what lies behind the last good record.
    fn ending(&self) -> Result<Ending, WalError> {
        let Some(segment) = &self.last else { return Ok(Ending::default()) };
        let read = |e| WalError::io("read", &segment.path, e);
        let end = self.end.offset;
        let mut scan = Scan::new(segment).map_err(read)?;
        let mut leftovers = None;
        let mut page = vec![0; ZEROS.len()];
        let mut start = end;
        loop {
            let count = segment.file.read_at(&mut page, u64::from(start)).map_err(read)?;
            if count == 0 {
                break;
            }
            let page = &page[..count];
            let starts = (0..count).step_by(ALIGN).filter(|at| record::may_start(&page[*at..]));
            // Most of it is zeros that were written ahead.
            for at in starts.take(if page == &ZEROS[..count] { 0 } else { count }) {
                let offset = start + length(at);
                let Some(record) = scan.record_at(offset).map_err(read)? else { continue };
                if record.synced > end {
                    let what = "a record is broken, yet a later one proves that it had been synced";
                    return Err(corrupt(&segment.path, end, what));
                }
                leftovers = Some((end, offset + length(record.size)));
            }
            start += length(count);
        }
        let last_batch = (self.synced < end).then_some((self.synced, end));
        Ok(Ending { last_batch, leftovers })
    }

    /// Log index of the oldest entry, or of the next.
    fn first(&self, dir: &Path) -> Result<u64, WalError> {
        let purged = self.stamp.purged.map(|id| id.index);
        let next = self.stamp.last.map_or(0, |id| id.index + 1);
        let floor = purged.map_or(0, |index| index + 1);
        if next <= floor {
            return Ok(next);
        }
        let first = self.index.first_after(purged);
        match first {
            Some(first) if first == floor || (purged.is_none() && self.whole) => Ok(first),
            _ => Err(corrupt(dir, 0, "the oldest segments are missing")),
        }
    }

    /// Begin the first segment of a new log.
    fn begin(
        &mut self,
        files: &dyn Files,
        dir: &Path,
        options: &Options,
        spare: Option<Spare>,
    ) -> Result<Arc<Segment>, WalError> {
        let failed = |e: io::Error| WalError::io("begin the log", dir, e);
        let spare = match spare {
            Some(spare) => spare,
            None => Spare::create(files, dir, 1, options.segment_bytes).map_err(failed)?,
        };
        let header = Header { number: 1, identity: options.identity, previous: None, stamp: self.stamp };
        let segment = Arc::new(Segment::begin(files, dir, spare, &header).map_err(failed)?);
        self.end = End { offset: HEADER, crc: segment.header_crc };
        self.index.push(segment.clone(), HEADER);
        Ok(segment)
    }
}

/// Make what was recovered durable, and what was not recovered unreadable.
///
/// The last batch may only have been in the page cache: after a failed sync such pages look clean, so they are
/// written again rather than just synced. Leftovers would come back to life if a later record happened to
/// repeat the broken one before them.
fn repair(segment: &Segment, ending: &Ending) -> io::Result<()> {
    if let Some((from, to)) = ending.last_batch {
        let mut bytes = vec![0; (to - from) as usize];
        segment.file.read_at(&mut bytes, u64::from(from))?;
        segment.file.write_at(&[&bytes], u64::from(from))?;
    }
    if let Some((from, to)) = ending.leftovers {
        let zeros = vec![0; (to - from) as usize];
        segment.file.write_at(&[&zeros], u64::from(from))?;
    }
    segment.file.sync()
}

fn corrupt(path: &Path, offset: u32, what: &'static str) -> WalError {
    WalError::Corrupt { path: path.to_owned(), offset: u64::from(offset), what }
}
