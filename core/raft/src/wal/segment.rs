//! One file of the log: a header block, then records, then space already reserved.
//!
//! The header is durable before the file gets its name, so a named segment always has a good header. It says
//! where the segment before it ended and with which checksum: only the last segment can have a torn tail. It also
//! sums up vote, purged, last and committed, so that older segments can go.

use std::io;
use std::path::{Path, PathBuf};

use super::{Identity, Stamp, WalError};
use crate::codec::{self, Input, Malformed};
use crate::files::{File, Files};
use crate::wal::record::{self, Record};

/// Bytes of the header block; the first record starts here.
pub const HEADER: u32 = 4096;
/// The newest format this code reads, and the one it writes.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"CORACLOG";
/// Magic, version, checksum.
const PREFIX: usize = 16;

/// Where a segment ends: offset after its last record, and that record's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub offset: u32,
    pub crc: u32,
}

/// The first block of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub number: u64,
    pub identity: Identity,
    /// The end of the segment before; absent in the first.
    pub previous: Option<End>,
    /// The log as of the end of the segment before.
    pub stamp: Stamp,
}

impl Header {
    /// The block, and the checksum in it.
    fn encode(&self) -> (Vec<u8>, u32) {
        let mut out = Vec::with_capacity(HEADER as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.identity.cluster.to_le_bytes());
        out.extend_from_slice(&self.identity.node.to_le_bytes());
        codec::put_option(&mut out, self.previous.as_ref(), |out, end| {
            out.extend_from_slice(&end.offset.to_le_bytes());
            out.extend_from_slice(&end.crc.to_le_bytes());
        });
        self.stamp.put(&mut out);
        out.resize(HEADER as usize, 0);
        let crc = crc32c::crc32c(&out[PREFIX..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    fn decode(block: &[u8]) -> Result<(Self, u32), HeaderFault> {
        let mut input = Input(block);
        if input.bytes(MAGIC.len())? != MAGIC {
            return Err(HeaderFault::Malformed("not a log segment"));
        }
        let version = input.u32()?;
        if version > VERSION {
            return Err(HeaderFault::Newer(version));
        }
        let crc = input.u32()?;
        if version == 0 || crc32c::crc32c(input.0) != crc {
            return Err(HeaderFault::Malformed("header checksum"));
        }
        let header = Self {
            number: input.u64()?,
            identity: Identity { cluster: input.u128()?, node: input.u64()? },
            previous: input.option(|input| Ok(End { offset: input.u32()?, crc: input.u32()? }))?,
            stamp: Stamp::read(&mut input)?,
        };
        Ok((header, crc))
    }
}

enum HeaderFault {
    Newer(u32),
    Malformed(&'static str),
}

impl From<Malformed> for HeaderFault {
    fn from(e: Malformed) -> Self {
        Self::Malformed(e.0)
    }
}

/// An open segment file. Shared by the writer, the index and readers; recycled only when nobody else holds it.
#[derive(Debug)]
pub struct Segment {
    pub number: u64,
    pub path: PathBuf,
    pub file: Box<dyn File>,
    /// Start value of every record's checksum.
    pub seed: u32,
    /// The chain starts with the header's checksum.
    pub header_crc: u32,
}

impl Segment {
    /// Turn `spare` into the segment described by `header`: write the header, make it durable, then give the
    /// file its name.
    pub fn begin(files: &dyn Files, dir: &Path, spare: Spare, header: &Header) -> io::Result<Self> {
        let (block, header_crc) = header.encode();
        spare.file.write_at(&[&block], 0)?;
        spare.file.sync()?;
        let path = dir.join(name(header.number));
        files.rename(&spare.path, &path)?;
        files.sync_dir(dir)?;
        let seed = seed(header.number, header_crc);
        Ok(Self { number: header.number, path, file: spare.file, seed, header_crc })
    }

    /// Open an existing segment and read its header.
    pub fn open(files: &dyn Files, dir: &Path, number: u64) -> Result<(Self, Header), WalError> {
        let path = dir.join(name(number));
        let file = files.open(&path).map_err(|e| WalError::io("open", &path, e))?;
        let mut block = vec![0; HEADER as usize];
        let read = file.read_at(&mut block, 0).map_err(|e| WalError::io("read", &path, e))?;
        let corrupt = |what| WalError::Corrupt { path: path.clone(), offset: 0, what };
        if read < block.len() {
            return Err(corrupt("the file is shorter than its header"));
        }
        let (header, header_crc) = Header::decode(&block).map_err(|fault| match fault {
            HeaderFault::Newer(found) => WalError::NewerFormat { path: path.clone(), found, known: VERSION },
            HeaderFault::Malformed(what) => corrupt(what),
        })?;
        if header.number != number {
            return Err(corrupt("the header carries the number of another segment"));
        }
        Ok((Self { number, path, file, seed: seed(number, header_crc), header_crc }, header))
    }
}

fn seed(number: u64, header_crc: u32) -> u32 {
    crc32c::crc32c_append(header_crc, &number.to_le_bytes())
}

/// File name of a segment.
#[must_use]
pub fn name(number: u64) -> String {
    format!("{number:016x}.log")
}

/// The number of a segment, from its file name.
#[must_use]
pub fn parse_name(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|hex| hex.len() == 16).and_then(|hex| u64::from_str_radix(hex, 16).ok())
}

/// Suffix of the names of spares.
pub const SPARE: &str = ".spare";

/// A file that waits to become a segment: space reserved, contents irrelevant.
#[derive(Debug)]
pub struct Spare {
    pub path: PathBuf,
    pub file: Box<dyn File>,
    /// Bytes before this offset have been written at least once, so that writing them again changes no metadata.
    pub filled: u32,
}

impl Spare {
    /// Reserve a new file of `length` bytes. It is removed again if there is no room.
    pub fn create(files: &dyn Files, dir: &Path, number: u64, length: u32) -> io::Result<Self> {
        let path = spare_path(dir, number);
        let file = files.create(&path)?;
        if let Err(e) = file.allocate(u64::from(length)) {
            drop(file);
            files.remove(&path)?;
            return Err(e);
        }
        Ok(Self { path, file, filled: 0 })
    }

    /// Take over a spare left by an earlier run, if it has the right length.
    pub fn adopt(files: &dyn Files, path: &Path, length: u32) -> io::Result<Option<Self>> {
        let file = files.open(path)?;
        if file.len()? != u64::from(length) {
            drop(file);
            files.remove(path)?;
            return Ok(None);
        }
        Ok(Some(Self { path: path.to_owned(), file, filled: 0 }))
    }
}

/// Where the spare made from, or meant for, segment `number` lives.
#[must_use]
pub fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}{SPARE}"))
}

/// Records of a segment, read through a window of a few hundred KiB.
#[derive(Debug)]
pub struct Scan<'a> {
    segment: &'a Segment,
    length: u64,
    window: Vec<u8>,
    start: u64,
}

/// Bytes read at once.
const WINDOW: usize = 256 * 1024;

impl<'a> Scan<'a> {
    pub fn new(segment: &'a Segment) -> io::Result<Self> {
        Ok(Self { segment, length: segment.file.len()?, window: Vec::new(), start: 0 })
    }

    /// The record at `offset`, if a valid one is there. Nothing larger than the file is ever allocated.
    pub fn record_at(&mut self, offset: u32) -> io::Result<Option<Record<'_>>> {
        let offset = u64::from(offset);
        if !self.load(offset, record::HEAD)? {
            return Ok(None);
        }
        let size = record::claimed_size(self.from(offset));
        if !self.load(offset, size)? {
            return Ok(None);
        }
        Ok(record::parse(self.from(offset), self.segment.seed))
    }

    fn from(&self, offset: u64) -> &[u8] {
        &self.window[usize::try_from(offset - self.start).expect("inside the window")..]
    }

    /// Have at least `count` bytes from `offset` in the window; `false` if the file is too short.
    fn load(&mut self, offset: u64, count: usize) -> io::Result<bool> {
        let end = offset + count as u64;
        if end > self.length {
            return Ok(false);
        }
        if offset >= self.start && end <= self.start + self.window.len() as u64 {
            return Ok(true);
        }
        let want = (self.length - offset).min(count.max(WINDOW) as u64);
        self.window.resize(usize::try_from(want).expect("a segment is below 4 GiB"), 0);
        self.start = offset;
        let read = self.segment.file.read_at(&mut self.window, offset)?;
        self.window.truncate(read);
        Ok(read >= count)
    }
}
