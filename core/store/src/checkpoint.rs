//! The bridge to disk: what changed since the last checkpoint, and all of it as rows.
//!
//! The store writes nothing itself. The raft crate takes a [`Delta`] under the state's lock (cheap: shared pointers),
//! turns it into rows outside the lock, and writes them in one durable transaction with the applied log id.
//! A snapshot is the same rows, all of them. The way back is the [`crate::Loader`].

use std::collections::{BTreeMap, VecDeque, btree_map};
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

/// One row where it stands, to write (`Some`) or remove (`None`).
pub type RowRef<'a> = (Table, &'a [u8], Option<&'a [u8]>);

/// Rows that can be gone through, as often as it takes: a disk may be full the first time.
///
/// Both are long work in one go, so they call `turn` again and again: there the caller may give way to others.
pub trait RowSource {
    /// From the first row on.
    fn rows(&self, turn: &mut dyn FnMut()) -> Box<dyn RowCursor + '_>;

    /// Let go of all that the rows are made of.
    fn discard(self: Box<Self>, turn: &mut dyn FnMut());
}

/// Rows in table and key order, one row a key, each made when it is asked for and gone with the next: a checkpoint is a
/// hundred megabytes of them.
pub trait RowCursor {
    fn next(&mut self) -> Option<RowRef<'_>>;
}

impl<T: AsRef<[Row]>> RowSource for T {
    fn rows(&self, _turn: &mut dyn FnMut()) -> Box<dyn RowCursor + '_> {
        Box::new(self.as_ref().iter())
    }

    fn discard(self: Box<Self>, _turn: &mut dyn FnMut()) {}
}

impl RowCursor for std::slice::Iter<'_, Row> {
    fn next(&mut self) -> Option<RowRef<'_>> {
        Iterator::next(self).map(|row| (row.table, &row.key[..], row.value.as_deref()))
    }
}

/// What changed since the previous delta was taken. Shares memory with the store.
pub struct Delta {
    head: Vec<u8>,
    changes: Vec<Arc<Change>>,
    replies: Vec<ReplyChange>,
    /// Chunks (by first revision) that compaction has made needless.
    forgotten_chunks: Vec<Revision>,
    /// How `changes` are cut into new chunks: the number of changes in each.
    chunks: Vec<usize>,
    /// What was compacted when the delta was taken: chunks up to here are not written any more.
    compacted: Revision,
    dirty: bool,
}

impl Delta {
    /// Nothing to write: not even log time moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.dirty
    }
}

impl RowSource for Delta {
    /// Encoding happens in the cursor, outside the state's lock.
    fn rows(&self, turn: &mut dyn FnMut()) -> Box<dyn RowCursor + '_> {
        Box::new(DeltaRows::new(self, turn))
    }

    /// Of a change that history has forgotten meanwhile, this is the end.
    fn discard(self: Box<Self>, turn: &mut dyn FnMut()) {
        let Self { changes, replies, .. } = *self;
        for change in changes {
            drop(change);
            turn();
        }
        for reply in replies {
            drop(reply);
            turn();
        }
    }
}

/// The rows of a delta: which they are, and buffers for the one that is shown.
struct DeltaRows<'a> {
    head: Option<&'a [u8]>,
    keys: btree_map::IntoIter<&'a Key, Option<&'a Arc<Record>>>,
    chunks: btree_map::IntoIter<Revision, Option<&'a [Arc<Change>]>>,
    replies: btree_map::IntoIter<Vec<u8>, Option<&'a Kept>>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> DeltaRows<'a> {
    fn new(delta: &'a Delta, turn: &mut dyn FnMut()) -> Self {
        let mut keys = BTreeMap::new();
        for event in delta.changes.iter().flat_map(|change| &change.events) {
            keys.insert(&event.key, event.record.as_ref());
            turn();
        }
        let mut chunks: BTreeMap<_, _> = delta.forgotten_chunks.iter().map(|first| (*first, None)).collect();
        for chunk in cut(&delta.changes, &delta.chunks, delta.compacted) {
            chunks.insert(chunk[0].revision, Some(chunk));
        }
        let mut replies = BTreeMap::new();
        for change in &delta.replies {
            replies.insert(reply_key(&change.principal, &change.key), change.kept.as_ref());
            turn();
        }
        Self {
            head: delta.dirty.then_some(&delta.head),
            keys: keys.into_iter(),
            chunks: chunks.into_iter(),
            replies: replies.into_iter(),
            key: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl RowCursor for DeltaRows<'_> {
    fn next(&mut self) -> Option<RowRef<'_>> {
        let Self { key: key_buffer, value: buffer, .. } = self;
        buffer.clear();
        if let Some(head) = self.head.take() {
            return Some((Table::Head, &[], Some(head)));
        }
        if let Some((key, record)) = self.keys.next() {
            let value = record.map(|record| encode(&**record, buffer));
            return Some((Table::Keys, key.as_bytes(), value));
        }
        if let Some((first, changes)) = self.chunks.next() {
            *key_buffer = first.0.to_be_bytes().to_vec();
            let value = changes.map(|changes| {
                chunk::encode(changes, buffer);
                &buffer[..]
            });
            return Some((Table::Changes, key_buffer, value));
        }
        let (key, kept) = self.replies.next()?;
        *key_buffer = key;
        let value = kept.map(|kept| encode(KeptRow::from(kept), buffer));
        Some((Table::Replies, key_buffer, value))
    }
}

/// The chunks, without what is compacted.
fn cut<'a>(
    changes: &'a [Arc<Change>],
    chunks: &'a [usize],
    compacted: Revision,
) -> impl Iterator<Item = &'a [Arc<Change>]> {
    let forgotten = changes.partition_point(|change| change.revision <= compacted);
    let mut end = 0;
    chunks.iter().filter_map(move |count| {
        let start = forgotten.max(end);
        end += count;
        (start < end).then(|| &changes[start..end])
    })
}

/// What the checkpoint does not know yet, and what it has.
#[derive(Default)]
pub(crate) struct Unsaved {
    changes: Vec<Arc<Change>>,
    cutter: chunk::Cutter,
    /// First and last revision of the chunks written.
    pub chunks: VecDeque<(Revision, Revision)>,
    forgotten: Vec<Revision>,
    /// The head last written.
    pub head: Vec<u8>,
}

impl Unsaved {
    pub fn push(&mut self, change: Arc<Change>) {
        self.cutter.push(&change);
        self.changes.push(change);
    }
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
        let chunks = self.unsaved.cutter.take();
        for chunk in cut(&changes, &chunks, compacted) {
            self.unsaved.chunks.push_back((chunk[0].revision, chunk[chunk.len() - 1].revision));
        }
        let forgotten_chunks = std::mem::take(&mut self.unsaved.forgotten);
        let replies = std::mem::take(&mut self.replies.unsaved);
        Delta { head, changes, replies, forgotten_chunks, chunks, compacted, dirty }
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
        let mut cutter = chunk::Cutter::default();
        for change in &changes {
            cutter.push(change);
        }
        for chunk in cut(&changes, &cutter.take(), Revision(0)) {
            let mut value = Vec::new();
            chunk::encode(chunk, &mut value);
            rows.push(row(Table::Changes, chunk[0].revision.0.to_be_bytes().to_vec(), value));
        }
        let mut replies: Vec<Row> = self
            .replies
            .iter()
            .map(|(principal, key, kept)| {
                row(Table::Replies, reply_key(principal, key), encoded(KeptRow::from(kept)))
            })
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
        hash::seal(&mut bytes);
        bytes
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

impl From<&Kept> for KeptRow {
    fn from(kept: &Kept) -> Self {
        let Kept { time, number, fingerprint, ref reply } = *kept;
        Self { time, number, fingerprint, reply: Reply::clone(reply) }
    }
}

/// Append a value to a buffer that is empty.
fn encode(value: impl Encode<()>, buffer: &mut Vec<u8>) -> &[u8] {
    minicbor::encode(value, &mut *buffer).expect("writing to memory cannot fail");
    buffer
}

fn encoded(value: impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory cannot fail")
}
