//! Latches: a count that goes down to zero once.

use serde::{Deserialize, Serialize};

/// Body of `PUT /v1/latches/{name}`: a count, or the members that have to count down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LatchConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// A latch as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Latch {
    pub name: String,
    pub count: u64,
    /// How many are still to count down.
    pub left: u64,
    /// Nobody is: whoever awaits it passes, for good.
    pub open: bool,
    /// Declared members that have not counted down, the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// What a `count_down` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CountedDown {
    pub count: u64,
    pub left: u64,
    /// False: the id had counted down before, or the latch was open.
    pub counted: bool,
    pub revision: u64,
}
