//! Deliveries of a subscription: receive, then acknowledge, give back, or renew, by receipt.

use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::limits::{HOLDS, NAME_BYTES};
use coracle_store::{
    Cause, ContentType, Key, Millis, Record, Refusal as StoreRefusal, Revision, SessionId, Timestamp, Txn,
};
use minicbor::{Decode, Encode};

use super::log::{Log, Place, Topic, decoded, put};
use super::read::{self, Found, Reach};
use super::retention::{self, Came};
use super::subscription::{
    IN_FLIGHT_MAX, InFlight, Mode, Name, Part, Returned, Subscriber, Subscription, VISIBILITY_MS,
};
use super::{Draft, FAMILY, Message, Outcome, Refusal};
use crate::{bounded, encoded, timer};

/// Messages of one receive.
pub const RECEIVE: usize = 100;
/// Bodies of one receive, unless one alone is larger.
const BODIES: usize = 1024 * 1024;
/// Messages and publishes that one receive looks at.
const LOOKS: usize = 1_024;
/// Topics of a pattern that one receive looks at to tell of a loss.
const TOPICS: usize = 64;
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
    /// Keep it so much longer, from now on.
    #[n(2)]
    Renew(#[n(0)] Millis),
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

pub(super) fn receive(txn: &mut Txn<'_>, wanted: &Receive) -> Result<Outcome, StoreRefusal> {
    let Receive { from, attach, max, visibility, acks, ack } = wanted;
    let max = usize::try_from(*max).unwrap_or(usize::MAX);
    bounded("max", max, 1, RECEIVE)?;
    bounded("acks", acks.len(), 0, RECEIPTS)?;
    visibility.map_or(Ok(()), check_visibility)?;
    let subscriber = from.subscriber();
    let Some(mut subscription) = subscriber.load(txn.view()) else {
        return Err(Refusal::NoSubscription.into());
    };
    let before = subscription.clone();
    let mut receiving = Receiving { subscriber, session: txn.attach(attach, None)?, until: None, kept: !ack };
    receiving.become_consumer(txn, &subscription)?;
    receiving.until = match (visibility, receiving.session) {
        (Some(visibility), _) if receiving.kept => Some(txn.now().after(*visibility)),
        (_, Some(_)) => None,
        (_, None) if *ack => None,
        (_, None) => Some(txn.now().after(subscription.settings.visibility)),
    };
    let acked =
        acks.iter().map(|receipt| acknowledge(txn, &receiving.subscriber, &mut subscription, *receipt));
    let acks = acked.collect();
    let max = max.min(receiving.hands(txn));
    let mut deliveries = receiving.again(txn, &mut subscription, max)?;
    let gap = told(txn, from, &mut subscription);
    let left = max - deliveries.len();
    let unsettled = subscription.in_flight + subscription.returned;
    let room = usize::try_from(IN_FLIGHT_MAX.saturating_sub(unsettled)).unwrap_or(usize::MAX);
    if room == 0 && deliveries.is_empty() {
        return Err(Refusal::TooManyInFlight(IN_FLIGHT_MAX).into());
    }
    let mut more = false;
    if left.min(room) > 0 {
        let reach = Reach { messages: left.min(room), bytes: BODIES, looks: LOOKS, whole: false };
        let ahead = read::matching(txn.view(), &from.subject, subscription.cursor, reach, |message| {
            subscription.takes(from, message)
        });
        more = !ahead.end && ahead.found.is_empty() && deliveries.is_empty();
        subscription.cursor = ahead.upto;
        for found in ahead.found {
            deliveries.push(receiving.hand_out(txn, &mut subscription, found, 1)?);
        }
    }
    if subscription != before {
        receiving.subscriber.store(txn, &subscription);
    }
    Ok(Outcome::Received(Received { deliveries, acks, more, gap, session: receiving.session }))
}

struct Receiving<'n> {
    subscriber: Subscriber<'n>,
    session: Option<SessionId>,
    until: Option<Timestamp>,
    /// To be acknowledged.
    kept: bool,
}

impl Receiving<'_> {
    /// Of an exclusive subscription: be the one consumer, or be refused.
    fn become_consumer(&self, txn: &mut Txn<'_>, subscription: &Subscription) -> Result<(), StoreRefusal> {
        if subscription.settings.mode == Mode::Shared {
            return Ok(());
        }
        let Some(session) = self.session else { return Err(Refusal::NeedsSession.into()) };
        let key = self.subscriber.consumer();
        match txn.get(&key).map(|record| (record.session, record.mod_revision)) {
            Some((Some(other), since)) if other != session => Err(Refusal::Consumed(other, since).into()),
            Some(_) => Ok(()),
            None => {
                txn.put(key, encoded(txn.now()).into(), ContentType::Binary, Some(session));
                Ok(())
            }
        }
    }

    /// How much the session can still hold.
    fn hands(&self, txn: &Txn<'_>) -> usize {
        let Some(session) = self.session.filter(|_| self.kept) else { return usize::MAX };
        HOLDS.saturating_sub(txn.view().attached(session).count())
    }

    /// Hand out again what came back.
    fn again(
        &self,
        txn: &mut Txn<'_>,
        subscription: &mut Subscription,
        max: usize,
    ) -> Result<Vec<Delivery>, StoreRefusal> {
        let (mut deliveries, mut bytes) = (Vec::new(), 0);
        for _ in 0..LOOKS {
            let Some((place, returned)) = self.subscriber.first_returned(txn.view()) else { break };
            if deliveries.len() == max || bytes >= BODIES {
                break;
            }
            txn.delete(&self.subscriber.returned(place), Cause::Command);
            subscription.returned -= 1;
            // Retention may have taken it meanwhile.
            let Some(found) = read::message(txn.view(), &returned.topic, place.seq) else {
                subscription.gaps += 1;
                continue;
            };
            bytes += found.message.body.len();
            deliveries.push(self.hand_out(txn, subscription, found, returned.deliveries + 1)?);
        }
        Ok(deliveries)
    }

    fn hand_out(
        &self,
        txn: &mut Txn<'_>,
        subscription: &mut Subscription,
        found: Found,
        deliveries: u64,
    ) -> Result<Delivery, StoreRefusal> {
        let Found { topic, place, content_type, message } = found;
        let (topic, delivered) = (Box::from(&*topic), txn.revision());
        subscription.delivered += 1;
        if self.kept {
            if let Some(session) = self.session {
                txn.attach(&Attach::Session(session), None)?;
            }
            let delivery = InFlight { topic: Box::clone(&topic), deliveries, delivered, until: self.until };
            let key = self.subscriber.in_flight(place);
            txn.put(key, encoded(&delivery).into(), ContentType::Binary, self.session);
            if let Some(at) = self.until {
                timer::set(txn, at, FAMILY, &self.subscriber.alarm(place));
            }
            subscription.in_flight += 1;
        } else {
            subscription.acked += 1;
        }
        let (receipt, until) = (Receipt { place, delivered }, self.until);
        Ok(Delivery { receipt, topic, deliveries, content_type, message, until })
    }
}

/// Tell of a loss once.
fn told(txn: &Txn<'_>, name: &Name, subscription: &mut Subscription) -> Option<(u64, u64)> {
    let (from, to) = read::lost(txn.view(), &name.subject, subscription.cursor, TOPICS)?;
    if to <= subscription.gap_told {
        return None;
    }
    let from = from.max(subscription.gap_told);
    (subscription.gap_told, subscription.gaps) = (to, subscription.gaps + 1);
    Some((from, to))
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
        Settle::Renew(visibility) => check_visibility(*visibility)?,
    }
    let subscriber = name.subscriber();
    let Some(mut subscription) = subscriber.load(txn.view()) else {
        return Err(Refusal::NoSubscription.into());
    };
    let one = |receipt: &Receipt| match how {
        Settle::Ack => acknowledge(txn, &subscriber, &mut subscription, *receipt),
        Settle::Nack(nack) => give_back(txn, name, &mut subscription, *receipt, nack),
        Settle::Renew(visibility) => renew(txn, &subscriber, *receipt, *visibility),
    };
    let settled: Vec<bool> = receipts.iter().map(one).collect();
    if settled.contains(&true) {
        subscriber.store(txn, &subscription);
    }
    Ok(Outcome::Settled(settled))
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

fn acknowledge(
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
    txn.put(key, encoded(&delivery).into(), ContentType::Binary, record.session);
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

fn check_visibility(visibility: Millis) -> Result<(), StoreRefusal> {
    let ms = |bound: u64| usize::try_from(bound).unwrap_or(usize::MAX);
    bounded("visibility", ms(visibility.0), ms(*VISIBILITY_MS.start()), ms(*VISIBILITY_MS.end()))
}
