//! Bodies of the elections family.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{Instant, SessionId, Span, Value};

/// Answer of a campaign that won (200).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Elected {
    /// The session that leads: the caller's.
    pub leader: SessionId,
    /// Fencing token: the revision of the win.
    pub token: u64,
    /// Time left of the session; count it from when the request was *sent*.
    pub valid_for: Span,
}

/// Answer of a resignation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resigned {
    /// Who leads now; null if nobody does.
    pub leader: Option<SessionId>,
    pub revision: u64,
}

/// An election as `GET /v1/elections/{n}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Election {
    pub name: String,
    /// Null: it is vacant.
    pub leader: Option<Leader>,
    /// In the order in which they would follow.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// How many candidates there are in all, if more than are listed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "LeaderWire", try_from = "LeaderWire")]
pub struct Leader {
    pub session: SessionId,
    pub owner: Option<String>,
    /// The revision of the win.
    pub token: u64,
    pub since: Instant,
    pub priority: u8,
    /// How many led before it since the election was last idle.
    pub ordinal: u64,
    pub valid_for: Option<Span>,
    /// What it says.
    pub value: Value,
}

/// Who would follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Candidate {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    pub priority: u8,
    pub since: Instant,
    pub position: u64,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct LeaderWire {
    session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    token: u64,
    since: Instant,
    #[serde(default)]
    priority: u8,
    #[serde(default)]
    ordinal: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_for: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

impl From<Leader> for LeaderWire {
    fn from(leader: Leader) -> Self {
        let Leader { session, owner, token, since, priority, ordinal, valid_for, value } = leader;
        let (value, value_base64, content_type) = optional_members(Some(&value));
        Self { session, owner, token, since, priority, ordinal, valid_for, value, value_base64, content_type }
    }
}

impl TryFrom<LeaderWire> for Leader {
    type Error = String;

    fn try_from(wire: LeaderWire) -> Result<Self, String> {
        let LeaderWire { session, owner, token, since, priority, ordinal, valid_for, .. } = wire;
        let members = (wire.value, wire.value_base64, wire.content_type);
        let value = Value::from_members(members).map_err(|error| error.to_string())?;
        Ok(Self { session, owner, token, since, priority, ordinal, valid_for, value })
    }
}
