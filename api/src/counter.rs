//! Counters: values, and blocks of ids.

use serde::{Deserialize, Serialize};

/// A counter: `GET /v1/counters/{name}`. One that was never written is 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counter {
    pub name: String,
    /// Within ±(2^53 - 1).
    pub value: i64,
    /// Of the last change, for `if_match`; 0 if it was never written.
    pub mod_revision: u64,
}

/// What an addition, a set or a delete did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counted {
    pub value: i64,
    /// The value before. After `add?delta=100` the numbers `previous + 1 ..= value` are the caller's alone.
    pub previous: i64,
    pub revision: u64,
}
