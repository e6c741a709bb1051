//! The file system as the log sees it: positioned reads and writes, explicit durability, nothing else.
//!
//! Two implementations: [`Native`] (the operating system) and [`sim::SimDisk`] (a disk in memory that forgets
//! what was not synced, tears writes, runs full and fails on demand). Every call blocks: keep them off the
//! asynchronous runtime.

mod native;
pub mod sim;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use native::Native;

/// Directories and the names in them. Errors are those of the operating system. A name is durable only after [`Files::sync_dir`] on its directory.
#[expect(clippy::missing_errors_doc, reason = "each call fails as the system call of its name does")]
pub trait Files: Debug + Send + Sync + 'static {
    /// Create a directory and its parents, durably; no error if it is there already.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names in a directory, sorted. `NotFound` if there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Open an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Create an empty file for reading and writing; an existing one of that name is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Give a file another name, replacing whatever had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Remove a name. Open handles stay readable.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Make creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Take the exclusive lock of `path`, creating it if need be; it lasts until the answer is dropped or the
    /// process ends. `WouldBlock` if another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
}

/// An open file. Offsets and lengths are bytes.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is an IO call that may fail; emptiness is never asked"
)]
#[expect(clippy::missing_errors_doc, reason = "each call fails as the system call of its name does")]
pub trait File: Debug + Send + Sync + 'static {
    /// Current length.
    fn len(&self) -> io::Result<u64>;
    /// Read up to `into.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Write all of `parts`, one after the other, starting at `offset`. After an error any part of them may
    /// have been written.
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Reserve space up to `length` bytes and make the file that long, reading as zeros. An error of kind
    /// `StorageFull` or `QuotaExceeded` says that there is no room.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Make contents and length durable. After an error nothing is known about what was written since the last
    /// success: never try again, stop (the lesson of `PostgreSQL`'s fsync failures, 2018).
    fn sync(&self) -> io::Result<()>;
}

/// Whether an error says that the disk (or the quota) is full, a circumstance that may pass.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Replace the contents of `path` so that a crash leaves either the old or the new file, never a mixture.
///
/// # Errors
/// Any error of the file system. The old contents are intact unless the error came from the last step, the
/// directory sync, after which either may be found.
pub fn replace(files: &dyn Files, path: &Path, contents: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let file = files.create(&fresh)?;
    file.write_at(&[contents], 0)?;
    file.sync()?;
    files.rename(&fresh, path)?;
    files.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The whole contents of a small file, or `None` if it does not exist.
///
/// # Errors
/// Any error of the file system but `NotFound`; `InvalidData` if the file is longer than `limit` bytes.
pub fn read_small(files: &dyn Files, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if length > limit {
        let message = format!("file too long: path={} length={length} limit={limit}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut contents = vec![0; length];
    let read = file.read_at(&mut contents, 0)?;
    contents.truncate(read);
    Ok(Some(contents))
}

/// The file system of the operating system, ready to be shared.
#[must_use]
pub fn native() -> Arc<dyn Files> {
    Arc::new(Native)
}
