//! Deliveries: how a message gets to its consumer, and what becomes of one that fails.

use coracle_store::limits::HOLDS;
use coracle_store::{Cause, ContentType, Key, Millis, SessionId, Value};

use super::barrier::{Barrier, End, HandOut};
use super::desk::Desk;
use super::generation::ASIDE;
use super::keys::{MessageId, Place, Ticket};
use super::state::{Body, Flight, Role, Tally, Terms};
use super::{Backoff, Delivery, RECEIVE_BYTES, decoded, encoded, look, time};

/// How a delivery failed.
#[derive(Default)]
pub(super) struct Failure<'f> {
    pub counted: bool,
    pub delay: Option<Millis>,
    pub fatal: bool,
    pub reason: Option<&'f str>,
    /// Not by whoever has it.
    pub taken: bool,
}

impl Desk<'_, '_> {
    /// The first message that may be delivered.
    pub fn front(&self) -> Option<(Place, Tally)> {
        if self.config.paused {
            return None;
        }
        let view = self.txn.view();
        let first = |part: Key| view.front(part).next();
        let found = match &self.config.barrier {
            None => first(self.keys.slot(0)),
            Some(barrier) => self.front_of(barrier, first),
        };
        let (key, record) = found?;
        Some((Place::last_of(key)?, decoded(&record.value)))
    }

    /// The first message of a barrier queue that a receiver may have.
    fn front_of<T>(&self, barrier: &Barrier, first: impl Fn(Key) -> Option<T>) -> Option<T> {
        let slot = self.head.front;
        let of = |role: Role| first(self.keys.order(slot, role.order()));
        let aside = || first(self.keys.slot(ASIDE));
        if slot == self.head.filling {
            return aside();
        }
        match barrier.hand_out {
            HandOut::Work if barrier.strict && self.head.in_flight + self.head.delayed > 0 => None,
            HandOut::Work => first(self.keys.slot(slot)),
            HandOut::Batch => of(Role::Batch).or_else(|| of(Role::Finalizer)),
            HandOut::Own | HandOut::Broadcast => of(Role::Finalizer).or_else(aside),
        }
    }

    /// Take a message out of the line.
    fn take(&mut self, place: Place, body: &Body<'_>) {
        self.delete(&self.keys.ready(place));
        *self.counted(place) -= 1;
        if let Some(group) = body.group {
            self.occupy(group, None);
        }
    }

    /// Deliver up to `terms.max` messages; the session must be alive.
    pub fn deliver(
        &mut self,
        terms: Terms,
        session: Option<SessionId>,
        ticket: Option<Ticket>,
    ) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        let mut bytes = 0;
        let bound = if terms.bound { session } else { None };
        // What waits to be collected hangs on one key, however much it is.
        let mut room = match bound.filter(|_| ticket.is_none()) {
            Some(id) => HOLDS.saturating_sub(self.txn.view().attached(id).take(HOLDS).count()),
            None => usize::MAX,
        };
        while deliveries.len() < terms.max as usize && bytes < RECEIVE_BYTES && room > 0 {
            let Some((place, mut tally)) = self.front() else { break };
            let record = self.record(place.id).expect("a message that stands somewhere has been sent");
            let body: Body<'_> = decoded(&record.value);
            if body.expires.is_some_and(|at| at <= self.txn.now()) {
                self.remove(place.id, End::Dropped);
                continue;
            }
            self.take(place, &body);
            room -= 1;
            tally.deliveries = tally.deliveries.saturating_add(1);
            let flight = Flight {
                tally,
                delivery: self.txn.revision(),
                since: self.txn.now(),
                until: None,
                session: bound,
                ticket,
                place,
            };
            self.head.in_flight += 1;
            let delivery = if ticket.is_some() {
                self.fly(&flight);
                self.delivery(&flight, &record.content_type, body)
            } else {
                self.depart(flight, terms, &record.content_type, body)
            };
            bytes += delivery.value.len();
            deliveries.push(delivery);
        }
        deliveries
    }

    /// The consumer has it now: its visibility runs, or it is gone at once.
    pub fn depart(
        &mut self,
        mut flight: Flight,
        terms: Terms,
        content_type: &ContentType,
        body: Body<'_>,
    ) -> Delivery {
        flight.ticket = None;
        flight.since = self.txn.now();
        let id = flight.place.id;
        if terms.at_most_once {
            self.fly(&flight);
            // Said before the message and what it belongs to are gone.
            let delivery = Delivery { since: None, ..self.delivery(&flight, content_type, body) };
            self.remove(id, End::Acked);
            return delivery;
        }
        let visibility = terms.visibility.or(flight.session.is_none().then_some(self.config.visibility));
        flight.until = visibility.map(|span| self.txn.now().after(span));
        if let Some(until) = flight.until {
            time::set_visibility(self.txn, &self.keys, id, until);
        }
        self.fly(&flight);
        self.delivery(&flight, content_type, body)
    }

    /// Write a delivery. One that is not collected yet hangs on its parcel, not on the session.
    pub fn fly(&mut self, flight: &Flight) {
        let session = flight.session.filter(|_| flight.ticket.is_none());
        self.txn.put(self.keys.flight(flight.place.id), encoded(flight), ContentType::Binary, session);
    }

    pub fn flight(&self, id: MessageId) -> Option<Flight> {
        self.txn.get(&self.keys.flight(id)).map(|record| decoded(&record.value))
    }

    /// End a delivery without settling what becomes of the message; `taken`: not by whoever has it.
    pub fn land(&mut self, flight: &Flight, taken: bool) {
        if let Some(until) = flight.until {
            time::clear_visibility(self.txn, &self.keys, flight.place.id, until);
        }
        // A session that ended has taken the key with it.
        let cause = if taken { Cause::Broken } else { Cause::Command };
        self.txn.delete(&self.keys.flight(flight.place.id), cause);
        self.head.in_flight -= 1;
    }

    /// A delivery that failed, its flight ended: the message returns to its place, waits a while, or dies.
    pub fn fail(&mut self, flight: Flight, failure: &Failure<'_>) {
        self.land(&flight, failure.taken);
        let (id, mut tally) = (flight.place.id, flight.tally);
        let Some(record) = self.record(id) else { return };
        let body: Body<'_> = decoded(&record.value);
        if !failure.counted {
            tally.deliveries = tally.deliveries.saturating_sub(1);
        }
        if let Some(reason) = failure.reason.filter(|reason| !reason.is_empty()) {
            tally.reason = Some(reason.into());
        }
        let most = self.config.max_deliveries;
        // A dead letter has nowhere to go.
        let mortal = look::dead_letter(&self.config, &self.keys.name()).is_some();
        if body.expires.is_some_and(|at| at <= self.txn.now()) {
            self.forget(id, &body, End::Dropped);
            self.vacate(&body);
        } else if mortal && failure.fatal {
            self.bury(id, &record, &tally, "fatal");
            self.vacate(&body);
        } else if mortal && failure.counted && most > 0 && tally.deliveries >= most {
            self.bury(id, &record, &tally, "max_deliveries");
            self.vacate(&body);
        } else {
            let backoff = || self.config.backoff.filter(|_| failure.counted);
            let delay = failure.delay.or_else(|| backoff().map(|backoff| backoff.after(tally.deliveries)));
            match delay.filter(|delay| delay.0 > 0) {
                Some(delay) => self.delay(id, tally, self.txn.now().after(delay), true),
                None => self.stand_again(id, &body, &tally),
            }
        }
    }

    /// A delivery as its consumer gets it.
    fn delivery(&self, flight: &Flight, content_type: &ContentType, body: Body<'_>) -> Delivery {
        Delivery {
            id: flight.place.id,
            delivery: flight.delivery,
            deliveries: flight.tally.deliveries,
            sent: body.sent,
            priority: body.priority,
            group: body.group.map(Into::into),
            headers: body.headers,
            value: Value::from(body.value),
            content_type: content_type.clone(),
            since: Some(flight.since),
            until: flight.until,
            place: body.item.as_ref().and_then(|arrival| look::place(self.txn.view(), &self.keys, arrival)),
            death: body.death,
        }
    }
}

impl Backoff {
    /// After so many failed deliveries.
    fn after(&self, deliveries: u32) -> Millis {
        let mut span = self.min.0;
        for _ in 1..deliveries {
            if span >= self.max.0 || self.factor <= 1 {
                break;
            }
            span = span.saturating_mul(u64::from(self.factor));
        }
        Millis(span.min(self.max.0))
    }
}
