//! Sessions that live and still give reason to worry: the suspect, who missed renewals, and the stalled, whose work
//! does not move.
//!
//! Renewals are not logged, so only the leader can say who is suspect. Progress is logged, so log time says who has
//! stalled, on every node alike and across changes of the lead.

use crate::apply::Entry;
use crate::command::Expiry;
use crate::ids::SessionId;
use crate::limits::STALL_SLICE;
use crate::record::ContentType;
use crate::session::{self, Session};

impl Entry<'_> {
    /// Note which sessions missed two thirds of their time, as the leader saw them, and which are renewed again.
    pub(crate) fn doubt(&mut self, missing: &[Expiry], renewed: &[SessionId]) {
        for doubt in missing {
            let now = self.txn.now();
            self.change(doubt.session, |session| {
                let mark = session.generation == doubt.generation && !session.private;
                (mark && session.suspect.is_none()).then(|| session.suspect = Some(now))
            });
        }
        for id in renewed {
            self.change(*id, |session| session.suspect.take().map(drop));
        }
    }

    /// Note which sessions have not moved for as long as they said they would; a slice of them.
    pub(crate) fn stall(&mut self) {
        for _ in 0..STALL_SLICE {
            let now = self.txn.now();
            let Some((at, id)) = self.txn.state.sessions.next_stall() else { return };
            if at > now {
                return;
            }
            self.change(id, |session| {
                session.stalled = Some(now);
                Some(())
            });
        }
    }

    /// Change a living session, if `change` does.
    fn change(&mut self, id: SessionId, change: impl FnOnce(&mut Session) -> Option<()>) {
        let Some(session) = self.txn.state.sessions.get(id) else { return };
        let mut session = Session::clone(session);
        if change(&mut session).is_some() {
            self.txn.put(session::key(id), session.encode(), ContentType::Binary, None);
        }
    }
}
