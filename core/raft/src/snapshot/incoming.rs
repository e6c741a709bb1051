//! A snapshot that is being received.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use super::reader::Reader;
use super::{SnapshotData, SnapshotFile};
use crate::checkpoint::Error;

/// Collects the bytes of a snapshot in a file. Dropping it unfinished deletes the file.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    file: Option<File>,
    expected: u64,
    received: u64,
}

impl Incoming {
    /// `expected` bytes will come.
    pub(super) fn create(path: PathBuf, expected: u64) -> Result<Self, Error> {
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        Ok(Self { path, file: Some(file), expected, received: 0 })
    }

    /// Bytes received so far: the offset that [`Self::write`] expects next.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Append a piece.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if the piece does not start where the last one ended, or goes past the announced length;
    /// [`Error::Full`], [`Error::Io`].
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        if offset != self.received {
            return Err(self.damaged("a piece is missing or repeated"));
        }
        if bytes.len() as u64 > self.expected - self.received {
            return Err(self.damaged("longer than announced"));
        }
        let file = self.file.as_mut().ok_or(Error::Stopped)?;
        if let Err(e) = file.write_all(bytes) {
            // Part of the piece may be in the file.
            self.file = None;
            return Err(Error::io("write", &self.path)(e));
        }
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Verify all of it: length, checksums, counts, hash. Reads the whole file.
    ///
    /// # Errors
    /// [`Error::Snapshot`], [`Error::Newer`], [`Error::Older`], [`Error::Io`].
    pub fn finish(mut self) -> Result<SnapshotData, Error> {
        if self.received != self.expected {
            return Err(self.damaged("shorter than announced"));
        }
        let Some(mut file) = self.file.take() else { return Err(Error::Stopped) };
        file.flush().map_err(Error::io("write", &self.path))?;
        let (position, _) = Reader::open(&self.path)?.verify()?;
        let path = std::mem::take(&mut self.path);
        Ok(SnapshotData::new(SnapshotFile { path, position, length: self.received }))
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::Snapshot { file: self.path.clone(), offset: self.received, reason: reason.to_owned() }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After a successful finish the path is empty: the file belongs to the snapshot.
        if self.path.as_os_str().is_empty() {
            return;
        }
        if let Err(e) = fs::remove_file(&self.path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.path.display(), error = %e, "cannot remove an unfinished snapshot");
        }
    }
}
