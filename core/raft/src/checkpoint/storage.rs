//! The files redb works on, and how hard they are written.

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::priority;

/// Opens database files. [`Native`] in production; tests put a disk of their own here that fails, runs full or
/// forgets what was not synced.
pub trait Storage: Debug + Send + Sync {
    /// Open an existing file, or (`create`) a new one, for reading and writing.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn StorageBackend>>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

impl Storage for Native {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = OpenOptions::new().read(true).write(true).create_new(create).open(path)?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }
}

/// A file that is synced as it is written.
#[derive(Debug)]
pub(super) struct Paced {
    file: Box<dyn StorageBackend>,
    unsynced: AtomicU64,
    unsynced_max: u64,
}

impl Paced {
    pub(super) fn new(file: Box<dyn StorageBackend>, unsynced_max: u64) -> Self {
        Self { file, unsynced: AtomicU64::new(0), unsynced_max }
    }
}

type Locked<T> = Result<T, BackendError>;

impl StorageBackend for Paced {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        let length = data.len() as u64;
        if self.unsynced.fetch_add(length, Ordering::Relaxed) + length >= self.unsynced_max {
            self.sync_data()?;
        }
        // A commit writes thousands of pages, one by one.
        priority::rest();
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.file.query_lock_range(start, end)
    }
}
