//! What can go wrong between the state and the disk.

use std::cmp::Ordering;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::types::LogId;

/// Why a checkpoint or a snapshot could not be written, read or replaced. None of these is a reason to go on with
/// less than all rows: a caller stops the node ([`Error::Full`] excepted) or drops the snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes of the checkpoint are not those that were written.
    #[error(
        "checkpoint damaged; stop this node, move its data directory away and let it join again as a new member \
         (a cluster of one: restore a backup) file={file} place={place} reason={reason}",
        file = .file.display()
    )]
    Damaged { file: PathBuf, place: String, reason: String },
    /// Bytes of a snapshot are not those that were written. Nothing has been replaced; ask for another snapshot.
    #[error("snapshot damaged, ask for another file={file} offset={offset} reason={reason}", file = .file.display())]
    Snapshot { file: PathBuf, offset: u64, reason: String },
    /// Written by a newer version of this program.
    #[error(
        "written by a newer version, start that version or upgrade this one file={file} format={found} \
         newest_known={known}",
        file = .file.display()
    )]
    Newer { file: PathBuf, found: u32, known: u32 },
    /// Written by an earlier version of this program, whose rows this one does not read.
    #[error(
        "written by an earlier version, start that version or begin with an empty directory file={file} format={found} \
         oldest_known={known}",
        file = .file.display()
    )]
    Older { file: PathBuf, found: u32, known: u32 },
    /// Another process has the checkpoint open.
    #[error("checkpoint in use by another process file={file}", file = .file.display())]
    Locked { file: PathBuf },
    /// A snapshot of another cluster.
    #[error("rows of another cluster expected={expected:032x} actual={actual:032x}")]
    Foreign { expected: u128, actual: u128 },
    /// The position offered lies before the durable one: these rows are outdated.
    #[error("position goes backwards durable={durable} offered={offered}", durable = Id(.durable), offered = Id(.offered))]
    Backwards { durable: Option<LogId>, offered: Option<LogId> },
    /// The reader of the rows did not accept one.
    #[error("row not understood file={file} table={table}", file = .file.display())]
    Row { file: PathBuf, table: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    /// No space left. What was durable before still is; the same write may be tried again.
    #[error("no space left action={action} file={file}", file = .file.display())]
    Full { action: &'static str, file: PathBuf },
    /// Any other failure of the disk.
    #[error("disk failure action={action} file={file}", file = .file.display())]
    Io { action: &'static str, file: PathBuf, source: io::Error },
    /// The checkpoint thread has stopped, after an earlier failure or at shutdown; nothing was written.
    #[error("checkpoints have stopped")]
    Stopped,
}

struct Id<'a>(&'a Option<LogId>);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "{id}"),
            None => f.write_str("none"),
        }
    }
}

impl Error {
    /// Adapter for `map_err`: what was being done to which file.
    pub(crate) fn io<'a>(action: &'static str, file: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { action, file: file.to_owned() }
            }
            _ => Self::Io { action, file: file.to_owned(), source },
        }
    }

    /// Whether a file of this format can be read.
    pub(crate) fn format(file: &Path, found: u32, known: u32) -> Result<(), Self> {
        let file = || file.to_owned();
        match found.cmp(&known) {
            Ordering::Less => Err(Self::Older { file: file(), found, known }),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(Self::Newer { file: file(), found, known }),
        }
    }

    pub(crate) fn damaged(file: &Path, place: &str, reason: &(impl fmt::Display + ?Sized)) -> Self {
        Self::Damaged { file: file.to_owned(), place: place.to_owned(), reason: reason.to_string() }
    }

    /// Adapter for `map_err` on anything redb answers.
    pub(crate) fn redb<'a, E: Into<redb::Error>>(
        action: &'static str,
        file: &'a Path,
    ) -> impl Fn(E) -> Self + 'a {
        move |e| match e.into() {
            redb::Error::DatabaseAlreadyOpen => Self::Locked { file: file.to_owned() },
            redb::Error::Io(e) => match e.kind() {
                // redb's own words for a file that is not a database, or ends too early.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::damaged(file, action, &e),
                _ => Self::io(action, file)(e),
            },
            e @ (redb::Error::PreviousIo | redb::Error::LockPoisoned(_) | redb::Error::DatabaseClosed) => {
                Self::Io { action, file: file.to_owned(), source: io::Error::other(e) }
            }
            e => Self::damaged(file, action, &e),
        }
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        let kind = match &e {
            Error::Damaged { .. }
            | Error::Snapshot { .. }
            | Error::Newer { .. }
            | Error::Older { .. }
            | Error::Row { .. } => io::ErrorKind::InvalidData,
            Error::Full { .. } => io::ErrorKind::StorageFull,
            Error::Io { source, .. } => source.kind(),
            Error::Locked { .. } | Error::Foreign { .. } | Error::Backwards { .. } | Error::Stopped => {
                io::ErrorKind::Other
            }
        };
        Self::new(kind, e)
    }
}
