//! Deliveries of a subscription: acknowledged, given back or renewed, by receipt; and how they come back or die.

use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::limits::NAME_BYTES;
use coracle_store::{
    Cause, ContentType, Key, Millis, Record, Refusal as StoreRefusal, Revision, SessionId, Timestamp, Txn,
};
use minicbor::{Decode, Encode};

use super::log::{Log, Place, Topic, decoded, put};
use super::read::{self, Found};
use super::retention::{self, Came};
use super::subscription::{InFlight, Name, Part, Returned, Subscriber, Subscription, VISIBILITY_MS};
use super::{Draft, FAMILY, Message, Outcome, Refusal};
use crate::{bounded, encoded, row, timer};

/// Messages of one receive.
pub const RECEIVE: usize = 100;
/// Receipts of one call.
pub const RECEIPTS: usize = 1_000;

/// What proves a delivery: the message's place, and the revision that handed it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Receipt {
    #[n(0)]
    pub place: Place,
    #[n(1)]
    pub delivered: Revision,
}

impl Receipt {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encoded(self)
    }

    /// What [`Receipt::encode`] wrote; `None` if it did not.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok().filter(|receipt: &Self| receipt.encode() == bytes)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Receive {
    #[n(0)]
    pub from: Name,
    /// `None`, `Session` or `Private`: with a session, what is not settled when it ends comes back at once.
    #[n(1)]
    pub attach: Attach,
    /// 1..=[`RECEIVE`]
    #[n(2)]
    pub max: u64,
    /// `None` is that of the subscription, or the life of the session if there is one.
    #[n(3)]
    pub visibility: Option<Millis>,
    /// Acknowledged in the same entry, first.
    #[n(4)]
    pub acks: Vec<Receipt>,
    /// Acknowledge what is received at once: at most once.
    #[n(5)]
    pub ack: bool,
}

/// What a receive answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Received {
    #[n(0)]
    pub deliveries: Vec<Delivery>,
    /// Which of the acks were of current deliveries.
    #[n(1)]
    pub acks: Vec<bool>,
    /// Nothing was found so far, but there is more to look at: receive again.
    #[n(2)]
    pub more: bool,
    /// Retention took what the subscription had not seen, between these positions.
    #[n(3)]
    pub gap: Option<(u64, u64)>,
    #[n(4)]
    pub session: Option<SessionId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Delivery {
    #[n(0)]
    pub receipt: Receipt,
    #[n(1)]
    pub topic: Box<str>,
    /// 1 the first time.
    #[n(2)]
    pub deliveries: u64,
    #[n(3)]
    pub content_type: ContentType,
    #[n(4)]
    pub message: Message,
    /// When it comes back if nothing is said; `None`: when the session ends.
    #[n(5)]
    pub until: Option<Timestamp>,
}

/// What to do with deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Settle {
    #[n(0)]
    Ack,
    #[n(1)]
    Nack(#[n(0)] Nack),
    /// Keep it so much longer, from now on; as long as the subscription says if it is not said.
    #[n(2)]
    Renew(#[n(0)] Option<Millis>),
}

/// How to give back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// Not before this time has passed.
    #[n(0)]
    pub delay: Millis,
    /// This delivery does not count.
    #[n(1)]
    pub uncounted: bool,
    /// Dead at once.
    #[n(2)]
    pub fatal: bool,
    /// For people; goes with the dead.
    #[n(3)]
    pub reason: Box<str>,
}

/// How a message came to be dead; it goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Dead {
    #[n(0)]
    pub of: Name,
    #[n(1)]
    pub topic: Box<str>,
    #[n(2)]
    pub seq: u64,
    #[n(3)]
    pub deliveries: u64,
    #[n(4)]
    pub reason: Box<str>,
}

/// Settle deliveries; answers which of the receipts were of current ones. The others change nothing.
pub(super) fn settle(
    txn: &mut Txn<'_>,
    name: &Name,
    receipts: &[Receipt],
    how: &Settle,
) -> Result<Outcome, StoreRefusal> {
    bounded("receipts", receipts.len(), 1, RECEIPTS)?;
    match how {
        Settle::Ack => {}
        Settle::Nack(nack) => {
            bounded("reason", nack.reason.len(), 0, NAME_BYTES)?;
            let longest = usize::try_from(*VISIBILITY_MS.end()).unwrap_or(usize::MAX);
            bounded("delay", usize::try_from(nack.delay.0).unwrap_or(usize::MAX), 0, longest)?;
        }
        Settle::Renew(visibility) => visibility.map_or(Ok(()), check_visibility)?,
    }
    let subscriber = name.subscriber();
    let Some(mut subscription) = subscriber.load(txn.view()) else {
        return Err(Refusal::NoSubscription.into());
    };
    let visibility = match how {
        Settle::Renew(asked) => Some(asked.unwrap_or(subscription.settings.visibility)),
        Settle::Ack | Settle::Nack(_) => None,
    };
    let one = |receipt: &Receipt| match how {
        Settle::Ack => acknowledge(txn, &subscriber, &mut subscription, *receipt),
        Settle::Nack(nack) => give_back(txn, name, &mut subscription, *receipt, nack),
        Settle::Renew(_) => {
            visibility.is_some_and(|visibility| renew(txn, &subscriber, *receipt, visibility))
        }
    };
    let settled: Vec<bool> = receipts.iter().map(one).collect();
    if settled.contains(&true) {
        subscriber.store(txn, &subscription);
    }
    Ok(Outcome::Settled(settled, visibility))
}

/// The delivery that a receipt is of, if it is still the current one.
fn current(
    txn: &Txn<'_>,
    subscriber: &Subscriber<'_>,
    receipt: Receipt,
) -> Option<(Key, Arc<Record>, InFlight)> {
    let key = subscriber.in_flight(receipt.place);
    let record = txn.get(&key)?.clone();
    let delivery: InFlight = decoded(&record.value);
    (delivery.delivered == receipt.delivered).then_some((key, record, delivery))
}

/// Take a delivery out of the air.
fn take(
    txn: &mut Txn<'_>,
    subscriber: &Subscriber<'_>,
    subscription: &mut Subscription,
    receipt: Receipt,
) -> Option<InFlight> {
    let (key, _, delivery) = current(txn, subscriber, receipt)?;
    txn.delete(&key, Cause::Command);
    if let Some(at) = delivery.until {
        timer::clear(txn, at, FAMILY, &subscriber.alarm(receipt.place));
    }
    subscription.in_flight -= 1;
    Some(delivery)
}

pub(super) fn acknowledge(
    txn: &mut Txn<'_>,
    subscriber: &Subscriber<'_>,
    subscription: &mut Subscription,
    receipt: Receipt,
) -> bool {
    let acked = take(txn, subscriber, subscription, receipt).is_some();
    subscription.acked += u64::from(acked);
    acked
}

fn give_back(
    txn: &mut Txn<'_>,
    name: &Name,
    subscription: &mut Subscription,
    receipt: Receipt,
    nack: &Nack,
) -> bool {
    let subscriber = name.subscriber();
    let Some(mut delivery) = take(txn, &subscriber, subscription, receipt) else { return false };
    delivery.deliveries -= u64::from(nack.uncounted);
    if nack.fatal {
        bury(txn, name, subscription, receipt.place, &delivery, &nack.reason);
    } else if nack.delay.0 > 0 && !spent(subscription, delivery.deliveries) {
        let at = txn.now().after(nack.delay);
        let delayed = InFlight { delivered: Revision(0), until: Some(at), ..delivery };
        put(txn, subscriber.in_flight(receipt.place), &delayed);
        timer::set(txn, at, FAMILY, &subscriber.alarm(receipt.place));
        subscription.in_flight += 1;
    } else {
        come_back(txn, name, subscription, receipt.place, delivery, &nack.reason);
    }
    true
}

fn renew(txn: &mut Txn<'_>, subscriber: &Subscriber<'_>, receipt: Receipt, visibility: Millis) -> bool {
    let Some((key, record, mut delivery)) = current(txn, subscriber, receipt) else { return false };
    let at = txn.now().after(visibility);
    if let Some(old) = delivery.until.replace(at) {
        timer::clear(txn, old, FAMILY, &subscriber.alarm(receipt.place));
    }
    timer::set(txn, at, FAMILY, &subscriber.alarm(receipt.place));
    txn.put(key, row(&delivery), ContentType::Binary, record.session);
    true
}

/// A visibility or a delay is over.
pub(super) fn due(txn: &mut Txn<'_>, subject: &str, name: &str, place: Place) {
    let name = Name { subject: subject.into(), name: name.into() };
    let subscriber = name.subscriber();
    let key = subscriber.in_flight(place);
    let Some(mut subscription) = subscriber.load(txn.view()) else { return };
    let Some(delivery) = txn.get(&key).map(|record| decoded::<InFlight>(&record.value)) else { return };
    if delivery.until.is_none_or(|until| until > txn.now()) {
        return;
    }
    txn.delete(&key, Cause::Command);
    subscription.in_flight -= 1;
    come_back(txn, &name, &mut subscription, place, delivery, "not acknowledged in time");
    subscriber.store(txn, &subscription);
}

/// Sessions ended, and what they had received is not in the air any more.
pub(super) fn released(txn: &mut Txn<'_>, gone: impl Iterator<Item = (Name, Part, Key, Arc<Record>)>) {
    for (name, part, key, record) in gone {
        let subscriber = name.subscriber();
        let (Part::InFlight, Some(mut subscription)) = (part, subscriber.load(txn.view())) else { continue };
        let (place, delivery) = (Place::of(&key), decoded::<InFlight>(&record.value));
        if let Some(at) = delivery.until {
            timer::clear(txn, at, FAMILY, &subscriber.alarm(place));
        }
        subscription.in_flight -= 1;
        come_back(txn, &name, &mut subscription, place, delivery, "the session of its receiver ended");
        subscriber.store(txn, &subscription);
    }
}

/// To be handed out again, in its old place; or dead, if that was its last delivery.
fn come_back(
    txn: &mut Txn<'_>,
    name: &Name,
    subscription: &mut Subscription,
    place: Place,
    delivery: InFlight,
    reason: &str,
) {
    if spent(subscription, delivery.deliveries) {
        return bury(txn, name, subscription, place, &delivery, reason);
    }
    let InFlight { topic, deliveries, .. } = delivery;
    put(txn, name.subscriber().returned(place), &Returned { topic, deliveries });
    subscription.returned += 1;
}

fn spent(subscription: &Subscription, deliveries: u64) -> bool {
    let most = subscription.settings.max_deliveries;
    most > 0 && deliveries >= most
}

/// Publish it among the dead. That is never refused: what is given up is somebody's data.
fn bury(
    txn: &mut Txn<'_>,
    name: &Name,
    subscription: &mut Subscription,
    place: Place,
    delivery: &InFlight,
    reason: &str,
) {
    subscription.dead += 1;
    let Some(Found { message, content_type, .. }) = read::message(txn.view(), &delivery.topic, place.seq)
    else {
        return;
    };
    let dead = Dead {
        of: name.clone(),
        topic: delivery.topic.clone(),
        seq: place.seq,
        deliveries: delivery.deliveries,
        reason: reason.into(),
    };
    let Message { key, headers, body, .. } = message;
    let draft = Draft { key, ttl: None, headers, content_type, body, dead: Some(dead) };
    let to = subscription.settings.dead_letter.clone();
    let to = to.unwrap_or_else(|| super::subscription::dead_letter(name).into());
    let topic = Topic::new(&to);
    let mut log = topic.log(txn.view()).unwrap_or_else(|| Log::born(txn.view()));
    let retention = topic.retention(txn.view()).unwrap_or_default();
    let retention = retention::Retention { overflow: retention::Overflow::DropOldest, ..retention };
    let came = Came::of(std::slice::from_ref(&draft));
    topic.append(txn, &mut log, vec![draft]);
    let kept = retention::enforce(txn, &topic, &mut log, &retention, &came);
    debug_assert!(kept.is_ok(), "the oldest make room");
    topic.settle(txn, log);
}

pub(super) fn check_visibility(visibility: Millis) -> Result<(), StoreRefusal> {
    let ms = |bound: u64| usize::try_from(bound).unwrap_or(usize::MAX);
    bounded("visibility", ms(visibility.0), ms(*VISIBILITY_MS.start()), ms(*VISIBILITY_MS.end()))
}
