//! Sessions: time-bound promises that keys and claims hang on.
//!
//! A session is an ordinary key of [`crate::Family::SESSION`], so that watch, history, snapshot and checkpoint need
//! nothing special. Its deadline is not here: renewals are not logged, only leaders count time (see the raft crate).

use minicbor::{Decode, Encode};

use crate::command::{OnExpire, OpenSession, Principal};
use crate::ids::{Millis, SessionId, Timestamp};

/// The replicated part of a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Session {
    #[n(0)]
    pub id: SessionId,
    #[n(1)]
    pub ttl: Millis,
    #[n(2)]
    pub name: Box<str>,
    #[n(3)]
    pub meta: Box<str>,
    #[n(4)]
    pub on_expire: OnExpire,
    /// Who opened it.
    #[n(5)]
    pub owner: Principal,
    /// Log time of the opening.
    #[n(6)]
    pub opened: Timestamp,
    /// Raised by each logged renewal (one that carries progress or metadata). An expiry that names an older
    /// generation does nothing.
    #[n(7)]
    pub generation: u64,
    #[n(8)]
    pub progress: Option<u8>,
    #[n(9)]
    pub note: Option<Box<str>>,
    /// Opened by `ttl=` on a claim: it lives only for that claim and ends with it.
    #[n(10)]
    pub private: bool,
}

impl Session {
    pub(crate) fn opened(open: &OpenSession, owner: Principal, now: Timestamp, private: bool) -> Self {
        Self {
            id: open.id,
            ttl: open.ttl,
            name: open.name.clone(),
            meta: open.meta.clone(),
            on_expire: open.on_expire,
            owner,
            opened: now,
            generation: 1,
            progress: None,
            note: None,
            private,
        }
    }
}
