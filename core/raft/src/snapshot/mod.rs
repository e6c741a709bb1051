//! Snapshots: all rows of a durable checkpoint in one compressed, checksummed file.
//!
//! A peer that lacks log entries we no longer keep gets such a file. It is spooled from one read transaction, which
//! ends before the first byte is sent; several followers share it; it deletes itself with its last user. A received
//! file is verified as a whole before anything is replaced, and the rows go into a new database file
//! ([`Staged`](crate::checkpoint::Staged)).
//!
//! Invariant: a snapshot stands at a durable checkpoint's position, never further.
//! Not here: the wire and its rate limit (the network), when a snapshot is needed (openraft).
//! Tested by `tests/it/snapshot.rs`.

mod format;
mod incoming;
mod reader;
mod spooler;

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use coracle_store::checkpoint::Table;

pub use self::format::FORMAT;
pub use self::incoming::Incoming;
use self::reader::Reader;
use crate::checkpoint::{Checkpoint, Error, Position, Staged, name};
use crate::types::{LogId, SnapshotMeta};

/// Longest piece that [`SnapshotFile::pieces`] gives, in bytes.
pub const PIECE_BYTES: usize = 256 * 1024;
const EXTENSION: &str = "snapshot";

/// A snapshot on disk, complete and verified. The file is deleted when this is dropped.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    position: Position,
    length: u64,
}

impl SnapshotFile {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where in the log its rows stand.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// As openraft wants to hear it.
    #[must_use]
    pub fn meta(&self) -> SnapshotMeta {
        self.position.snapshot_meta()
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes of the file in pieces of at most [`PIECE_BYTES`], each with its offset. Reads block.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn pieces(&self) -> io::Result<Pieces> {
        Ok(Pieces { file: File::open(&self.path)?, offset: 0, length: self.length })
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.path) {
            tracing::warn!(file = %self.path.display(), error = %e, "cannot remove a snapshot");
        }
    }
}

/// Iterator over the bytes of a snapshot file.
#[derive(Debug)]
pub struct Pieces {
    file: File,
    offset: u64,
    length: u64,
}

impl Iterator for Pieces {
    type Item = io::Result<(u64, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let left = self.length - offset;
        if left == 0 {
            return None;
        }
        let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES)];
        if let Err(e) = self.file.read_exact(&mut piece) {
            self.offset = self.length;
            return Some(Err(e));
        }
        self.offset += piece.len() as u64;
        Some(Ok((offset, piece.into())))
    }
}

/// A shared snapshot: what openraft passes between state machine, builder and network.
#[derive(Debug, Clone)]
pub struct SnapshotData(Arc<SnapshotFile>);

impl SnapshotData {
    fn new(file: SnapshotFile) -> Self {
        Self(Arc::new(file))
    }
}

impl Deref for SnapshotData {
    type Target = SnapshotFile;

    fn deref(&self) -> &SnapshotFile {
        &self.0
    }
}

/// The directory of snapshot files. Its methods block on the disk, except [`Self::current`].
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    next: AtomicU64,
    /// Held while one is built, so that two askers get the same.
    building: Mutex<()>,
    current: Mutex<Option<SnapshotData>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Use `dir`, created if absent. Snapshot files left there by an earlier process are deleted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::io("create directory", dir))?;
        for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let path = entry.map_err(Error::io("list", dir))?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        let (building, current) = (Mutex::new(()), Mutex::new(None));
        Ok(Self { dir: dir.to_owned(), next: AtomicU64::new(1), building, current })
    }

    /// The last snapshot built here or kept with [`Self::keep`].
    #[must_use]
    pub fn current(&self) -> Option<SnapshotData> {
        lock(&self.current).clone()
    }

    /// Make `snapshot` the current one; the one before goes when its last user is done.
    pub fn keep(&self, snapshot: SnapshotData) {
        let before = lock(&self.current).replace(snapshot);
        drop(before);
    }

    /// A snapshot that contains `at_least`, or everything durable if that is less: the current one if it does,
    /// otherwise a new one of the last durable checkpoint. `None` asks for the newest.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the checkpoint is; [`Error::Full`], [`Error::Io`].
    pub fn build(&self, checkpoint: &Checkpoint, at_least: Option<LogId>) -> Result<SnapshotData, Error> {
        let _building = lock(&self.building);
        let durable = checkpoint.position();
        let wanted = at_least.map_or(durable.applied, |id| durable.applied.min(Some(id)));
        if let Some(current) = self.current()
            && current.position.cluster == durable.cluster
            && current.position.applied >= wanted
        {
            return Ok(current);
        }
        let path = self.path();
        let (position, length) = spooler::spool(checkpoint, &path).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        let snapshot = SnapshotData::new(SnapshotFile { path, position, length });
        self.keep(snapshot.clone());
        Ok(snapshot)
    }

    /// Start to receive a snapshot of `length` bytes.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`].
    pub fn receive(&self, length: u64) -> Result<Incoming, Error> {
        Incoming::create(self.path(), length)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{}.{EXTENSION}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Read a snapshot once: its rows go into a new database file of `checkpoint` and, one by one, to `each` (a loader).
/// Nothing is replaced before [`Staged::commit`]; drop it if what was loaded proves wrong.
///
/// # Errors
/// [`Error::Snapshot`], [`Error::Newer`], [`Error::Older`], [`Error::Foreign`], [`Error::Backwards`]; [`Error::Row`] with what `each`
/// answered; [`Error::Full`], [`Error::Io`].
pub fn stage<'a, E>(
    checkpoint: &'a Checkpoint,
    snapshot: &SnapshotFile,
    mut each: impl FnMut(Table, &[u8], &[u8]) -> Result<(), E>,
) -> Result<Staged<'a>, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut rows = Reader::open(&snapshot.path)?;
    let position = rows.position().clone();
    if position != snapshot.position {
        let reason = "the file is not the one that was verified".to_owned();
        return Err(Error::Snapshot { file: snapshot.path.clone(), offset: 0, reason });
    }
    checkpoint.stage(&mut rows, position, |table, key, value| {
        each(table, key, value).map_err(|e| Error::Row {
            file: snapshot.path.clone(),
            table: name(table),
            source: e.into(),
        })
    })
}
