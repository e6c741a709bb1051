//! Locks: exclusive hold and ordered control, one fair line, fencing tokens.
//!
//! A lock exists while somebody holds it or it is configured. Nobody waits for a lock that nobody holds, unless it is
//! closed for a while or some claim at the head of the line needs other locks as well. Its claims are a
//! [`crate::line`], whose waiters rank in the order of their arrival, except that one who goes from shared to exclusive is
//! ahead of all. Beside them there are, after the name:
//!
//! | key | value | |
//! |---|---|---|
//! | `s` | the [`Config`] | if it is not the default |
//! | `d` | a moment | closed until then: after an expiry, or after a hold that was shorter than it must be |
//!
//! The entry that frees a lock also grants it ([`advance`]): to the waiter at the head, and if that one shares, to those
//! behind it up to the first that does not. An arrival is granted at once if the lock is free, or if it is shared, wants
//! to share and nobody waits: so a queued writer stops later readers. A claim on several locks stands in the lines of
//! all of them and is granted in the one entry in which it is at the head of each and each admits it.

mod acquire;
mod advance;
mod config;
mod cycle;

use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::{
    Cause, Event, Family, Key, Millis, Principal, Record, Refusal as StoreRefusal, Revision, Selection,
    SessionId, Timestamp, Txn, View,
};
use minicbor::{Decode, Encode};

use crate::line::{Claimed, Counts, Line, Part, Terms};
use crate::{Described, bounded, line, names};
use coracle_store::limits::NAME_BYTES;

pub use crate::line::WAITERS;
pub use cycle::Link;

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
    /// Several locks or none of them.
    #[n(5)]
    AcquireMany(#[n(0)] AcquireMany),
    /// For the holds that begin from now on; the default forgets the configuration.
    #[n(6)]
    Configure(#[n(0)] Box<str>, #[n(1)] Config),
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
    /// If the session and owner hold it already, count one more: so many releases end the hold.
    #[n(6)]
    pub reentrant: bool,
    /// Change the hold that the session has in the other mode. To shared: at once, and the token stays. To exclusive:
    /// once nobody else holds, ahead of the line.
    #[n(7)]
    pub convert: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AcquireMany {
    /// 1..=[`TOGETHER`] different locks.
    #[n(0)]
    pub locks: Vec<(Box<str>, Mode)>,
    #[n(1)]
    pub attach: Attach,
    #[n(2)]
    pub owner: Box<str>,
    #[n(3)]
    pub wait: bool,
}

/// How long a lock is closed, and how long its holds are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Config {
    /// After the session of a holder has expired nothing is granted for so long; at most [`DELAY_MS`].
    #[n(0)]
    pub lock_delay: Millis,
    /// After an exclusive hold that was shorter nothing is granted until it would have been so long.
    #[n(1)]
    pub min_hold: Millis,
    /// A hold that lasts longer is reported as overdue. It stays.
    #[n(2)]
    pub max_hold: Millis,
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
    /// One release of several: the hold goes on.
    #[n(3)]
    StillHeld(#[n(0)] Hold),
    /// All of them, in the order of their names.
    #[n(4)]
    HeldMany(#[n(0)] Vec<(Box<str>, Hold)>),
    /// The configuration, and true if there was none before.
    #[n(5)]
    Configured(#[n(0)] Config, #[n(1)] bool),
}

/// A granted claim. `Freed(ended, granted)` lists both sides.
pub type Hold = line::Hold<Mode>;
/// A place in the line of a lock; of a claim on several, in the line in which it is farthest behind.
pub type Place = line::Place<Mode>;
/// Is it my turn yet?
pub type Turn = crate::Turn<Hold, Place>;
/// Is it my turn yet, for several locks together?
pub type TurnOfMany = crate::Turn<Vec<(Box<str>, Hold)>, Place>;

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
    /// Nobody holds it, and nothing is granted until then; the number waiting.
    #[n(6)]
    Closed(#[n(0)] Timestamp, #[n(1)] u64),
    /// To wait, or to hold what was handed on, would close this cycle: each waits for a lock that the next one holds or
    /// will get before it.
    #[n(7)]
    WouldDeadlock(#[n(0)] Vec<Link>),
    /// The session has a claim on this lock already, and it is none that fits.
    #[n(8)]
    OtherClaim(#[n(0)] Box<str>),
}

/// What a lock looks like from outside: holders, then waiters in the order they will be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub holders: Vec<Hold>,
    pub waiters: Vec<Place>,
    /// Waiters in all; `waiters` may be cut at the caller's limit.
    pub waiting: usize,
    pub config: Option<Config>,
    /// Nothing is granted before this moment.
    pub closed_until: Option<Timestamp>,
}

/// As in the URL.
pub const NAME: &str = "locks";
/// First byte of every key of a lock.
pub const FAMILY: Family = Family(b'l');
/// Locks claimed together.
pub const TOGETHER: usize = 32;
/// Longest time that a lock is closed after an expiry, in milliseconds.
pub const DELAY_MS: u64 = 60_000;
/// Longest least and greatest time of a hold, in milliseconds.
pub const HOLD_MS: u64 = 86_400_000;

impl Terms for Mode {
    const FAMILY: Family = FAMILY;

    fn shares(&self, other: &Self) -> bool {
        (*self, *other) == (Self::Shared, Self::Shared)
    }
}

type Lock = Line<Mode>;

/// The turn of a session's claim. For a waiter it costs the way to the nearer end of the line.
#[must_use]
pub fn poll(view: View<'_>, lock: &str, session: SessionId) -> Turn {
    let lock = Lock::new(lock);
    match lock.claim(view, session) {
        None => Turn::Gone,
        Some(Claimed::Hold(hold)) => Turn::Granted(hold),
        Some(Claimed::Wait(key, waiter)) => Turn::Waiting(advance::place(&lock, view, &key, waiter)),
    }
}

/// The turn of a hold that is to be converted to this mode.
#[must_use]
pub fn poll_convert(view: View<'_>, lock: &str, session: SessionId, mode: Mode) -> Turn {
    match (poll(view, lock, session), Lock::new(lock).waiter(view, session)) {
        (Turn::Granted(hold), Some((key, waiter))) if hold.terms != mode => {
            Turn::Waiting(advance::place_of_convert(&Lock::new(lock), view, &key, waiter))
        }
        (Turn::Granted(hold), None) if hold.terms != mode => Turn::Gone,
        (turn, _) => turn,
    }
}

/// The turn of a claim on several locks.
#[must_use]
pub fn poll_many(view: View<'_>, names: &[Box<str>], session: SessionId) -> TurnOfMany {
    let mut holds = Vec::new();
    let mut farthest: Option<Place> = None;
    for name in names {
        match poll(view, name, session) {
            Turn::Gone => return TurnOfMany::Gone,
            Turn::Granted(hold) => holds.push((name.clone(), hold)),
            Turn::Waiting(place) => {
                farthest = Some(match farthest.take() {
                    Some(other) => advance::farther(other, place),
                    None => place,
                });
            }
        }
    }
    match farthest {
        Some(place) => TurnOfMany::Waiting(place),
        None => TurnOfMany::Granted(holds),
    }
}

/// What the key of each claim on a lock begins with, family byte first.
#[must_use]
pub fn prefix(lock: &str) -> Vec<u8> {
    Lock::new(lock).prefix().to_vec()
}

/// A lock with its first `limit` waiters; `None` if nobody holds or waits and nothing is configured. The places name no
/// blockers: those are the holders.
#[must_use]
pub fn line(view: View<'_>, name: &str, limit: usize) -> Option<Shown> {
    let lock = Lock::new(name);
    let holders: Vec<Hold> = lock.holds(view).map(|(_, hold)| hold).collect();
    let places = (1..).zip(lock.waiters(view).take(limit));
    let waiters: Vec<Place> =
        places.map(|(position, (_, waiter))| waiter.place(position, Vec::new())).collect();
    let waiting = usize::try_from(lock.counts(view).waiting).unwrap_or(usize::MAX);
    let (config, closed_until) = (config::of(&lock, view), config::closed(&lock, view));
    let is_there = !holders.is_empty() || waiting > 0 || config.is_some() || closed_until.is_some();
    is_there.then_some(Shown { holders, waiters, waiting, config, closed_until })
}

/// Names of locks that start with `prefix`, after `after`, at most `limit`, in order of their bytes.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Acquire(wanted) if wanted.convert => acquire::convert(txn, wanted),
        Operation::Acquire(wanted) => acquire::acquire(txn, wanted),
        Operation::AcquireMany(wanted) => acquire::acquire_many(txn, wanted),
        Operation::Release(claim) => release(txn, &claim),
        Operation::Withdraw(claim) => Ok(withdraw(txn, &claim)),
        Operation::Transfer(claim, to) => transfer(txn, &claim, to),
        Operation::Break(name, reason) => break_holds(txn, &name, &reason),
        Operation::Configure(name, config) => config::configure(txn, &name, config),
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
pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], cause: Cause) {
    advance::released(txn, gone, cause);
}

pub(crate) fn due(txn: &mut Txn<'_>, what: &[u8]) {
    config::due(txn, what);
}

/// Everything but a new claim or configuration makes the line shorter, or moves a hold.
pub(crate) fn drains(operation: &Operation) -> bool {
    match operation {
        Operation::Acquire(_) | Operation::AcquireMany(_) | Operation::Configure(..) => false,
        Operation::Release(_) | Operation::Withdraw(_) | Operation::Transfer(..) | Operation::Break(..) => {
            true
        }
    }
}

/// `acquired`, `converted`, `counted`, `overdue`, `released`, `broken`, `expired`; `waiting`, `left` (granted or
/// withdrawn: if granted, the same change has an `acquired`), `expired`; `closed`, `open`; `configured`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (_, name, part) = Lock::of(&event.key)?;
    let hold =
        |record: &Option<Arc<Record>>| record.as_ref().map(|record| line::decoded::<Hold>(&record.value));
    let (op, token) = match (part, &event.record, event.cause) {
        (Part::Hold(token), Some(_), _) => {
            let op = match (hold(&event.previous), hold(&event.record)) {
                (Some(was), Some(is)) if was.terms != is.terms => "converted",
                (Some(was), Some(is)) if !was.overdue && is.overdue => "overdue",
                (Some(_), Some(_)) => "counted",
                _ => "acquired",
            };
            (op, Some(token))
        }
        (Part::Hold(token), None, Cause::Broken) => ("broken", Some(token)),
        (Part::Hold(token), None, Cause::SessionExpired) => ("expired", Some(token)),
        (Part::Hold(token), None, Cause::Command | Cause::SessionClosed) => ("released", Some(token)),
        (Part::Wait, Some(_), _) => ("waiting", None),
        (Part::Wait, None, Cause::SessionExpired) => ("expired", None),
        (Part::Wait, None, _) => ("left", None),
        (Part::Other(config::CLOSED), Some(_), _) => ("closed", None),
        (Part::Other(config::CLOSED), None, _) => ("open", None),
        (Part::Other(config::CONFIG), ..) => ("configured", None),
        (Part::Other(_), ..) => return None,
    };
    let session = event.record.as_ref().or(event.previous.as_ref())?.session;
    Some(Described { family: NAME, op, name, item: None, session, token })
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix(prefix(name))
}

fn release(txn: &mut Txn<'_>, claim: &Claim) -> Result<Outcome, StoreRefusal> {
    let lock = Lock::new(&claim.lock);
    let ended = match lock.claim(txn.view(), claim.session) {
        Some(Claimed::Wait(key, waiter)) if claim.token.is_none() => {
            return Ok(Outcome::Freed(Vec::new(), advance::leave(txn, lock, &key, &waiter)));
        }
        Some(Claimed::Hold(hold)) if claim.token.is_none_or(|token| token == hold.token) => hold,
        _ => return Err(Refusal::NotHolder.into()),
    };
    if ended.count > 1 {
        let hold = Hold { count: ended.count - 1, ..ended };
        lock.set_hold(txn, &hold);
        return Ok(Outcome::StillHeld(hold));
    }
    if lock.has_at_most(txn.view(), 1) {
        // Nobody waits and nothing is configured: with the hold goes the lock.
        lock.end(txn, &mut Counts::default(), &ended, Cause::Command)?;
        config::clear_overdue(txn, &lock, &ended);
        return Ok(Outcome::Freed(vec![ended], Vec::new()));
    }
    advance::end(txn, &lock, &ended, Cause::Command)?;
    Ok(Outcome::Freed(vec![ended], advance::advance(txn, lock)))
}

fn withdraw(txn: &mut Txn<'_>, claim: &Claim) -> Outcome {
    let lock = Lock::new(&claim.lock);
    match lock.waiter(txn.view(), claim.session) {
        // Readers behind a writer that gives up need not wait for the readers before it.
        Some((key, waiter)) => Outcome::Freed(Vec::new(), advance::leave(txn, lock, &key, &waiter)),
        None => Outcome::Freed(Vec::new(), Vec::new()),
    }
}

/// The new holder keeps what it said when it joined the line; one that was not in line takes over the meta of the
/// hold, and the name of its session says who it is.
fn transfer(txn: &mut Txn<'_>, claim: &Claim, to: SessionId) -> Result<Outcome, StoreRefusal> {
    let (lock, view) = (Lock::new(&claim.lock), txn.view());
    let hold = match lock.claim(view, claim.session) {
        Some(Claimed::Hold(hold)) if claim.token.is_none_or(|token| token == hold.token) => hold,
        _ => return Err(Refusal::NotHolder.into()),
    };
    let owner = view.session(to).ok_or(StoreRefusal::SessionExpired(to))?.name.clone();
    let mut counts = lock.counts(view);
    let (terms, meta, since) = (hold.terms, hold.meta.clone(), txn.now());
    let mut claimant = line::Waiter { session: to, owner, terms, since, meta, together: Vec::new() };
    match lock.claim(view, to) {
        None => {}
        Some(Claimed::Wait(_, waiter)) if !waiter.together.is_empty() => {
            return Err(Refusal::OtherClaim(claim.lock.clone()).into());
        }
        Some(Claimed::Wait(place, waiter)) if waiter.terms == hold.terms => {
            lock.leave(txn, &mut counts, &place);
            claimant = waiter;
        }
        Some(Claimed::Wait(_, waiter)) => return Err(Refusal::ModeMismatch(waiter.terms).into()),
        Some(Claimed::Hold(own)) => return Err(Refusal::Held(vec![own], counts.waiting).into()),
    }
    txn.attach(&Attach::Session(to), None)?;
    lock.set_counts(txn, counts);
    advance::end_now(txn, &lock, &hold, Cause::Command)?;
    let mut granted = vec![advance::grant(txn, &lock, claimant)];
    granted.extend(advance::advance(txn, lock));
    cycle::check(txn.view(), to)?;
    Ok(Outcome::Freed(vec![hold], granted))
}

fn break_holds(txn: &mut Txn<'_>, name: &str, reason: &str) -> Result<Outcome, StoreRefusal> {
    bounded("reason", reason.len(), 0, NAME_BYTES)?;
    let lock = Lock::new(name);
    let holds: Vec<Hold> = lock.holds(txn.view()).map(|(_, hold)| hold).collect();
    if holds.is_empty() {
        return Err(Refusal::NotFound.into());
    }
    for hold in &holds {
        advance::end_now(txn, &lock, hold, Cause::Broken)?;
        lock.note_broken(txn, hold, reason);
    }
    Ok(Outcome::Freed(holds, advance::advance(txn, lock)))
}
