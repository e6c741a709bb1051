//! Handing out: first what came back, then what is new.

use coracle_store::command::Attach;
use coracle_store::limits::HOLDS;
use coracle_store::{Cause, ContentType, Refusal as StoreRefusal, SessionId, Timestamp, Txn};

use super::delivery::{
    Delivery, RECEIPTS, RECEIVE, Receipt, Receive, Received, acknowledge, check_visibility,
};
use super::read::{self, Found, Reach};
use super::subscription::{IN_FLIGHT_MAX, InFlight, Mode, Name, Subscriber, Subscription};
use super::{FAMILY, Outcome, Refusal};
use crate::{bounded, row, timer};

/// Bodies of one receive, unless one alone is larger.
const BODIES: usize = 1024 * 1024;
/// Messages and publishes that one receive looks at.
const LOOKS: usize = 1_024;
/// Topics of a pattern that one receive looks at to tell of a loss.
const TOPICS: usize = 64;

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
                txn.put(key, row(&txn.now()), ContentType::Binary, Some(session));
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
            txn.put(key, row(&delivery), ContentType::Binary, self.session);
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
