//! The bridge to disk: what changed since the last checkpoint, and all of it as rows.
//!
//! The store writes nothing itself. The raft crate takes a [`Delta`] under the state's lock (cheap: shared pointers),
//! turns it into rows outside the lock, and writes them in one durable transaction with the applied log id.
//! A snapshot is the same rows, all of them. The way back is the [`crate::Loader`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::chunk;
use crate::command::{FORMAT, Principal, Settings};
use crate::hash;
use crate::idempotency::{Kept, ReplyChange};
use crate::ids::{Key, Revision, Timestamp};
use crate::record::{Change, Record};
use crate::reply::Reply;
use crate::store::State;

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
    head: Vec<u8>,
    changes: Vec<Arc<Change>>,
    replies: Vec<ReplyChange>,
    /// Chunks (by first revision) that compaction has made needless.
    forgotten_chunks: Vec<Revision>,
    /// How the last of `changes` are cut into new chunks: the number of changes in each. Those before them are
    /// compacted already.
    chunks: Vec<usize>,
    dirty: bool,
}

impl Delta {
    /// The rows to write, in table and key order; one row a key. Encoding happens here, outside the state's lock.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        if !self.dirty {
            return Vec::new();
        }
        let mut keys: BTreeMap<&Key, Option<&Arc<Record>>> = BTreeMap::new();
        for event in self.changes.iter().flat_map(|change| &change.events) {
            keys.insert(&event.key, event.record.as_ref());
        }
        let mut chunks: BTreeMap<Revision, Option<&[Arc<Change>]>> =
            self.forgotten_chunks.iter().map(|first| (*first, None)).collect();
        let mut rest = &self.changes[self.changes.len() - self.chunks.iter().sum::<usize>()..];
        for count in &self.chunks {
            let (chunk, more) = rest.split_at(*count);
            chunks.insert(chunk[0].revision, Some(chunk));
            rest = more;
        }
        let mut replies: BTreeMap<Vec<u8>, Option<&Kept>> = BTreeMap::new();
        for change in &self.replies {
            replies.insert(reply_key(&change.principal, &change.key), change.kept.as_ref());
        }
        let mut rows = vec![Row { table: Table::Head, key: Vec::new(), value: Some(self.head.clone()) }];
        rows.extend(keys.into_iter().map(|(key, record)| Row {
            table: Table::Keys,
            key: key.as_bytes().to_vec(),
            value: record.map(|record| encoded(&**record)),
        }));
        rows.extend(chunks.into_iter().map(|(first, changes)| Row {
            table: Table::Changes,
            key: first.0.to_be_bytes().to_vec(),
            value: changes.map(chunk::encode),
        }));
        rows.extend(replies.into_iter().map(|(key, kept)| Row {
            table: Table::Replies,
            key,
            value: kept.map(reply_value),
        }));
        rows
    }

    /// Nothing to write: not even log time moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.dirty
    }
}

/// What the checkpoint does not know yet, and what it has.
#[derive(Default)]
pub(crate) struct Unsaved {
    pub changes: Vec<Arc<Change>>,
    /// First and last revision of the chunks written.
    pub chunks: VecDeque<(Revision, Revision)>,
    forgotten: Vec<Revision>,
    /// The head last written.
    pub head: Vec<u8>,
}

impl State {
    /// Forget history up to `target`, but never what has not happened; at most one slice of it.
    pub(crate) fn compact(&mut self, target: Revision) {
        self.history.compact(target.min(self.revision));
        let compacted = self.history.compacted();
        while let Some((first, last)) = self.unsaved.chunks.front().copied()
            && last <= compacted
        {
            self.unsaved.chunks.pop_front();
            self.unsaved.forgotten.push(first);
        }
    }

    pub(crate) fn take_delta(&mut self) -> Delta {
        let head = self.head();
        let dirty = head != self.unsaved.head
            || !self.unsaved.changes.is_empty()
            || !self.unsaved.forgotten.is_empty()
            || !self.replies.unsaved.is_empty();
        self.unsaved.head.clone_from(&head);
        let changes = std::mem::take(&mut self.unsaved.changes);
        let compacted = self.history.compacted();
        let kept = &changes[changes.partition_point(|change| change.revision <= compacted)..];
        let chunks = chunk::cut(kept.iter());
        let mut start = 0;
        for count in &chunks {
            let end = start + count;
            self.unsaved.chunks.push_back((kept[start].revision, kept[end - 1].revision));
            start = end;
        }
        let forgotten_chunks = std::mem::take(&mut self.unsaved.forgotten);
        let replies = std::mem::take(&mut self.replies.unsaved);
        Delta { head, changes, replies, forgotten_chunks, chunks, dirty }
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |table, key, value| Row { table, key, value: Some(value) };
        let mut rows = vec![row(Table::Head, Vec::new(), self.head())];
        rows.extend(
            self.keys
                .iter()
                .map(|(key, record)| row(Table::Keys, key.as_bytes().to_vec(), encoded(&**record))),
        );
        let changes: Vec<Arc<Change>> =
            self.history.changes_after(self.history.compacted()).cloned().collect();
        let mut rest = &changes[..];
        for count in chunk::cut(changes.iter()) {
            let (chunk, more) = rest.split_at(count);
            rows.push(row(Table::Changes, chunk[0].revision.0.to_be_bytes().to_vec(), chunk::encode(chunk)));
            rest = more;
        }
        let mut replies: Vec<Row> = self
            .replies
            .iter()
            .map(|(principal, key, kept)| row(Table::Replies, reply_key(principal, key), reply_value(kept)))
            .collect();
        replies.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        rows.extend(replies);
        rows
    }

    fn head(&self) -> Vec<u8> {
        let head = Head {
            revision: self.revision,
            now: self.now,
            epoch: self.epoch,
            settings: self.settings.clone(),
            compacted: self.history.compacted(),
            hash: self.hash().to_be_bytes().into(),
            next_reply: self.replies.next,
        };
        let mut bytes = vec![FORMAT];
        minicbor::encode(&head, &mut bytes).expect("writing to memory cannot fail");
        hash::seal(bytes)
    }
}

/// The head row.
#[derive(Encode, Decode)]
pub(crate) struct Head {
    #[n(0)]
    pub revision: Revision,
    #[n(1)]
    pub now: Timestamp,
    #[n(2)]
    pub epoch: u64,
    #[n(3)]
    pub settings: Settings,
    #[n(4)]
    pub compacted: Revision,
    #[n(5)]
    pub hash: ByteArray<16>,
    /// Number of the next remembered reply.
    #[n(6)]
    pub next_reply: u64,
}

/// The value of a reply row.
#[derive(Encode, Decode)]
pub(crate) struct KeptRow {
    #[n(0)]
    pub time: Timestamp,
    #[n(1)]
    pub number: u64,
    #[n(2)]
    pub fingerprint: u64,
    #[n(3)]
    pub reply: Reply,
}

/// Length of the principal (2 bytes, big endian), principal, key.
fn reply_key(principal: &Principal, key: &str) -> Vec<u8> {
    let name = principal.0.as_bytes();
    let length = u16::try_from(name.len()).expect("a principal's name is short");
    [&length.to_be_bytes(), name, key.as_bytes()].concat()
}

/// The principal and key of a reply row.
pub(crate) fn split_reply_key(key: &[u8]) -> Option<(Principal, Arc<str>)> {
    let (length, rest) = key.split_first_chunk::<2>()?;
    let (name, key) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let name = std::str::from_utf8(name).ok()?;
    Some((Principal(name.into()), std::str::from_utf8(key).ok()?.into()))
}

fn reply_value(kept: &Kept) -> Vec<u8> {
    encoded(KeptRow {
        time: kept.time,
        number: kept.number,
        fingerprint: kept.fingerprint,
        reply: Reply::clone(&kept.reply),
    })
}

fn encoded(value: impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory cannot fail")
}
