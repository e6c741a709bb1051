//! New claims on locks: one, one in another mode, several together.

use coracle_store::command::Attach;
use coracle_store::limits::{KEY_OVERHEAD, META_BYTES, NAME_BYTES};
use coracle_store::{Cause, Refusal as StoreRefusal, SessionId, Txn, View};

use super::advance::{self, ARRIVES, CONVERTS};
use super::{Acquire, AcquireMany, Hold, Lock, Mode, Outcome, Refusal, TOGETHER, WAITERS, config, cycle};
use crate::Turn;
use crate::bounded;
use crate::line::{Claimed, Counts, Waiter};

pub(super) fn acquire(txn: &mut Txn<'_>, wanted: Acquire) -> Result<Outcome, StoreRefusal> {
    let Acquire { lock: name, mode, attach, owner, meta, wait, reentrant, convert: _ } = wanted;
    bounded("lock", name.len(), 1, NAME_BYTES)?;
    bounded("owner", owner.len(), 0, NAME_BYTES)?;
    bounded("meta", meta.len(), 0, META_BYTES)?;
    let session = session(&attach)?;
    let (lock, view) = (Lock::new(&name), txn.view());
    // One look tells of most locks that there is nothing to look at.
    let idle = lock.has_at_most(view, 0);
    // Asking again is the same claim.
    match if idle { None } else { lock.claim(view, session) } {
        Some(Claimed::Wait(_, waiter)) if !waiter.together.is_empty() => {
            return Err(Refusal::OtherClaim(name).into());
        }
        Some(claimed) if *claimed.terms() != mode => {
            return Err(Refusal::ModeMismatch(*claimed.terms()).into());
        }
        Some(Claimed::Hold(hold)) if reentrant && hold.owner != owner => {
            return Err(Refusal::OtherClaim(name).into());
        }
        Some(Claimed::Hold(hold)) if reentrant => {
            let hold = Hold { count: hold.count.saturating_add(1), ..hold };
            lock.set_hold(txn, &hold);
            return Ok(Outcome::Held(hold));
        }
        Some(Claimed::Hold(hold)) => return Ok(Outcome::Held(hold)),
        Some(Claimed::Wait(key, waiter)) => {
            return Ok(Outcome::Waiting(advance::place(&lock, view, &key, waiter)));
        }
        None => {}
    }
    alive(view, &attach, session)?;
    let (mut counts, closed, held) = if idle {
        (Counts::default(), None, None)
    } else {
        (lock.counts(view), config::closed(&lock, view), advance::mode(&lock, view))
    };
    let free = counts.waiting == 0 && mode.joins(held) && closed.is_none();
    if !free && !wait {
        return Err(match closed {
            Some(until) if held.is_none() => Refusal::Closed(until, counts.waiting),
            _ => Refusal::Held(lock.blockers(view, &mode, None), counts.waiting),
        }
        .into());
    }
    if !free && counts.waiting >= WAITERS {
        return Err(Refusal::TooManyWaiters(WAITERS).into());
    }
    txn.attach(&attach, None)?;
    let counter = if free || counts.waiting > 0 { 0 } else { KEY_OVERHEAD + name.len() };
    txn.make_room(KEY_OVERHEAD + 64 + name.len() + owner.len() + meta.len() + counter)?;
    let waiter = Waiter { session, owner, terms: mode, since: txn.now(), meta, together: Vec::new() };
    if free {
        return Ok(Outcome::Held(if idle {
            lock.grant(txn, &mut counts, waiter)
        } else {
            advance::grant(txn, &lock, waiter)
        }));
    }
    let blockers = lock.blockers(txn.view(), &mode, None);
    lock.join(txn, &mut counts, &waiter, ARRIVES);
    lock.set_counts(txn, counts);
    cycle::check(txn.view(), session)?;
    let mut place = waiter.place(counts.waiting, blockers);
    place.closed_until = closed;
    Ok(Outcome::Waiting(place))
}

/// Change the mode of a hold: to shared at once, to exclusive once nobody else holds.
pub(super) fn convert(txn: &mut Txn<'_>, wanted: Acquire) -> Result<Outcome, StoreRefusal> {
    let Acquire { lock: name, mode, attach, owner, wait, .. } = wanted;
    let session = session(&attach)?;
    let (lock, view) = (Lock::new(&name), txn.view());
    let Some(Claimed::Hold(hold)) = lock.claim(view, session) else { return Err(Refusal::NotHolder.into()) };
    if hold.terms == mode {
        return Ok(Outcome::Held(hold));
    }
    if mode == Mode::Shared {
        let hold = Hold { terms: mode, ..hold };
        lock.set_hold(txn, &hold);
        advance::advance(txn, lock);
        return Ok(Outcome::Held(hold));
    }
    if let Some((key, waiter)) = lock.waiter(view, session) {
        return Ok(Outcome::Waiting(advance::place_of_convert(&lock, view, &key, waiter)));
    }
    let mut counts = lock.counts(view);
    let others: Vec<Hold> =
        lock.blockers(view, &mode, None).into_iter().filter(|other| other.session != session).collect();
    let owner = if owner.is_empty() { hold.owner.clone() } else { owner };
    let (since, meta) = (txn.now(), hold.meta.clone());
    let waiter = Waiter { session, owner, terms: mode, since, meta, together: Vec::new() };
    if others.is_empty() {
        lock.end(txn, &mut counts, &hold, Cause::Command)?;
        let converted = lock.grant(txn, &mut counts, waiter);
        let converted = advance::go_on(txn, &lock, &hold, converted);
        lock.set_counts(txn, counts);
        // Those who would have shared it wait for it now.
        cycle::check(txn.view(), session)?;
        return Ok(Outcome::Held(converted));
    }
    if let Some((_, first)) = lock.first_waiter(view).filter(|(key, _)| lock.rank(key) == CONVERTS) {
        // Each would wait for the other to stop sharing.
        let link = |session, owner: &str| cycle::Link { session, owner: owner.into(), lock: name.clone() };
        let cycle = vec![link(session, &waiter.owner), link(first.session, &first.owner)];
        return Err(Refusal::WouldDeadlock(cycle).into());
    }
    if !wait {
        return Err(Refusal::Held(others, counts.waiting).into());
    }
    txn.attach(&Attach::Session(session), None)?;
    txn.make_room(2 * KEY_OVERHEAD + 64 + name.len() + waiter.owner.len() + waiter.meta.len())?;
    lock.join(txn, &mut counts, &waiter, CONVERTS);
    lock.set_counts(txn, counts);
    cycle::check(txn.view(), session)?;
    Ok(Outcome::Waiting(waiter.place(1, others)))
}

/// All of them at once, or stand in all the lines until then.
pub(super) fn acquire_many(txn: &mut Txn<'_>, wanted: AcquireMany) -> Result<Outcome, StoreRefusal> {
    let AcquireMany { mut locks, attach, owner, wait } = wanted;
    bounded("locks", locks.len(), 1, TOGETHER)?;
    bounded("owner", owner.len(), 0, NAME_BYTES)?;
    locks.sort_by(|(one, _), (other, _)| one.cmp(other));
    if locks.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(StoreRefusal::Malformed);
    }
    for (name, _) in &locks {
        bounded("lock", name.len(), 1, NAME_BYTES)?;
    }
    let session = session(&attach)?;
    let together: Vec<Box<str>> = locks.iter().map(|(name, _)| name.clone()).collect();
    let view = txn.view();
    if let Some(outcome) = same_claim(view, &locks, &together, session)? {
        return Ok(outcome);
    }
    alive(view, &attach, session)?;
    let mut in_the_way = Vec::new();
    let (mut free, mut waiting, mut closed) = (true, 0, None);
    for (name, mode) in &locks {
        let lock = Lock::new(name);
        let counts = lock.counts(view);
        let shut = config::closed(&lock, view);
        closed = closed.max(shut);
        waiting = waiting.max(counts.waiting);
        if !mode.joins(advance::mode(&lock, view)) || counts.waiting > 0 || shut.is_some() {
            free = false;
            in_the_way.extend(lock.blockers(view, mode, None));
        }
    }
    in_the_way.truncate(crate::line::BLOCKERS);
    if !free && !wait {
        return Err(match closed {
            Some(until) if in_the_way.is_empty() => Refusal::Closed(until, waiting),
            _ => Refusal::Held(in_the_way, waiting),
        }
        .into());
    }
    if !free && waiting >= WAITERS {
        return Err(Refusal::TooManyWaiters(WAITERS).into());
    }
    let names: usize = together.iter().map(|name| name.len()).sum();
    if let Attach::Private(_) = &attach {
        txn.attach(&attach, None)?;
    } else if view.attached(session).count() + locks.len() > coracle_store::limits::HOLDS {
        return Err(StoreRefusal::TooManyHolds(session, coracle_store::limits::HOLDS as u64));
    }
    txn.make_room(locks.len() * (2 * KEY_OVERHEAD + 64 + owner.len() + names) + 2 * names)?;
    let since = txn.now();
    let waiter = |terms, together: &[Box<str>]| {
        let (owner, together) = (owner.clone(), together.to_vec());
        Waiter { session, owner, terms, since, meta: "".into(), together }
    };
    if free {
        let grant = |(name, mode): (Box<str>, Mode)| {
            let hold = advance::grant(txn, &Lock::new(&name), waiter(mode, &[]));
            (name, hold)
        };
        return Ok(Outcome::HeldMany(locks.into_iter().map(grant).collect()));
    }
    for (name, mode) in &locks {
        let lock = Lock::new(name);
        let mut counts = lock.counts(txn.view());
        lock.join(txn, &mut counts, &waiter(*mode, &together), ARRIVES);
        lock.set_counts(txn, counts);
    }
    cycle::check(txn.view(), session)?;
    let mut place = waiter(locks[0].1, &[]).place(waiting + 1, in_the_way);
    place.closed_until = closed;
    Ok(Outcome::Waiting(place))
}

/// How the same claim on several locks stands, if it was made before.
fn same_claim(
    view: View<'_>,
    locks: &[(Box<str>, Mode)],
    together: &[Box<str>],
    session: SessionId,
) -> Result<Option<Outcome>, StoreRefusal> {
    let mut claims = 0;
    for (name, mode) in locks {
        match Lock::new(name).claim(view, session) {
            None => {}
            Some(claimed) if *claimed.terms() != *mode => {
                return Err(Refusal::ModeMismatch(*claimed.terms()).into());
            }
            Some(Claimed::Wait(_, waiter)) if waiter.together != together => {
                return Err(Refusal::OtherClaim(name.clone()).into());
            }
            Some(_) => claims += 1,
        }
    }
    if claims == 0 {
        return Ok(None);
    }
    if let Some((name, _)) = locks.iter().find(|(name, _)| Lock::new(name).claim(view, session).is_none()) {
        // It has some of them and not this one: what it has, it has by another claim.
        return Err(Refusal::OtherClaim(name.clone()).into());
    }
    Ok(match super::poll_many(view, together, session) {
        Turn::Granted(holds) => Some(Outcome::HeldMany(holds)),
        Turn::Waiting(place) => Some(Outcome::Waiting(place)),
        Turn::Gone => None,
    })
}

fn session(attach: &Attach) -> Result<SessionId, StoreRefusal> {
    match attach {
        Attach::Session(id) => Ok(*id),
        Attach::Private(open) => Ok(open.id),
        Attach::None | Attach::Keep => Err(StoreRefusal::Malformed),
    }
}

fn alive(view: View<'_>, attach: &Attach, session: SessionId) -> Result<(), StoreRefusal> {
    if matches!(attach, Attach::Session(_)) && view.session(session).is_none() {
        return Err(StoreRefusal::SessionExpired(session));
    }
    Ok(())
}
