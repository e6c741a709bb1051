//! What queues and subscriptions have in common: receipts, what became of them, and what a full one does.

use serde::{Deserialize, Serialize};

use crate::Span;

/// `{"receipts":[..]}` of `ack`, `nack` and `renew`, where a query would be too long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Receipts {
    pub receipts: Vec<String>,
}

/// Answer of `ack`, `nack` and `renew`: one item a receipt, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SettledMany {
    pub items: Vec<Settled>,
    /// Of a `renew`: how long the deliveries are invisible from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Span>,
    pub revision: u64,
}

/// What became of one receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Settled {
    pub receipt: String,
    /// False: the receipt was stale (settled before, or delivered again since), and nothing was done.
    pub ok: bool,
}

/// What a queue or a topic does with a message more than its bounds allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It is refused.
    #[default]
    Reject,
    /// The oldest make room: of a queue the oldest ready one of the lowest priority, which goes to the dead letters.
    DropOldest,
}
