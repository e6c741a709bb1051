//! Groups: who is there, and whose share of the work is what.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{Instant, SessionId, Span, Value};

/// A group: `GET /v1/groups/{name}`. One where nobody is has nothing but zeros.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    pub name: String,
    pub size: u64,
    /// Revision at which somebody last came or went; never the same for two divisions of the work.
    pub view: u64,
    /// In the order of their ids; absent in lists of groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<GroupMember>>,
}

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "MemberWire", try_from = "MemberWire")]
pub struct GroupMember {
    pub id: String,
    pub session: SessionId,
    pub since: Instant,
    /// 0..=100, as it last said.
    pub progress: Option<u8>,
    /// What it said when it joined, or said since.
    pub payload: Value,
    /// Its share, with `slots=N`.
    pub slots: Option<Vec<u64>>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct MemberWire {
    id: String,
    session: SessionId,
    since: Instant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slots: Option<Vec<u64>>,
}

impl From<GroupMember> for MemberWire {
    fn from(member: GroupMember) -> Self {
        let GroupMember { id, session, since, progress, payload, slots } = member;
        let (value, value_base64, content_type) = optional_members(Some(&payload));
        Self { id, session, since, progress, value, value_base64, content_type, slots }
    }
}

impl TryFrom<MemberWire> for GroupMember {
    type Error = String;

    fn try_from(wire: MemberWire) -> Result<Self, String> {
        let MemberWire { id, session, since, progress, value, value_base64, content_type, slots } = wire;
        let payload = Value::from_members((value, value_base64, content_type)).map_err(|e| e.to_string())?;
        Ok(Self { id, session, since, progress, payload, slots })
    }
}

/// What joining a group answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Joined {
    pub id: String,
    pub session: SessionId,
    pub valid_for: Span,
    pub size: u64,
    pub view: u64,
    pub revision: u64,
}

/// What leaving a group answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Left {
    /// 0 if it was not there.
    pub deleted: u64,
    pub size: u64,
    pub view: u64,
    pub revision: u64,
}
