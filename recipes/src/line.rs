//! A line of claims on one object: who was granted, and who waits in which order. What locks, semaphores and elections
//! have in common.
//!
//! Each claim is one key, attached to its session, so that the end of the session removes it. Keys, after the name:
//!
//! | key | value | |
//! |---|---|---|
//! | `h` token, ordinal | the [`Hold`] | granted; in the order of the grants |
//! | `w` rank, revision of arrival, number within it | the [`Waiter`] | in the order in which they will be granted |
//! | `c` | the [`Counts`] | only while there is more to count than one grant |
//! | `b` token, ordinal | the reason of a break | for a moment, so that history tells it beside the end of the hold |
//!
//! A recipe decides who is granted; that touches the head of the line and nobody behind it.

mod reason;

use std::marker::PhantomData;

use coracle_store::{
    Cause, ContentType, Family, Key, Millis, Refusal as StoreRefusal, Revision, SessionId, Timestamp, Txn,
    View,
};
use minicbor::{Decode, Encode};

use crate::{names, row};

pub(crate) use reason::forget_reason;
pub use reason::reason_of_break;

/// Blockers named in an answer.
pub(crate) const BLOCKERS: usize = 16;
/// Waiters in one line.
pub const WAITERS: u64 = 10_000;

const HOLD: u8 = b'h';
const WAIT: u8 = b'w';
const COUNT: u8 = b'c';
/// What a timer says that removes the reason of a break.
pub(crate) const BROKEN: u8 = b'b';

/// What a claim is about, beside whose it is.
pub trait Terms: Clone + Encode<()> + for<'b> Decode<'b, ()> {
    const FAMILY: Family;

    /// Units it takes of what the object has.
    fn units(&self) -> u64 {
        0
    }

    /// Whether both may hold at once: then neither is in the way of the other.
    fn shares(&self, _: &Self) -> bool {
        false
    }
}

/// A granted claim.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hold<T> {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    #[n(2)]
    pub terms: T,
    /// Fencing token: the revision of the grant.
    #[n(3)]
    pub token: Revision,
    /// Log time of the grant.
    #[n(4)]
    pub since: Timestamp,
    #[n(5)]
    pub meta: Box<str>,
    /// How many grants came before it since the object was last idle.
    #[n(6)]
    pub ordinal: u64,
    /// How many releases end it: more than one if it was taken again by whoever had it.
    #[n(7)]
    pub count: u64,
    /// It has lasted longer than it should.
    #[n(8)]
    pub overdue: bool,
    /// What its session asked for: so long nobody gets it after the session expired.
    #[n(9)]
    pub lock_delay: Option<Millis>,
    /// When it will have lasted longer than it should.
    #[n(10)]
    pub overdue_at: Option<Timestamp>,
}

/// A place in a line.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Place<T> {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    #[n(2)]
    pub terms: T,
    /// 1 is next.
    #[n(3)]
    pub position: u64,
    /// Log time of the arrival.
    #[n(4)]
    pub since: Timestamp,
    /// Who is in the way, at most 16: holders, or who is ahead in the line, then without a token (0). None in a listed line,
    /// which has them all.
    #[n(5)]
    pub blockers: Vec<Hold<T>>,
    /// Nothing is granted before this moment.
    #[n(6)]
    pub closed_until: Option<Timestamp>,
}

/// Who wants it, as the line remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Waiter<T> {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    #[n(2)]
    pub terms: T,
    /// Log time of the arrival.
    #[n(3)]
    pub since: Timestamp,
    #[n(4)]
    pub meta: Box<str>,
    /// Names of all that is claimed together, this one among them; empty for a claim on its own.
    #[n(5)]
    pub together: Vec<Box<str>>,
}

/// What is counted, so that nothing has to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Counts {
    #[n(0)]
    pub waiting: u64,
    /// Grants since the object was last idle.
    #[n(1)]
    pub granted: u64,
    /// Units of all the holders.
    #[n(2)]
    pub used: u64,
}

/// A session's one claim on an object; a waiting one with its key.
pub(crate) enum Claimed<T> {
    Hold(Hold<T>),
    Wait(Key, Waiter<T>),
}

/// What a key of a line is, from the bytes after the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Hold(Revision),
    Wait,
    /// Anything else: counts, reasons, and what a recipe has of its own.
    Other(u8),
}

/// One line, by what its keys begin with: family byte and name.
pub(crate) struct Line<T> {
    prefix: Key,
    terms: PhantomData<T>,
}

impl<T: Terms> Line<T> {
    pub fn new(name: &str) -> Self {
        Self { prefix: names::object(T::FAMILY, name), terms: PhantomData }
    }

    /// The line that a key belongs to, its name, and what the key is.
    pub fn of(key: &Key) -> Option<(Self, String, Part)> {
        let (name, rest) = names::split(key.name())?;
        let part = match rest.split_first()? {
            (&HOLD, numbers) => Part::Hold(Revision(u64::from_be_bytes(*numbers.first_chunk()?))),
            (&WAIT, _) => Part::Wait,
            (&other, _) => Part::Other(other),
        };
        let prefix = Key::from_bytes(&key.as_bytes()[..key.as_bytes().len() - rest.len()])?;
        Some((Self { prefix, terms: PhantomData }, name, part))
    }

    /// What all its keys begin with, family byte first.
    pub fn prefix(&self) -> &[u8] {
        self.prefix.as_bytes()
    }

    /// What its timers begin with.
    pub fn timer(&self, what: &[u8]) -> Vec<u8> {
        [self.prefix.name(), what].concat()
    }

    /// Holds in the order of their grants.
    pub fn holds<'a>(
        &self,
        view: View<'a>,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, Hold<T>)> + use<'a, T> {
        view.under(self.part(HOLD)).map(|(key, record)| (key, decoded(&record.value)))
    }

    /// The first of them. Costs less than the first of all.
    pub fn first_hold(&self, view: View<'_>) -> Option<Hold<T>> {
        view.front(self.part(HOLD)).next().map(|(_, record)| decoded(&record.value))
    }

    /// The hold with this token.
    pub fn hold_of(&self, view: View<'_>, token: Revision) -> Option<Hold<T>> {
        let own = self.key(HOLD, &token.0.to_be_bytes());
        view.front(own).next().map(|(_, record)| decoded(&record.value))
    }

    /// Those in the way of a claim, at most [`BLOCKERS`]: who holds; where nobody does that it cannot share with, who is
    /// ahead of its key in the line, or of its end.
    pub fn blockers(&self, view: View<'_>, terms: &T, key: Option<&Key>) -> Vec<Hold<T>> {
        let holders = self.holds(view).map(|(_, hold)| hold).take(BLOCKERS);
        let holders: Vec<_> = holders.filter(|hold| !hold.terms.shares(terms)).collect();
        if !holders.is_empty() {
            return holders;
        }
        let ahead = self.waiters(view).take_while(|(other, _)| key.is_none_or(|key| *other < key));
        ahead.take(BLOCKERS).map(|(_, waiter)| waiter.ahead()).collect()
    }

    /// The line in the order of the grants to come.
    pub fn waiters<'a>(
        &self,
        view: View<'a>,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, Waiter<T>)> + use<'a, T> {
        view.under(self.part(WAIT)).map(|(key, record)| (key, decoded(&record.value)))
    }

    /// Who is granted next. Costs less than the first of all.
    pub fn first_waiter(&self, view: View<'_>) -> Option<(Key, Waiter<T>)> {
        let (key, record) = view.front(self.part(WAIT)).next()?;
        Some((key.clone(), decoded(&record.value)))
    }

    /// Those of the line from a place to before another; without one, to the end.
    pub fn waiters_between<'a>(
        &self,
        view: View<'a>,
        start: &Key,
        end: Option<&Key>,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, Waiter<T>)> + use<'a, T> {
        let end = end.cloned().or_else(|| Key::after_prefix(self.part(WAIT).as_bytes()));
        let span = view.span(start, end.as_ref());
        span.map(|(key, record)| (key, decoded(&record.value)))
    }

    /// Before the first place of the line.
    pub fn front(&self) -> Key {
        self.part(WAIT)
    }

    /// The rank of a waiter, from its key.
    pub fn rank(&self, key: &Key) -> u8 {
        key.as_bytes()[self.prefix().len() + 1]
    }

    pub fn counts(&self, view: View<'_>) -> Counts {
        match view.get(&self.part(COUNT)) {
            Some(record) => decoded(&record.value),
            None => self.without_counts(view),
        }
    }

    /// What no counts mean: nobody waits, and whoever holds was the first.
    fn without_counts(&self, view: View<'_>) -> Counts {
        Counts { granted: u64::from(self.first_hold(view).is_some()), ..Counts::default() }
    }

    /// Write the counts, after the hold they are about; those that say nothing leave no key.
    pub fn set_counts(&self, txn: &mut Txn<'_>, counts: Counts) {
        let key = self.part(COUNT);
        if counts == self.without_counts(txn.view()) {
            txn.delete(&key, Cause::Command);
        } else {
            txn.put(key, row(&counts), ContentType::Binary, None);
        }
    }

    /// The same where nobody takes the place of who left: the counts of an object that is idle by that are never written.
    pub fn settle_counts(&self, txn: &mut Txn<'_>, counts: Counts) {
        if counts.waiting == 0 && self.first_hold(txn.view()).is_none() {
            txn.delete(&self.part(COUNT), Cause::Command);
        } else {
            self.set_counts(txn, counts);
        }
    }

    /// At most so many keys are there, of whatever part. None: nobody holds, nobody waits, nothing else is known of it.
    pub fn has_at_most(&self, view: View<'_>, keys: usize) -> bool {
        view.front(self.prefix.clone()).nth(keys).is_none()
    }

    /// Nobody holds and nobody waits.
    pub fn is_idle(&self, view: View<'_>) -> bool {
        self.first_hold(view).is_none() && self.first_waiter(view).is_none()
    }

    /// Forget the counts if nobody holds and nobody waits.
    pub fn tidy(&self, txn: &mut Txn<'_>) {
        if self.is_idle(txn.view()) {
            txn.delete(&self.part(COUNT), Cause::Command);
        }
    }

    /// A session's claim: the hold, if it has one.
    pub fn claim(&self, view: View<'_>, session: SessionId) -> Option<Claimed<T>> {
        let part = self.prefix().len();
        let own = view.attached_under(session, self.prefix());
        let mut claims = own.filter(|key| matches!(key.as_bytes()[part], HOLD | WAIT));
        let key = claims.next()?;
        let value = &view.get(key)?.value;
        Some(match key.as_bytes()[part] {
            HOLD => Claimed::Hold(decoded(value)),
            _ => Claimed::Wait(key.clone(), decoded(value)),
        })
    }

    /// A session's place in the line, also of one that holds as well.
    pub fn waiter(&self, view: View<'_>, session: SessionId) -> Option<(Key, Waiter<T>)> {
        let key = view.attached_under(session, self.part(WAIT).as_bytes()).next()?;
        Some((key.clone(), decoded(&view.get(key)?.value)))
    }

    /// How many are ahead of a waiter. Costs the way to the nearer end of the line.
    pub fn ahead(&self, view: View<'_>, key: &Key) -> u64 {
        let line = view.under(self.part(WAIT));
        ahead(line.map(|(key, _)| key), key, || self.counts(view).waiting)
    }

    /// Where a waiter is. Costs the way to the nearer end of the line.
    pub fn place(&self, view: View<'_>, key: &Key, waiter: Waiter<T>) -> Place<T> {
        let blockers = self.blockers(view, &waiter.terms, Some(key));
        waiter.place(self.ahead(view, key) + 1, blockers)
    }

    /// Make it a holder now. The counts are written by the caller.
    pub fn grant(&self, txn: &mut Txn<'_>, counts: &mut Counts, waiter: Waiter<T>) -> Hold<T> {
        let (token, since, ordinal, count) = (txn.revision(), txn.now(), counts.granted, 1);
        let lock_delay = txn.view().session(waiter.session).and_then(|session| session.lock_delay);
        let hold = Hold { token, since, ordinal, count, lock_delay, ..waiter.ahead() };
        counts.granted += 1;
        counts.used += hold.terms.units();
        self.set_hold(txn, &hold);
        hold
    }

    /// Grant to the waiter of a key: it leaves the line.
    pub fn grant_waiting(
        &self,
        txn: &mut Txn<'_>,
        counts: &mut Counts,
        key: &Key,
        waiter: Waiter<T>,
    ) -> Hold<T> {
        txn.delete(key, Cause::Command);
        counts.waiting = counts.waiting.saturating_sub(1);
        self.grant(txn, counts, waiter)
    }

    /// Write a hold, new or changed.
    pub fn set_hold(&self, txn: &mut Txn<'_>, hold: &Hold<T>) {
        txn.put(self.hold_key(hold), row(hold), ContentType::Binary, Some(hold.session));
    }

    pub fn hold_key(&self, hold: &Hold<T>) -> Key {
        self.key(HOLD, &hold.numbers())
    }

    /// End a hold. One that was granted in this very entry stays: or its token would be granted twice.
    ///
    /// # Errors
    /// [`StoreRefusal::DuplicateKey`].
    pub fn end(
        &self,
        txn: &mut Txn<'_>,
        counts: &mut Counts,
        hold: &Hold<T>,
        cause: Cause,
    ) -> Result<(), StoreRefusal> {
        let key = self.hold_key(hold);
        if hold.token == txn.revision() {
            return Err(StoreRefusal::DuplicateKey(key));
        }
        txn.delete(&key, cause);
        counts.used = counts.used.saturating_sub(hold.terms.units());
        Ok(())
    }

    /// Put it into the line, behind those of its rank and before those of a greater one.
    pub fn join(&self, txn: &mut Txn<'_>, counts: &mut Counts, waiter: &Waiter<T>, rank: u8) {
        counts.waiting += 1;
        // Two arrivals of one entry have one revision.
        let (arrival, number) = (txn.revision().0.to_be_bytes(), u64::from(txn.number()).to_be_bytes());
        let key = self.part(WAIT).within(&[&[rank], &arrival, &number]);
        txn.put(key, row(waiter), ContentType::Binary, Some(waiter.session));
    }

    /// Take a waiter out of the line.
    #[allow(clippy::unused_self, reason = "reads like the rest of what a line does")]
    pub fn leave(&self, txn: &mut Txn<'_>, counts: &mut Counts, key: &Key) {
        txn.delete(key, Cause::Command);
        counts.waiting = counts.waiting.saturating_sub(1);
    }

    /// Sessions ended, and these of their keys are gone: correct the counts.
    pub fn left(&self, txn: &mut Txn<'_>, waiters: u64, units: u64) {
        if waiters > 0 || units > 0 {
            let mut counts = self.counts(txn.view());
            counts.waiting = counts.waiting.saturating_sub(waiters);
            counts.used = counts.used.saturating_sub(units);
            self.set_counts(txn, counts);
        }
    }

    pub fn key(&self, part: u8, rest: &[u8]) -> Key {
        self.prefix.within(&[&[part], rest])
    }

    /// A key that has nothing behind its part, and what all keys of a part begin with.
    pub fn part(&self, part: u8) -> Key {
        self.prefix.within(&[&[part]])
    }
}

impl<T> Hold<T> {
    /// What makes its key: grants of one entry have one token, and are told apart by their order.
    pub(crate) fn numbers(&self) -> [u8; 16] {
        let both = u128::from(self.token.0) << 64 | u128::from(self.ordinal);
        both.to_be_bytes()
    }
}

impl<T> Waiter<T> {
    /// As one that is in the way of those behind it: it has no token yet.
    fn ahead(self) -> Hold<T> {
        let Self { session, owner, terms, since, meta, .. } = self;
        let (token, ordinal, count, overdue) = (Revision(0), 0, 0, false);
        Hold {
            session,
            owner,
            terms,
            token,
            since,
            meta,
            ordinal,
            count,
            overdue,
            lock_delay: None,
            overdue_at: None,
        }
    }

    pub fn place(self, position: u64, blockers: Vec<Hold<T>>) -> Place<T> {
        let Self { session, owner, terms, since, .. } = self;
        Place { session, owner, terms, position, since, blockers, closed_until: None }
    }
}

impl<T: Terms> Claimed<T> {
    pub fn terms(&self) -> &T {
        match self {
            Self::Hold(hold) => &hold.terms,
            Self::Wait(_, waiter) => &waiter.terms,
        }
    }
}

/// How many of a line are ahead of one of them, of so many in all: counted from both ends at once.
pub(crate) fn ahead<'a>(
    mut line: impl DoubleEndedIterator<Item = &'a Key>,
    one: &Key,
    in_all: impl FnOnce() -> u64,
) -> u64 {
    let mut passed = 0;
    loop {
        if line.next().is_none_or(|first| first == one) {
            return passed;
        }
        passed += 1;
        if line.next_back().is_none_or(|last| last == one) {
            return in_all().saturating_sub(passed);
        }
    }
}

pub(crate) fn decoded<'b, T: Decode<'b, ()>>(value: &'b [u8]) -> T {
    minicbor::decode(value).expect("only a line writes its keys")
}
