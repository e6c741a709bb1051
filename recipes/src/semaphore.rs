//! Semaphores: so many permits, taken several at once, all or none; one fair line, a token for each holder.
//!
//! The claims are a [`crate::line`]. The head of the line goes first: as long as it does not fit nobody behind it is
//! granted, so that those who want much do not starve. Beside the claims there is, after the name:
//!
//! | key | value | |
//! |---|---|---|
//! | `s` | the [`Limit`] | as long as somebody holds or waits; for good if it was set by itself |
//!
//! A limit that is lowered takes nothing away: nothing is granted until those who hold fit under it.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::limits::{KEY_OVERHEAD, META_BYTES, NAME_BYTES};
use coracle_store::{
    Cause, ContentType, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection,
    SessionId, Txn, View,
};
use minicbor::{Decode, Encode};

use crate::line::{self, Claimed, Counts, Line, Part, Terms, Waiter, decoded};
use crate::{Described, bounded, names, row};

pub use crate::line::WAITERS;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Acquire(#[n(0)] Acquire),
    /// Give back the permits, or leave the line. Not holding is a refusal.
    #[n(1)]
    Release(#[n(0)] Claim),
    /// Leave the line if still waiting; nothing if already holding or gone.
    #[n(2)]
    Withdraw(#[n(0)] Claim),
    /// Hand the permits to another living session: new token, ahead of the line.
    #[n(3)]
    Transfer(#[n(0)] Claim, #[n(1)] SessionId),
    /// Operator: end every hold, and forget the limit once nobody holds or waits. The line moves up.
    #[n(4)]
    Break(#[n(0)] Box<str>, #[n(1)] Box<str>),
    /// Set the limit, for good.
    #[n(5)]
    Configure(#[n(0)] Box<str>, #[n(1)] u64),
}

/// One session's claim on permits.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    #[n(0)]
    pub semaphore: Box<str>,
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
    pub semaphore: Box<str>,
    /// 1 to the limit.
    #[n(1)]
    pub permits: u64,
    /// Makes the semaphore if there is none; must be its limit if there is one.
    #[n(2)]
    pub limit: Option<u64>,
    /// `Session` or `Private`.
    #[n(3)]
    pub attach: Attach,
    #[n(4)]
    pub owner: Box<str>,
    #[n(5)]
    pub meta: Box<str>,
    /// Join the line if they are not free.
    #[n(6)]
    pub wait: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    #[n(0)]
    Held(#[n(0)] Hold),
    #[n(1)]
    Waiting(#[n(0)] Place),
    /// Who held until now, and who holds because of that.
    #[n(2)]
    Freed(#[n(0)] Vec<Hold>, #[n(1)] Vec<Hold>),
    /// The limit, true if there was none before, and who holds because of it.
    #[n(3)]
    Configured(#[n(0)] u64, #[n(1)] bool, #[n(2)] Vec<Hold>),
}

/// Permits of one session.
pub type Hold = line::Hold<Permits>;
pub type Place = line::Place<Permits>;
pub type Turn = crate::Turn<Hold, Place>;

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Permits(#[n(0)] pub u64);

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Limit {
    #[n(0)]
    pub limit: u64,
    /// Set by itself, and so not forgotten when nobody holds or waits.
    #[n(1)]
    pub stays: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// Not enough are free, and the caller did not want to wait: holders (at most 16), free permits, number waiting.
    #[n(0)]
    Exhausted(#[n(0)] Vec<Hold>, #[n(1)] u64, #[n(2)] u64),
    /// The session (with that token) holds none.
    #[n(1)]
    NotHolder,
    /// `If-Held`: the token is not a current one; the newest current token, if anybody holds.
    #[n(2)]
    FenceStale(#[n(0)] Option<Revision>),
    /// The limit is another, or less than the permits asked for.
    #[n(3)]
    LimitMismatch(#[n(0)] u64),
    /// The session has a claim on another number of permits.
    #[n(4)]
    OtherClaim(#[n(0)] u64),
    #[n(5)]
    TooManyWaiters(#[n(0)] u64),
    /// There is none, and no limit to make it with.
    #[n(6)]
    NotFound,
}

/// What a semaphore looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub limit: u64,
    pub free: u64,
    pub holders: Vec<Hold>,
    pub waiters: Vec<Place>,
    /// Waiters in all; `waiters` may be cut at the caller's limit.
    pub waiting: usize,
}

/// As in the URL.
pub const NAME: &str = "semaphores";
/// First byte of every key of a semaphore.
pub const FAMILY: Family = Family(b'm');
/// The greatest limit.
pub const PERMITS: u64 = 1_000_000;

const LIMIT: u8 = b's';
const RANK: u8 = 0;

impl Terms for Permits {
    const FAMILY: Family = FAMILY;

    fn units(&self) -> u64 {
        self.0
    }
}

type Semaphore = Line<Permits>;

/// The turn of a session's claim. For a waiter it costs the way to the nearer end of the line.
#[must_use]
pub fn poll(view: View<'_>, semaphore: &str, session: SessionId) -> Turn {
    let semaphore = Semaphore::new(semaphore);
    match semaphore.claim(view, session) {
        None => Turn::Gone,
        Some(Claimed::Hold(hold)) => Turn::Granted(hold),
        Some(Claimed::Wait(key, waiter)) => Turn::Waiting(semaphore.place(view, &key, waiter)),
    }
}

/// What the key of each claim begins with, family byte first.
#[must_use]
pub fn prefix(semaphore: &str) -> Vec<u8> {
    Semaphore::new(semaphore).prefix().to_vec()
}

/// A semaphore with its first `limit` waiters. The places name no blockers.
#[must_use]
pub fn show(view: View<'_>, name: &str, limit: usize) -> Option<Shown> {
    let semaphore = Semaphore::new(name);
    let counts = semaphore.counts(view);
    let Limit { limit: permits, .. } = limit_of(&semaphore, view)?;
    let places = (1..).zip(semaphore.waiters(view).take(limit));
    Some(Shown {
        limit: permits,
        free: permits.saturating_sub(counts.used),
        holders: semaphore.holds(view).map(|(_, hold)| hold).collect(),
        waiters: places.map(|(position, (_, waiter))| waiter.place(position, Vec::new())).collect(),
        waiting: usize::try_from(counts.waiting).unwrap_or(usize::MAX),
    })
}

/// Names of semaphores that start with `prefix`, after `after`, at most `limit`, in order of their bytes.
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
        Operation::Configure(name, limit) => configure(txn, &name, limit),
    }
}

/// Whether the token is a current hold.
pub(crate) fn check(view: View<'_>, name: &str, token: Revision) -> Result<(), StoreRefusal> {
    let semaphore = Semaphore::new(name);
    if semaphore.hold_of(view, token).is_some() {
        return Ok(());
    }
    Err(Refusal::FenceStale(semaphore.holds(view).next_back().map(|(_, hold)| hold.token)).into())
}

pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], _: Cause) {
    let mut semaphores: BTreeMap<String, (Semaphore, u64, u64)> = BTreeMap::new();
    for (key, record) in gone {
        let Some((semaphore, name, part)) = Semaphore::of(key) else { continue };
        let (_, waiters, units) = semaphores.entry(name).or_insert((semaphore, 0, 0));
        match part {
            Part::Wait => *waiters += 1,
            Part::Hold(_) => *units += decoded::<Hold>(&record.value).terms.0,
            Part::Other(_) => {}
        }
    }
    for (semaphore, waiters, units) in semaphores.into_values() {
        semaphore.left(txn, waiters, units);
        advance(txn, &semaphore);
    }
}

pub(crate) fn due(txn: &mut Txn<'_>, what: &[u8]) {
    line::forget_reason(txn, FAMILY, what);
}

/// Everything but a new claim or limit gives back, or moves what is held.
pub(crate) fn drains(operation: &Operation) -> bool {
    !matches!(operation, Operation::Acquire(_) | Operation::Configure(..))
}

/// `acquired`, `released`, `broken`, `expired`; `waiting`, `left`, `expired`; `limited`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (_, name, part) = Semaphore::of(&event.key)?;
    let (op, token) = match (part, &event.record, event.cause) {
        (Part::Hold(token), Some(_), _) => ("acquired", Some(token)),
        (Part::Hold(token), None, Cause::Broken) => ("broken", Some(token)),
        (Part::Hold(token), None, Cause::SessionExpired) => ("expired", Some(token)),
        (Part::Hold(token), None, Cause::Command | Cause::SessionClosed) => ("released", Some(token)),
        (Part::Wait, Some(_), _) => ("waiting", None),
        (Part::Wait, None, Cause::SessionExpired) => ("expired", None),
        (Part::Wait, None, _) => ("left", None),
        (Part::Other(LIMIT), Some(_), _) => ("limited", None),
        (Part::Other(_), ..) => return None,
    };
    let session = event.record.as_ref().or(event.previous.as_ref())?.session;
    Some(Described { family: NAME, op, name, item: None, session, token })
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix(prefix(name))
}

fn limit_of(semaphore: &Semaphore, view: View<'_>) -> Option<Limit> {
    view.get(&semaphore.part(LIMIT)).map(|record| decoded(&record.value))
}

fn set_limit(txn: &mut Txn<'_>, semaphore: &Semaphore, limit: Limit) {
    txn.put(semaphore.part(LIMIT), row(&limit), ContentType::Binary, None);
}

fn acquire(txn: &mut Txn<'_>, wanted: Acquire) -> Result<Outcome, StoreRefusal> {
    let Acquire { semaphore: name, permits, limit: given, attach, owner, meta, wait } = wanted;
    bounded("semaphore", name.len(), 1, NAME_BYTES)?;
    bounded("owner", owner.len(), 0, NAME_BYTES)?;
    bounded("meta", meta.len(), 0, META_BYTES)?;
    in_range("permits", permits)?;
    given.map_or(Ok(()), |limit| in_range("limit", limit))?;
    let session = match &attach {
        Attach::Session(id) => *id,
        Attach::Private(open) => open.id,
        Attach::None | Attach::Keep => return Err(StoreRefusal::Malformed),
    };
    let (semaphore, view) = (Semaphore::new(&name), txn.view());
    // Asking again is the same claim, also if the limit is another by now.
    match semaphore.claim(view, session) {
        Some(claimed) if claimed.terms().0 != permits => {
            return Err(Refusal::OtherClaim(claimed.terms().0).into());
        }
        Some(Claimed::Hold(hold)) => return Ok(Outcome::Held(hold)),
        Some(Claimed::Wait(key, waiter)) => {
            return Ok(Outcome::Waiting(semaphore.place(view, &key, waiter)));
        }
        None => {}
    }
    let known = limit_of(&semaphore, view);
    let limit = match (known, given) {
        (Some(Limit { limit, .. }), Some(given)) if limit != given => {
            return Err(Refusal::LimitMismatch(limit).into());
        }
        (Some(limit), _) => limit,
        (None, Some(limit)) => Limit { limit, stays: false },
        (None, None) => return Err(Refusal::NotFound.into()),
    };
    if permits > limit.limit {
        return Err(Refusal::LimitMismatch(limit.limit).into());
    }
    if matches!(attach, Attach::Session(_)) && view.session(session).is_none() {
        return Err(StoreRefusal::SessionExpired(session));
    }
    let mut counts = semaphore.counts(view);
    let free = counts.waiting == 0 && fits(counts, permits, limit);
    if !free && !wait {
        let left = limit.limit.saturating_sub(counts.used);
        return Err(Refusal::Exhausted(
            semaphore.blockers(view, &Permits(permits), None),
            left,
            counts.waiting,
        )
        .into());
    }
    if !free && counts.waiting >= WAITERS {
        return Err(Refusal::TooManyWaiters(WAITERS).into());
    }
    txn.attach(&attach, None)?;
    let made = if known.is_none() { 2 * (KEY_OVERHEAD + name.len()) } else { 0 };
    txn.make_room(KEY_OVERHEAD + 64 + name.len() + owner.len() + meta.len() + made)?;
    if known.is_none() {
        set_limit(txn, &semaphore, limit);
    }
    let terms = Permits(permits);
    let waiter = Waiter { session, owner, terms, since: txn.now(), meta, together: Vec::new() };
    let outcome = if free {
        Outcome::Held(semaphore.grant(txn, &mut counts, waiter))
    } else {
        let blockers = semaphore.blockers(txn.view(), &waiter.terms, None);
        semaphore.join(txn, &mut counts, &waiter, RANK);
        Outcome::Waiting(waiter.place(counts.waiting, blockers))
    };
    semaphore.set_counts(txn, counts);
    Ok(outcome)
}

fn in_range(what: &str, number: u64) -> Result<(), StoreRefusal> {
    if (1..=PERMITS).contains(&number) {
        return Ok(());
    }
    Err(StoreRefusal::OutOfBounds(what.into(), number.clamp(1, PERMITS), number))
}

fn fits(counts: Counts, permits: u64, limit: Limit) -> bool {
    counts.used.saturating_add(permits) <= limit.limit
}

/// Grant to the head of the line as long as it fits. Forgets the limit if nobody is left and it does not stay.
fn advance(txn: &mut Txn<'_>, semaphore: &Semaphore) -> Vec<Hold> {
    let mut granted = Vec::new();
    let Some(limit) = limit_of(semaphore, txn.view()) else { return granted };
    let mut counts = semaphore.counts(txn.view());
    loop {
        let head = semaphore.waiters(txn.view()).next().map(|(key, waiter)| (key.clone(), waiter));
        let Some((key, waiter)) = head.filter(|(_, waiter)| fits(counts, waiter.terms.0, limit)) else {
            break;
        };
        granted.push(semaphore.grant_waiting(txn, &mut counts, &key, waiter));
    }
    semaphore.set_counts(txn, counts);
    semaphore.tidy(txn);
    if !limit.stays && semaphore.is_idle(txn.view()) {
        txn.delete(&semaphore.part(LIMIT), Cause::Command);
    }
    granted
}

fn end(txn: &mut Txn<'_>, semaphore: &Semaphore, hold: &Hold, cause: Cause) -> Result<(), StoreRefusal> {
    let mut counts = semaphore.counts(txn.view());
    semaphore.end(txn, &mut counts, hold, cause)?;
    semaphore.set_counts(txn, counts);
    Ok(())
}

fn release(txn: &mut Txn<'_>, claim: &Claim) -> Result<Outcome, StoreRefusal> {
    let semaphore = Semaphore::new(&claim.semaphore);
    let ended = match semaphore.claim(txn.view(), claim.session) {
        Some(Claimed::Wait(..)) if claim.token.is_none() => return Ok(withdraw(txn, claim)),
        Some(Claimed::Hold(hold)) if claim.token.is_none_or(|token| token == hold.token) => hold,
        _ => return Err(Refusal::NotHolder.into()),
    };
    end(txn, &semaphore, &ended, Cause::Command)?;
    Ok(Outcome::Freed(vec![ended], advance(txn, &semaphore)))
}

fn withdraw(txn: &mut Txn<'_>, claim: &Claim) -> Outcome {
    let semaphore = Semaphore::new(&claim.semaphore);
    let Some((key, _)) = semaphore.waiter(txn.view(), claim.session) else {
        return Outcome::Freed(Vec::new(), Vec::new());
    };
    let mut counts = semaphore.counts(txn.view());
    semaphore.leave(txn, &mut counts, &key);
    semaphore.set_counts(txn, counts);
    // Those behind one that wanted much may fit.
    Outcome::Freed(Vec::new(), advance(txn, &semaphore))
}

fn transfer(txn: &mut Txn<'_>, claim: &Claim, to: SessionId) -> Result<Outcome, StoreRefusal> {
    let (semaphore, view) = (Semaphore::new(&claim.semaphore), txn.view());
    let hold = match semaphore.claim(view, claim.session) {
        Some(Claimed::Hold(hold)) if claim.token.is_none_or(|token| token == hold.token) => hold,
        _ => return Err(Refusal::NotHolder.into()),
    };
    let owner = view.session(to).ok_or(StoreRefusal::SessionExpired(to))?.name.clone();
    let mut counts = semaphore.counts(view);
    let (meta, since) = (hold.meta.clone(), txn.now());
    let mut claimant = Waiter { session: to, owner, terms: hold.terms, since, meta, together: Vec::new() };
    match semaphore.claim(view, to) {
        None => {}
        Some(Claimed::Wait(key, waiter)) if waiter.terms == hold.terms => {
            semaphore.leave(txn, &mut counts, &key);
            claimant = waiter;
        }
        Some(claimed) => return Err(Refusal::OtherClaim(claimed.terms().0).into()),
    }
    txn.attach(&Attach::Session(to), None)?;
    semaphore.end(txn, &mut counts, &hold, Cause::Command)?;
    let mut granted = vec![semaphore.grant(txn, &mut counts, claimant)];
    semaphore.set_counts(txn, counts);
    granted.extend(advance(txn, &semaphore));
    Ok(Outcome::Freed(vec![hold], granted))
}

fn break_holds(txn: &mut Txn<'_>, name: &str, reason: &str) -> Result<Outcome, StoreRefusal> {
    bounded("reason", reason.len(), 0, NAME_BYTES)?;
    let semaphore = Semaphore::new(name);
    let Some(limit) = limit_of(&semaphore, txn.view()) else { return Err(Refusal::NotFound.into()) };
    let holds: Vec<Hold> = semaphore.holds(txn.view()).map(|(_, hold)| hold).collect();
    for hold in &holds {
        end(txn, &semaphore, hold, Cause::Broken)?;
        semaphore.note_broken(txn, hold, reason);
    }
    if limit.stays {
        set_limit(txn, &semaphore, Limit { stays: false, ..limit });
    }
    Ok(Outcome::Freed(holds, advance(txn, &semaphore)))
}

fn configure(txn: &mut Txn<'_>, name: &str, limit: u64) -> Result<Outcome, StoreRefusal> {
    bounded("semaphore", name.len(), 1, NAME_BYTES)?;
    in_range("limit", limit)?;
    let semaphore = Semaphore::new(name);
    let is_new = limit_of(&semaphore, txn.view()).is_none();
    if is_new {
        txn.make_room(KEY_OVERHEAD + name.len() + 16)?;
    }
    set_limit(txn, &semaphore, Limit { limit, stays: true });
    let granted = advance(txn, &semaphore);
    Ok(Outcome::Configured(limit, is_new, granted))
}
