//! The end of sessions: everything of all that end in an entry goes first, and only then is anything granted.

use std::sync::Arc;

use crate::apply::Entry;
use crate::command::{Expiry, OnExpire};
use crate::ids::{Family, Key, SessionId};
use crate::limits::{EXPIRE_KEYS, EXPIRE_SLICE};
use crate::record::{Cause, Record};
use crate::reply::{Outcome, Refusal};
use crate::session::{self, Session};
use crate::txn::Draft;

impl Entry<'_> {
    /// End the sessions that still are of the generation the leader saw; answers how many. One slice of them: the
    /// others live on and will be named again.
    pub(crate) fn expire(&mut self, expiries: &[Expiry]) -> u64 {
        let mut dying: Vec<Arc<Session>> = Vec::new();
        let mut keys = 0;
        for expiry in expiries {
            let state = &*self.txn.state;
            let Some(session) = state.sessions.get(expiry.session) else { continue };
            // A renewal got in first, or the list names it twice.
            if session.generation != expiry.generation || dying.iter().any(|other| other.id == session.id) {
                continue;
            }
            keys += state.sessions.attached(session.id).len();
            if dying.len() == EXPIRE_SLICE || (keys > EXPIRE_KEYS && !dying.is_empty()) {
                break;
            }
            dying.push(session.clone());
        }
        self.end(&dying, Cause::SessionExpired);
        dying.len() as u64
    }

    /// Close these sessions together; one outcome each, in their order.
    pub(crate) fn close(&mut self, ids: &[SessionId]) -> Result<Vec<Outcome>, Refusal> {
        let mut dying = Vec::with_capacity(ids.len());
        let mut outcomes = Vec::with_capacity(ids.len());
        for id in ids {
            let view = self.txn.view();
            dying.push(view.session(*id).ok_or(Refusal::SessionExpired(*id))?.into_owned());
            let mut held: Vec<Key> = view.attached(*id).cloned().collect();
            held.sort_by_key(|key| view.get(key).map(|record| record.mod_revision));
            outcomes.push(Outcome::Closed(held));
        }
        self.end(&dying, Cause::SessionClosed);
        Ok(outcomes)
    }

    fn end(&mut self, dying: &[Arc<Session>], cause: Cause) {
        let mut gone: Vec<(Key, Arc<Record>)> = Vec::new();
        for session in dying {
            let attached: Vec<Key> = self.txn.view().attached(session.id).cloned().collect();
            for key in attached {
                let Some(record) = self.txn.get(&key).cloned() else { continue };
                if key.family() != Family::KV {
                    self.txn.delete(&key, cause);
                    gone.push((key, record));
                } else if session.on_expire == OnExpire::Release {
                    let Record { value, content_type, .. } = Record::clone(&record);
                    self.txn.write(key, Draft { value, content_type, session: None }, cause);
                } else {
                    self.txn.delete(&key, cause);
                }
            }
        }
        for session in dying {
            self.txn.delete(&session::key(session.id), cause);
        }
        if !gone.is_empty() {
            self.program.released(&mut self.txn, &gone, cause);
        }
    }
}
