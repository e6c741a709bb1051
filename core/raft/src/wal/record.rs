//! One record of the log: framing, checksum, chain.
//!
//! ```text
//! 0 crc      CRC32C, started from the segment's seed, of every byte after it up to and including the padding
//! 4 length   of the body
//! 8 kind     one byte, three zeros
//! 12 synced  every byte of this segment before this offset was durable when the record was written
//! 16 previous  crc of the record before it (of the header, for the first)
//! 20 body, then zeros up to a multiple of eight
//! ```
//! The seed holds the segment number, so stale records of a recycled file never pass. `previous` is the chain:
//! a record that is valid by itself but does not follow its predecessor is not part of the log. `synced` tells a
//! torn tail from damage: a valid record that claims a broken offset was durable is a witness of corruption.

use super::Stamp;
use crate::codec::{self, Input, Malformed};
use crate::types::{LogId, Vote};

/// Bytes before the body.
pub const HEAD: usize = 20;
/// Records start at multiples of this.
pub const ALIGN: usize = 8;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Append = 1,
    Vote = 2,
    Truncate = 3,
    Purge = 4,
    Committed = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Append,
            2 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Committed,
            _ => return None,
        })
    }
}

/// The effect of a record on the log, without the contents of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Append(LogId),
    Vote(Vote),
    /// The new last log id.
    Truncate(Option<LogId>),
    /// Everything up to and including this is gone.
    Purge(LogId),
    Committed(Option<LogId>),
}

impl Change {
    /// # Errors
    /// If the body is malformed for its kind.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(body);
        let change = match kind {
            Kind::Append => return codec::entry_log_id(body).map(Self::Append),
            Kind::Vote => Self::Vote(codec::vote(&mut input)?),
            Kind::Truncate => Self::Truncate(input.option(codec::log_id)?),
            Kind::Purge => Self::Purge(codec::log_id(&mut input)?),
            Kind::Committed => Self::Committed(input.option(codec::log_id)?),
        };
        input.end()?;
        Ok(change)
    }

    /// Carry the change over to the summary of the log.
    pub fn apply(&self, stamp: &mut Stamp) {
        match *self {
            Self::Append(id) => stamp.last = Some(id),
            Self::Vote(vote) => stamp.vote = Some(vote),
            Self::Truncate(last) => stamp.last = last.max(stamp.purged),
            Self::Purge(id) => {
                stamp.purged = stamp.purged.max(Some(id));
                if stamp.last.is_none_or(|last| last.index <= id.index) {
                    stamp.last = Some(id);
                }
            }
            Self::Committed(id) => stamp.committed = id,
        }
    }
}

/// Append a record to `out`; `body` writes its body. Checksum, chain and synced offset are filled in by [`seal`].
/// Answers its size.
pub fn put(out: &mut Vec<u8>, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    out[start + 8] = kind as u8;
    body(out);
    let length = out.len() - start - HEAD;
    out[start + 4..start + 8].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    out.resize(start + size(length), 0);
    out.len() - start
}

/// Size of a record with a body of `length` bytes.
#[must_use]
pub const fn size(length: usize) -> usize {
    (HEAD + length).next_multiple_of(ALIGN)
}

/// Size of the record that starts at the front of `bytes`, as its head claims. `bytes` holds at least the head.
#[must_use]
pub fn claimed_size(bytes: &[u8]) -> usize {
    size(word(bytes, 4) as usize)
}

/// Fill in what depends on the place of a record in its segment. Answers its checksum, the next link of the chain.
pub fn seal(record: &mut [u8], seed: u32, synced: u32, previous: u32) -> u32 {
    record[12..16].copy_from_slice(&synced.to_le_bytes());
    record[16..20].copy_from_slice(&previous.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &record[4..]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Kind and body of a record made by [`put`].
///
/// # Panics
/// If `bytes` is not such a record.
#[must_use]
pub fn contents(bytes: &[u8]) -> (Kind, &[u8]) {
    let kind = Kind::from_byte(bytes[8]).expect("a record we made");
    (kind, &bytes[HEAD..HEAD + word(bytes, 4) as usize])
}

/// A record whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub kind: Kind,
    pub body: &'a [u8],
    pub synced: u32,
    pub previous: u32,
    pub crc: u32,
    pub size: usize,
}

/// Whether a record could begin at the front of `bytes`, as far as that can be told from a glance.
#[must_use]
pub fn may_start(bytes: &[u8]) -> bool {
    bytes.get(8).is_none_or(|kind| Kind::from_byte(*kind).is_some())
}

/// The record at the front of `bytes`, if there is a whole and valid one of this segment.
#[must_use]
pub fn parse(bytes: &[u8], seed: u32) -> Option<Record<'_>> {
    let kind = Kind::from_byte(*bytes.get(8)?)?;
    if bytes.len() < HEAD || bytes[9..12] != [0; 3] {
        return None;
    }
    let size = claimed_size(bytes);
    let record = bytes.get(..size)?;
    let crc = word(record, 0);
    if crc32c::crc32c_append(seed, &record[4..]) != crc {
        return None;
    }
    let body = &record[HEAD..HEAD + word(record, 4) as usize];
    Some(Record { kind, body, synced: word(record, 12), previous: word(record, 16), crc, size })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
