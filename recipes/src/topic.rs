//! Topics: logs of messages under dot-separated subjects, with retention, patterns and durable subscriptions.
//!
//! A topic exists while it keeps a message or has settings of its own. Every message is one key:
//!
//! | key, after the name | value | |
//! |---|---|---|
//! | `m` seq | the [`Message`] | in the order of the topic; seqs are dense and never given twice |
//! | `k` message key, seq | | only for messages with a key |
//! | `s` | the [`Log`] | last seq, count, bytes, floor |
//! | `c` | the [`Retention`] | only if it was set |
//! | `u` … | | durable subscriptions, under a topic's name or a pattern: see [`subscription`] |
//!
//! and, under the empty name, what orders the whole family: `r` revision, number → which messages of which topic one
//! publish added (so that patterns are read in one order over all topics, at the cost of one key a publish, not one a
//! message), `f` and `h` for what retention took and what topics are forgotten (so that a loss is never silent, and
//! a seq never used twice).
//!
//! Readers follow keys, not the history: what a topic keeps is delivered whatever has been compacted. Messages that
//! retention takes are told of as a gap; messages that a newer value of their key supersedes, or whose own ttl is
//! over, are not missed by anybody.

mod delivery;
mod log;
mod read;
mod receive;
mod retention;
mod subject;
mod subscription;

use std::sync::Arc;

use coracle_store::limits::{KEY_OVERHEAD, META_BYTES, NAME_BYTES, VALUE_BYTES};
use coracle_store::{
    Cause, ContentType, Event, Family, Key, Millis, Principal, Record, Refusal as StoreRefusal, Revision,
    Selection, SessionId, Timestamp, Txn, Value,
};
use minicbor::{Decode, Encode};

use crate::{Described, bounded, names};
pub use delivery::{Dead, Delivery, Nack, RECEIPTS, RECEIVE, Receipt, Receive, Received, Settle};
use log::Topic;
pub use log::{Log, MESSAGE_OVERHEAD, Place};
pub use read::{
    Ahead, Found, Reach, Shown, ahead, before_last, before_time, losses, lost, message, messages, names,
    newest, oldest, shown,
};
use retention::Came;
pub use retention::{Overflow, PER_KEY, Retention};
pub use subject::{covers, is_pattern, is_subject, is_topic};
use subscription::Part;
pub use subscription::{
    DELIVERIES, IN_FLIGHT_MAX, Mode, Name, Pending, SUBSCRIPTIONS, Settings, Start, Subscription,
    VISIBILITY_MS, consumer, dead_letter, flights, lag, names as subscriptions, pending, show, wake,
};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Publish(#[n(0)] Publish),
    /// Replace the settings of a topic; `None` goes back to the default ones.
    #[n(1)]
    Configure(#[n(0)] Box<str>, #[n(1)] Option<Retention>),
    /// Forget a topic with its messages and subscriptions, a slice an entry: repeat while there is more.
    #[n(2)]
    Delete(#[n(0)] Box<str>),
    /// Make a durable subscription, or change the settings of one.
    #[n(3)]
    Subscribe(#[n(0)] Name, #[n(1)] Settings, #[n(2)] Start),
    #[n(4)]
    Unsubscribe(#[n(0)] Name),
    #[n(5)]
    Receive(#[n(0)] Receive),
    #[n(6)]
    Settle(#[n(0)] Name, #[n(1)] Vec<Receipt>, #[n(2)] Settle),
    #[n(7)]
    Seek(#[n(0)] Name, #[n(1)] Start),
}

/// Messages for one topic: all or none, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Publish {
    #[n(0)]
    pub topic: Box<str>,
    /// 1..=[`BATCH`] of them, together at most [`BATCH_BYTES`].
    #[n(1)]
    pub messages: Vec<Draft>,
    /// Only if this is the seq of the newest message; 0 for a topic that does not exist.
    #[n(2)]
    pub expect_last_seq: Option<u64>,
}

/// A message before it has a place.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Draft {
    /// What the message is about, for `max_per_key` and filters: 1..=512 bytes.
    #[n(0)]
    pub key: Option<Box<str>>,
    #[n(1)]
    pub ttl: Option<Millis>,
    /// At most 4 KiB together.
    #[n(2)]
    pub headers: Vec<(Box<str>, Box<str>)>,
    #[n(3)]
    pub content_type: ContentType,
    #[n(4)]
    pub body: Value,
    /// Never from outside: the message was given up by a subscription.
    #[n(5)]
    pub dead: Option<Dead>,
}

/// A message as a topic keeps it; its revision and content type are those of its key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Message {
    #[n(0)]
    pub time: Timestamp,
    /// Of its publish within the revision.
    #[n(1)]
    pub number: u64,
    #[n(2)]
    pub key: Option<Box<str>>,
    #[n(3)]
    pub expires: Option<Timestamp>,
    #[n(4)]
    pub headers: Vec<(Box<str>, Box<str>)>,
    #[n(5)]
    pub body: Value,
    #[n(6)]
    pub dead: Option<Dead>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// First and last seq; the revision is that of the entry.
    #[n(0)]
    Published(#[n(0)] u64, #[n(1)] u64),
    /// Whether the topic had no settings before, and what they are now.
    #[n(1)]
    Configured(#[n(0)] bool, #[n(1)] Retention),
    /// Messages and subscriptions that went, and whether there are more.
    #[n(2)]
    Deleted(#[n(0)] u64, #[n(1)] u64, #[n(2)] bool),
    /// Whether it is new, and how it is now.
    #[n(3)]
    Subscribed(#[n(0)] bool, #[n(1)] Subscription),
    #[n(4)]
    Unsubscribed,
    #[n(5)]
    Received(#[n(0)] Received),
    /// For each receipt, whether it was of a current delivery.
    #[n(6)]
    Settled(#[n(0)] Vec<bool>, #[n(1)] Option<Millis>),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// Not a name of a topic, or not a pattern.
    #[n(0)]
    NoSubject(#[n(0)] Box<str>),
    /// `expect_last_seq`: the actual one.
    #[n(1)]
    LastSeq(#[n(0)] u64),
    /// Messages and bytes there would be.
    #[n(2)]
    Full(#[n(0)] u64, #[n(1)] u64),
    #[n(3)]
    NoTopic,
    #[n(4)]
    NoSubscription,
    /// An exclusive subscription has this consumer, since this revision.
    #[n(5)]
    Consumed(#[n(0)] SessionId, #[n(1)] Revision),
    /// An exclusive subscription is received from with a session.
    #[n(6)]
    NeedsSession,
    /// So many deliveries are unsettled that no more are handed out.
    #[n(7)]
    TooManyInFlight(#[n(0)] u64),
    #[n(8)]
    TooManySubscriptions(#[n(0)] u64),
    /// More in one publish than the topic keeps at all.
    #[n(9)]
    TooLarge,
}

/// As in the URL.
pub const NAME: &str = "topics";
/// First byte of every key of topics.
pub const FAMILY: Family = Family(b'p');
/// Messages of one publish.
pub const BATCH: usize = 1_000;
/// Bodies, keys and headers of one publish.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// Messages that one entry of a delete takes.
const DELETE_SLICE: u64 = 4_096;
/// Subscriptions that one entry of a delete takes.
const UNSUBSCRIBE_SLICE: usize = 8;

impl Draft {
    /// What the message will count.
    pub(crate) fn size(&self) -> u64 {
        size(&self.body, self.key.as_deref(), &self.headers)
    }
}

impl Message {
    fn size(&self) -> u64 {
        size(&self.body, self.key.as_deref(), &self.headers)
    }
}

fn size(body: &[u8], key: Option<&str>, headers: &[(Box<str>, Box<str>)]) -> u64 {
    (MESSAGE_OVERHEAD + body.len() + key.map_or(0, str::len) + headers_size(headers)) as u64
}

fn headers_size(headers: &[(Box<str>, Box<str>)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Publish(publish) => self::publish(txn, publish),
        Operation::Configure(name, retention) => configure(txn, &name, retention),
        Operation::Delete(name) => delete(txn, &name),
        Operation::Subscribe(name, settings, start) => subscription::subscribe(txn, &name, settings, start),
        Operation::Unsubscribe(name) if subscription::unsubscribe(txn, &name) => Ok(Outcome::Unsubscribed),
        Operation::Unsubscribe(_) => Err(Refusal::NoSubscription.into()),
        Operation::Receive(receive) => receive::receive(txn, &receive),
        Operation::Settle(name, receipts, how) => delivery::settle(txn, &name, &receipts, &how),
        Operation::Seek(name, start) => subscription::seek(txn, &name, start),
    }
}

/// What sessions had received comes back.
pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], _: Cause) {
    let deliveries = gone.iter().filter_map(|(key, record)| {
        let (subject, rest) = names::split(key.name())?;
        let (name, part) = subscription::of(&subject, rest.strip_prefix(&[subscription::SUBSCRIPTION])?)?;
        Some((name, part, key.clone(), record.clone()))
    });
    delivery::released(txn, deliveries);
}

pub(crate) fn due(txn: &mut Txn<'_>, what: &[u8]) {
    retention::due(txn, what);
}

pub(crate) fn drains(operation: &Operation) -> bool {
    match operation {
        Operation::Publish(_) | Operation::Configure(..) | Operation::Subscribe(..) => false,
        Operation::Receive(_)
        | Operation::Delete(_)
        | Operation::Unsubscribe(_)
        | Operation::Settle(..)
        | Operation::Seek(..) => true,
    }
}

/// `published`, `dropped`; `configured`, `reset`; `subscribed`, `unsubscribed`; `delivered`, `returned`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (name, rest) = names::split(event.key.name())?;
    let (&part, rest) = rest.split_first().filter(|_| !name.is_empty())?;
    let there = event.record.is_some();
    let (op, item) = match part {
        log::MESSAGE => {
            let op = if there { "published" } else { "dropped" };
            (op, Some(log::last_number(&event.key).to_string()))
        }
        log::CONFIG => (if there { "configured" } else { "reset" }, None),
        subscription::SUBSCRIPTION => {
            let (of, part) = subscription::of(&name, rest)?;
            let op = match (part, there) {
                (Part::Record, true) if event.previous.is_none() => "subscribed",
                (Part::Record, false) => "unsubscribed",
                (Part::InFlight, true) if event.previous.is_none() => "delivered",
                (Part::Returned, true) => "returned",
                (Part::Record | Part::InFlight | Part::Returned | Part::Consumer, _) => return None,
            };
            (op, Some(of.name.into()))
        }
        _ => return None,
    };
    let session = event.record.as_ref().and_then(|record| record.session);
    Some(Described { family: NAME, op, name, item, session, token: None })
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix(Topic::new(name).prefix().to_vec())
}

fn publish(txn: &mut Txn<'_>, publish: Publish) -> Result<Outcome, StoreRefusal> {
    let Publish { topic: name, messages, expect_last_seq } = publish;
    check_topic(&name)?;
    bounded("publish_messages", messages.len(), 1, BATCH)?;
    messages.iter().try_for_each(check_draft)?;
    let bytes: usize = messages.iter().map(|m| m.body.len() + headers_size(&m.headers)).sum();
    bounded("publish_bytes", bytes, 0, BATCH_BYTES)?;
    let (topic, view) = (Topic::new(&name), txn.view());
    let known = topic.log(view);
    if let Some(expected) = expect_last_seq {
        let actual = known.as_ref().map_or(0, |log| log.last_seq);
        if expected != actual {
            return Err(Refusal::LastSeq(actual).into());
        }
    }
    let retention = topic.retention(view).unwrap_or_default();
    if !retention.admits(messages.len(), messages.iter().map(Draft::size).sum()) {
        return Err(Refusal::TooLarge.into());
    }
    let mut log = known.unwrap_or_else(|| Log::born(view));
    let (before, first, came) = (log.bytes, log.last_seq + 1, Came::of(&messages));
    topic.append(txn, &mut log, messages);
    let last = log.last_seq;
    retention::enforce(txn, &topic, &mut log, &retention, &came)?;
    if log.bytes > before {
        // All of it is counted already, and what made room for it as well.
        txn.make_room(1)?;
    }
    topic.settle(txn, log);
    Ok(Outcome::Published(first, last))
}

fn configure(txn: &mut Txn<'_>, name: &str, retention: Option<Retention>) -> Result<Outcome, StoreRefusal> {
    check_topic(name)?;
    if let Some(Retention { max_age, max_bytes, max_messages, max_per_key, .. }) = &retention {
        let positive = |what, bound: Option<u64>| {
            let actual = bound.map_or(1, |bound| usize::try_from(bound).unwrap_or(usize::MAX));
            bounded(what, actual, 1, usize::MAX)
        };
        positive("max_age", max_age.map(|age| age.0))?;
        positive("max_bytes", *max_bytes)?;
        positive("max_messages", *max_messages)?;
        let per_key = max_per_key.map_or(1, |most| usize::try_from(most).unwrap_or(usize::MAX));
        bounded("max_per_key", per_key, 1, usize::try_from(PER_KEY).unwrap_or(usize::MAX))?;
    }
    let topic = Topic::new(name);
    let before = topic.retention(txn.view());
    if retention.is_some() && before.is_none() {
        txn.make_room(KEY_OVERHEAD + name.len() + 32)?;
    }
    if retention != before {
        topic.set_retention(txn, retention.as_ref());
    }
    let bounds = retention.unwrap_or_default();
    let mut log = topic.log(txn.view()).unwrap_or_else(|| Log::born(txn.view()));
    if before.as_ref() != Some(&bounds) {
        retention::changed(txn, &topic, &mut log, &bounds);
        topic.settle(txn, log);
    }
    Ok(Outcome::Configured(before.is_none(), bounds))
}

fn delete(txn: &mut Txn<'_>, name: &str) -> Result<Outcome, StoreRefusal> {
    let topic = Topic::new(name);
    let subscriptions = subscription::names(txn.view(), name, None, UNSUBSCRIBE_SLICE);
    let known = topic.log(txn.view());
    if known.is_none() && subscriptions.is_empty() {
        return Err(Refusal::NoTopic.into());
    }
    for subscription in &subscriptions {
        let name = Name { subject: name.into(), name: subscription.as_str().into() };
        subscription::unsubscribe(txn, &name);
    }
    let mut messages = 0;
    if let Some(mut log) = known {
        topic.set_retention(txn, None);
        while messages < DELETE_SLICE && topic.drop_oldest(txn, &mut log) {
            messages += 1;
        }
        topic.settle(txn, log);
    }
    let more = topic.log(txn.view()).is_some() || subscriptions.len() == UNSUBSCRIBE_SLICE;
    Ok(Outcome::Deleted(messages, subscriptions.len() as u64, more))
}

fn check_topic(name: &str) -> Result<(), StoreRefusal> {
    bounded("topic", name.len(), 1, NAME_BYTES)?;
    if subject::is_topic(name) { Ok(()) } else { Err(Refusal::NoSubject(name.into()).into()) }
}

fn check_draft(draft: &Draft) -> Result<(), StoreRefusal> {
    bounded("message_bytes", draft.body.len(), 0, VALUE_BYTES)?;
    bounded("headers", headers_size(&draft.headers), 0, META_BYTES)?;
    if let Some(key) = &draft.key {
        bounded("key", key.len(), 1, NAME_BYTES)?;
    }
    if draft.ttl.is_some_and(|ttl| ttl.0 == 0) || draft.dead.is_some() {
        return Err(StoreRefusal::Malformed);
    }
    Ok(())
}
