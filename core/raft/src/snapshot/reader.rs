//! Reads a snapshot file and believes nothing in it before it is checked.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use coracle_store::checkpoint::Table;
use xxhash_rust::xxh3::Xxh3;

use super::format::{
    CHUNK, CHUNK_BYTES_MAX, CHUNK_HEAD, Counts, FOOTER, FOOTER_BYTES, FORMAT, HEADER, MAGIC,
    POSITION_BYTES_MAX, ROW_HEAD, TABLES, chunk_crc,
};
use crate::checkpoint::{Error, Position, RowRef, Rows};
use crate::codec::Input;

/// The rows of a snapshot file. The end is reported only after footer, counts and hash have been verified: until
/// then a caller must not let the rows it has seen take effect.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    length: u64,
    offset: u64,
    hash: Xxh3,
    position: Position,
    stored: Vec<u8>,
    chunk: Vec<u8>,
    /// Where in `chunk` the next row begins.
    at: usize,
    /// Table and key of the row before.
    previous: Option<(Table, Vec<u8>)>,
    counts: Counts,
    ended: bool,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("open", path))?.len();
        let mut reader = Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(256 * 1024, file),
            length,
            offset: 0,
            hash: Xxh3::new(),
            position: Position::default(),
            stored: Vec::new(),
            chunk: Vec::new(),
            at: 0,
            previous: None,
            counts: Counts::default(),
            ended: false,
        };
        reader.position = reader.header()?;
        Ok(reader)
    }

    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Read to the end.
    pub(super) fn verify(mut self) -> Result<(Position, Counts), Error> {
        while self.next()?.is_some() {}
        Ok((self.position, self.counts))
    }

    fn damaged(&self, reason: &(impl Display + ?Sized)) -> Error {
        Error::Snapshot { file: self.path.clone(), offset: self.offset, reason: reason.to_string() }
    }

    fn take(&mut self, out: &mut [u8]) -> Result<(), Error> {
        if (out.len() as u64) > self.length - self.offset {
            return Err(self.damaged("too short"));
        }
        self.file.read_exact(out).map_err(Error::io("read", &self.path))?;
        self.offset += out.len() as u64;
        Ok(())
    }

    fn header(&mut self) -> Result<Position, Error> {
        let mut header = vec![0; HEADER];
        self.take(&mut header)?;
        let mut input = Input(&header);
        if input.bytes(MAGIC.len()).map_err(|e| self.damaged(&e))? != MAGIC {
            return Err(self.damaged("not a snapshot"));
        }
        let found = input.u32().map_err(|e| self.damaged(&e))?;
        Error::format(&self.path, found, FORMAT)?;
        let length = input.u32().map_err(|e| self.damaged(&e))? as usize;
        if length > POSITION_BYTES_MAX {
            return Err(self.damaged("position too long"));
        }
        header.resize(HEADER + length + 4, 0);
        self.take(&mut header[HEADER..])?;
        let (body, crc) = header.split_last_chunk::<4>().ok_or_else(|| self.damaged("too short"))?;
        if crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err(self.damaged("wrong checksum of the header"));
        }
        self.hash.update(&header);
        Position::decode(&body[HEADER..]).map_err(|e| self.damaged(&e))
    }

    /// Read the next chunk, or verify the footer and the end.
    fn advance(&mut self) -> Result<(), Error> {
        let mut head = [0; CHUNK_HEAD];
        self.take(&mut head)?;
        let [kind, raw, stored, crc] = std::array::from_fn(|i| {
            u32::from_le_bytes([head[i * 4], head[i * 4 + 1], head[i * 4 + 2], head[i * 4 + 3]])
        });
        match kind {
            CHUNK => self.advance_chunk(&head, raw as usize, stored as usize, crc),
            FOOTER => self.footer(&head),
            _ => Err(self.damaged("neither a chunk nor the footer")),
        }
    }

    fn advance_chunk(&mut self, head: &[u8], raw: usize, stored: usize, crc: u32) -> Result<(), Error> {
        if raw > CHUNK_BYTES_MAX || stored as u64 > self.length - self.offset {
            return Err(self.damaged("chunk too long"));
        }
        let mut bytes = std::mem::take(&mut self.stored);
        bytes.resize(stored, 0);
        self.take(&mut bytes)?;
        if chunk_crc(&head[..12], &bytes) != crc {
            return Err(self.damaged("wrong checksum of a chunk"));
        }
        self.hash.update(head);
        self.hash.update(&bytes);
        self.chunk.resize(raw, 0);
        let unpacked =
            lz4_flex::block::decompress_into(&bytes, &mut self.chunk).map_err(|e| self.damaged(&e))?;
        if unpacked != raw || raw == 0 {
            return Err(self.damaged("wrong length of a chunk"));
        }
        self.stored = bytes;
        self.at = 0;
        self.counts.chunks += 1;
        Ok(())
    }

    fn footer(&mut self, head: &[u8; CHUNK_HEAD]) -> Result<(), Error> {
        let mut footer = [0; FOOTER_BYTES];
        footer[..CHUNK_HEAD].copy_from_slice(head);
        self.take(&mut footer[CHUNK_HEAD..])?;
        let (body, crc) = footer.split_last_chunk::<4>().ok_or_else(|| self.damaged("too short"))?;
        if crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err(self.damaged("wrong checksum of the footer"));
        }
        let mut input = Input(&body[4..]);
        let mut expected = Counts { chunks: input.u64().map_err(|e| self.damaged(&e))?, rows: [0; TABLES] };
        for rows in &mut expected.rows {
            *rows = input.u64().map_err(|e| self.damaged(&e))?;
        }
        if expected != self.counts {
            return Err(self.damaged("wrong number of rows"));
        }
        if input.u128().map_err(|e| self.damaged(&e))? != self.hash.digest128() {
            return Err(self.damaged("wrong hash"));
        }
        if self.offset != self.length {
            return Err(self.damaged("bytes after the footer"));
        }
        self.ended = true;
        Ok(())
    }

    /// Bounds of the next row in the chunk: table, end of key, end of value.
    fn row(&self) -> Result<(Table, usize, usize), Error> {
        let mut input = Input(&self.chunk[self.at..]);
        let table = input.u8().map_err(|e| self.damaged(&e))?;
        let table = Table::ALL
            .into_iter()
            .find(|t| *t as u8 == table)
            .ok_or_else(|| self.damaged("unknown table"))?;
        let key = input.u32().map_err(|e| self.damaged(&e))? as usize;
        let value = input.u32().map_err(|e| self.damaged(&e))? as usize;
        if key.saturating_add(value) > input.0.len() {
            return Err(self.damaged("row longer than its chunk"));
        }
        let key = self.at + ROW_HEAD + key;
        Ok((table, key, key + value))
    }
}

impl Rows for Reader {
    fn next(&mut self) -> Result<Option<RowRef<'_>>, Error> {
        while self.at == self.chunk.len() {
            if !self.ended {
                self.advance()?;
            }
            if self.ended {
                return Ok(None);
            }
        }
        let (table, key_end, end) = self.row()?;
        let start = self.at + ROW_HEAD;
        let (previous_table, previous) = match &mut self.previous {
            Some((previous_table, previous)) => {
                if (*previous_table, &**previous) >= (table, &self.chunk[start..key_end]) {
                    return Err(self.damaged("rows out of order"));
                }
                (previous_table, previous)
            }
            none => {
                let (table, key) = none.insert((table, Vec::new()));
                (table, key)
            }
        };
        *previous_table = table;
        previous.clear();
        previous.extend_from_slice(&self.chunk[start..key_end]);
        self.counts.rows[table as usize] += 1;
        self.at = end;
        Ok(Some((table, &self.chunk[start..key_end], &self.chunk[key_end..end])))
    }
}
