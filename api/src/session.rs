//! Bodies of the sessions family.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Instant, Mode, SessionId, Span};

/// What expiry or close does to the keys of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnExpire {
    /// Keys stay, claims are released.
    Release,
    /// Keys are deleted, claims are released.
    #[default]
    Delete,
}

/// Whether a session is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    Active,
    /// Two thirds of the ttl passed without a renewal.
    Suspect,
    /// Alive, but its progress has not moved for its `stall_after`.
    Stalled,
    Expired,
    #[serde(other)]
    Unknown,
}

/// Body of `POST /v1/sessions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SessionCreate {
    /// 1 s to 24 h; 15 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_expire: Option<OnExpire>,
    /// How long a lock stays closed after this session expired while holding it, 0 to 60 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_delay: Option<Span>,
    /// The session has stalled if its progress does not move for so long: 1 s to 24 h; never if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_after: Option<Span>,
}

/// Answer of `POST /v1/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionCreated {
    pub id: SessionId,
    pub ttl: Span,
    /// Time left; count it from when the request was *sent*.
    pub valid_for: Span,
    pub revision: u64,
}

/// How far the work under a session has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Body of `POST /v1/sessions/{id}/renew`; may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SessionRenew {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, String>>,
}

/// Answer of a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionRenewed {
    /// Time left; count it from when the request was *sent*.
    pub valid_for: Span,
    #[serde(default)]
    pub holds: Vec<Hold>,
    /// The session has stalled: see `stall_after`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    /// What was taken from the session after `lost_after`, oldest first.
    #[serde(default)]
    pub lost: Vec<Lost>,
    /// The `after` of the request, or the oldest revision that history still tells of, whichever is later.
    #[serde(default)]
    pub lost_after: u64,
    /// Everything is told up to here: the `after` of the next renewal.
    #[serde(default)]
    pub revision: u64,
}

/// Something that was taken from a living session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lost {
    /// `locks`, `kv`, …
    pub family: String,
    /// The object, or the key.
    pub name: String,
    /// The part of the object: an instance, a member, a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// `broken`, `removed`, `deleted`, or `taken`: by another writer, by the end of a visibility, by an operator.
    pub reason: String,
    pub revision: u64,
}

/// Something else that hangs on a session: an instance, a membership, a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attached {
    pub family: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// What it is, in a word of its family: `attached`, `joined`, `delivered`.
    pub state: String,
}

/// Something a session holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hold {
    /// `locks`
    pub family: String,
    pub name: String,
    /// Fencing token: the revision of the grant.
    pub token: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// A line a session waits in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Wait {
    pub family: String,
    pub name: String,
    /// Waiters before this one in the line plus one: the next in line is at 1.
    pub position: u64,
}

/// The name of something held or formerly held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Claim {
    pub family: String,
    pub name: String,
    /// Of a delivery the message, of a registration its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}

/// A session as `GET /v1/sessions` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Session {
    pub id: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub state: SessionState,
    pub ttl: Span,
    /// Time left as the leader sees it; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
    #[serde(default)]
    pub on_expire: OnExpire,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_delay: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_after: Option<Span>,
    /// Since when its progress does not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled_since: Option<Instant>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Instant>,
    pub create_revision: u64,
    #[serde(default)]
    pub holds: Vec<Hold>,
    #[serde(default)]
    pub waits: Vec<Wait>,
    /// Instances, memberships and whatever else lives with the session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Attached>,
    /// Keys that live with the session; those that are no UTF-8 in percent-encoding.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// Answer of `DELETE /v1/sessions/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionClosed {
    #[serde(default)]
    pub released: Vec<Claim>,
    pub revision: u64,
}
