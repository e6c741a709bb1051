//! Bodies of the semaphores family.

use serde::{Deserialize, Serialize};

use crate::{Instant, SessionId, Span};

/// Answer of an acquire that got its permits (200).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PermitsAcquired {
    pub session: SessionId,
    /// Fencing token: the revision of the grant. Every holder has one of its own.
    pub token: u64,
    /// Time left of the session; count it from when the request was *sent*.
    pub valid_for: Span,
    pub permits: u64,
}

/// Body of `PUT /v1/semaphores/{n}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SemaphoreConfig {
    pub limit: u64,
}

/// A semaphore as `GET /v1/semaphores/{n}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Semaphore {
    pub name: String,
    pub limit: u64,
    /// Permits nobody has; none after the limit was lowered below what is held.
    pub free: u64,
    #[serde(default)]
    pub holders: Vec<PermitHolder>,
    /// In the order in which they will be granted.
    #[serde(default)]
    pub waiters: Vec<PermitWaiter>,
    /// How many wait in all, if more than are listed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
}

/// Permits of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PermitHolder {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    pub token: u64,
    pub permits: u64,
    pub since: Instant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
}

/// One place in the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PermitWaiter {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    pub permits: u64,
    pub since: Instant,
    pub position: u64,
}

/// Answer of `DELETE /v1/semaphores/{n}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PermitsBroken {
    /// Those who had permits until now; their tokens are dead.
    pub broken: Vec<PermitHolder>,
    pub revision: u64,
}
