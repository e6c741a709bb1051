//! Barriers: gates, and meetings that begin once all have come.

use serde::{Deserialize, Serialize};

use crate::{Instant, SessionId, Span};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BarrierKind {
    /// All pass while it is open.
    Gate,
    /// Its parties pass together, again and again.
    #[default]
    Cyclic,
    /// Its parties begin together and end together.
    Double,
}

/// Body of `PUT /v1/barriers/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BarrierConfig {
    pub kind: BarrierKind,
    /// How many have to come; of a gate none. With `members` their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parties: Option<u64>,
    /// Of a double barrier: who comes when all are inside waits for the next time (true, the default) or joins them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    /// Of a cyclic barrier: it breaks so long after the first has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Only these may come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// A barrier as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Barrier {
    pub name: String,
    pub kind: BarrierKind,
    /// Of a gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parties: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The generation that fills, or is inside. They count up from the revision at which the barrier was made.
    pub generation: u64,
    /// How many wait.
    pub waiting: u64,
    /// How many are inside.
    pub inside: u64,
    /// How many are out, while others are inside.
    pub leaving: u64,
    /// When it breaks for those who wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaks: Option<Instant>,
    /// The first 100 of those who are inside, and of those who wait in the order they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub present: Vec<Party>,
    /// The first 100 of the declared members that have not come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// One at a barrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Party {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    pub since: Instant,
    /// Inside; otherwise it waits.
    pub inside: bool,
}

/// What entering answers once all have come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Entered {
    pub id: String,
    /// A fencing token: greater than that of any time before.
    pub generation: u64,
    /// The how-manieth to come, from 0; absent if it was asked for too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The session that is inside; absent after a cyclic barrier, which keeps nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
}

/// 202 of an entry that waits on: ask again with the `generation`, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Entering {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// 1 came first.
    pub position: u64,
    pub waiting: u64,
    pub parties: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// What leaving answers; 202 as long as others are inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Leaving {
    /// Absent if it had only waited, and does so no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// How many are still inside.
    pub inside: u64,
}

/// A gate after `open`, `close` or `await`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gate {
    pub open: bool,
    /// Of the answer, or of the change: give it back as `after` to hear of each opening since.
    pub revision: u64,
}
