//! Locks: exclusive hold and ordered control, one fair line, fencing tokens.
//!
//! A lock exists while somebody holds it; nobody waits for a lock that nobody holds. Each claim is one key, attached
//! to its session, so that the end of the session removes it:
//!
//! | key, after the name | value | |
//! |---|---|---|
//! | `h` token, session | the [`Hold`] | a holder; in the order of the grants |
//! | `w` revision of arrival, number within it | its place | a waiter; in the order of arrival, which is that of the grants |
//! | `c` | number of waiters | only while somebody waits |
//!
//! The entry that frees a lock also grants it ([`Lock::advance`]): to the waiter at the head, and if that one shares, to
//! those behind it up to the first that does not. An arrival is granted at once if the lock is free, or if it is
//! shared, wants to share and nobody waits: so a queued writer stops later readers.

mod claims;

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::limits::{KEY_OVERHEAD, META_BYTES, NAME_BYTES};
use coracle_store::{
    Cause, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection, SessionId,
    Timestamp, Txn, View,
};
use minicbor::{Decode, Encode};

use crate::{Described, bounded, names};
use claims::{Claimed, Lock, Part, Waiter};

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
    /// Join the line if it is not free. Otherwise the answer is a refusal and nothing changed. A session that is in
    /// line already is answered its place either way.
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
    /// Holders in the way, at most 16; none in a [`Line`], which has all the holders.
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
pub type Turn = crate::Turn<Hold, Place>;

/// What a lock looks like from outside: holders, then waiters in the order they will be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub holders: Vec<Hold>,
    pub waiters: Vec<Place>,
    /// Waiters in all; `waiters` may be cut at the caller's limit.
    pub waiting: usize,
}

/// As in the URL.
pub const NAME: &str = "locks";
/// First byte of every key of a lock.
pub const FAMILY: Family = Family(b'l');
/// Waiters in one line.
pub const WAITERS: u64 = 10_000;

/// The turn of a session's claim. For a waiter it costs the places ahead.
#[must_use]
pub fn poll(view: View<'_>, lock: &str, session: SessionId) -> Turn {
    let lock = Lock::new(lock);
    match lock.claim(view, session) {
        None => Turn::Gone,
        Some(Claimed::Hold(_, hold)) => Turn::Granted(hold),
        Some(Claimed::Wait(key, waiter)) => Turn::Waiting(lock.place(view, &key, waiter)),
    }
}

/// What the key of each claim on a lock begins with, family byte first.
#[must_use]
pub fn prefix(lock: &str) -> Vec<u8> {
    Lock::new(lock).prefix().to_vec()
}

/// Holders and the first `limit` waiters of a lock; `None` if nobody holds or waits. The places name no blockers:
/// those are the holders.
#[must_use]
pub fn line(view: View<'_>, lock: &str, limit: usize) -> Option<Line> {
    let lock = Lock::new(lock);
    let holders: Vec<Hold> = lock.holds(view).map(|(_, hold)| hold).collect();
    let places = (1..).zip(lock.waiters(view).take(limit));
    let waiters = places.map(|(position, (_, waiter))| waiter.place(position, Vec::new())).collect();
    let waiting = usize::try_from(lock.waiting(view)).unwrap_or(usize::MAX);
    (!holders.is_empty()).then_some(Line { holders, waiters, waiting })
}

/// Names of locks that start with `prefix`, after `after`, at most `limit`, in order of their bytes. Costs one
/// look-up a name, however long the lines are.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Acquire(wanted) => acquire(txn, wanted),
        Operation::Release(claim) => release(txn, &claim),
        Operation::Withdraw(claim) => Ok(withdraw(txn, &claim)),
        Operation::Transfer(claim, to) => transfer(txn, &claim, to),
        Operation::Break(name, reason) => break_holds(txn, &name, &reason),
    }
}

/// Whether the token is a current hold of the lock.
pub(crate) fn check(view: View<'_>, name: &str, token: Revision) -> Result<(), StoreRefusal> {
    let lock = Lock::new(name);
    if lock.hold_of(view, token).is_some() {
        return Ok(());
    }
    Err(Refusal::FenceStale(lock.holds(view).next_back().map(|(_, hold)| hold.token)).into())
}

/// Sessions ended and their claims are gone: let each line close up, then move.
pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], _: Cause) {
    let mut locks: BTreeMap<String, (Lock, u64)> = BTreeMap::new();
    for (lock, name, part) in gone.iter().filter_map(|(key, _)| Lock::of(key)) {
        let (_, left) = locks.entry(name).or_insert((lock, 0));
        *left += u64::from(matches!(part, Part::Wait));
    }
    for (lock, left) in locks.into_values() {
        if left > 0 {
            let waiting = lock.waiting(txn.view());
            lock.set_waiting(txn, waiting.saturating_sub(left));
        }
        lock.advance(txn);
    }
}

/// Locks wait for sessions, not for time.
pub(crate) fn due(_: &mut Txn<'_>, _: &[u8]) {}

/// Everything but a new claim makes the line shorter, or moves a hold.
pub(crate) fn drains(operation: &Operation) -> bool {
    match operation {
        Operation::Acquire(_) => false,
        Operation::Release(_) | Operation::Withdraw(_) | Operation::Transfer(..) | Operation::Break(..) => {
            true
        }
    }
}

/// `acquired`, `released`, `broken`, `expired`; `waiting`, `left` (granted or withdrawn: if granted, the same change
/// has an `acquired`), `expired`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (_, name, part) = Lock::of(&event.key)?;
    let (op, token) = match (part, &event.record, event.cause) {
        (Part::Count, ..) => return None,
        (Part::Hold(token), Some(_), _) => ("acquired", Some(token)),
        (Part::Hold(token), None, Cause::Broken) => ("broken", Some(token)),
        (Part::Hold(token), None, Cause::SessionExpired) => ("expired", Some(token)),
        (Part::Hold(token), None, Cause::Command | Cause::SessionClosed) => ("released", Some(token)),
        (Part::Wait, Some(_), _) => ("waiting", None),
        (Part::Wait, None, Cause::SessionExpired) => ("expired", None),
        (Part::Wait, None, _) => ("left", None),
    };
    let session = event.record.as_ref().or(event.previous.as_ref())?.session;
    Some(Described { family: NAME, op, name, item: None, session, token })
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix(Lock::new(name).prefix().to_vec())
}

fn acquire(txn: &mut Txn<'_>, wanted: Acquire) -> Result<Outcome, StoreRefusal> {
    let Acquire { lock: name, mode, attach, owner, meta, wait } = wanted;
    bounded("lock", name.len(), 1, NAME_BYTES)?;
    bounded("owner", owner.len(), 0, NAME_BYTES)?;
    bounded("meta", meta.len(), 0, META_BYTES)?;
    let session = match &attach {
        Attach::Session(id) => *id,
        Attach::Private(open) => open.id,
        Attach::None | Attach::Keep => return Err(StoreRefusal::Malformed),
    };
    let (lock, view) = (Lock::new(&name), txn.view());
    // Asking again is the same claim.
    match lock.claim(view, session) {
        Some(claimed) if claimed.mode() != mode => return Err(Refusal::ModeMismatch(claimed.mode()).into()),
        Some(Claimed::Hold(_, hold)) => return Ok(Outcome::Held(hold)),
        Some(Claimed::Wait(key, waiter)) => return Ok(Outcome::Waiting(lock.place(view, &key, waiter))),
        None => {}
    }
    if matches!(attach, Attach::Session(_)) && view.session(session).is_none() {
        return Err(StoreRefusal::SessionExpired(session));
    }
    let waiting = lock.waiting(view);
    let free = waiting == 0 && mode.joins(lock.mode(view));
    if !free && !wait {
        return Err(Refusal::Held(lock.blockers(view), waiting).into());
    }
    if !free && waiting >= WAITERS {
        return Err(Refusal::TooManyWaiters(WAITERS).into());
    }
    txn.attach(&attach, None)?;
    let counter = if free || waiting > 0 { 0 } else { KEY_OVERHEAD + name.len() };
    txn.make_room(KEY_OVERHEAD + 64 + name.len() + owner.len() + meta.len() + counter)?;
    let claimant = Waiter { session, owner, mode, since: txn.now(), meta };
    Ok(if free {
        Outcome::Held(lock.grant(txn, claimant))
    } else {
        Outcome::Waiting(lock.join(txn, claimant))
    })
}

fn release(txn: &mut Txn<'_>, claim: &Claim) -> Result<Outcome, StoreRefusal> {
    let lock = Lock::new(&claim.lock);
    let ended = match lock.claim(txn.view(), claim.session) {
        Some(Claimed::Wait(key, _)) if claim.token.is_none() => {
            lock.leave(txn, &key);
            Vec::new()
        }
        Some(Claimed::Hold(key, hold)) if claim.token.is_none_or(|token| token == hold.token) => {
            end(txn, &key, &hold, Cause::Command)?;
            vec![hold]
        }
        _ => return Err(Refusal::NotHolder.into()),
    };
    Ok(Outcome::Freed(ended, lock.advance(txn)))
}

fn withdraw(txn: &mut Txn<'_>, claim: &Claim) -> Outcome {
    let lock = Lock::new(&claim.lock);
    let Some(Claimed::Wait(key, _)) = lock.claim(txn.view(), claim.session) else {
        return Outcome::Freed(Vec::new(), Vec::new());
    };
    lock.leave(txn, &key);
    // Readers behind a writer that gives up need not wait for the readers before it.
    Outcome::Freed(Vec::new(), lock.advance(txn))
}

/// The new holder keeps what it said when it joined the line; one that was not in line takes over the meta of the
/// hold, and the name of its session says who it is.
fn transfer(txn: &mut Txn<'_>, claim: &Claim, to: SessionId) -> Result<Outcome, StoreRefusal> {
    let (lock, view) = (Lock::new(&claim.lock), txn.view());
    let (key, hold) = match lock.claim(view, claim.session) {
        Some(Claimed::Hold(key, hold)) if claim.token.is_none_or(|token| token == hold.token) => (key, hold),
        _ => return Err(Refusal::NotHolder.into()),
    };
    let owner = view.session(to).ok_or(StoreRefusal::SessionExpired(to))?.name.clone();
    let claimant = match lock.claim(view, to) {
        None => Waiter { session: to, owner, mode: hold.mode, since: txn.now(), meta: hold.meta.clone() },
        Some(Claimed::Wait(place, waiter)) if waiter.mode == hold.mode => {
            lock.leave(txn, &place);
            waiter
        }
        Some(Claimed::Wait(_, waiter)) => return Err(Refusal::ModeMismatch(waiter.mode).into()),
        Some(Claimed::Hold(_, own)) => return Err(Refusal::Held(vec![own], lock.waiting(view)).into()),
    };
    txn.attach(&Attach::Session(to), None)?;
    end(txn, &key, &hold, Cause::Command)?;
    let mut granted = vec![lock.grant(txn, claimant)];
    granted.extend(lock.advance(txn));
    Ok(Outcome::Freed(vec![hold], granted))
}

fn break_holds(txn: &mut Txn<'_>, name: &str, reason: &str) -> Result<Outcome, StoreRefusal> {
    bounded("reason", reason.len(), 0, NAME_BYTES)?;
    let lock = Lock::new(name);
    let holds: Vec<(Key, Hold)> = lock.holds(txn.view()).map(|(key, hold)| (key.clone(), hold)).collect();
    if holds.is_empty() {
        return Err(Refusal::NotFound.into());
    }
    for (key, hold) in &holds {
        end(txn, key, hold, Cause::Broken)?;
    }
    Ok(Outcome::Freed(holds.into_iter().map(|(_, hold)| hold).collect(), lock.advance(txn)))
}

/// End a hold. One that was granted in this very entry stays: or its token would be granted twice.
fn end(txn: &mut Txn<'_>, key: &Key, hold: &Hold, cause: Cause) -> Result<(), StoreRefusal> {
    if hold.token == txn.revision() {
        return Err(StoreRefusal::DuplicateKey(key.clone()));
    }
    txn.delete(key, cause);
    Ok(())
}
