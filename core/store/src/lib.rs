//! The state machine of Coracle: keys with revisions, sessions, transactions, history, idempotency.
//!
//! Pure: no clock, no IO, no threads, no randomness, no iteration in hash order. Time, ids and everything else that
//! could differ between nodes comes in as data, in the log entry. Given the same entries, every node has the same
//! state, bit for bit, and [`Store::hash`] proves it.

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod apply;
pub mod checkpoint;
mod chunk;
pub mod command;
mod expiry;
mod hash;
mod history;
mod idempotency;
pub mod ids;
pub mod limits;
mod liveness;
pub mod load;
mod mvcc;
mod operations;
mod past;
pub mod program;
mod range;
mod ranges;
pub mod record;
pub mod reply;
pub mod session;
pub mod steps;
pub mod store;
mod stored;
pub mod txn;
pub mod watch;

pub use checkpoint::{Delta, Row, RowCursor, RowSource, Table};
pub use command::{Action, Attach, Command, Condition, Idempotency, Operation, Principal, Settings};
pub use ids::{Family, Key, Millis, Revision, SessionId, Timestamp, Value};
pub use load::{LoadError, Loader};
pub use program::Program;
pub use record::{Cause, Change, ContentType, Event, Record};
pub use reply::{Outcome, Refusal, Reply};
pub use session::Session;
pub use store::{HistoryError, HistorySize, Order, Page, Range, Store};
pub use txn::{Txn, View};
pub use watch::{Selection, WatcherId, Watchers};
