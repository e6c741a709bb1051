//! Would waiting close a cycle? The graph of who waits for whom, searched when a session waits that holds already.

use std::collections::{BTreeMap, VecDeque};

use coracle_store::{Key, SessionId, View};
use minicbor::{Decode, Encode};

use super::{FAMILY, Lock, Mode, Refusal};
use crate::line::{Part, Waiter, decoded};

/// Sessions looked at in one search. A cycle through more is not found; its waits end by their own time.
pub const REACH: usize = 1_000;

/// Who of those that wait is ahead of a claim.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ahead<'a> {
    Nobody,
    Before(&'a Key),
    All,
}

/// A session, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    /// The lock it waits for. Another of the cycle holds it, or will get it first.
    #[n(2)]
    pub lock: Box<str>,
}

/// Refuse a claim of `session` on these locks if somebody it would wait for waits, in the end, for the session.
pub(super) fn check(
    view: View<'_>,
    session: SessionId,
    owner: &str,
    wanted: &[(Box<str>, Mode)],
    ahead_of_it: Ahead<'_>,
) -> Result<(), Refusal> {
    // Nobody waits for one that holds nothing that is waited for.
    let held = view.attached_under(session, &[FAMILY.0]).filter_map(Lock::of);
    let is_waited_for = |lock: &Lock| lock.waiters(view).next().is_some();
    let mut held = held.filter(|(_, _, part)| matches!(part, Part::Hold(_)));
    if !held.any(|(lock, ..)| is_waited_for(&lock)) {
        return Ok(());
    }
    // From whom each session was reached, and by which lock.
    let mut reached: BTreeMap<SessionId, Link> = BTreeMap::new();
    let mut ahead = VecDeque::new();
    let mut reach = |from: Link, blockers: Vec<SessionId>, ahead: &mut VecDeque<SessionId>| {
        for blocker in blockers {
            if reached.len() < REACH && !reached.contains_key(&blocker) {
                reached.insert(blocker, from.clone());
                ahead.push_back(blocker);
            }
        }
    };
    for (name, mode) in wanted {
        let from = Link { session, owner: owner.into(), lock: name.clone() };
        let blockers = blockers(view, name, *mode, ahead_of_it).filter(|other| *other != session).collect();
        reach(from, blockers, &mut ahead);
    }
    while let Some(other) = ahead.pop_front() {
        if other == session {
            break;
        }
        for (name, key, waiter) in waits(view, other) {
            let from = Link { session: other, owner: waiter.owner.clone(), lock: name.as_str().into() };
            let blockers = blockers(view, &name, waiter.terms, Ahead::Before(key));
            reach(from, blockers.filter(|blocker| *blocker != other).collect(), &mut ahead);
        }
    }
    let mut cycle = Vec::new();
    let mut at = session;
    while let Some(link) = reached.get(&at) {
        cycle.push(link.clone());
        at = link.session;
        if at == session {
            cycle.reverse();
            return Err(Refusal::WouldDeadlock(cycle));
        }
    }
    Ok(())
}

/// What a session waits for.
fn waits(view: View<'_>, session: SessionId) -> impl Iterator<Item = (String, &Key, Waiter<Mode>)> {
    view.attached_under(session, &[FAMILY.0]).filter_map(move |key| {
        let (_, name, _) = Lock::of(key).filter(|(_, _, part)| *part == Part::Wait)?;
        Some((name, key, decoded(&view.get(key)?.value)))
    })
}

/// Who is before a claim in this mode.
fn blockers<'a>(
    view: View<'a>,
    name: &str,
    mode: Mode,
    ahead: Ahead<'a>,
) -> impl Iterator<Item = SessionId> + use<'a> {
    let lock = Lock::new(name);
    let holders = lock.holds(view).filter(move |(_, hold)| !mode.joins(Some(hold.terms)));
    // Somebody ahead who is not yet granted: sharing or not, it is first.
    let waiters = lock.waiters(view).take_while(move |(key, _)| match ahead {
        Ahead::Nobody => false,
        Ahead::Before(place) => *key < place,
        Ahead::All => true,
    });
    holders.map(|(_, hold)| hold.session).chain(waiters.map(|(_, waiter)| waiter.session)).take(REACH)
}
