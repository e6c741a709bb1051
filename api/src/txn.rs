//! Transactions: compares, operations, results.
//!
//! The JSON of a compare or an operation is one flat object; which members it may have depends on what it
//! names. Unknown, missing and misplaced members are errors.

mod compare;
mod operation;
mod result;

use serde::{Deserialize, Serialize};

pub use compare::{Compare, Comparison, Condition};
pub use operation::{Holding, Operation, Outgoing};
pub use result::OperationResult;

/// `{"if":[..],"then":[..],"else":[..]}`: if all compares hold, `then` happens, otherwise `else`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Txn {
    #[serde(rename = "if", default)]
    pub compares: Vec<Compare>,
    #[serde(rename = "then", default)]
    pub then: Vec<Operation>,
    #[serde(rename = "else", default)]
    pub otherwise: Vec<Operation>,
}

/// Answer of a transaction. A compare that does not hold is no error: `succeeded` is false and `results`
/// are those of `else`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TxnResult {
    pub succeeded: bool,
    pub revision: u64,
    /// One for each operation that happened, in order.
    pub results: Vec<OperationResult>,
}
