//! The bridge to disk: what changed since the last checkpoint, and how a store is built again from rows.
//!
//! The store writes nothing itself. The raft crate takes a [`Delta`] under the state's lock (cheap: shared pointers),
//! turns it into rows outside the lock, and writes them in one durable transaction with the applied log id.
//! A snapshot is the same rows, all of them.

use std::sync::Arc;

use crate::program::Program;
use crate::record::Change;
use crate::reply::Reply;
use crate::ids::Timestamp;
use crate::store::Store;

/// Tables of a checkpoint. The number is part of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// One row, empty key: counters, settings, hash.
    Head = 0,
    /// Key → record.
    Keys = 1,
    /// First revision of a chunk (8 bytes, big endian) → encoded changes. A chunk is written once.
    Changes = 2,
    /// Principal and idempotency key → remembered reply.
    Replies = 3,
}

impl Table {
    pub const ALL: [Table; 4] = [Table::Head, Table::Keys, Table::Changes, Table::Replies];
}

/// One row to write (`Some`) or remove (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// What changed since the previous delta was taken. Shares memory with the store.
pub struct Delta {
    pub(crate) head: Vec<u8>,
    pub(crate) changes: Vec<Arc<Change>>,
    pub(crate) replies: Vec<(Vec<u8>, Option<(Timestamp, u64, Arc<Reply>)>)>,
    /// Chunks (by first revision) that compaction has made needless.
    pub(crate) forgotten_chunks: Vec<u64>,
    /// Chunks this delta will write: how `changes` is cut.
    pub(crate) chunks: Vec<usize>,
}

impl Delta {
    /// The rows to write, in table and key order; one row a key. Encoding happens here, outside the state's lock.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        todo!()
    }

    /// Nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}

/// Why rows do not make a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// A row that does not decode.
    Row { table: Table, reason: String },
    /// No head row.
    Headless,
    /// The state hash of the rows is not the one of the head: the checkpoint is damaged.
    Hash { expected: u128, actual: u128 },
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Row { table, reason } => write!(f, "unreadable row table={table:?} reason={reason}"),
            Self::Headless => write!(f, "checkpoint without a head row"),
            Self::Hash { expected, actual } => {
                write!(f, "state hash mismatch expected={expected:032x} actual={actual:032x}")
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Builds a store from rows in table order, each table in key order (so that a million keys load in a second).
pub struct Loader {
    _program: Box<dyn Program>,
}

impl Loader {
    #[must_use]
    pub fn new(program: Box<dyn Program>) -> Self {
        Self { _program: program }
    }

    /// Take one row.
    ///
    /// # Errors
    /// [`LoadError::Row`].
    pub fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let _ = (table, key, value);
        todo!()
    }

    /// The store, verified against the hash in its head.
    ///
    /// # Errors
    /// [`LoadError::Headless`], [`LoadError::Hash`].
    pub fn finish(self) -> Result<Store, LoadError> {
        todo!()
    }
}
