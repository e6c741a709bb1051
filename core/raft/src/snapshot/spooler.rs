//! Writes rows into a snapshot file.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use bytes::BufMut;
use coracle_store::checkpoint::Table;
use xxhash_rust::xxh3::Xxh3;

use super::format::{
    CHUNK, CHUNK_BYTES, CHUNK_BYTES_MAX, Counts, FOOTER, FOOTER_BYTES, FORMAT, MAGIC, ROW_HEAD, chunk_crc,
    u32_of,
};
use crate::checkpoint::{Checkpoint, Error, Position};

/// Write all rows of the last durable checkpoint into a new file at `path`, from one read transaction.
pub(super) fn spool(checkpoint: &Checkpoint, path: &Path) -> Result<(Position, u64), Error> {
    let file = File::create_new(path).map_err(Error::io("create", path))?;
    // Both closures need it, one after the other.
    let spooler = std::cell::RefCell::new(Spooler::new(file));
    let position = checkpoint.read_at(
        |position| spooler.borrow_mut().header(position).map_err(Error::io("write", path)),
        |_, table, key, value| spooler.borrow_mut().row(table, key, value).map_err(Error::io("write", path)),
    )?;
    let length = spooler.into_inner().finish().map_err(Error::io("write", path))?;
    Ok((position, length))
}

struct Spooler {
    file: File,
    hash: Xxh3,
    length: u64,
    raw: Vec<u8>,
    packed: Vec<u8>,
    counts: Counts,
}

impl Spooler {
    fn new(file: File) -> Self {
        let raw = Vec::with_capacity(CHUNK_BYTES * 5 / 4);
        Self { file, hash: Xxh3::new(), length: 0, raw, packed: Vec::new(), counts: Counts::default() }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn header(&mut self, position: &Position) -> io::Result<()> {
        let position = position.encode();
        let mut header = Vec::new();
        header.put_slice(&MAGIC);
        header.put_u32_le(FORMAT);
        header.put_u32_le(u32_of(position.len()));
        header.put_slice(&position);
        header.put_u32_le(crc32c::crc32c(&header));
        self.put(&header)
    }

    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        let length = ROW_HEAD + key.len() + value.len();
        if length > CHUNK_BYTES_MAX - CHUNK_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "row too long for a snapshot"));
        }
        self.raw.put_u8(table as u8);
        self.raw.put_u32_le(u32_of(key.len()));
        self.raw.put_u32_le(u32_of(value.len()));
        self.raw.put_slice(key);
        self.raw.put_slice(value);
        self.counts.rows[table as usize] += 1;
        if self.raw.len() >= CHUNK_BYTES { self.chunk() } else { Ok(()) }
    }

    fn chunk(&mut self) -> io::Result<()> {
        self.packed.resize(lz4_flex::block::get_maximum_output_size(self.raw.len()), 0);
        let stored = lz4_flex::block::compress_into(&self.raw, &mut self.packed).map_err(io::Error::other)?;
        let packed = std::mem::take(&mut self.packed);
        let mut head = Vec::with_capacity(16);
        head.put_u32_le(CHUNK);
        head.put_u32_le(u32_of(self.raw.len()));
        head.put_u32_le(u32_of(stored));
        head.put_u32_le(chunk_crc(&head, &packed[..stored]));
        self.put(&head)?;
        self.put(&packed[..stored])?;
        self.packed = packed;
        self.raw.clear();
        self.counts.chunks += 1;
        Ok(())
    }

    /// The length of the file.
    fn finish(mut self) -> io::Result<u64> {
        if !self.raw.is_empty() {
            self.chunk()?;
        }
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        footer.put_u32_le(FOOTER);
        footer.put_u64_le(self.counts.chunks);
        self.counts.rows.iter().for_each(|rows| footer.put_u64_le(*rows));
        footer.put_u128_le(self.hash.digest128());
        footer.put_u32_le(crc32c::crc32c(&footer));
        self.put(&footer)?;
        Ok(self.length)
    }
}
