//! The recipes: pure functions over a store transaction, one file each.
//!
//! A recipe is a module with `NAME` (as in the URL) and `FAMILY` (the first byte of its keys), the types `Operation`,
//! `Outcome` and `Refusal`, and six functions: `apply` (one operation), `released` (sessions ended: grant to whoever
//! is next), `due` (one of its [`timer`]s has run out), `drains` (does an operation only give back?), `describe` (an
//! event, for people) and `selection` (what to watch for one object). To add one, write its file and add one line to
//! the list at [`recipes`].

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod barrier;
mod contenders;
pub mod counter;
mod declared;
pub mod election;
pub mod fence;
pub mod group;
pub mod latch;
mod line;
pub mod lock;
mod names;
pub mod queue;
pub mod semaphore;
pub mod service;
mod timer;
pub mod topic;

use std::sync::Arc;

use coracle_store::command::{Comparison, Condition as StoreCondition};
use coracle_store::{
    Cause, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection, SessionId,
    Timestamp, Txn, Value, View,
};
use minicbor::encode::write::Cursor;
use minicbor::{Decode, Encode};

pub use contenders::Turn;
pub use declared::MOST as MEMBERS;
pub use line::{Hold, Place, Terms, reason_of_break};

/// From the list of recipes: their operations, outcomes and refusals as one type each, and who gets what.
macro_rules! recipes {
    ($($number:tt $Recipe:ident $module:ident;)*) => {
        /// Every recipe's operations.
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
        pub enum Operation {
            $(#[n($number)] $Recipe(#[n(0)] $module::Operation),)*
        }

        /// Every recipe's outcomes.
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
        pub enum Outcome {
            $(#[n($number)] $Recipe(#[n(0)] $module::Outcome),)*
        }

        /// Every recipe's refusals.
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
        pub enum Refusal {
            $(#[n($number)] $Recipe(#[n(0)] $module::Refusal),)*
        }

        $(impl From<$module::Refusal> for StoreRefusal {
            fn from(refusal: $module::Refusal) -> Self {
                StoreRefusal::Program(encoded(Refusal::$Recipe(refusal)).into())
            }
        })*

        fn apply(txn: &mut Txn<'_>, who: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
            match operation {
                $(Operation::$Recipe(operation) => $module::apply(txn, who, operation).map(Outcome::$Recipe),)*
            }
        }

        fn released(txn: &mut Txn<'_>, gone: &[(Key, Arc<Record>)], cause: Cause) {
            $($module::released(txn, &of_family(gone, $module::FAMILY), cause);)*
        }

        fn due(txn: &mut Txn<'_>, family: Family, what: &[u8]) {
            match family {
                $($module::FAMILY => $module::due(txn, what),)*
                _ => {}
            }
        }

        fn drains(operation: &Operation) -> bool {
            match operation {
                $(Operation::$Recipe(operation) => $module::drains(operation),)*
            }
        }

        /// Describe an event of a recipe's key; `None` for keys that are nobody's business (counters of a line, and
        /// so on) and for the store's own families.
        #[must_use]
        pub fn describe(event: &Event) -> Option<Described> {
            match event.key.family() {
                $($module::FAMILY => $module::describe(event),)*
                _ => None,
            }
        }

        /// The words for all recipes, as in the URL.
        pub const FAMILIES: &[&str] = &[$($module::NAME),*];

        /// What to watch to learn of any change to an object, such as `("locks", "deploy")`; `None` for an unknown
        /// family. An empty name selects the whole family.
        #[must_use]
        pub fn selection(family: &str, name: &str) -> Option<Selection> {
            match family {
                $($module::NAME if name.is_empty() => Some(Selection::Prefix(vec![$module::FAMILY.0])),
                $module::NAME => Some($module::selection(name)),)*
                _ => None,
            }
        }
    };
}

// The number is part of the log and disk format: a new recipe takes the next one, and none is ever used again.
recipes! {
    0 Lock lock;
    1 Semaphore semaphore;
    2 Election election;
    3 Queue queue;
    4 Topic topic;
    5 Service service;
    6 Barrier barrier;
    7 Latch latch;
    8 Counter counter;
    9 Group group;
    10 Fence fence;
}

/// Every recipe's conditions, for `If-Held` and for transactions.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Condition {
    /// `locks/NAME; token=N`: that token is a current hold of the lock.
    #[n(0)]
    LockHeld(#[n(0)] Box<str>, #[n(1)] Revision),
    /// `semaphores/NAME; token=N`: that token is a current hold of permits.
    #[n(1)]
    PermitsHeld(#[n(0)] Box<str>, #[n(1)] Revision),
    /// `elections/NAME; token=N`: that token is of the present term.
    #[n(2)]
    Leads(#[n(0)] Box<str>, #[n(1)] Revision),
    /// The counter's value stands to a number as said; a counter that was never written is 0.
    #[n(8)]
    Counter(#[n(0)] Box<str>, #[n(1)] Comparison, #[n(2)] i64),
}

impl Operation {
    /// As an operation of the store.
    #[must_use]
    pub fn encode(&self) -> coracle_store::Operation {
        coracle_store::Operation::Program(encoded(self).into())
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
        StoreCondition::Program(encoded(self).into())
    }
}

/// The place of a waiter in its line, by its key; 1 is next. What waits is in the order of the grants behind the name of
/// its object and the byte of its part. Costs the places ahead.
#[must_use]
pub fn position(view: View<'_>, key: &Key) -> Option<u64> {
    let (_, rest) = names::split(key.name())?;
    let part = key.name().len() - rest.split_first()?.1.len();
    let line = view.scan(key.family(), &key.name()[..part]);
    Some(line.take_while(|(other, _)| *other < key).count() as u64 + 1)
}

/// The program a Coracle node runs.
pub struct Recipes;

impl coracle_store::Program for Recipes {
    fn apply(&self, txn: &mut Txn<'_>, who: &Principal, operation: &[u8]) -> Result<Vec<u8>, StoreRefusal> {
        let operation = minicbor::decode(operation).map_err(|_| StoreRefusal::Malformed)?;
        apply(txn, who, operation).map(encoded)
    }

    fn check(&self, view: View<'_>, condition: &[u8]) -> Result<(), StoreRefusal> {
        match minicbor::decode(condition).map_err(|_| StoreRefusal::Malformed)? {
            Condition::LockHeld(name, token) => lock::check(view, &name, token),
            Condition::PermitsHeld(name, token) => semaphore::check(view, &name, token),
            Condition::Leads(name, token) => election::check(view, &name, token),
            Condition::Counter(name, is, than) => counter::check(view, &name, is, than),
        }
    }

    fn released(&self, txn: &mut Txn<'_>, gone: &[(Key, Arc<Record>)], cause: Cause) {
        released(txn, gone, cause);
    }

    fn advance(&self, txn: &mut Txn<'_>) {
        for _ in 0..timer::SLICE {
            let Some((family, what)) = timer::pop(txn) else { break };
            due(txn, family, &what);
        }
    }

    fn due(&self, view: View<'_>) -> Option<Timestamp> {
        timer::next(view)
    }

    fn drains(&self, operation: &[u8]) -> bool {
        minicbor::decode(operation).is_ok_and(|operation| drains(&operation))
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
    /// What of it, if it has parts that are named: a message, an instance, a member.
    pub item: Option<String>,
    pub session: Option<SessionId>,
    pub token: Option<Revision>,
}

fn of_family(gone: &[(Key, Arc<Record>)], family: Family) -> Vec<&(Key, Arc<Record>)> {
    gone.iter().filter(|(key, _)| key.family() == family).collect()
}

fn encoded(value: impl Encode<()>) -> Vec<u8> {
    // Most are shorter: grown from nothing, they would be moved four times.
    let mut bytes = Vec::with_capacity(128);
    minicbor::encode(value, &mut bytes).expect("writing to memory cannot fail");
    bytes
}

/// What a key holds. Most is short: written where it is gathered, it needs no memory of its own on the way.
fn row(value: &impl Encode<()>) -> Value {
    let mut short = Cursor::new([0; 256]);
    match minicbor::encode(value, &mut short) {
        Ok(()) => short.get_ref()[..short.position()].into(),
        Err(_) => encoded(value).into(),
    }
}

/// Refuse a text or number outside of its limits.
fn bounded(what: &str, actual: usize, least: usize, most: usize) -> Result<(), StoreRefusal> {
    if (least..=most).contains(&actual) {
        return Ok(());
    }
    Err(StoreRefusal::OutOfBounds(what.into(), actual.clamp(least, most) as u64, actual as u64))
}
