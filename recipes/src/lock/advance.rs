//! How the line of a lock moves.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_store::{Cause, Key, Record, Refusal as StoreRefusal, Txn, View};

use super::{Hold, Lock, Mode, Place, config};
use crate::line::Terms as _;
use crate::line::{BLOCKERS, Counts, Part, Waiter, decoded};

/// Rank of one who goes from shared to exclusive, and of everybody else.
pub(super) const CONVERTS: u8 = 0;
pub(super) const ARRIVES: u8 = 1;

impl Mode {
    /// Whether it may hold beside holders of `held`.
    pub(super) fn joins(self, held: Option<Mode>) -> bool {
        held.is_none_or(|held| self.shares(&held))
    }
}

/// The mode a lock is held in; `None` if it is free.
pub(super) fn mode(lock: &Lock, view: View<'_>) -> Option<Mode> {
    lock.first_hold(view).map(|hold| hold.terms)
}

/// Where a waiter is, with those in its way. Costs the way to the nearer end of the line.
pub(super) fn place(lock: &Lock, view: View<'_>, key: &Key, waiter: Waiter<Mode>) -> Place {
    Place { closed_until: config::closed(lock, view), ..lock.place(view, key, waiter) }
}

/// The place of one that holds as well: not in its own way.
pub(super) fn place_of_convert(lock: &Lock, view: View<'_>, key: &Key, waiter: Waiter<Mode>) -> Place {
    let mut place = place(lock, view, key, waiter);
    place.blockers.retain(|hold| hold.session != place.session);
    place
}

/// The place farther behind, with the blockers of both.
pub(super) fn farther(one: Place, other: Place) -> Place {
    let (mut place, nearer) = if other.position > one.position { (other, one) } else { (one, other) };
    place.blockers.extend(nearer.blockers);
    place.blockers.truncate(BLOCKERS);
    place.closed_until = place.closed_until.max(nearer.closed_until);
    place
}

/// Grant outside of the line.
pub(super) fn grant(txn: &mut Txn<'_>, lock: &Lock, waiter: Waiter<Mode>) -> Hold {
    if lock.has_at_most(txn.view(), 0) {
        return lock.grant(txn, &mut Counts::default(), waiter);
    }
    let mut counts = lock.counts(txn.view());
    let hold = lock.grant(txn, &mut counts, waiter);
    lock.set_counts(txn, counts);
    config::watch_over(txn, lock, hold)
}

/// End a hold that its holder gives up.
pub(super) fn end(txn: &mut Txn<'_>, lock: &Lock, hold: &Hold, cause: Cause) -> Result<(), StoreRefusal> {
    take_away(txn, lock, hold, cause, Lock::settle_counts)?;
    config::close_after(txn, lock, hold, cause);
    Ok(())
}

/// End a hold, whatever is configured, for another to follow.
pub(super) fn end_now(txn: &mut Txn<'_>, lock: &Lock, hold: &Hold, cause: Cause) -> Result<(), StoreRefusal> {
    take_away(txn, lock, hold, cause, Lock::set_counts)
}

/// With the hold goes the wish to convert it.
fn take_away(
    txn: &mut Txn<'_>,
    lock: &Lock,
    hold: &Hold,
    cause: Cause,
    write: fn(&Lock, &mut Txn<'_>, Counts),
) -> Result<(), StoreRefusal> {
    let mut counts = lock.counts(txn.view());
    lock.end(txn, &mut counts, hold, cause)?;
    if let Some((key, _)) = lock.waiter(txn.view(), hold.session) {
        lock.leave(txn, &mut counts, &key);
    }
    write(lock, txn, counts);
    config::clear_overdue(txn, lock, hold);
    Ok(())
}

/// Take a waiter out of its line, and out of all the lines it stands in for one claim; they move. Answers who holds by
/// that.
pub(super) fn leave(txn: &mut Txn<'_>, lock: Lock, key: &Key, waiter: &Waiter<Mode>) -> Vec<Hold> {
    let mut left = vec![lock];
    if waiter.together.is_empty() {
        leave_one(txn, &left[0], key);
    } else {
        left = waiter.together.iter().map(|name| Lock::new(name)).collect();
        for lock in &left {
            if let Some((key, _)) = lock.waiter(txn.view(), waiter.session) {
                leave_one(txn, lock, &key);
            }
        }
    }
    move_all(txn, left)
}

fn leave_one(txn: &mut Txn<'_>, lock: &Lock, key: &Key) {
    let mut counts = lock.counts(txn.view());
    lock.leave(txn, &mut counts, key);
    lock.set_counts(txn, counts);
}

/// Grant to the head of the line as long as the lock admits it; answers the new holds. Touches no other waiter.
pub(super) fn advance(txn: &mut Txn<'_>, lock: Lock) -> Vec<Hold> {
    move_all(txn, vec![lock])
}

/// The same for many: a claim on several locks that is granted frees the way behind it in each of their lines.
fn move_all(txn: &mut Txn<'_>, mut open: Vec<Lock>) -> Vec<Hold> {
    let mut granted = Vec::new();
    while let Some(lock) = open.pop() {
        if config::closed(&lock, txn.view()).is_none() {
            move_one(txn, &lock, &mut granted, &mut open);
        }
        lock.tidy(txn);
    }
    granted
}

fn move_one(txn: &mut Txn<'_>, lock: &Lock, granted: &mut Vec<Hold>, open: &mut Vec<Lock>) {
    let mut counts = lock.counts(txn.view());
    let mut present = mode(lock, txn.view());
    while let Some((key, waiter)) = lock.first_waiter(txn.view()) {
        if lock.rank(&key) == CONVERTS {
            let Some(hold) = alone(lock, txn.view(), &waiter) else { break };
            present = Some(waiter.terms);
            txn.delete(&lock.hold_key(&hold), Cause::Command);
            // The hold goes on in the other mode, with what it has.
            let waiter = Waiter { meta: hold.meta.clone(), ..waiter };
            let converted = lock.grant_waiting(txn, &mut counts, &key, waiter);
            granted.push(go_on(txn, lock, &hold, converted));
        } else if waiter.together.is_empty() {
            if !waiter.terms.joins(present) {
                break;
            }
            present = Some(waiter.terms);
            let hold = lock.grant_waiting(txn, &mut counts, &key, waiter);
            granted.push(config::watch_over(txn, lock, hold));
        } else {
            // All the locks count for themselves.
            lock.set_counts(txn, counts);
            let Some(places) = at_the_head_of_all(txn.view(), &waiter) else { return };
            for (other, key, waiter) in places {
                let mut counts = other.counts(txn.view());
                let hold = other.grant_waiting(txn, &mut counts, &key, waiter);
                other.set_counts(txn, counts);
                granted.push(config::watch_over(txn, &other, hold));
                if other.prefix() != lock.prefix() {
                    open.push(other);
                }
            }
            counts = lock.counts(txn.view());
            present = mode(lock, txn.view());
        }
    }
    lock.set_counts(txn, counts);
}

/// A hold goes on as another: as often taken, and watched over from now on.
pub(super) fn go_on(txn: &mut Txn<'_>, lock: &Lock, before: &Hold, converted: Hold) -> Hold {
    config::clear_overdue(txn, lock, before);
    let converted = Hold { count: before.count, ..converted };
    lock.set_hold(txn, &converted);
    config::watch_over(txn, lock, converted)
}

/// The shared hold that shall become exclusive, if nobody else holds.
fn alone(lock: &Lock, view: View<'_>, waiter: &Waiter<Mode>) -> Option<Hold> {
    let mut holds = lock.holds(view);
    let (_, hold) = holds.next()?;
    // One granted in this very entry stays for now: or its token would be granted twice.
    (hold.session == waiter.session && holds.next().is_none() && hold.token < view.revision().next())
        .then_some(hold)
}

/// The places of a claim on several locks, if it could be granted now.
pub(super) fn at_the_head_of_all(
    view: View<'_>,
    waiter: &Waiter<Mode>,
) -> Option<Vec<(Lock, Key, Waiter<Mode>)>> {
    let place = |name: &str| {
        let lock = Lock::new(name);
        let (key, head) = lock.first_waiter(view)?;
        let admits = head.session == waiter.session
            && head.terms.joins(mode(&lock, view))
            && config::closed(&lock, view).is_none();
        admits.then_some((lock, key, head))
    };
    waiter.together.iter().map(|name| place(name)).collect()
}

/// Sessions ended and their claims are gone: let each line close up, then move.
pub(super) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], cause: Cause) {
    struct Gone {
        lock: Lock,
        waiters: u64,
        holds: Vec<Hold>,
    }
    let mut locks: BTreeMap<String, Gone> = BTreeMap::new();
    for (key, record) in gone {
        let Some((lock, name, part)) = Lock::of(key) else { continue };
        let gone = locks.entry(name).or_insert(Gone { lock, waiters: 0, holds: Vec::new() });
        match part {
            Part::Wait => gone.waiters += 1,
            Part::Hold(_) => gone.holds.push(decoded(&record.value)),
            Part::Other(_) => {}
        }
    }
    // In the order of their names, first of all to be moved.
    let mut left = Vec::new();
    for Gone { lock, waiters, holds } in locks.into_values().rev() {
        lock.left(txn, waiters, 0);
        for hold in &holds {
            config::close_after(txn, &lock, hold, cause);
        }
        left.push(lock);
    }
    move_all(txn, left);
}
