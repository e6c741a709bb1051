//! Building a store again from the rows of a checkpoint or snapshot.

use std::sync::Arc;

use crate::checkpoint::{Head, KeptRow, Table, split_reply_key};
use crate::chunk;
use crate::command::{FORMAT, Principal};
use crate::hash;
use crate::history::History;
use crate::idempotency::Kept;
use crate::ids::{Key, Revision};
use crate::mvcc::Keys;
use crate::program::Program;
use crate::record::{Change, Record};
use crate::session::Session;
use crate::store::{State, Store};

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
    program: Box<dyn Program>,
    head: Option<(Head, Vec<u8>)>,
    keys: Vec<(Key, Arc<Record>)>,
    chunks: Vec<Vec<Change>>,
    replies: Vec<(Principal, Arc<str>, Kept)>,
}

impl Loader {
    #[must_use]
    pub fn new(program: Box<dyn Program>) -> Self {
        Self { program, head: None, keys: Vec::new(), chunks: Vec::new(), replies: Vec::new() }
    }

    /// Take one row.
    ///
    /// # Errors
    /// [`LoadError::Row`].
    pub fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        self.take(table, key, value).map_err(|reason| LoadError::Row { table, reason })
    }

    fn take(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), String> {
        let unreadable = |error: minicbor::decode::Error| error.to_string();
        match table {
            Table::Head => {
                let bytes = hash::unseal(value).ok_or("checksum mismatch")?;
                let Some((&FORMAT, bytes)) = bytes.split_first() else { return Err("unknown format".into()) };
                self.head = Some((minicbor::decode(bytes).map_err(unreadable)?, value.to_vec()));
            }
            Table::Keys => {
                let key = Key::from_bytes(key).ok_or("a key without a family")?;
                self.keys.push((key, Arc::new(minicbor::decode(value).map_err(unreadable)?)));
            }
            Table::Changes => {
                let shared = |key: &Key, at: Revision| {
                    let position = self.keys.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
                    let record = &self.keys[position].1;
                    (record.mod_revision == at).then(|| record.clone())
                };
                self.chunks.push(chunk::decode(value, &shared).map_err(unreadable)?);
            }
            Table::Replies => {
                let (principal, key) = split_reply_key(key).ok_or("a key without a principal")?;
                let KeptRow { time, number, fingerprint, reply } =
                    minicbor::decode(value).map_err(unreadable)?;
                self.replies.push((
                    principal,
                    key,
                    Kept { time, number, fingerprint, reply: Arc::new(reply) },
                ));
            }
        }
        Ok(())
    }

    /// The store, verified against the hash in its head.
    ///
    /// # Errors
    /// [`LoadError::Headless`], [`LoadError::Hash`]; [`LoadError::Row`] if rows do not fit each other.
    pub fn finish(self) -> Result<Store, LoadError> {
        let Some((head, head_row)) = self.head else { return Err(LoadError::Headless) };
        let mut state = State {
            revision: head.revision,
            now: head.now,
            epoch: head.epoch,
            settings: head.settings,
            keys: Keys::build(self.keys),
            history: History::after(head.compacted),
            ..State::default()
        };
        let expected = u128::from_be_bytes(*head.hash);
        let actual = state.hash();
        if actual != expected {
            return Err(LoadError::Hash { expected, actual });
        }
        let misfit = |table, reason: &str| LoadError::Row { table, reason: reason.into() };
        for (key, record) in state.keys.iter() {
            if key.family() == crate::Family::SESSION && Session::decode(&record.value).is_err() {
                return Err(misfit(Table::Keys, "a session that does not decode"));
            }
            state.sessions.replaced(key, None, Some(record));
        }
        for chunk in self.chunks {
            let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
            state.unsaved.chunks.push_back((first.revision, last.revision));
            for change in chunk {
                // The front of a chunk may be compacted already.
                if change.revision <= head.compacted {
                    continue;
                }
                if change.revision != state.history.newest().next() {
                    return Err(misfit(Table::Changes, "a gap in the history"));
                }
                state.history.push(Arc::new(change));
            }
        }
        if state.history.newest() != head.revision {
            return Err(misfit(Table::Changes, "the history ends before the revision"));
        }
        let mut replies = self.replies;
        replies.sort_unstable_by_key(|(_, _, kept)| kept.number);
        for (principal, key, kept) in replies {
            state.replies.insert(principal, key, kept);
        }
        state.replies.next = head.next_reply;
        state.unsaved.head = head_row;
        Ok(Store { state, program: self.program })
    }
}
