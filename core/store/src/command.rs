//! ② Commands: everything that can enter the log, and its binary form.
//!
//! Fields are numbered (CBOR arrays with indices): a later version adds numbers and never re-uses one, so an old
//! entry always decodes. The first byte of an encoded command is [`FORMAT`].

use std::sync::Arc;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::{Key, Millis, Revision, SessionId, Value};
use crate::record::ContentType;

/// Format version written before each encoded command.
pub const FORMAT: u8 = 1;

/// Who asks. Every request carries one from the first day; `anonymous` until users and roles exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Principal(pub Arc<str>);

impl<C> Encode<C> for Principal {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Principal {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self(d.str()?.into()))
    }
}

/// One entry of the log, as the edge proposes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Command {
    #[n(0)]
    pub principal: Principal,
    /// With a key, a retry answers the first reply and changes nothing.
    #[n(1)]
    pub idempotency: Option<Idempotency>,
    /// All must hold at apply, or the command is refused and nothing changes (`If-Held`).
    #[n(2)]
    pub guards: Vec<Condition>,
    #[n(3)]
    pub action: Action,
}

/// A client's name for one logical call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Idempotency {
    /// 1..=255 bytes.
    #[n(0)]
    pub key: Box<str>,
    /// Hash of what was asked (method, path, parameters, body), computed at the edge; the same key with another
    /// fingerprint is refused.
    #[n(1)]
    pub fingerprint: u64,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Nothing. Used to probe the log.
    #[n(0)]
    Noop,
    /// One operation.
    #[n(1)]
    One(#[n(0)] Operation),
    /// If all conditions hold, `then`, else `otherwise`; all of the chosen list or nothing of it.
    #[n(2)]
    Transaction(#[n(0)] Transaction),
    /// Leader duty: end these sessions, each only if its generation is still the one named.
    #[n(3)]
    Expire(#[n(0)] Vec<Expiry>),
    /// Leader duty: forget the history up to and including this revision (at most
    /// [`crate::limits::COMPACT_SLICE`] changes an entry).
    #[n(4)]
    Compact(#[n(0)] Revision),
    /// Leader duty or operator: replace the replicated settings.
    #[n(5)]
    Configure(#[n(0)] Settings),
    /// Leader duty: log time has passed something that is waited for ([`crate::Store::due`]).
    #[n(6)]
    Advance,
    /// Leader duty: these sessions have missed two thirds of their time (each only if its generation is still the one
    /// named), and these are renewed again.
    #[n(7)]
    Doubt(#[n(0)] Vec<Expiry>, #[n(1)] Vec<SessionId>),
}

/// One session to expire or to doubt, as the leader last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Expiry {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub generation: u64,
}

/// Replicated settings. All nodes apply by these, never by their own flags.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// Live bytes (keys, values, fixed overhead a key) above which growth is refused.
    #[n(0)]
    pub quota_bytes: u64,
    /// History older than this may be compacted.
    #[n(1)]
    pub history_age: Millis,
    /// More changes than this may be compacted.
    #[n(2)]
    pub history_count: u64,
    /// More bytes of history than this may be compacted.
    #[n(3)]
    pub history_bytes: u64,
}

impl Default for Settings {
    /// 2 GiB live; history of 10 minutes, 100 000 changes, 64 MiB.
    fn default() -> Self {
        Self {
            quota_bytes: 2 * 1024 * 1024 * 1024,
            history_age: Millis(600_000),
            history_count: 100_000,
            history_bytes: 64 * 1024 * 1024,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Transaction {
    #[n(0)]
    pub conditions: Vec<Condition>,
    #[n(1)]
    pub then: Vec<Operation>,
    #[n(2)]
    pub otherwise: Vec<Operation>,
}

/// Something that is true of the store or not, judged at apply, before the entry's own changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Condition {
    /// The key exists (or not).
    #[n(0)]
    Exists(#[n(0)] Key, #[n(1)] bool),
    /// `mod_revision` compared with a number; an absent key has 0.
    #[n(1)]
    ModRevision(#[n(0)] Key, #[n(1)] Comparison, #[n(2)] Revision),
    #[n(2)]
    CreateRevision(#[n(0)] Key, #[n(1)] Comparison, #[n(2)] Revision),
    /// version compared with a number; an absent key has 0.
    #[n(3)]
    Version(#[n(0)] Key, #[n(1)] Comparison, #[n(2)] u64),
    /// value compared bytewise; false for an absent key.
    #[n(4)]
    Value(#[n(0)] Key, #[n(1)] Comparison, #[n(2)] Value),
    /// The session is alive.
    #[n(5)]
    Alive(#[n(0)] SessionId),
    /// A recipe's own condition, in the program's encoding (such as: this token still holds that lock).
    #[n(6)]
    Program(#[n(0)] ByteVec),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Comparison {
    #[n(0)]
    Equal,
    #[n(1)]
    NotEqual,
    #[n(2)]
    Less,
    #[n(3)]
    Greater,
}

/// One operation of a command or transaction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Put(#[n(0)] Put),
    /// Put under `directory` + `/` + 20 digits of the entry's revision: in-order keys.
    #[n(1)]
    Append(#[n(0)] Append),
    #[n(2)]
    Delete(#[n(0)] Delete),
    /// Delete keys of the KV family in [start, end), the first [`crate::limits::DELETE_SLICE`] of them.
    #[n(3)]
    DeleteRange(#[n(0)] DeleteRange),
    /// Read inside a transaction; sees the operations before it.
    #[n(4)]
    Get(#[n(0)] Key),
    #[n(5)]
    OpenSession(#[n(0)] OpenSession),
    /// A renewal that says something: progress, a note, new metadata. (A plain renewal is not logged.)
    #[n(6)]
    UpdateSession(#[n(0)] UpdateSession),
    #[n(7)]
    CloseSession(#[n(0)] SessionId),
    /// A recipe's operation, in the program's encoding.
    #[n(8)]
    Program(#[n(0)] ByteVec),
}

/// Which session a written key or a claim shall belong to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Attach {
    /// None: the key stays until deleted. Drops a former session of the key.
    #[n(0)]
    None,
    /// The one it belongs to now, if any.
    #[n(1)]
    Keep,
    /// This one; refused if it is not alive.
    #[n(2)]
    Session(#[n(0)] SessionId),
    /// A private one, opened in the same entry: `ttl=30s` alone is a complete ephemeral claim.
    #[n(3)]
    Private(#[n(0)] OpenSession),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Put {
    /// In the KV family.
    #[n(0)]
    pub key: Key,
    #[n(1)]
    pub value: Value,
    #[n(2)]
    pub content_type: ContentType,
    #[n(3)]
    pub attach: Attach,
    #[n(4)]
    pub precondition: Precondition,
    /// Answer the replaced record.
    #[n(5)]
    pub return_previous: bool,
}

/// `If-Match` / `If-None-Match: *` of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub enum Precondition {
    #[default]
    #[n(0)]
    None,
    /// `mod_revision` is exactly this.
    #[n(1)]
    Matches(#[n(0)] Revision),
    /// The key does not exist.
    #[n(2)]
    Absent,
    /// The key exists (`If-Match: *`).
    #[n(3)]
    Present,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Append {
    /// In the KV family, without the closing slash.
    #[n(0)]
    pub directory: Key,
    #[n(1)]
    pub value: Value,
    #[n(2)]
    pub content_type: ContentType,
    #[n(3)]
    pub attach: Attach,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Delete {
    #[n(0)]
    pub key: Key,
    #[n(1)]
    pub precondition: Precondition,
    #[n(2)]
    pub return_previous: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeleteRange {
    /// First key, inclusive; in the KV family.
    #[n(0)]
    pub start: Key,
    /// End, exclusive; `None` is the end of the family.
    #[n(1)]
    pub end: Option<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenSession {
    /// Chosen at random by the proposer; refused if it exists.
    #[n(0)]
    pub id: SessionId,
    /// 1 s ..= 24 h.
    #[n(1)]
    pub ttl: Millis,
    /// For people; at most 512 bytes, may be empty.
    #[n(2)]
    pub name: Box<str>,
    /// Free metadata of the client, JSON text, at most 4 KiB, may be empty.
    #[n(3)]
    pub meta: Box<str>,
    #[n(4)]
    pub on_expire: OnExpire,
    /// For so long (at most 60 s) nobody is granted what it held when it expired; for recipes.
    #[n(5)]
    pub lock_delay: Option<Millis>,
    /// It has stalled if its progress does not move for so long; 1 s ..= 24 h.
    #[n(6)]
    pub stall_after: Option<Millis>,
}

impl OpenSession {
    /// A session with nothing but an id and a time to live.
    #[must_use]
    pub fn new(id: SessionId, ttl: Millis) -> Self {
        let on_expire = OnExpire::default();
        Self { id, ttl, name: "".into(), meta: "".into(), on_expire, lock_delay: None, stall_after: None }
    }
}

/// What the end of a session does to the raw keys attached to it. Claims of recipes are always released.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum OnExpire {
    /// The keys go with it.
    #[default]
    #[n(0)]
    Delete,
    /// The keys stay, without a session.
    #[n(1)]
    Release,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UpdateSession {
    #[n(0)]
    pub id: SessionId,
    /// 0..=100.
    #[n(1)]
    pub progress: Option<u8>,
    /// At most 512 bytes.
    #[n(2)]
    pub note: Option<Box<str>>,
    #[n(3)]
    pub meta: Option<Box<str>>,
}

impl Command {
    /// The bytes that go into the log.
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "writing to memory cannot fail")]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(FORMAT);
        minicbor::encode(self, &mut out).expect("writing to memory cannot fail");
        out
    }

    /// Parse what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// If the format byte is unknown or the rest is not a command of that format.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => minicbor::decode(rest),
            _ => Err(minicbor::decode::Error::message("unknown command format")),
        }
    }
}
