//! One instance: what it said of itself, and what became of it.

use std::collections::BTreeMap;

use coracle_store::{Millis, Revision, SessionId, Timestamp};
use minicbor::{Decode, Encode};

/// How an instance does, by its own account or by what happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Status {
    /// Not ready yet.
    #[n(0)]
    Starting,
    #[n(1)]
    Passing,
    /// Works, but wants to be looked at.
    #[n(2)]
    Warning,
    #[n(3)]
    Critical,
    /// On its way out.
    #[n(4)]
    Draining,
    /// Taken out by its operator.
    #[n(5)]
    Maintenance,
}

/// What keeps an instance alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Liveness {
    /// It stays until it is deregistered.
    #[n(0)]
    Permanent,
    /// A session of its owner.
    #[n(1)]
    Session(#[n(0)] SessionId),
    /// A private session, opened with its registration.
    #[n(2)]
    Ttl(#[n(0)] SessionId, #[n(1)] Millis),
}

/// What an instance says of itself when it registers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Description {
    /// Host name or IP address; 1..=255 bytes.
    #[n(0)]
    pub address: Box<str>,
    /// 1..=65535; 0 if it has none.
    #[n(1)]
    pub port: u16,
    /// Further ports by name.
    #[n(2)]
    pub ports: BTreeMap<Box<str>, u16>,
    /// `http`, `grpc`, …; may be empty, as the next two.
    #[n(3)]
    pub scheme: Box<str>,
    #[n(4)]
    pub version: Box<str>,
    #[n(5)]
    pub zone: Box<str>,
    /// Share of the traffic, 0..=1000; 0 gets none.
    #[n(6)]
    pub weight: u16,
    /// Sorted, each once.
    #[n(7)]
    pub tags: Vec<Box<str>>,
    #[n(8)]
    pub meta: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Instance {
    /// Revision of its registration.
    #[n(0)]
    pub generation: Revision,
    #[n(1)]
    pub description: Description,
    /// As it told last.
    #[n(2)]
    pub told: Status,
    /// As it told last, in thousandths.
    #[n(3)]
    pub load: Option<u16>,
    #[n(4)]
    pub liveness: Liveness,
    /// Log time of the first registration since it was last gone.
    #[n(5)]
    pub registered: Timestamp,
    /// Since when it could be called, whether ejected or not.
    #[n(6)]
    pub up_since: Option<Timestamp>,
    /// When it began to drain.
    #[n(7)]
    pub drain: Option<Timestamp>,
    /// When its liveness ended.
    #[n(8)]
    pub lost: Option<Timestamp>,
    /// Until when it is ejected.
    #[n(9)]
    pub ejected: Option<Timestamp>,
    /// When it will be removed: because it drains, or because it is lost.
    #[n(10)]
    pub leaves: Option<Timestamp>,
}

impl Instance {
    /// How it does, everything considered.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.lost.is_some() {
            Status::Critical
        } else if self.drain.is_some() {
            Status::Draining
        } else {
            self.told
        }
    }

    /// Whether it could be called.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.status(), Status::Passing | Status::Warning)
    }

    /// Whether it should be called: up and not ejected.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_up() && self.ejected.is_none()
    }

    /// Whether it counts among those that ought to be up: nobody has taken it out on purpose.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !matches!(self.status(), Status::Draining | Status::Maintenance)
    }

    /// The session that keeps it alive, or did.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.liveness {
            Liveness::Permanent => None,
            Liveness::Session(id) | Liveness::Ttl(id, _) => Some(id),
        }
    }
}
