//! What applying a command answers: outcomes, and refusals, which are outcomes too: the same on every node.

use std::fmt;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::{Key, Revision, SessionId};
use crate::record::Record;

/// The answer to one entry. Encodable, because a forwarded write is answered over the peer connection and an
/// idempotent retry from memory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Reply {
    /// The store's revision after the entry (its own revision if it changed anything).
    #[n(0)]
    pub revision: Revision,
    /// The idempotency key was known: this is the first call's reply and nothing was changed now.
    #[n(1)]
    pub replayed: bool,
    #[n(2)]
    pub result: Result<Outcome, Refusal>,
}

impl Default for Reply {
    fn default() -> Self {
        Self { revision: Revision(0), replayed: false, result: Ok(Outcome::None) }
    }
}

/// A success.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    #[n(0)]
    None,
    #[n(1)]
    Put(#[n(0)] PutOutcome),
    #[n(2)]
    Deleted(#[n(0)] DeleteOutcome),
    #[n(3)]
    Got(#[n(0)] Key, #[n(1)] Option<Record>),
    /// A session was opened or updated.
    #[n(4)]
    Session(#[n(0)] SessionId),
    /// A session was closed; what it held, most recent last (at most 1 000 names).
    #[n(5)]
    Closed(#[n(0)] Vec<Key>),
    #[n(6)]
    Transaction(#[n(0)] TransactionOutcome),
    /// Sessions that the entry really ended.
    #[n(7)]
    Expired(#[n(0)] u64),
    /// The compact revision now.
    #[n(8)]
    Compacted(#[n(0)] Revision),
    /// A recipe's outcome, in the program's encoding.
    #[n(9)]
    Program(#[n(0)] ByteVec),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PutOutcome {
    #[n(0)]
    pub key: Key,
    #[n(1)]
    pub version: u64,
    /// The session the key belongs to now.
    #[n(2)]
    pub session: Option<SessionId>,
    /// The replaced record, if asked for.
    #[n(3)]
    pub previous: Option<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeleteOutcome {
    #[n(0)]
    pub deleted: u64,
    /// A range had more keys than one entry deletes: ask again.
    #[n(1)]
    pub more: bool,
    /// The deleted record, if asked for.
    #[n(2)]
    pub previous: Option<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TransactionOutcome {
    /// All conditions held: `then` ran. Otherwise `otherwise` ran.
    #[n(0)]
    pub succeeded: bool,
    /// One outcome an operation, in order.
    #[n(1)]
    pub results: Vec<Outcome>,
}

/// A deterministic no. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// The bytes are not a command this version knows.
    #[n(0)]
    Malformed,
    /// `If-Match`/`If-None-Match` failed; the current `mod_revision`, 0 if the key is absent.
    #[n(1)]
    RevisionMismatch(#[n(0)] Key, #[n(1)] Revision),
    /// The session never existed or has ended.
    #[n(2)]
    SessionExpired(#[n(0)] SessionId),
    /// The proposed session id is taken.
    #[n(3)]
    SessionExists(#[n(0)] SessionId),
    /// Two operations of one transaction write this key.
    #[n(4)]
    DuplicateKey(#[n(0)] Key),
    /// More operations than allowed: the limit.
    #[n(5)]
    TooManyOperations(#[n(0)] u64),
    /// A key, value or text over its limit, or a key outside the KV family: which, limit, actual.
    #[n(6)]
    OutOfBounds(#[n(0)] Box<str>, #[n(1)] u64, #[n(2)] u64),
    /// Live bytes and quota.
    #[n(7)]
    QuotaExceeded(#[n(0)] u64, #[n(1)] u64),
    /// The key was used for another call.
    #[n(8)]
    IdempotencyKeyReused,
    /// A guard or a plain condition used as a guard did not hold: its position.
    #[n(9)]
    GuardFailed(#[n(0)] u64),
    /// The session holds as much as one session may.
    #[n(10)]
    TooManyHolds(#[n(0)] SessionId, #[n(1)] u64),
    /// A recipe's refusal, in the program's encoding.
    #[n(11)]
    Program(#[n(0)] ByteVec),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "command not understood"),
            Self::RevisionMismatch(key, current) => {
                write!(f, "revision mismatch key={key:?} current={current}")
            }
            Self::SessionExpired(id) => write!(f, "session expired session={id}"),
            Self::SessionExists(id) => write!(f, "session exists session={id}"),
            Self::DuplicateKey(key) => write!(f, "key written twice in one transaction key={key:?}"),
            Self::TooManyOperations(limit) => write!(f, "too many operations limit={limit}"),
            Self::OutOfBounds(what, limit, actual) => {
                write!(f, "{what} out of bounds limit={limit} actual={actual}")
            }
            Self::QuotaExceeded(used, quota) => write!(f, "quota exceeded used={used} quota={quota}"),
            Self::IdempotencyKeyReused => write!(f, "idempotency key reused for another call"),
            Self::GuardFailed(position) => write!(f, "guard failed position={position}"),
            Self::TooManyHolds(id, limit) => write!(f, "too many holds session={id} limit={limit}"),
            Self::Program(_) => write!(f, "refused by a recipe"),
        }
    }
}

impl std::error::Error for Refusal {}
