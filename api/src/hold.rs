//! Frames of what is held by a connection (`hold=true`): the same on every family.

use serde::{Deserialize, Serialize};

use crate::queue::Message;
use crate::{Blocker, ByeReason, Gap, Instant, Lost, Mode, Problem, SessionId, Span, TopicDelivery};

/// One frame of a claim or session that lives with its connection (`hold=true`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HoldFrame {
    /// The session is open (`POST /v1/sessions?hold=true`, `POST /v1/sessions/{id}/hold`).
    Opened {
        session: SessionId,
        ttl: Span,
        valid_for: Span,
    },
    /// In line: sent when that changes, and at least every third of the ttl.
    Waiting {
        position: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blockers: Vec<Blocker>,
    },
    Acquired(Granted),
    /// Still held: sent at least every third of the ttl.
    Held {
        valid_for: Span,
    },
    /// Held for longer than the `max_hold` of the lock; it stays held.
    Overdue {
        since: Instant,
    },
    /// Messages of a queue or a subscription: in flight as long as the session lives.
    Delivered {
        session: SessionId,
        items: Deliveries,
        /// What retention took before it could be delivered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gap: Option<Gap>,
    },
    /// The item of a barrier queue goes with its generation, and the stream ends.
    Released {
        id: String,
        generation: u64,
        ordinal: u64,
        size: u64,
        /// With `delivery=self`: to acknowledge it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<String>,
    },
    /// The session lives, but something was taken from it.
    Taken(Lost),
    /// Not held any more, and the stream ends.
    Lost {
        reason: String,
        /// What the operator said who broke it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    Bye {
        reason: ByeReason,
    },
    Error {
        problem: Problem,
    },
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Other,
}

/// What is held from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Granted {
    pub session: SessionId,
    /// Of a barrier: the generation.
    pub token: u64,
    pub valid_for: Span,
    /// Of a lock, or of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Of a barrier: as who one has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Of a barrier: the how-manieth to come, from 0. Behind a cyclic one nothing is held and the stream ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

impl Granted {
    #[must_use]
    pub fn new(session: SessionId, token: u64, valid_for: Span) -> Self {
        Self { session, token, valid_for, mode: None, id: None, index: None }
    }
}

/// Messages as they are delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Deliveries {
    OfQueue(Vec<Message>),
    OfTopic(Vec<TopicDelivery>),
}
