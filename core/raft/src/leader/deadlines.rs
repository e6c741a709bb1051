//! The leader's clock of sessions: when each runs out, on the monotonic clock, in memory only.
//!
//! A new leader gives every session its full time once. Renewals move a deadline and nothing else; expiry is proposed
//! to the log, and until that entry is decided the session is *expiring*: a renewal waits for the decision, so that
//! none is acknowledged for a session that an entry already in the log will end. (etcd#15247 is what happens without.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use coracle_store::command::Expiry;
use coracle_store::{Session, SessionId};

/// Deadlines of all living sessions.
#[derive(Default)]
pub struct Deadlines {
    sessions: BTreeMap<SessionId, Deadline>,
    /// When to look at a session again. A renewal does not touch it: the stale time is found and moved when it comes.
    queue: BTreeSet<(Instant, SessionId)>,
}

struct Deadline {
    at: Instant,
    ttl: Duration,
    generation: u64,
    queued: Instant,
    expiring: bool,
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

impl Deadlines {
    /// Give a session its full time from `now`. Again for a known one, if its generation has risen.
    pub fn arm(&mut self, session: &Session, now: Instant) {
        let ttl = Duration::from_millis(session.ttl.0);
        let at = now + ttl;
        if let Some(known) = self.sessions.get_mut(&session.id) {
            if session.generation > known.generation {
                known.generation = session.generation;
                known.at = known.at.max(at);
                known.expiring = false;
            }
            return;
        }
        let generation = session.generation;
        self.sessions.insert(session.id, Deadline { at, ttl, generation, queued: at, expiring: false });
        self.queue.insert((at, session.id));
    }

    /// The session has ended.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(known) = self.sessions.remove(&id) {
            self.queue.remove(&(known.queued, id));
        }
    }

    /// Move the deadline to `arrival` + ttl, never back.
    pub fn renew(&mut self, id: SessionId, arrival: Instant) -> Renewal {
        match self.sessions.get_mut(&id) {
            None => Renewal::Unknown,
            Some(known) if known.expiring => Renewal::Expiring,
            Some(known) => {
                known.at = known.at.max(arrival + known.ttl);
                Renewal::Renewed(known.ttl)
            }
        }
    }

    /// Time left, zero if overdue.
    #[must_use]
    pub fn remaining(&self, id: SessionId, now: Instant) -> Option<Duration> {
        self.sessions.get(&id).map(|known| known.at.saturating_duration_since(now))
    }

    /// Up to `limit` sessions whose time has run out, now marked as expiring.
    pub fn due(&mut self, now: Instant, limit: usize) -> Vec<Expiry> {
        let mut due = Vec::new();
        while due.len() < limit {
            let Some(&(when, id)) = self.queue.first() else { break };
            if when > now {
                break;
            }
            self.queue.pop_first();
            let Some(known) = self.sessions.get_mut(&id) else { continue };
            if known.at > now {
                known.queued = known.at;
                self.queue.insert((known.queued, id));
            } else {
                known.expiring = true;
                due.push(Expiry { session: id, generation: known.generation });
            }
        }
        due
    }

    /// The entry that would end these sessions is decided or lost. Those still here are looked at again at once.
    pub fn decided(&mut self, expiries: &[Expiry], now: Instant) {
        for expiry in expiries {
            if let Some(known) = self.sessions.get_mut(&expiry.session) {
                known.expiring = false;
                known.queued = known.at.max(now);
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
        Session {
            id: SessionId(id),
            ttl: Millis(10_000),
            name: "".into(),
            meta: "".into(),
            on_expire: OnExpire::Delete,
            owner: Principal("anonymous".into()),
            opened: Timestamp(0),
            generation,
            progress: None,
            note: None,
            private: false,
        }
    }

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn a_renewal_moves_the_deadline_and_the_stale_place_in_the_queue_is_skipped() {
        let (mut table, t0) = (Deadlines::default(), Instant::now());
        table.arm(&session(1, 1), t0);
        assert_eq!(table.renew(SessionId(1), t0 + TTL / 2), Renewal::Renewed(TTL));
        assert_eq!(table.due(t0 + TTL, 10), []);
        assert_eq!(table.due(t0 + TTL * 3 / 2, 10), [Expiry { session: SessionId(1), generation: 1 }]);
        assert_eq!(table.due(t0 + TTL * 2, 10), [], "proposed once");
    }

    #[test]
    fn a_renewal_waits_while_an_expiry_is_in_the_log() {
        let (mut table, t0) = (Deadlines::default(), Instant::now());
        table.arm(&session(1, 1), t0);
        let due = table.due(t0 + TTL, 10);
        assert_eq!(table.renew(SessionId(1), t0 + TTL), Renewal::Expiring);
        table.decided(&due, t0 + TTL);
        assert_eq!(table.renew(SessionId(1), t0 + TTL), Renewal::Renewed(TTL), "the proposal was lost");
        assert_eq!(table.due(t0 + TTL, 10), []);
        table.remove(SessionId(1));
        assert_eq!(table.renew(SessionId(1), t0 + TTL), Renewal::Unknown);
        assert!(table.queue.is_empty());
    }

    #[test]
    fn a_logged_renewal_rearms_and_ends_the_expiring_state() {
        let (mut table, t0) = (Deadlines::default(), Instant::now());
        table.arm(&session(1, 1), t0);
        let due = table.due(t0 + TTL, 10);
        table.arm(&session(1, 2), t0 + TTL);
        table.decided(&due, t0 + TTL);
        assert_eq!(table.due(t0 + TTL, 10), []);
        assert_eq!(table.due(t0 + TTL * 2, 10), [Expiry { session: SessionId(1), generation: 2 }]);
    }
}
