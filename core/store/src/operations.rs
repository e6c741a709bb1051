//! The store's own operations: put, append, delete, read, and the life of a session.

use std::ops::RangeInclusive;
use std::sync::Arc;

use minicbor::bytes::ByteVec;

use crate::apply::{Entry, answer};
use crate::command::{Append, Delete, DeleteRange, OpenSession, Operation, Precondition, Put, UpdateSession};
use crate::ids::{Family, Key, Revision, SessionId, Value};
use crate::limits::{
    CONTENT_TYPE_BYTES, DELETE_SLICE, KEY_BYTES, LOCK_DELAY_MS, META_BYTES, NAME_BYTES, TTL_MS, VALUE_BYTES,
};
use crate::mvcc;
use crate::record::{Cause, ContentType, Record};
use crate::reply::{DeleteOutcome, Outcome, PutOutcome, Refusal};
use crate::session::{self, Session};
use crate::txn::Draft;

impl Entry<'_> {
    pub(crate) fn operate(&mut self, operation: Operation) -> Result<Outcome, Refusal> {
        match operation {
            Operation::Put(put) => self.put(put),
            Operation::Append(append) => self.append(append),
            Operation::Delete(delete) => self.delete(delete),
            Operation::DeleteRange(range) => self.delete_range(&range),
            Operation::Get(key) => {
                check_key(&key)?;
                let record = answer(self.txn.get(&key));
                Ok(Outcome::Got(key, record))
            }
            Operation::OpenSession(open) => self.txn.open_session(&open).map(Outcome::Session),
            Operation::UpdateSession(update) => self.update_session(update),
            Operation::CloseSession(id) => Ok(self.close(&[id])?.pop().unwrap_or(Outcome::None)),
            Operation::Program(encoded) => {
                let outcome = self.program.apply(&mut self.txn, self.who, &encoded)?;
                Ok(Outcome::Program(ByteVec::from(outcome)))
            }
        }
    }

    fn put(&mut self, put: Put) -> Result<Outcome, Refusal> {
        let Put { key, value, content_type, attach, precondition, return_previous } = put;
        check_key(&key)?;
        check_value(&value, &content_type)?;
        let (key, current) = self.txn.stored(key);
        check_precondition(&key, precondition, current.as_ref())?;
        let session = self.txn.attach(&attach, current.as_ref().and_then(|current| current.session))?;
        let before = current.as_ref().map_or(0, |current| mvcc::size(&key, current.value.len()));
        let growth = mvcc::size(&key, value.len()).saturating_sub(before);
        self.txn.make_room(usize::try_from(growth).unwrap_or(usize::MAX))?;
        let draft = Draft { value, content_type, session };
        let version = self.txn.write(key.clone(), draft, Cause::Command);
        let previous = if return_previous { answer(current.as_ref()) } else { None };
        Ok(Outcome::Put(PutOutcome { key, version, session, previous }))
    }

    fn append(&mut self, append: Append) -> Result<Outcome, Refusal> {
        let Append { directory, value, content_type, attach } = append;
        check_key(&directory)?;
        let key = appended(&directory, self.txn.revision());
        let precondition = Precondition::None;
        self.put(Put { key, value, content_type, attach, precondition, return_previous: false })
    }

    fn delete(&mut self, delete: Delete) -> Result<Outcome, Refusal> {
        let Delete { key, precondition, return_previous } = delete;
        check_key(&key)?;
        let current = self.txn.get(&key).cloned();
        check_precondition(&key, precondition, current.as_ref())?;
        let deleted = u64::from(self.txn.delete(&key, Cause::Command));
        let previous = if return_previous { answer(current.as_ref()) } else { None };
        Ok(Outcome::Deleted(DeleteOutcome { deleted, more: false, previous }))
    }

    fn delete_range(&mut self, range: &DeleteRange) -> Result<Outcome, Refusal> {
        check_family(&range.start)?;
        let span = self.txn.state.keys.range(mvcc::between(&range.start, range.end.as_ref()));
        let mut keys: Vec<Key> = span.map(|(key, _)| key).take(DELETE_SLICE + 1).cloned().collect();
        let more = keys.len() > DELETE_SLICE;
        keys.truncate(DELETE_SLICE);
        for key in &keys {
            self.txn.delete(key, Cause::Command);
        }
        Ok(Outcome::Deleted(DeleteOutcome { deleted: keys.len() as u64, more, previous: None }))
    }

    /// Renewals go through at quota, too: a note is small, and a session that cannot speak is dead.
    fn update_session(&mut self, update: UpdateSession) -> Result<Outcome, Refusal> {
        let UpdateSession { id, progress, note, meta } = update;
        bounded("progress", progress.unwrap_or(0).into(), 0..=100)?;
        bounded("note", note.as_ref().map_or(0, |note| note.len()), 0..=NAME_BYTES)?;
        bounded("meta", meta.as_ref().map_or(0, |meta| meta.len()), 0..=META_BYTES)?;
        let session = self.txn.view().session(id).ok_or(Refusal::SessionExpired(id))?;
        let mut session = Session::clone(&session);
        session.generation += 1;
        // Whoever speaks is alive; and moves, if what is said is new.
        session.suspect = None;
        if progress.is_some_and(|_| progress != session.progress)
            || note.as_ref().is_some_and(|_| note != session.note)
        {
            session.stalled = None;
            session.moved = session.moved.map(|_| self.txn.now());
        }
        session.progress = progress.or(session.progress);
        session.note = note.or(session.note);
        session.meta = meta.unwrap_or(session.meta);
        self.txn.put(session::key(id), session.encode(), ContentType::Binary, None);
        Ok(Outcome::Session(id))
    }
}

impl Operation {
    pub(crate) fn closes(&self) -> Option<SessionId> {
        match self {
            Self::CloseSession(id) => Some(*id),
            _ => None,
        }
    }

    /// The one key that the operation names to write.
    fn writes(&self, revision: Revision) -> Option<Key> {
        match self {
            Self::Put(put) => Some(put.key.clone()),
            Self::Append(append) => Some(appended(&append.directory, revision)),
            Self::Delete(delete) => Some(delete.key.clone()),
            Self::OpenSession(open) => Some(session::key(open.id)),
            Self::UpdateSession(update) => Some(session::key(update.id)),
            Self::CloseSession(id) => Some(session::key(*id)),
            Self::DeleteRange(_) | Self::Get(_) | Self::Program(_) => None,
        }
    }
}

/// Refuse a list of operations that names one key to write twice. (The rule of etcd's transactions.)
pub(crate) fn written_once(operations: &[Operation], revision: Revision) -> Result<(), Refusal> {
    let mut keys: Vec<Key> = operations.iter().filter_map(|operation| operation.writes(revision)).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Refusal::DuplicateKey(pair[0].clone()));
    }
    let ranges = operations.iter().filter_map(|operation| match operation {
        Operation::DeleteRange(range) => Some(range),
        _ => None,
    });
    let mut ranges: Vec<&DeleteRange> = ranges.collect();
    ranges.sort_unstable_by(|a, b| a.start.cmp(&b.start));
    let covers = |range: &DeleteRange, key: &Key| {
        range.start <= *key && range.end.as_ref().is_none_or(|end| key < end) && key.family() == Family::KV
    };
    for range in &ranges {
        if let Some(key) = keys.iter().find(|key| covers(range, key)) {
            return Err(Refusal::DuplicateKey(key.clone()));
        }
    }
    match ranges.windows(2).find(|pair| covers(pair[0], &pair[1].start)) {
        Some(pair) => Err(Refusal::DuplicateKey(pair[1].start.clone())),
        None => Ok(()),
    }
}

/// The in-order key of an append.
fn appended(directory: &Key, revision: Revision) -> Key {
    Key::new(directory.family(), &[directory.name(), format!("/{:020}", revision.0).as_bytes()].concat())
}

fn check_precondition(
    key: &Key,
    precondition: Precondition,
    current: Option<&Arc<Record>>,
) -> Result<(), Refusal> {
    let actual = current.map_or(Revision(0), |current| current.mod_revision);
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Matches(expected) => current.is_some() && actual == expected,
        Precondition::Absent => current.is_none(),
        Precondition::Present => current.is_some(),
    };
    if holds { Ok(()) } else { Err(Refusal::RevisionMismatch(key.clone(), actual)) }
}

fn check_family(key: &Key) -> Result<(), Refusal> {
    let (family, kv) = (key.family().0, Family::KV.0);
    bounded("family", family.into(), kv.into()..=kv.into())
}

/// A key of the KV family with a name.
pub(crate) fn check_key(key: &Key) -> Result<(), Refusal> {
    check_family(key)?;
    bounded("key", key.name().len(), 1..=KEY_BYTES)
}

fn check_value(value: &Value, content_type: &ContentType) -> Result<(), Refusal> {
    bounded("value", value.len(), 0..=VALUE_BYTES)?;
    match content_type {
        ContentType::Other(name) => bounded("content_type", name.len(), 1..=CONTENT_TYPE_BYTES),
        ContentType::Text | ContentType::Binary | ContentType::Json => Ok(()),
    }
}

pub(crate) fn check_session(open: &OpenSession) -> Result<(), Refusal> {
    if open.id.0 == 0 || open.id.0 >> 63 != 0 {
        return Err(Refusal::OutOfBounds("session".into(), u64::MAX >> 1, open.id.0));
    }
    if !TTL_MS.contains(&open.ttl.0) {
        let nearest = open.ttl.0.clamp(*TTL_MS.start(), *TTL_MS.end());
        return Err(Refusal::OutOfBounds("ttl".into(), nearest, open.ttl.0));
    }
    if let Some(stall_after) = open.stall_after
        && !TTL_MS.contains(&stall_after.0)
    {
        let nearest = stall_after.0.clamp(*TTL_MS.start(), *TTL_MS.end());
        return Err(Refusal::OutOfBounds("stall_after".into(), nearest, stall_after.0));
    }
    if let Some(delay) = open.lock_delay.filter(|delay| delay.0 > LOCK_DELAY_MS) {
        return Err(Refusal::OutOfBounds("lock_delay".into(), LOCK_DELAY_MS, delay.0));
    }
    bounded("name", open.name.len(), 0..=NAME_BYTES)?;
    bounded("meta", open.meta.len(), 0..=META_BYTES)
}

/// Refuse a number outside its bounds, naming the bound it missed.
pub(crate) fn bounded(what: &str, actual: usize, bounds: RangeInclusive<usize>) -> Result<(), Refusal> {
    if bounds.contains(&actual) {
        return Ok(());
    }
    let nearest = actual.clamp(*bounds.start(), *bounds.end());
    Err(Refusal::OutOfBounds(what.into(), nearest as u64, actual as u64))
}
