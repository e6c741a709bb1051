//! Fences: the newest token that a store of somebody else's has seen.

use serde::{Deserialize, Serialize};

/// What a resource has seen: `GET /v1/fences/{resource}`. One that was never checked has seen 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fence {
    pub name: String,
    /// The greatest token.
    pub token: u64,
    /// When it was raised last; 0 if it was never checked.
    pub mod_revision: u64,
}

/// The token may pass, and no smaller one from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FencePassed {
    pub token: u64,
    /// The greatest token before, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u64>,
    pub revision: u64,
}
