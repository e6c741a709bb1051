//! Bodies of the locks family.

use serde::{Deserialize, Serialize};

use crate::{Instant, SessionId, Span};

/// Alone or together with other readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Exclusive,
    Shared,
}

impl Mode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
        }
    }
}

/// Answer of an acquire that got the lock (200).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Acquired {
    pub session: SessionId,
    /// Fencing token: the revision of the grant. Strictly rising for each lock.
    pub token: u64,
    /// Time left of the session; count it from when the request was *sent*.
    pub valid_for: Span,
    #[serde(default)]
    pub mode: Mode,
    /// How many grants of this lock came before this one since it was last idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u64>,
    /// How many releases end the hold, if more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Answer of `POST /v1/locks` that got them all (200).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AcquiredMany {
    pub session: SessionId,
    /// Time left of the session; count it from when the request was *sent*.
    pub valid_for: Span,
    /// In the order of their names.
    pub items: Vec<AcquiredOne>,
}

/// One of the locks that were got together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AcquiredOne {
    pub name: String,
    pub token: u64,
    #[serde(default)]
    pub mode: Mode,
}

/// Answer of an acquire with `keep=true` whose wait ran out (202): the place in the line is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Waiting {
    pub session: SessionId,
    /// The next in line is at 1.
    pub position: u64,
    pub valid_for: Span,
    #[serde(default)]
    pub blockers: Vec<Blocker>,
    /// Nothing is granted before this moment, to anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_until: Option<Instant>,
}

/// Who stands in the way of an acquire: a member of 202 and of the problem `lock_held`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Blocker {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Of one that holds; one without is ahead in the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    pub since: Instant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
    /// Of a lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Of a semaphore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u64>,
}

/// Answer of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Released {
    /// Sessions that got the lock by it.
    #[serde(default)]
    pub released_to: Vec<SessionId>,
    pub revision: u64,
    /// It is still held: so many releases are to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Answer of a renewal or transfer of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Renewed {
    pub valid_for: Span,
    pub token: u64,
}

/// Answer of `DELETE /v1/locks/{n}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Broken {
    /// Those who held it until now; their tokens are dead.
    pub broken: Vec<Holder>,
    pub revision: u64,
}

/// One current grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Holder {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    pub token: u64,
    #[serde(default)]
    pub mode: Mode,
    pub since: Instant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
    /// How many times the session acquired it without releasing.
    #[serde(default = "one")]
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u64>,
    /// It has lasted longer than `max_hold`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub overdue: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

fn one() -> u64 {
    1
}

/// One place in the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Waiter {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default)]
    pub mode: Mode,
    pub since: Instant,
    pub position: u64,
}

/// A lock as `GET /v1/locks/{n}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lock {
    pub name: String,
    #[serde(default)]
    pub holders: Vec<Holder>,
    /// In the order in which they will be granted.
    #[serde(default)]
    pub waiters: Vec<Waiter>,
    /// How many wait in all, if more than are listed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<LockConfig>,
    /// Nothing is granted before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_until: Option<Instant>,
}

/// One step of a cycle: a member of the problem `would_deadlock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WaitsFor {
    pub session: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The lock it waits for, which the session of the next step holds or will get first.
    pub lock: String,
}

/// Body of `PUT /v1/locks/{n}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LockConfig {
    /// How long the lock stays closed after a holder expired, 0 to 60 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_delay: Option<Span>,
    /// A hold that lasts longer is reported as overdue; it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hold: Option<Span>,
    /// After an exclusive hold that was shorter the lock stays closed until it would have been so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_hold: Option<Span>,
}

/// One lock of a multi-acquire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LockRef {
    pub name: String,
    #[serde(default)]
    pub mode: Mode,
}

/// Body of `POST /v1/locks`: all of them at once or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AcquireMany {
    pub items: Vec<LockRef>,
}
