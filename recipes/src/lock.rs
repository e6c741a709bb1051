//! Locks: exclusive hold and ordered control, one fair line, fencing tokens.

use coracle_store::command::Attach;
use coracle_store::{Revision, SessionId, Timestamp, View};
use minicbor::{Decode, Encode};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Mode {
    #[n(0)]
    Exclusive,
    #[n(1)]
    Shared,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Acquire(#[n(0)] Acquire),
    /// Give up the hold, or leave the line. Idempotent only through the idempotency key: not holding is a refusal.
    #[n(1)]
    Release(#[n(0)] Claim),
    /// Leave the line if still waiting; nothing if already holding or gone. Sent by the edge when a caller that did
    /// not ask to keep its place went away or ran out of time.
    #[n(2)]
    Withdraw(#[n(0)] Claim),
    /// Hand the hold to another living session: new token, same mode, ahead of the line.
    #[n(3)]
    Transfer(#[n(0)] Claim, #[n(1)] SessionId),
    /// Operator: end every hold of the lock; the line moves up. The broken tokens are dead at once.
    #[n(4)]
    Break(#[n(0)] Box<str>, #[n(1)] Box<str>),
}

/// One session's claim on one lock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    #[n(0)]
    pub lock: Box<str>,
    #[n(1)]
    pub session: SessionId,
    /// If given, the token must be the current one of that session's hold.
    #[n(2)]
    pub token: Option<Revision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Acquire {
    /// 1..=512 bytes of UTF-8.
    #[n(0)]
    pub lock: Box<str>,
    #[n(1)]
    pub mode: Mode,
    /// `Session` or `Private`.
    #[n(2)]
    pub attach: Attach,
    /// Who, for people and blockers lists; may be empty.
    #[n(3)]
    pub owner: Box<str>,
    /// JSON, at most 4 KiB, may be empty.
    #[n(4)]
    pub meta: Box<str>,
    /// Join the line if it is not free. Otherwise the answer is a refusal and nothing changed.
    #[n(5)]
    pub wait: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The session holds the lock. Repeating an acquire of a held lock answers the same token.
    #[n(0)]
    Held(#[n(0)] Hold),
    /// In line. The place belongs to the session: ask again (any node) or watch until it moves.
    #[n(1)]
    Waiting(#[n(0)] Place),
    /// Released, withdrawn, transferred or broken: who holds it now because of that.
    #[n(2)]
    Freed(#[n(0)] Vec<Hold>, #[n(1)] Vec<Hold>),
}

/// A granted claim. `Freed(ended, granted)` lists both sides.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hold {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    #[n(2)]
    pub mode: Mode,
    /// Fencing token: the revision of the grant.
    #[n(3)]
    pub token: Revision,
    /// Log time of the grant.
    #[n(4)]
    pub since: Timestamp,
    #[n(5)]
    pub meta: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    #[n(2)]
    pub mode: Mode,
    /// 1 is next.
    #[n(3)]
    pub position: u64,
    #[n(4)]
    pub since: Timestamp,
    /// Holders in the way, at most 16.
    #[n(5)]
    pub blockers: Vec<Hold>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// Not free, and the caller did not want to wait: the holders in the way (at most 16) and the number waiting.
    #[n(0)]
    Held(#[n(0)] Vec<Hold>, #[n(1)] u64),
    /// The session (with that token) does not hold the lock.
    #[n(1)]
    NotHolder,
    /// `If-Held`: the token is not the current one; the newest current token, if anybody holds the lock.
    #[n(2)]
    FenceStale(#[n(0)] Option<Revision>),
    /// The session already holds or waits for the lock in the other mode.
    #[n(3)]
    ModeMismatch(#[n(0)] Mode),
    #[n(4)]
    TooManyWaiters(#[n(0)] u64),
    /// No such lock is held or waited for (break).
    #[n(5)]
    NotFound,
}

/// Is it my turn yet?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    Held(Hold),
    Waiting(Place),
    /// Neither holding nor in line: released, broken, expired, or never asked.
    Gone,
}

/// What a lock looks like from outside: holders, then waiters in the order they will be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub holders: Vec<Hold>,
    pub waiters: Vec<Place>,
    /// Waiters in all; `waiters` may be cut at the caller's limit.
    pub waiting: usize,
}

/// The turn of a session's claim.
#[must_use]
pub fn poll(view: View<'_>, lock: &str, session: SessionId) -> Turn {
    let _ = (view, lock, session);
    todo!()
}

/// Holders and the first `limit` waiters of a lock; `None` if nobody holds or waits.
#[must_use]
pub fn line(view: View<'_>, lock: &str, limit: usize) -> Option<Line> {
    let _ = (view, lock, limit);
    todo!()
}

/// Names of locks that start with `prefix`, after `after`, at most `limit`.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let _ = (view, prefix, after, limit);
    todo!()
}
