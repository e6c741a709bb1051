//! Queues: messages in order, each assigned by the server to the receiver that has waited longest.
//!
//! A message is one key with what was sent, written once, and one small key that says where it stands: ready (in the
//! order of delivery), blocked (behind another of its group), delayed or in flight. A receive takes from the front,
//! and no operation costs more because of messages that it does not touch:
//!
//! | key, after the name | value | |
//! |---|---|---|
//! | `c` | the [`Config`] | if configured |
//! | `h` | counts, and whether it is configured | while there are messages or waiters |
//! | `b` id | the message | in the order of the sends |
//! | `r` slot, order, id | deliveries so far | ready, in the order of delivery; slots are generations of a barrier queue |
//! | `o` group | who stands for the group | while it has messages |
//! | `g` group, place | | behind another of their group |
//! | `d` id | until when | delayed, also before the next try |
//! | `f` id | the delivery | in flight; attached to the session it depends on |
//! | `w` ticket | what it asked for | a receiver in line, attached to its session |
//! | `p` ticket | what it was assigned | until the receiver has collected it |
//! | `k` | | the one consumer of a queue with `single_active`, attached to its session |
//! | `u` dedup id | the message | sent within the window; a purge leaves it |
//!
//! The entry that makes a message ready also assigns it ((`Desk::finish`)). A receiver that waited *collects* what
//! it was assigned before it answers its caller: if it dies before, the message returns as if nothing had happened.
//! Generations, conditions and finalizers of barrier queues are in [`barrier`].

mod admin;
pub mod barrier;
mod control;
mod delivery;
mod desk;
mod generation;
mod keys;
mod line;
mod look;
mod operation;
mod outcome;
mod progress;
mod receive;
mod send;
mod settle;
mod state;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_store::limits::NAME_BYTES;
use coracle_store::{
    Cause, Event, Family, Key, Millis, Principal, Record, Refusal as StoreRefusal, Selection, Txn, Value,
    View,
};
use minicbor::{Decode, Encode};

use crate::{Described, bounded, names};
pub use barrier::{Barrier, Generation};
use keys::{Keys, Part};
pub use keys::{MessageId, Ticket};
pub use look::{
    Consumer, Item, Messages, OneConsumer, Standing, State, Statistics, Turn, ahead, consumer, consumers,
    flights, message, messages, moved, of_messages, said, watched_consumer,
};
pub use operation::{
    Backoff, Config, Header, Kind, Message, Nack, Operation, Overflow, Receipt, Receipts, Receive, Send,
};
pub use outcome::{Death, Delivered, Delivery, Ordinal, Outcome, Refusal, Sent};
pub use progress::{Own, Progress, broadcast, items, own, progress, slot_of, watched_own, watched_releases};
pub use state::{Role, Terms};

/// As in the URL.
pub const NAME: &str = "queues";
/// First byte of every key of a queue.
pub const FAMILY: Family = Family(b'q');
/// What the name of a dead letter queue ends with.
pub const DEAD: &str = ".dead";
/// Receivers in one line.
pub const WAITERS: u64 = 10_000;
/// Messages in one send.
pub const BATCH: usize = 1_000;
/// Messages in one receive, and receipts in one ack, nack or renew.
pub const RECEIVE: usize = 100;
/// A receive ends with the message that brings its values to this many bytes.
pub const RECEIVE_BYTES: usize = 1024 * 1024;
/// Messages that one entry purges, redrives or lets expire.
pub const SLICE: usize = 1_000;
/// Headers of a message.
pub const HEADERS: usize = 32;
/// The longest span a queue knows: delays, windows, retention.
pub const SPAN: Millis = Millis(366 * 24 * 3_600_000);
/// What a receiver that waited was assigned and does not collect in this time is given back.
pub const COLLECT: Millis = Millis(15_000);
/// The shortest visibility.
pub const VISIBILITY: Millis = Millis(1_000);

/// Where a receiver that waits is.
#[must_use]
pub fn turn(view: View<'_>, queue: &str, ticket: Ticket) -> Turn {
    look::turn(view, queue, ticket)
}

/// What a queue looks like from outside; `None` if it has neither messages nor waiters nor a configuration.
#[must_use]
pub fn statistics(view: View<'_>, queue: &str) -> Option<Statistics> {
    look::statistics(view, queue)
}

/// The configuration in force.
#[must_use]
pub fn config(view: View<'_>, queue: &str) -> Config {
    let keys = Keys::new(queue);
    progress::whole(view, &keys, look::config(view, &keys, queue))
}

/// The configuration of a queue that nobody configured.
#[must_use]
pub fn plain(queue: &str) -> Config {
    look::plain(queue)
}

/// What to watch for a receiver that waits: it is gone when something is assigned.
#[must_use]
pub fn watched(queue: &str, ticket: Ticket) -> Key {
    Keys::new(queue).waiter(ticket)
}

/// Names of queues that have something, as for all families.
#[must_use]
pub fn list(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Send(wanted) => send::send(txn, wanted),
        Operation::Receive(wanted) => receive::receive(txn, wanted),
        Operation::Collect(queue, ticket) => receive::collect(txn, &queue, ticket),
        Operation::Leave(queue, ticket) => Ok(receive::leave(txn, &queue, ticket)),
        Operation::Ack(receipts) => settle::ack(txn, &receipts),
        Operation::Nack(receipts, nack) => settle::nack(txn, &receipts, &nack),
        Operation::Renew(receipts, visibility) => settle::renew(txn, &receipts, visibility),
        Operation::Remove(queue, id) => admin::remove(txn, &queue, id),
        Operation::Purge(queue, until, in_flight) => admin::purge(txn, &queue, until, in_flight),
        Operation::Redrive(queue, to, limit) => admin::redrive(txn, &queue, to.as_deref(), limit),
        Operation::Configure(queue, config) => admin::configure(txn, &queue, config),
        Operation::Pause(queue, paused) => admin::pause(txn, &queue, paused),
        Operation::Transfer(queue, from, to) => admin::transfer(txn, &queue, from, to),
        Operation::Control(control) => control::control(txn, control),
    }
}

/// Sessions ended and their keys are gone: messages return, receivers leave their lines, the next consumer begins.
pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], cause: Cause) {
    let mut queues: BTreeMap<String, Vec<(Part, &Record)>> = BTreeMap::new();
    for (key, record) in gone.iter().map(|gone| (&gone.0, &gone.1)) {
        if let Some((name, part)) = Keys::of(key) {
            queues.entry(name).or_default().push((part, record));
        }
    }
    receive::released(txn, &queues);
    for (name, gone) in queues {
        settle::released(txn, &name, &gone, cause);
    }
}

/// A timer of a queue has run out.
pub(crate) fn due(txn: &mut Txn<'_>, what: &[u8]) {
    time::due(txn, what);
}

/// Taking and settling make a queue shorter, or move what is in it.
pub(crate) fn drains(operation: &Operation) -> bool {
    match operation {
        Operation::Send(_)
        | Operation::Receive(_)
        | Operation::Redrive(..)
        | Operation::Configure(_, Some(_)) => false,
        Operation::Collect(..)
        | Operation::Leave(..)
        | Operation::Ack(_)
        | Operation::Nack(..)
        | Operation::Renew(..)
        | Operation::Remove(..)
        | Operation::Purge(..)
        | Operation::Configure(_, None)
        | Operation::Pause(..)
        | Operation::Transfer(..)
        | Operation::Control(_) => true,
    }
}

/// `sent`, `removed` (acknowledged, deleted, expired or moved), `ready` (visible again), `delayed`, `received`, `taken`
/// (from the session that had it: out of time, or removed), `arrived` (of an item for which a session stands);
/// `waiting`, `left`; `consumer` (the one of a queue with `single_active`), `consumer_left`; `configured`, `unconfigured`;
/// `filling`, `released`, `broken`, `done` (a generation of a barrier queue).
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (name, part) = Keys::of(&event.key)?;
    let record = event.record.as_ref().or(event.previous.as_ref())?;
    let (op, item) = match (part, event.record.is_some()) {
        (Part::Body(id), true) => ("sent", Some(id)),
        (Part::Body(id), false) => ("removed", Some(id)),
        (Part::Delayed(id), true) => ("delayed", Some(id)),
        (Part::Flight(id), true) if look::is_delivery(record, event.previous.as_deref()) => {
            ("received", Some(id))
        }
        // Not settled by the session that had it: it ran out of time, or the message was removed.
        (Part::Flight(id), false) if event.cause == Cause::Broken && record.session.is_some() => {
            ("taken", Some(id))
        }
        // A session stands for an item of a barrier queue.
        (Part::Ready(place), true) if event.previous.is_none() && record.session.is_some() => {
            ("arrived", Some(place.id))
        }
        (Part::Ready(place), true) if look::was_delivered(record) => ("ready", Some(place.id)),
        (Part::Waiter, true) => ("waiting", None),
        (Part::Waiter, false) => ("left", None),
        (Part::Active, true) => ("consumer", None),
        (Part::Active, false) => ("consumer_left", None),
        (Part::Config, true) => ("configured", None),
        (Part::Config, false) => ("unconfigured", None),
        (Part::Generation(_), there) => (look::told(record, event.previous.as_deref(), there)?, None),
        _ => return None,
    };
    let item = item.map(|id| id.to_string());
    Some(Described { family: NAME, op, name, item, session: record.session, token: None })
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix(Keys::new(name).prefix().as_bytes().to_vec())
}

/// The name of a queue leaves room for that of its dead letters.
fn check_queue(name: &str) -> Result<(), StoreRefusal> {
    let room = if name.ends_with(DEAD) { 0 } else { DEAD.len() };
    bounded("queue", name.len(), 1, NAME_BYTES - room)
}

fn span(what: &str, span: Millis, least: u64) -> Result<(), StoreRefusal> {
    if (least..=SPAN.0).contains(&span.0) {
        return Ok(());
    }
    Err(StoreRefusal::OutOfBounds(what.into(), span.0.clamp(least, SPAN.0), span.0))
}

fn encoded(value: impl Encode<()>) -> Value {
    crate::row(&value)
}

fn decoded<'b, T: Decode<'b, ()>>(value: &'b [u8]) -> T {
    minicbor::decode(value).expect("only a queue writes its keys")
}
