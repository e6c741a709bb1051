//! The recipes: pure functions over a store transaction, one file each.

pub mod lock;

use coracle_store::command::Condition as StoreCondition;
use coracle_store::{Cause, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection, SessionId, Txn, View};
use minicbor::{Decode, Encode};
use std::sync::Arc;

/// Every recipe's operations: one word a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Lock(#[n(0)] lock::Operation),
}

/// Every recipe's outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    #[n(0)]
    Lock(#[n(0)] lock::Outcome),
}

/// Every recipe's refusals.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    #[n(0)]
    Lock(#[n(0)] lock::Refusal),
}

/// Every recipe's conditions, for `If-Held` and for transactions.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Condition {
    /// `locks/NAME; token=N`: that token is a current hold of the lock.
    #[n(0)]
    LockHeld(#[n(0)] Box<str>, #[n(1)] Revision),
}

impl Operation {
    /// As an operation of the store.
    #[must_use]
    pub fn encode(&self) -> coracle_store::Operation {
        coracle_store::Operation::Program(minicbor::to_vec(self).expect("writing to memory cannot fail").into())
    }
}

impl Outcome {
    /// # Errors
    /// If the bytes are not an outcome of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }
}

impl Refusal {
    /// # Errors
    /// If the bytes are not a refusal of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }
}

impl Condition {
    /// As a condition of the store.
    #[must_use]
    pub fn encode(&self) -> StoreCondition {
        StoreCondition::Program(minicbor::to_vec(self).expect("writing to memory cannot fail").into())
    }
}

/// The program a Coracle node runs.
pub struct Recipes;

impl coracle_store::Program for Recipes {
    fn apply(&self, _txn: &mut Txn<'_>, _who: &Principal, _operation: &[u8]) -> Result<Vec<u8>, StoreRefusal> {
        todo!()
    }
    fn check(&self, _view: View<'_>, _condition: &[u8]) -> Result<(), StoreRefusal> {
        todo!()
    }
    fn released(&self, _txn: &mut Txn<'_>, _gone: &[(Key, Arc<Record>)], _cause: Cause) {
        todo!()
    }
}

/// What a recipe's event means to people: used for `/v1/events` and for what a session holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `locks`
    pub family: &'static str,
    /// `acquired`, `waiting`, `released`, …
    pub op: &'static str,
    /// The object: the lock's name.
    pub name: String,
    pub session: Option<SessionId>,
    pub token: Option<Revision>,
}

/// Describe an event of a recipe's key; `None` for keys that are nobody's business (counters of a line, and so on)
/// and for the store's own families.
#[must_use]
pub fn describe(event: &coracle_store::Event) -> Option<Described> {
    let _ = event;
    todo!()
}

/// What to watch to learn of any change to an object, such as `("locks", "deploy")`; `None` for an unknown family.
/// An empty name selects the whole family.
#[must_use]
pub fn selection(family: &str, name: &str) -> Option<Selection> {
    let _ = (family, name);
    todo!()
}
