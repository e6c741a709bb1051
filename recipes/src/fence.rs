//! Fences: the newest token a store of somebody else's has seen.
//!
//! A database or a printer cannot ask whether a token is still current, but it can ask whether it saw a newer one. One
//! key a resource: the greatest token that was ever checked. It stays until it is deleted, since the resource
//! outlives every holder.

use std::sync::Arc;

use coracle_store::limits::{KEY_OVERHEAD, NAME_BYTES};
use coracle_store::{
    Cause, ContentType, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection,
    Txn, View,
};
use minicbor::{Decode, Encode};

use crate::{Described, bounded, names};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    /// Let this token (1 or more) through if none greater was, and none smaller from now on.
    #[n(0)]
    Check(#[n(0)] Box<str>, #[n(1)] Revision),
    /// Operator: forget the resource, and with it what was seen.
    #[n(1)]
    Delete(#[n(0)] Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The greatest token now, and before if there was one.
    #[n(0)]
    Passed(#[n(0)] Revision, #[n(1)] Option<Revision>),
    /// What was forgotten.
    #[n(1)]
    Deleted(#[n(0)] Option<Revision>),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// A greater token was seen: this one.
    #[n(0)]
    Stale(#[n(0)] Revision),
}

/// A fence as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The greatest token seen.
    pub token: Revision,
    /// When it was raised last.
    pub revision: Revision,
}

#[derive(Encode, Decode)]
struct Stored {
    #[n(0)]
    token: Revision,
}

/// As in the URL.
pub const NAME: &str = "fences";
/// First byte of every key of a fence.
pub const FAMILY: Family = Family(b'f');

/// What a resource has seen; `None` if it was never checked.
#[must_use]
pub fn read(view: View<'_>, resource: &str) -> Option<Fence> {
    view.get(&key(resource)).map(|record| Fence { token: token(record), revision: record.mod_revision })
}

/// Resources that start with `prefix`, after `after`, at most `limit`, in order of their bytes.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Check(resource, token) => {
            bounded("resource", resource.len(), 1, NAME_BYTES)?;
            if token == Revision(0) {
                return Err(StoreRefusal::OutOfBounds("token".into(), 1, 0));
            }
            let seen = read(txn.view(), &resource).map(|fence| fence.token);
            match seen {
                Some(seen) if seen > token => return Err(Refusal::Stale(seen).into()),
                Some(seen) if seen == token => {}
                _ => {
                    if seen.is_none() {
                        txn.make_room(KEY_OVERHEAD + resource.len() + 16)?;
                    }
                    let stored = crate::row(&Stored { token });
                    txn.put(key(&resource), stored, ContentType::Binary, None);
                }
            }
            Ok(Outcome::Passed(token, seen))
        }
        Operation::Delete(resource) => {
            let seen = read(txn.view(), &resource).map(|fence| fence.token);
            txn.delete(&key(&resource), Cause::Command);
            Ok(Outcome::Deleted(seen))
        }
    }
}

/// No fence belongs to a session.
pub(crate) fn released(_: &mut Txn<'_>, _: &[&(Key, Arc<Record>)], _: Cause) {}

/// No fence waits for time.
pub(crate) fn due(_: &mut Txn<'_>, _: &[u8]) {}

pub(crate) fn drains(operation: &Operation) -> bool {
    matches!(operation, Operation::Delete(_))
}

/// `raised`, `deleted`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (name, _) = names::split(event.key.name())?;
    let op = if event.record.is_some() { "raised" } else { "deleted" };
    let token = event.record.as_ref().or(event.previous.as_ref()).map(|record| token(record));
    Some(Described { family: NAME, op, name, item: None, session: None, token })
}

pub(crate) fn selection(resource: &str) -> Selection {
    Selection::Key(key(resource))
}

fn key(resource: &str) -> Key {
    Key::new(FAMILY, &names::closed(resource))
}

fn token(record: &Record) -> Revision {
    minicbor::decode::<Stored>(&record.value).expect("only a fence writes its key").token
}
