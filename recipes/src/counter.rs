//! Counters: whole numbers that many add to at once, and blocks of ids that are handed out once.
//!
//! A counter is one key under its name, and a counter that was never written is 0: so it needs no creation, and an
//! addition is one entry however many add at once. Whoever adds 100 to a counter alone has the hundred numbers after
//! the previous value: no other addition gets them. Values stay where JSON readers everywhere have them exactly
//! ([`MIN`], [`MAX`]).

use std::sync::Arc;

use coracle_store::command::{Comparison, Precondition};
use coracle_store::limits::{KEY_OVERHEAD, NAME_BYTES};
use coracle_store::{
    Cause, ContentType, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection,
    Txn, View,
};
use minicbor::{Decode, Encode};

use crate::{Described, bounded, names};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Add(#[n(0)] Add),
    #[n(1)]
    Set(#[n(0)] Set),
    /// Forget the counter: it is 0 again, as if never written. Nothing if it was not.
    #[n(2)]
    Delete(#[n(0)] Box<str>, #[n(1)] Precondition),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Add {
    /// 1..=512 bytes of UTF-8.
    #[n(0)]
    pub counter: Box<str>,
    #[n(1)]
    pub delta: i64,
    /// The sum shall not be below this, nor below [`MIN`].
    #[n(2)]
    pub min: Option<i64>,
    /// The sum shall not be above this, nor above [`MAX`].
    #[n(3)]
    pub max: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Set {
    #[n(0)]
    pub counter: Box<str>,
    /// [`MIN`]..=[`MAX`].
    #[n(1)]
    pub value: i64,
    /// On the revision of the last change.
    #[n(2)]
    pub precondition: Precondition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The value now and before. After an addition the numbers in `previous + 1 ..= value` are the caller's own.
    #[n(0)]
    Value(#[n(0)] i64, #[n(1)] i64),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// The sum, or the value to set, is out of bounds: the value as it stays, and the bounds.
    #[n(0)]
    OutOfRange(#[n(0)] i64, #[n(1)] i64, #[n(2)] i64),
    /// The precondition does not hold: the value, and the revision of its last change (0 if it was never written).
    #[n(1)]
    Changed(#[n(0)] i64, #[n(1)] Revision),
}

/// A counter as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    pub value: i64,
    /// Of the last change; 0 if it was never written.
    pub revision: Revision,
}

#[derive(Encode, Decode)]
struct Stored {
    #[n(0)]
    value: i64,
}

/// As in the URL.
pub const NAME: &str = "counters";
/// First byte of every key of a counter.
pub const FAMILY: Family = Family(b'c');
/// The greatest value: what every reader of JSON has exactly.
pub const MAX: i64 = (1 << 53) - 1;
/// The least value.
pub const MIN: i64 = -MAX;

/// A counter's value; 0 if it was never written.
#[must_use]
pub fn read(view: View<'_>, name: &str) -> Counter {
    view.get(&key(name)).map_or(Counter { value: 0, revision: Revision(0) }, |record| Counter {
        value: value(record),
        revision: record.mod_revision,
    })
}

/// Names of counters that start with `prefix`, after `after`, at most `limit`, in order of their bytes.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

/// Add to a counter, as an operation of a transaction.
#[must_use]
pub fn add(counter: &str, delta: i64, min: Option<i64>, max: Option<i64>) -> crate::Operation {
    crate::Operation::Counter(Operation::Add(Add { counter: counter.into(), delta, min, max }))
}

/// The value that an event of a counter leaves, and the one before; 0 where there is none.
#[must_use]
pub fn values(event: &Event) -> (i64, i64) {
    let of = |record: &Option<Arc<Record>>| record.as_deref().map_or(0, value);
    (of(&event.record), of(&event.previous))
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Add(Add { counter, delta, min, max }) => {
            let previous = read(txn.view(), &counter).value;
            let (min, max) = (min.unwrap_or(MIN).max(MIN), max.unwrap_or(MAX).min(MAX));
            let sum = previous.checked_add(delta).filter(|sum| (min..=max).contains(sum));
            let sum = sum.ok_or(Refusal::OutOfRange(previous, min, max))?;
            if delta != 0 {
                write(txn, &counter, sum)?;
            }
            Ok(Outcome::Value(sum, previous))
        }
        Operation::Set(Set { counter, value, precondition }) => {
            let before = read(txn.view(), &counter);
            met(before, precondition)?;
            if !(MIN..=MAX).contains(&value) {
                return Err(Refusal::OutOfRange(before.value, MIN, MAX).into());
            }
            write(txn, &counter, value)?;
            Ok(Outcome::Value(value, before.value))
        }
        Operation::Delete(counter, precondition) => {
            let before = read(txn.view(), &counter);
            met(before, precondition)?;
            txn.delete(&key(&counter), Cause::Command);
            Ok(Outcome::Value(0, before.value))
        }
    }
}

/// Whether the value stands to a number as asked.
pub(crate) fn check(view: View<'_>, name: &str, is: Comparison, than: i64) -> Result<(), StoreRefusal> {
    let Counter { value, revision } = read(view, name);
    let holds = match is {
        Comparison::Equal => value == than,
        Comparison::NotEqual => value != than,
        Comparison::Less => value < than,
        Comparison::Greater => value > than,
    };
    if holds { Ok(()) } else { Err(Refusal::Changed(value, revision).into()) }
}

/// No counter belongs to a session.
pub(crate) fn released(_: &mut Txn<'_>, _: &[&(Key, Arc<Record>)], _: Cause) {}

/// No counter waits for time.
pub(crate) fn due(_: &mut Txn<'_>, _: &[u8]) {}

pub(crate) fn drains(operation: &Operation) -> bool {
    matches!(operation, Operation::Delete(..))
}

/// `set`, `deleted`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (name, _) = names::split(event.key.name())?;
    let op = if event.record.is_some() { "set" } else { "deleted" };
    Some(Described { family: NAME, op, name, item: None, session: None, token: None })
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Key(key(name))
}

fn key(name: &str) -> Key {
    Key::new(FAMILY, &names::closed(name))
}

fn value(record: &Record) -> i64 {
    minicbor::decode::<Stored>(&record.value).expect("only a counter writes its key").value
}

fn met(counter: Counter, precondition: Precondition) -> Result<(), Refusal> {
    let written = counter.revision != Revision(0);
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Matches(revision) => written && revision == counter.revision,
        Precondition::Absent => !written,
        Precondition::Present => written,
    };
    if holds { Ok(()) } else { Err(Refusal::Changed(counter.value, counter.revision)) }
}

fn write(txn: &mut Txn<'_>, name: &str, value: i64) -> Result<(), StoreRefusal> {
    bounded("counter", name.len(), 1, NAME_BYTES)?;
    let key = key(name);
    if txn.get(&key).is_none() {
        txn.make_room(KEY_OVERHEAD + name.len() + 16)?;
    }
    txn.put(key, crate::row(&Stored { value }), ContentType::Binary, None);
    Ok(())
}
