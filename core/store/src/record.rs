//! What a key holds, and what happened to keys: records, events, changes.

use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::ids::{Key, Revision, SessionId, Timestamp, Value};

/// The stored state of one key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    #[n(0)]
    pub value: Value,
    #[n(1)]
    pub content_type: ContentType,
    /// Revision of the put that created the key; a delete ends that life.
    #[n(2)]
    pub create_revision: Revision,
    /// Revision of the last change.
    #[n(3)]
    pub mod_revision: Revision,
    /// Changes since creation, starting at 1.
    #[n(4)]
    pub version: u64,
    /// The session whose end also ends this key.
    #[n(5)]
    pub session: Option<SessionId>,
}

/// Media type of a value, small because every key has one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub enum ContentType {
    /// `text/plain; charset=utf-8`
    #[n(0)]
    Text,
    /// `application/octet-stream`; also the state of recipes.
    #[default]
    #[n(1)]
    Binary,
    /// `application/json`
    #[n(2)]
    Json,
    /// Any other, as the writer gave it (at most 255 bytes, checked at the edge). Boxed twice, because every key has a
    /// content type and few have this one: a pointer is half of what a text is.
    #[n(3)]
    Other(#[n(0)] Box<Box<str>>),
}

/// Why an event happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Cause {
    /// Somebody wrote, deleted, acquired, released.
    #[n(0)]
    Command,
    /// The session the key belonged to ran out.
    #[n(1)]
    SessionExpired,
    /// The session the key belonged to was closed by its owner.
    #[n(2)]
    SessionClosed,
    /// Taken from a session that lives, by somebody or something else: an operator broke the hold, say.
    #[n(3)]
    Broken,
}

/// One key's change within a revision. At most one event a key and revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub key: Key,
    /// The new state; `None` means the key was deleted.
    pub record: Option<Arc<Record>>,
    /// The state before this revision; `None` means the key did not exist.
    pub previous: Option<Arc<Record>>,
    pub cause: Cause,
}

/// Everything one entry changed: the unit of watching, never split. Events are in key order of first touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    /// Log time of the entry.
    pub time: Timestamp,
    pub events: Box<[Event]>,
}

impl Change {
    /// What the change counts against the bounds of the history.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.events.iter().map(crate::history::event_bytes).sum()
    }
}
