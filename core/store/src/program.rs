//! The seam through which recipes run. The store knows nothing about them.

use std::sync::Arc;

use crate::command::Principal;
use crate::ids::{Key, Timestamp};
use crate::record::{Cause, Record};
use crate::reply::Refusal;
use crate::txn::{Txn, View};

/// The recipes, as the store sees them: pure functions over a transaction, addressed by encoded operations.
///
/// Everything must be a function of the arguments: no clock, no randomness, no iteration over hash maps. Whatever a
/// refused `apply` wrote is rolled back by the store.
pub trait Program: Send + Sync + 'static {
    /// Run one operation and answer its encoded outcome.
    ///
    /// # Errors
    /// A refusal; [`Refusal::Malformed`] if the bytes are not an operation.
    fn apply(&self, txn: &mut Txn<'_>, who: &Principal, operation: &[u8]) -> Result<Vec<u8>, Refusal>;

    /// Judge a condition: `Ok` if it holds. Used for `If-Held` guards, whose refusal reaches the client, and for
    /// the conditions of transactions, where any refusal just means false.
    ///
    /// # Errors
    /// The refusal that says why not.
    fn check(&self, view: View<'_>, condition: &[u8]) -> Result<(), Refusal>;

    /// Sessions ended in this entry, and the store has removed all their keys in the program's families, of all of
    /// the ending sessions at once, so that nothing is ever granted to a session that dies in the same entry.
    /// Grant to whoever is next.
    fn released(&self, txn: &mut Txn<'_>, gone: &[(Key, Arc<Record>)], cause: Cause);

    /// Log time has moved: do what has become due by [`Txn::now`], a bounded slice of it. Called by entries of their
    /// own ([`crate::Action::Advance`]), which the leader proposes once its clock has passed [`Program::due`].
    fn advance(&self, txn: &mut Txn<'_>) {
        let _ = txn;
    }

    /// When `advance` has something to do next; `None` if nothing waits for time.
    fn due(&self, view: View<'_>) -> Option<Timestamp> {
        let _ = view;
        None
    }

    /// Does this operation only give something back (release, acknowledge, delete)? Such operations are still taken
    /// when a node is overloaded or its disk is full.
    fn drains(&self, operation: &[u8]) -> bool {
        let _ = operation;
        false
    }
}

/// A program without recipes: every operation is refused. For the store's own tests.
pub struct NoProgram;

impl Program for NoProgram {
    fn apply(&self, _: &mut Txn<'_>, _: &Principal, _: &[u8]) -> Result<Vec<u8>, Refusal> {
        Err(Refusal::Malformed)
    }

    fn check(&self, _: View<'_>, _: &[u8]) -> Result<(), Refusal> {
        Err(Refusal::Malformed)
    }

    fn released(&self, _: &mut Txn<'_>, _: &[(Key, Arc<Record>)], _: Cause) {}
}
