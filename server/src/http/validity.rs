//! How long sessions are good for, as far as renewals through this node tell: a lower bound without asking the leader.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle_store::SessionId;

/// Sessions remembered; beyond it the ones that ran out are dropped, then all.
const SESSIONS: usize = 200_000;

/// Until when each session renewed here is good for.
#[derive(Default)]
pub struct Renewals(Mutex<HashMap<SessionId, Instant>>);

impl Renewals {
    /// A renewal was acknowledged: the session is good for `valid_for` from `received`.
    pub fn note(&self, session: SessionId, received: Instant, valid_for: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SESSIONS {
            known.retain(|_, until| *until > received);
            if known.len() >= SESSIONS {
                known.clear();
            }
        }
        let until = known.entry(session).or_insert(received);
        *until = (*until).max(received + valid_for);
    }

    /// The session has ended.
    pub fn forget(&self, session: SessionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }

    /// Time left, if a renewal seen here still counts.
    pub fn valid_for(&self, session: SessionId, now: Instant) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&session).and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_renewal_counts_until_it_runs_out() {
        let (renewals, start) = (Renewals::default(), Instant::now());
        let (session, secs) = (SessionId(7), Duration::from_secs);
        assert_eq!(renewals.valid_for(session, start), None);
        renewals.note(session, start, secs(15));
        renewals.note(session, start, secs(5));
        assert_eq!(renewals.valid_for(session, start + secs(5)), Some(secs(10)));
        assert_eq!(renewals.valid_for(session, start + secs(15)), None);
        renewals.note(session, start, secs(15));
        renewals.forget(session);
        assert_eq!(renewals.valid_for(session, start), None);
    }
}
