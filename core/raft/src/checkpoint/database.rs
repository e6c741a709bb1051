//! One redb file: rows with a checksum each, and the position they stand at.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use coracle_store::checkpoint::{RowCursor, Table};
use redb::{
    Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::storage::{Paced, Storage};
use super::{Error, FORMAT, Options, Position};
use crate::priority;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Format and position. Not one of the store's tables.
const ABOUT: Definition = TableDefinition::new("about");
const ABOUT_SEED: u8 = 0xff;
const FORMAT_KEY: &[u8] = b"format";
const POSITION_KEY: &[u8] = b"position";
/// There only between the parts of a write; never on disk, unless redb makes a part durable on its own.
const UNFINISHED_KEY: &[u8] = b"unfinished";
const PAGE_BYTES: usize = 4096;
/// Bytes behind each value: CRC32C over table, key length, key and value.
const SEAL: usize = 4;

/// Name of a table on disk and in errors.
pub(crate) fn name(table: Table) -> &'static str {
    match table {
        Table::Head => "head",
        Table::Keys => "keys",
        Table::Changes => "changes",
        Table::Replies => "replies",
    }
}

fn definition(table: Table) -> Definition {
    TableDefinition::new(name(table))
}

/// The first damaged byte stops everything: a row is either what was written or an error.
fn checksum(table: u8, key: &[u8], value: &[u8]) -> [u8; SEAL] {
    let mut head = [table, 0, 0, 0, 0];
    head[1..].copy_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), key);
    crc32c::crc32c_append(crc, value).to_le_bytes()
}

fn seal(buffer: &mut Vec<u8>, table: u8, key: &[u8], value: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(value);
    buffer.extend_from_slice(&checksum(table, key, value));
}

fn unseal<'a>(table: u8, key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, seal) = sealed.split_last_chunk::<SEAL>()?;
    (*seal == checksum(table, key, value)).then_some(value)
}

/// Table, key and value.
pub(crate) type RowRef<'a> = (Table, &'a [u8], &'a [u8]);

/// Rows in table and key order that can be taken one at a time.
pub(crate) trait Rows {
    /// The next row, or none at the (verified) end.
    fn next(&mut self) -> Result<Option<RowRef<'_>>, Error>;
}

/// One file. redb writes a page twice, and reads it once more, if the page leaves the write buffer (half of the
/// cache) before its transaction ends. So a long write goes in parts: transactions that are not durable, and a last
/// one that makes them durable all at once. Between parts the caller must let no [`View`] begin.
pub(super) struct Database {
    redb: redb::Database,
    pub(super) path: PathBuf,
    /// Pages a part may dirty.
    part_pages: usize,
}

/// Pages a row of so many bytes may dirty, its share of the branches aside.
fn pages(key: &[u8], value: Option<&[u8]>) -> usize {
    1 + (key.len() + value.map_or(0, <[u8]>::len)) / PAGE_BYTES
}

impl Database {
    fn new(redb: redb::Database, path: PathBuf, options: Options) -> Self {
        // A quarter of the cache; the rest of the write buffer is for branches and the lists of freed pages.
        Self { redb, path, part_pages: (options.cache_bytes / 4 / PAGE_BYTES).max(1) }
    }

    /// A new file with no rows, durable.
    pub(super) fn create(path: PathBuf, options: Options, storage: &dyn Storage) -> Result<Self, Error> {
        let _ = std::fs::remove_file(&path);
        let file = storage.open(&path, true).map_err(Error::io("create", &path))?;
        let redb = redb::Database::builder()
            .set_cache_size(options.cache_bytes)
            .create_with_backend(Paced::new(file, options.unsynced_bytes))
            .map_err(Error::redb("create", &path))?;
        let database = Self::new(redb, path, options);
        let txn = database.begin()?;
        database.put_about(&txn, FORMAT_KEY, &FORMAT.to_le_bytes())?;
        database.put_about(&txn, POSITION_KEY, &Position::default().encode())?;
        database.commit(txn)?;
        Ok(database)
    }

    /// An existing file, every page of it verified against redb's checksums: half a second for a million rows, and
    /// without it redb may panic on a damaged page instead of reporting it.
    pub(super) fn open(path: PathBuf, options: Options, storage: &dyn Storage) -> Result<Self, Error> {
        let file = storage.open(&path, false).map_err(Error::io("open", &path))?;
        // redb would make a new database of an empty file.
        if file.len().map_err(Error::io("open", &path))? == 0 {
            return Err(Error::damaged(&path, "file", "empty"));
        }
        let redb = redb::Database::builder()
            .set_cache_size(options.cache_bytes)
            .set_check_integrity_on_open(true)
            .create_with_backend(Paced::new(file, options.unsynced_bytes))
            .map_err(Error::redb("open", &path))?;
        Ok(Self::new(redb, path, options))
    }

    fn begin(&self) -> Result<WriteTransaction, Error> {
        let mut txn = self.redb.begin_write().map_err(Error::redb("begin", &self.path))?;
        // Two phases: a damaged last commit is an error at open, never a silent return to the one before it.
        // Quick repair costs one page more a commit.
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(true);
        Ok(txn)
    }

    fn commit(&self, txn: WriteTransaction) -> Result<(), Error> {
        txn.commit().map_err(Error::redb("commit", &self.path))
    }

    /// End a part that is not the last.
    fn commit_part(&self, mut txn: WriteTransaction, first: bool) -> Result<WriteTransaction, Error> {
        if first {
            self.put_about(&txn, UNFINISHED_KEY, &[])?;
        }
        txn.set_two_phase_commit(false);
        txn.set_quick_repair(false);
        txn.set_durability(Durability::None).map_err(|e| Error::damaged(&self.path, "commit", &e))?;
        self.commit(txn)?;
        self.begin()
    }

    /// End the last part, and make all of them durable.
    fn commit_last(&self, txn: WriteTransaction, position: &Position) -> Result<(), Error> {
        {
            let mut about = txn.open_table(ABOUT).map_err(Error::redb("write about", &self.path))?;
            about.remove(UNFINISHED_KEY).map_err(Error::redb("write about", &self.path))?;
        }
        self.put_about(&txn, POSITION_KEY, &position.encode())?;
        self.commit(txn)
    }

    fn put_about(&self, txn: &WriteTransaction, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut sealed = Vec::new();
        seal(&mut sealed, ABOUT_SEED, key, value);
        let mut table = txn.open_table(ABOUT).map_err(Error::redb("write about", &self.path))?;
        table.insert(key, &*sealed).map_err(Error::redb("write about", &self.path))?;
        Ok(())
    }

    /// Write and remove rows, all or none, durably. Rows of one table should stand together and in key order:
    /// neighbours share a page.
    pub(super) fn write(&self, rows: &mut dyn RowCursor, position: &Position) -> Result<(), Error> {
        let mut txn = self.begin()?;
        let (mut first, mut dirty) = (true, 0);
        let mut sealed = Vec::new();
        let mut row = rows.next();
        while let Some((table, ..)) = row {
            if dirty >= self.part_pages {
                txn = self.commit_part(txn, std::mem::take(&mut first))?;
                dirty = 0;
            }
            let mut open = txn.open_table(definition(table)).map_err(Error::redb("write", &self.path))?;
            while let Some((same, key, value)) = row
                && same == table
                && dirty < self.part_pages
            {
                dirty += pages(key, value);
                if let Some(value) = value {
                    seal(&mut sealed, table as u8, key, value);
                    open.insert(key, &*sealed).map_err(Error::redb("write", &self.path))?;
                } else {
                    open.remove(key).map_err(Error::redb("write", &self.path))?;
                }
                priority::rest();
                row = rows.next();
            }
        }
        self.commit_last(txn, position)
    }

    /// Fill a new, empty file from rows in order, durably, showing each row to `each` on its way.
    pub(super) fn fill(
        &self,
        rows: &mut impl Rows,
        position: &Position,
        mut each: impl FnMut(Table, &[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut txn = self.begin()?;
        let mut first = true;
        let mut sealed = Vec::new();
        let mut row = rows.next()?;
        while let Some((table, ..)) = row {
            let mut bytes = 0;
            {
                let mut open = txn.open_table(definition(table)).map_err(Error::redb("fill", &self.path))?;
                // Appending at a cursor costs half of inserting by key.
                let mut end = open
                    .upper_bound_mut(Bound::Unbounded::<&[u8]>)
                    .map_err(Error::redb("fill", &self.path))?;
                while let Some((same, key, value)) = row
                    && same == table
                    && bytes / PAGE_BYTES < self.part_pages
                {
                    bytes += key.len() + value.len();
                    each(table, key, value)?;
                    seal(&mut sealed, table as u8, key, value);
                    end.insert_before(key, &*sealed).map_err(|e| match e {
                        redb::CursorError::Storage(e) => Error::redb("fill", &self.path)(e),
                        e => Error::damaged(&self.path, name(table), &e),
                    })?;
                    priority::rest();
                    row = rows.next()?;
                }
                end.close().map_err(Error::redb("fill", &self.path))?;
            }
            if row.is_some() {
                txn = self.commit_part(txn, std::mem::take(&mut first))?;
            }
        }
        self.commit_last(txn, position)
    }

    /// What the last commit left, unmoved by later ones.
    pub(super) fn view(&self) -> Result<View, Error> {
        let txn = self.redb.begin_read().map_err(Error::redb("read", &self.path))?;
        View::new(txn, self.path.clone())
    }
}

/// One consistent state of the file.
pub(super) struct View {
    txn: ReadTransaction,
    path: PathBuf,
    pub(super) position: Position,
}

impl View {
    fn new(txn: ReadTransaction, path: PathBuf) -> Result<Self, Error> {
        let about = txn.open_table(ABOUT).map_err(Error::redb("about", &path))?;
        let field = |key: &[u8]| -> Result<Vec<u8>, Error> {
            let sealed = about.get(key).map_err(Error::redb("about", &path))?;
            let sealed = sealed.ok_or_else(|| Error::damaged(&path, "about", "no position"))?;
            let value = unseal(ABOUT_SEED, key, sealed.value());
            Ok(value.ok_or_else(|| Error::damaged(&path, "about", "wrong checksum"))?.to_vec())
        };
        let format = field(FORMAT_KEY)?;
        let found = format
            .try_into()
            .map(u32::from_le_bytes)
            .map_err(|_| Error::damaged(&path, "about", "no format"))?;
        Error::format(&path, found, FORMAT)?;
        if about.get(UNFINISHED_KEY).map_err(Error::redb("about", &path))?.is_some() {
            return Err(Error::damaged(&path, "about", "a write was not finished"));
        }
        let position =
            Position::decode(&field(POSITION_KEY)?).map_err(|e| Error::damaged(&path, "about", &e))?;
        Ok(Self { txn, path, position })
    }

    /// Every row, in table and key order, each verified.
    pub(super) fn each(
        &self,
        mut f: impl FnMut(Table, &[u8], &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for table in Table::ALL {
            let damaged = |reason: &str| Error::damaged(&self.path, name(table), reason);
            let open = match self.txn.open_table(definition(table)) {
                Ok(open) => open,
                Err(redb::TableError::TableDoesNotExist(_)) => continue,
                Err(e) => return Err(Error::redb(name(table), &self.path)(e)),
            };
            let mut count = 0;
            for row in open.iter().map_err(Error::redb(name(table), &self.path))? {
                let (key, sealed) = row.map_err(Error::redb(name(table), &self.path))?;
                let key = key.value();
                let value = unseal(table as u8, key, sealed.value());
                f(table, key, value.ok_or_else(|| damaged("wrong checksum of a row"))?)?;
                count += 1;
            }
            if count != open.len().map_err(Error::redb(name(table), &self.path))? {
                return Err(damaged("wrong number of rows"));
            }
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
