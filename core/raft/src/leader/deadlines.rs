//! The leader's clock of sessions: when each runs out, on the monotonic clock, in memory only.
//!
//! A new leader gives every session its full time once. Renewals move a deadline and nothing else; expiry is proposed
//! to the log, and until that entry is decided the session is *expiring*: a renewal waits for the decision, so that
//! none is acknowledged for a session that an entry already in the log will end. (etcd#15247 is what happens without.)
//!
//! A session that has missed renewals for two thirds of its time is *suspect*: that is told to the log, too, and so is
//! the renewal that ends it. Private sessions are not: nobody may ever mean to renew them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use coracle_store::command::Expiry;
use coracle_store::{Session, SessionId};

/// How soon to doubt a session again, if the entry that does has not come to be applied.
const DOUBT_AGAIN: Duration = Duration::from_secs(1);

/// Deadlines of all living sessions.
#[derive(Default)]
pub struct Deadlines {
    sessions: BTreeMap<SessionId, Deadline>,
    /// When to look at a session again. A renewal does not touch it: the stale time is found and moved when it comes.
    queue: BTreeSet<(Instant, SessionId)>,
    /// Suspect by the log, and renewed since.
    renewed: BTreeSet<SessionId>,
}

struct Deadline {
    at: Instant,
    ttl: Duration,
    generation: u64,
    queued: Instant,
    expiring: bool,
    private: bool,
    /// By the log.
    suspect: bool,
}

impl Deadline {
    /// When there is something to say of it if nobody renews it.
    fn next(&self) -> Instant {
        if self.private || self.suspect { self.at } else { self.doubtful() }
    }

    /// Two thirds of the time are over.
    fn doubtful(&self) -> Instant {
        self.at.checked_sub(self.ttl / 3).unwrap_or(self.at)
    }
}

/// What a renewal met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Good for this long from the given arrival.
    Renewed(Duration),
    /// An expiry is in the log: ask again when it is decided.
    Expiring,
    /// Not in the table.
    Unknown,
}

/// What the log has to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Out of time.
    pub expired: Vec<Expiry>,
    /// Two thirds of their time are over.
    pub suspect: Vec<Expiry>,
    /// Suspect until now.
    pub renewed: Vec<SessionId>,
}

impl Deadlines {
    /// Give a session its full time from `now`. Again for a known one, if its generation has risen.
    pub fn arm(&mut self, session: &Session, now: Instant) {
        let ttl = Duration::from_millis(session.ttl.0);
        let at = now + ttl;
        let (id, suspect) = (session.id, session.suspect.is_some());
        if let Some(known) = self.sessions.get_mut(&id) {
            if session.generation > known.generation {
                known.generation = session.generation;
                known.at = known.at.max(at);
                known.expiring = false;
            }
            known.suspect = suspect;
            // Renewed while the doubt was under way.
            if suspect && known.doubtful() > now {
                self.renewed.insert(id);
            }
            return;
        }
        let (generation, private) = (session.generation, session.private);
        let mut deadline = Deadline { at, ttl, generation, queued: at, expiring: false, private, suspect };
        deadline.queued = deadline.next();
        self.queue.insert((deadline.queued, id));
        self.sessions.insert(id, deadline);
    }

    /// The session has ended.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(known) = self.sessions.remove(&id) {
            self.queue.remove(&(known.queued, id));
            self.renewed.remove(&id);
        }
    }

    /// Move the deadline to `arrival` + ttl, never back.
    pub fn renew(&mut self, id: SessionId, arrival: Instant) -> Renewal {
        match self.sessions.get_mut(&id) {
            None => Renewal::Unknown,
            Some(known) if known.expiring => Renewal::Expiring,
            Some(known) => {
                known.at = known.at.max(arrival + known.ttl);
                if known.suspect {
                    self.renewed.insert(id);
                }
                Renewal::Renewed(known.ttl)
            }
        }
    }

    /// Time left, zero if overdue.
    #[must_use]
    pub fn remaining(&self, id: SessionId, now: Instant) -> Option<Duration> {
        self.sessions.get(&id).map(|known| known.at.saturating_duration_since(now))
    }

    /// What is to be told of up to `limit` sessions. Those whose time has run out are marked as expiring.
    pub fn due(&mut self, now: Instant, limit: usize) -> Due {
        let mut due = Due::default();
        while due.expired.len() < limit && due.suspect.len() < limit {
            let Some(&(when, id)) = self.queue.first() else { break };
            if when > now {
                break;
            }
            self.queue.pop_first();
            let Some(known) = self.sessions.get_mut(&id) else { continue };
            let expiry = Expiry { session: id, generation: known.generation };
            if known.at <= now {
                known.expiring = true;
                due.expired.push(expiry);
                continue;
            }
            known.queued = known.next();
            if known.queued <= now {
                known.queued = known.at.min(now + DOUBT_AGAIN);
                due.suspect.push(expiry);
            }
            self.queue.insert((known.queued, id));
        }
        while due.renewed.len() < limit
            && let Some(id) = self.renewed.pop_first()
        {
            due.renewed.push(id);
        }
        due
    }

    /// The entry that would end these sessions is decided or lost. Those still here are looked at again at once.
    pub fn decided(&mut self, expiries: &[Expiry], now: Instant) {
        for expiry in expiries {
            if let Some(known) = self.sessions.get_mut(&expiry.session) {
                known.expiring = false;
                known.queued = known.next().max(now);
                self.queue.insert((known.queued, expiry.session));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_store::command::OnExpire;
    use coracle_store::{Millis, Principal, Timestamp};

    use super::*;

    fn session(id: u64, generation: u64) -> Session {
        // Nobody doubts a private one: these tests are about the end.
        Session {
            id: SessionId(id),
            ttl: Millis(9_000),
            name: "".into(),
            meta: "".into(),
            on_expire: OnExpire::Delete,
            owner: Principal("anonymous".into()),
            opened: Timestamp(0),
            generation,
            progress: None,
            note: None,
            private: true,
            lock_delay: None,
            stall_after: None,
            moved: None,
            stalled: None,
            suspect: None,
        }
    }

    fn expired(table: &mut Deadlines, now: Instant) -> Vec<Expiry> {
        table.due(now, 10).expired
    }

    fn open(id: u64, suspect: bool) -> Session {
        let suspect = suspect.then_some(Timestamp(1));
        Session { private: false, suspect, ..session(id, 1) }
    }

    const TTL: Duration = Duration::from_secs(9);

    #[test]
    fn a_renewal_moves_the_deadline_and_the_stale_place_in_the_queue_is_skipped() {
        let (mut table, t0) = (Deadlines::default(), Instant::now());
        table.arm(&session(1, 1), t0);
        assert_eq!(table.renew(SessionId(1), t0 + TTL / 2), Renewal::Renewed(TTL));
        assert_eq!(expired(&mut table, t0 + TTL), []);
        assert_eq!(expired(&mut table, t0 + TTL * 3 / 2), [Expiry { session: SessionId(1), generation: 1 }]);
        assert_eq!(expired(&mut table, t0 + TTL * 2), [], "proposed once");
    }

    #[test]
    fn a_renewal_waits_while_an_expiry_is_in_the_log() {
        let (mut table, t0) = (Deadlines::default(), Instant::now());
        table.arm(&session(1, 1), t0);
        let due = expired(&mut table, t0 + TTL);
        assert_eq!(table.renew(SessionId(1), t0 + TTL), Renewal::Expiring);
        table.decided(&due, t0 + TTL);
        assert_eq!(table.renew(SessionId(1), t0 + TTL), Renewal::Renewed(TTL), "the proposal was lost");
        assert_eq!(expired(&mut table, t0 + TTL), []);
        table.remove(SessionId(1));
        assert_eq!(table.renew(SessionId(1), t0 + TTL), Renewal::Unknown);
        assert!(table.queue.is_empty());
    }

    #[test]
    fn a_logged_renewal_rearms_and_ends_the_expiring_state() {
        let (mut table, t0) = (Deadlines::default(), Instant::now());
        table.arm(&session(1, 1), t0);
        let due = expired(&mut table, t0 + TTL);
        table.arm(&session(1, 2), t0 + TTL);
        table.decided(&due, t0 + TTL);
        assert_eq!(expired(&mut table, t0 + TTL), []);
        assert_eq!(expired(&mut table, t0 + TTL * 2), [Expiry { session: SessionId(1), generation: 2 }]);
    }

    #[test]
    fn whoever_misses_two_thirds_is_suspect_until_renewed() {
        let (mut table, t0) = (Deadlines::default(), Instant::now());
        let expiry = Expiry { session: SessionId(1), generation: 1 };
        table.arm(&open(1, false), t0);
        table.arm(&session(2, 1), t0);
        table.renew(SessionId(1), t0 + TTL / 3);
        assert_eq!(table.due(t0 + TTL * 2 / 3, 10), Due::default(), "renewed in time");
        let suspect = Due { suspect: vec![expiry], ..Due::default() };
        assert_eq!(table.due(t0 + TTL * 99 / 100, 10), Due::default());
        // The private one has run out.
        let due = table.due(t0 + TTL, 10);
        assert_eq!((due.suspect, due.expired.len()), (vec![expiry], 1));
        assert_eq!(table.due(t0 + TTL, 10), Due::default(), "told once");
        assert_eq!(table.due(t0 + TTL + DOUBT_AGAIN, 10), suspect, "and again if that was lost");
        table.arm(&open(1, true), t0 + TTL + DOUBT_AGAIN);
        assert_eq!(table.due(t0 + TTL + DOUBT_AGAIN * 2, 10), Due::default());
        let now = t0 + TTL + DOUBT_AGAIN * 2;
        assert_eq!(table.renew(SessionId(1), now), Renewal::Renewed(TTL));
        let renewed = Due { renewed: vec![SessionId(1)], ..Due::default() };
        assert_eq!(table.due(now, 10), renewed);
        assert_eq!(table.due(now, 10), Due::default());
        // The next renewal tells it again, until the log knows.
        table.renew(SessionId(1), now);
        assert_eq!(table.due(now, 10), renewed);
        table.arm(&open(1, false), now);
        table.renew(SessionId(1), now);
        assert_eq!(table.due(now, 10), Due::default());
        assert_eq!(table.due(now + TTL * 2 / 3, 10).suspect, [expiry]);
        assert_eq!(table.due(now + TTL, 10).expired, [expiry]);
    }

    #[test]
    fn a_renewal_that_crosses_the_doubt_clears_it() {
        let (mut table, t0) = (Deadlines::default(), Instant::now());
        table.arm(&open(1, false), t0);
        assert_eq!(table.due(t0 + TTL * 2 / 3, 10).suspect.len(), 1);
        table.renew(SessionId(1), t0 + TTL * 3 / 4);
        table.arm(&open(1, true), t0 + TTL * 4 / 5);
        assert_eq!(table.due(t0 + TTL * 4 / 5, 10).renewed, [SessionId(1)]);
        table.remove(SessionId(1));
        assert!(table.queue.is_empty() && table.renewed.is_empty());
    }
}
