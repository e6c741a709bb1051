//! The state on disk: a redb file that holds every row as of one log position.
//!
//! Written by one thread of its own ([`Checkpointer`]) from what changed since the last time; read once, at start.
//! State in memory is authoritative while the node runs, so nothing here is on the path of a request.
//!
//! Invariants: rows and [`Position`] change in one durable transaction; the position never goes backwards; a row
//! that is not byte for byte what was written is an error that names file and table, never skipped; a database file
//! is replaced as a whole or not at all ([`Staged`]).
//!
//! Not here: when to write (the leader's duties), how rows are made (the store), what peers receive
//! ([`crate::snapshot`]). Tested by `tests/it/checkpoint`.

mod database;
mod error;
mod pointer;
mod position;
mod staged;
mod storage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use coracle_store::checkpoint::{RowSource, Table};

use self::database::{Database, View};
pub(crate) use self::database::{RowRef, Rows, name};
pub use self::error::Error;
pub use self::position::Position;
pub use self::staged::Staged;
pub use self::storage::{Native, Storage};
pub use self::writer::Checkpointer;
use crate::priority;

/// Version of the layout: of CURRENT, the tables, the row checksum, the position, and the rows themselves.
pub const FORMAT: u32 = 2;

/// Settings of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Memory redb may use for its pages.
    pub cache_bytes: usize,
    /// How much may be written before it is synced. A checkpoint can dirty hundreds of megabytes; synced at its end
    /// only, they would all stand in the disk's queue before the log's next fsync, which a client waits for.
    pub unsynced_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 16 * 1024 * 1024, unsynced_bytes: 1024 * 1024 }
    }
}

/// A directory with one live database file. All methods block on the disk: never call them on a runtime worker.
pub struct Checkpoint {
    dir: PathBuf,
    options: Options,
    storage: Arc<dyn Storage>,
    /// Held through a write and a replacement; readers do not take it.
    writing: Mutex<()>,
    /// Held (for writing) between the parts of a write, and for reading while a view begins.
    parts: RwLock<()>,
    live: Mutex<Live>,
    next: AtomicU64,
}

struct Live {
    number: pointer::Number,
    /// Absent after a failed commit, until it is opened again.
    database: Option<Arc<Database>>,
    position: Position,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checkpoint {
    /// Open the checkpoint in `dir`, or create an empty one, and clean up after a crash.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Newer`], [`Error::Older`], [`Error::Locked`], [`Error::Full`], [`Error::Io`].
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Position), Error> {
        Self::open_on(Arc::new(Native), dir, options)
    }

    /// As [`Self::open`], with database files of another kind. CURRENT and the names of files are always the
    /// operating system's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        storage: Arc<dyn Storage>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Position), Error> {
        let (number, database) = match pointer::settle(dir)? {
            pointer::Found::State(number) => {
                (number, Database::open(pointer::state_file(dir, number), options, &*storage)?)
            }
            pointer::Found::Empty => {
                let database = Database::create(pointer::new_state_file(dir, 1), options, &*storage)?;
                (1, adopt(dir, database, 1)?)
            }
        };
        let position = database.view()?.position;
        let live = Live { number, database: Some(Arc::new(database)), position: position.clone() };
        let checkpoint = Self {
            dir: dir.to_owned(),
            options,
            storage,
            writing: Mutex::new(()),
            parts: RwLock::new(()),
            live: Mutex::new(live),
            next: AtomicU64::new(number + 1),
        };
        Ok((checkpoint, position))
    }

    /// The durable position: the log may be purged up to its `applied`, never further.
    #[must_use]
    pub fn position(&self) -> Position {
        lock(&self.live).position.clone()
    }

    /// Write and remove rows and move to `position`, in one durable transaction. After an error nothing has changed on
    /// disk, or (a failed sync) all of it has; trying the same write again is right in both cases, going on with later
    /// rows instead is not.
    ///
    /// # Errors
    /// [`Error::Backwards`], [`Error::Full`], [`Error::Io`], [`Error::Damaged`].
    pub fn write(&self, rows: &dyn RowSource, position: &Position) -> Result<(), Error> {
        let _writing = lock(&self.writing);
        let database = self.database()?;
        self.forwards(position)?;
        let _parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = database.write(&mut *rows.rows(&mut priority::rest), position) {
            // redb accepts nothing after a failed commit: forget the handle and open the file again next time.
            lock(&self.live).database = None;
            return Err(e);
        }
        lock(&self.live).position = position.clone();
        Ok(())
    }

    /// Show every row to `f`, in table and key order, each verified. Memory stays within the cache.
    ///
    /// # Errors
    /// [`Error::Damaged`]; [`Error::Row`] with what `f` answered; [`Error::Io`].
    pub fn load<E>(&self, mut f: impl FnMut(Table, &[u8], &[u8]) -> Result<(), E>) -> Result<Position, Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.read(|file, table, key, value| {
            f(table, key, value).map_err(|e| Error::Row {
                file: file.to_owned(),
                table: name(table),
                source: e.into(),
            })
        })
    }

    /// As [`Self::load`], for readers that speak our errors. Other reads and writes may go on meanwhile.
    pub(crate) fn read(
        &self,
        mut f: impl FnMut(&Path, Table, &[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<Position, Error> {
        self.read_at(|_| Ok(()), |file, table, key, value| f(file, table, key, value))
    }

    /// As [`Self::read`], with the position told before the first row.
    pub(crate) fn read_at(
        &self,
        start: impl FnOnce(&Position) -> Result<(), Error>,
        mut f: impl FnMut(&Path, Table, &[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<Position, Error> {
        let (database, view) = {
            let _parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
            let database = self.database()?;
            let view = database.view()?;
            (database, view)
        };
        start(&view.position)?;
        view.each(|table, key, value| f(view.path(), table, key, value))?;
        let View { position, .. } = view;
        drop(database);
        Ok(position)
    }

    fn database(&self) -> Result<Arc<Database>, Error> {
        let mut live = lock(&self.live);
        if let Some(database) = &live.database {
            return Ok(database.clone());
        }
        let database = Arc::new(self.open_file(live.number)?);
        live.position = database.view()?.position;
        live.database = Some(database.clone());
        Ok(database)
    }

    fn open_file(&self, number: pointer::Number) -> Result<Database, Error> {
        Database::open(pointer::state_file(&self.dir, number), self.options, &*self.storage)
    }

    fn forwards(&self, offered: &Position) -> Result<(), Error> {
        let durable = self.position();
        if durable.cluster != 0 && durable.cluster != offered.cluster {
            return Err(Error::Foreign { expected: durable.cluster, actual: offered.cluster });
        }
        if offered.applied < durable.applied {
            return Err(Error::Backwards { durable: durable.applied, offered: offered.applied });
        }
        Ok(())
    }

    fn take_number(&self) -> pointer::Number {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Make a finished new database file the live one.
fn adopt(dir: &Path, mut database: Database, number: pointer::Number) -> Result<Database, Error> {
    pointer::adopt(dir, number)?;
    database.path = pointer::state_file(dir, number);
    Ok(database)
}
