//! How long messages are kept: bounds of a topic, kept by each publish and by timers.

use std::collections::BTreeSet;

use coracle_store::{Millis, Refusal as StoreRefusal, Timestamp, Txn};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::log::{Log, MESSAGE_OVERHEAD, Place, Topic, decoded};
use super::{Draft, FAMILY, Message, Refusal, delivery};
use crate::{encoded, timer};

/// Messages taken out by one timer.
const SLICE: usize = 1_024;
/// Most that `max_per_key` may ask for: each publish counts them.
pub const PER_KEY: u64 = 100;

/// What a topic keeps. `None` is no bound.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Retention {
    #[n(0)]
    pub max_age: Option<Millis>,
    /// Of the sizes of the messages: body, key and headers, and [`super::MESSAGE_OVERHEAD`] each.
    #[n(1)]
    pub max_bytes: Option<u64>,
    #[n(2)]
    pub max_messages: Option<u64>,
    /// Of each key, 1..=[`PER_KEY`]: 1 makes the topic a table of current values.
    #[n(3)]
    pub max_per_key: Option<u64>,
    #[n(4)]
    pub overflow: Overflow,
}

/// What a publish beyond `max_bytes` or `max_messages` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Overflow {
    /// The oldest messages make room.
    #[default]
    #[n(0)]
    DropOldest,
    /// It is refused.
    #[n(1)]
    Reject,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Some(Millis(24 * 3_600_000)),
            max_bytes: Some(64 * 1024 * 1024),
            max_messages: None,
            max_per_key: None,
            overflow: Overflow::DropOldest,
        }
    }
}

/// What the timers of the family say.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Alarm {
    /// The oldest message of a topic is too old.
    #[n(0)]
    Age(#[n(0)] Box<str>),
    /// The ttl of one message is over.
    #[n(1)]
    Message(#[n(0)] Box<str>, #[n(1)] u64),
    /// Go on to keep no more than `max_per_key` of each key, behind this place.
    #[n(2)]
    Sweep(#[n(0)] Box<str>, #[n(1)] ByteVec),
    /// Go on to keep the bounds of count and bytes, which were made smaller.
    #[n(3)]
    Shrink(#[n(0)] Box<str>),
    /// A delivery was not acknowledged in time, or its delay is over: subject, subscription, place.
    #[n(4)]
    Delivery(#[n(0)] Box<str>, #[n(1)] Box<str>, #[n(2)] Place),
}

impl Alarm {
    pub fn encode(&self) -> Vec<u8> {
        encoded(self)
    }
}

impl Retention {
    /// Whether a publish of so many messages and bytes could be kept, if it were alone.
    pub(super) fn admits(&self, messages: usize, bytes: u64) -> bool {
        self.max_messages.is_none_or(|most| messages as u64 <= most)
            && self.max_bytes.is_none_or(|most| bytes <= most)
    }

    fn exceeded(&self, log: &Log) -> bool {
        self.max_messages.is_some_and(|most| log.count > most)
            || self.max_bytes.is_some_and(|most| log.bytes > most)
    }
}

/// After messages were appended: keep the bounds. What goes is no more than what came, so the work is that of the
/// publish; what a smaller bound left over goes by its own timer.
pub(super) fn enforce(
    txn: &mut Txn<'_>,
    topic: &Topic<'_>,
    log: &mut Log,
    retention: &Retention,
    came: &Came,
) -> Result<(), StoreRefusal> {
    for key in &came.keys {
        supersede(txn, topic, log, retention, key);
    }
    // The smallest message counts its overhead.
    for _ in 0..=came.bytes / MESSAGE_OVERHEAD as u64 {
        if !retention.exceeded(log) {
            break;
        }
        if retention.overflow == Overflow::Reject {
            return Err(Refusal::Full(log.count, log.bytes).into());
        }
        topic.drop_oldest(txn, log);
    }
    Ok(())
}

/// What a publish adds.
pub(super) struct Came {
    keys: BTreeSet<Box<str>>,
    bytes: u64,
}

impl Came {
    pub fn of(drafts: &[Draft]) -> Self {
        let keys = drafts.iter().filter_map(|draft| draft.key.clone()).collect();
        Self { keys, bytes: drafts.iter().map(Draft::size).sum() }
    }
}

/// After the bounds changed: begin to keep them.
pub(super) fn changed(txn: &mut Txn<'_>, topic: &Topic<'_>, log: &mut Log, retention: &Retention) {
    if let Some(at) = log.alarm.take() {
        timer::clear(txn, at, FAMILY, &Alarm::Age(topic.name.into()).encode());
    }
    shrink(txn, topic, log, retention);
    if retention.max_per_key.is_some() {
        sweep(txn, topic, log, retention, Vec::new());
    }
}

/// Have the timer of the oldest message set, if age is bounded. One that is set already may come early, never late.
pub(super) fn rearm(txn: &mut Txn<'_>, topic: &Topic<'_>, log: &mut Log, retention: &Retention) {
    let what = Alarm::Age(topic.name.into()).encode();
    if log.count == 0 {
        if let Some(at) = log.alarm.take() {
            timer::clear(txn, at, FAMILY, &what);
        }
    } else if log.alarm.is_none()
        && let Some(at) = too_old(txn, topic, log, retention)
    {
        let at = at.max(soon(txn));
        timer::set(txn, at, FAMILY, &what);
        log.alarm = Some(at);
    }
}

/// A timer ran out.
pub(super) fn due(txn: &mut Txn<'_>, what: &[u8]) {
    let alarm = minicbor::decode(what).expect("only topics set their timers");
    let name = match &alarm {
        Alarm::Age(name) | Alarm::Message(name, _) | Alarm::Sweep(name, _) | Alarm::Shrink(name) => {
            name.clone()
        }
        Alarm::Delivery(subject, name, place) => return delivery::due(txn, subject, name, *place),
    };
    let topic = Topic::new(&name);
    let Some(mut log) = topic.log(txn.view()) else { return };
    let retention = topic.retention(txn.view()).unwrap_or_default();
    match alarm {
        Alarm::Age(_) => {
            log.alarm = None;
            for _ in 0..SLICE {
                let oldest = too_old(txn, &topic, &log, &retention);
                if oldest.is_none_or(|at| at > txn.now()) || !topic.drop_oldest(txn, &mut log) {
                    break;
                }
            }
        }
        Alarm::Message(_, seq) => drop(topic.remove(txn, &mut log, seq)),
        Alarm::Sweep(_, place) => sweep(txn, &topic, &mut log, &retention, place.into()),
        Alarm::Shrink(_) => shrink(txn, &topic, &mut log, &retention),
        Alarm::Delivery(..) => {}
    }
    topic.settle(txn, log);
}

/// In an entry of its own: what is left over must not all go in this one.
fn soon(txn: &Txn<'_>) -> Timestamp {
    txn.now().after(Millis(1))
}

/// When the oldest message is too old.
fn too_old(txn: &Txn<'_>, topic: &Topic<'_>, log: &Log, retention: &Retention) -> Option<Timestamp> {
    let max_age = retention.max_age?;
    let (_, oldest) = topic.from(txn.view(), log.floor + 1).next()?;
    Some(decoded::<Message>(&oldest.value).time.after(max_age))
}

fn shrink(txn: &mut Txn<'_>, topic: &Topic<'_>, log: &mut Log, retention: &Retention) {
    for _ in 0..SLICE {
        if !retention.exceeded(log) || !topic.drop_oldest(txn, log) {
            return;
        }
    }
    timer::set(txn, soon(txn), FAMILY, &Alarm::Shrink(topic.name.into()).encode());
}

/// Keep no more of a key than may be. What newer values of its key supersede is no loss: it makes no gap.
fn supersede(txn: &mut Txn<'_>, topic: &Topic<'_>, log: &mut Log, retention: &Retention, key: &str) {
    let Some(most) = retention.max_per_key else { return };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    for _ in 0..SLICE {
        let mut kept = topic.with_key(txn.view(), key);
        let Some(oldest) = kept.next().filter(|_| kept.take(most).count() == most) else { return };
        topic.remove(txn, log, oldest);
    }
}

/// The same for all keys behind a place.
fn sweep(txn: &mut Txn<'_>, topic: &Topic<'_>, log: &mut Log, retention: &Retention, mut place: Vec<u8>) {
    let Some(most) = retention.max_per_key else { return };
    for _ in 0..SLICE {
        let Some((next, key, seq)) = topic.keyed_after(txn.view(), &place) else { return };
        place = next;
        let newer = topic.with_key(txn.view(), &key).rev().take_while(|other| *other > seq);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if newer.take(most).count() == most {
            topic.remove(txn, log, seq);
        }
    }
    timer::set(txn, soon(txn), FAMILY, &Alarm::Sweep(topic.name.into(), place.into()).encode());
}
