//! The high-water mark: the least this node must find in its log when it starts.
//!
//! A small file beside the log holding a vote and a last log id that were durable when it was written. A log that
//! is behind it has lost something it had acknowledged (a restored disk image, a swapped directory, a cut-off
//! tail), and its node must not vote. The mark may lag, never lead: it is written after the log, and lowered
//! before a truncation.
//!
//! Two slots, written in turn, each with a checksum and a sequence number: a torn write costs only the newer one.

use std::io;
use std::path::Path;

use super::WalError;
use crate::codec::{self, Input};
use crate::files::{File, Files};
use crate::types::{LogId, Vote};

/// A vote and a log id that have been durable.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mark {
    pub vote: Option<Vote>,
    pub last: Option<LogId>,
}

impl Mark {
    /// Whether a log with this vote and this last entry has lost nothing that the mark knows of.
    fn reached_by(&self, vote: Option<Vote>, last: Option<LogId>) -> bool {
        let voted = match (self.vote, vote) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mark), Some(found)) => found >= mark,
        };
        voted && last >= self.last
    }
}

const MAGIC: &[u8; 8] = b"CORACLHW";
const SLOT: u64 = 4096;
const SLOT_BYTES: usize = 128;

/// The open file.
#[derive(Debug)]
pub struct HighWater {
    file: Box<dyn File>,
    sequence: u64,
    mark: Mark,
}

impl HighWater {
    /// Open the file, or create it if the log is new.
    pub fn open(files: &dyn Files, path: &Path, log_is_new: bool) -> Result<Self, WalError> {
        let failed = |e| WalError::io("open", path, e);
        match files.open(path) {
            Ok(file) => Self::read(file, path, log_is_new),
            Err(e) if e.kind() == io::ErrorKind::NotFound && log_is_new => {
                let file = files.create(path).map_err(failed)?;
                let mut fresh = Self { file, sequence: 0, mark: Mark::default() };
                fresh.file.allocate(2 * SLOT).map_err(failed)?;
                fresh.write(Mark::default()).map_err(failed)?;
                files.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
                Ok(fresh)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(WalError::Corrupt {
                path: path.to_owned(),
                offset: 0,
                what: "the log has segments but its high-water file is missing",
            }),
            Err(e) => Err(failed(e)),
        }
    }

    fn read(file: Box<dyn File>, path: &Path, log_is_new: bool) -> Result<Self, WalError> {
        let mut newest = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            let read = file.read_at(&mut bytes, slot * SLOT).map_err(|e| WalError::io("read", path, e))?;
            newest = newest.max_by_sequence(decode(&bytes[..read]));
        }
        match newest {
            Some((sequence, mark)) => Ok(Self { file, sequence, mark }),
            // Created, but the crash came before its first write was durable: nothing can be in the log.
            None if log_is_new => Ok(Self { file, sequence: 0, mark: Mark::default() }),
            None => {
                Err(WalError::Corrupt { path: path.to_owned(), offset: 0, what: "both slots are damaged" })
            }
        }
    }

    /// Compare with what recovery found in the log.
    pub fn check(&self, path: &Path, vote: Option<Vote>, last: Option<LogId>) -> Result<(), WalError> {
        if self.mark.reached_by(vote, last) {
            return Ok(());
        }
        Err(WalError::RolledBack { path: path.to_owned(), mark: Box::new(self.mark), vote, last })
    }

    /// The mark on disk.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Make `mark` the mark on disk.
    pub fn write(&mut self, mark: Mark) -> io::Result<()> {
        let sequence = self.sequence + 1;
        self.file.write_at(&[&encode(sequence, &mark)], sequence % 2 * SLOT)?;
        self.file.sync()?;
        self.sequence = sequence;
        self.mark = mark;
        Ok(())
    }

    /// Before a truncation: never claim more than what stays.
    pub fn lower(&mut self, last: Option<LogId>) -> io::Result<()> {
        if self.mark.last > last { self.write(Mark { last, ..self.mark }) } else { Ok(()) }
    }
}

trait Newest: Sized {
    fn max_by_sequence(self, other: Self) -> Self;
}

impl Newest for Option<(u64, Mark)> {
    fn max_by_sequence(self, other: Self) -> Self {
        match (&self, &other) {
            (Some((a, _)), Some((b, _))) if b > a => other,
            (None, _) => other,
            _ => self,
        }
    }
}

fn encode(sequence: u64, mark: &Mark) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&sequence.to_le_bytes());
    codec::put_option(&mut out, mark.vote.as_ref(), codec::put_vote);
    codec::put_option(&mut out, mark.last.as_ref(), codec::put_log_id);
    out.resize(SLOT_BYTES, 0);
    let crc = crc32c::crc32c(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<(u64, Mark)> {
    let mut input = Input(bytes);
    if input.bytes(8).ok()? != MAGIC || input.u32().ok()? != crc32c::crc32c(input.0) {
        return None;
    }
    let sequence = input.u64().ok()?;
    let vote = input.option(codec::vote).ok()?;
    let last = input.option(codec::log_id).ok()?;
    Some((sequence, Mark { vote, last }))
}
