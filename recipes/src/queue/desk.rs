//! One queue while an entry works on it: how a message moves from state to state, and who gets it.

use std::sync::Arc;

use coracle_store::{Cause, ContentType, Key, Record, Refusal as StoreRefusal, Timestamp, Txn, Value};

use super::barrier::{End, Sweep};
use super::keys::{Keys, MessageId, Place};
use super::state::{Arrival, Body, Delayed, Flight, Head, Occupant, Role, Tally};
use super::{Config, Death, Header, Kind, Overflow, Refusal, decoded, encoded, look, time};

/// A queue being worked on. What it counts is written by [`Desk::finish`].
pub(super) struct Desk<'t, 'a> {
    pub txn: &'t mut Txn<'a>,
    pub keys: Keys,
    pub config: Config,
    pub head: Head,
    before: Head,
}

/// A message to add.
pub(super) struct Draft<'d> {
    pub value: &'d [u8],
    pub content_type: ContentType,
    pub priority: u8,
    pub group: Option<&'d str>,
    pub expires: Option<Timestamp>,
    pub headers: Vec<Header>,
    pub death: Option<Death>,
}

impl<'t, 'a> Desk<'t, 'a> {
    pub fn open(txn: &'t mut Txn<'a>, name: &str) -> Self {
        let keys = Keys::new(name);
        let head: Option<Head> = txn.get(&keys.head()).map(|record| decoded(&record.value));
        let plain = head.as_ref().is_some_and(|head| !head.configured);
        let known = if plain { None } else { look::configured(txn.view(), &keys) };
        let head = Head { configured: known.is_some(), ..head.unwrap_or_default() };
        let config = known.unwrap_or_else(|| look::plain(name));
        Self { txn, keys, config, before: head.clone(), head }
    }

    /// Assign what is ready to those who wait, and write the counts; idle queues leave none.
    pub fn finish(mut self) {
        if self.config.kind == Kind::Barrier {
            self.evaluate();
        }
        self.assign();
        self.keep();
    }

    /// Write the counts.
    pub fn keep(mut self) {
        let empty = self.head.length() == 0;
        if empty && let Some(at) = self.head.retention.take() {
            time::clear_retention(self.txn, &self.keys, at);
        }
        if empty && self.head.waiting == 0 && self.config.kind != Kind::Barrier {
            self.txn.delete(&self.keys.head(), Cause::Command);
        } else if self.head != self.before {
            self.txn.put(self.keys.head(), encoded(&self.head), ContentType::Binary, None);
        }
    }

    /// Write the configuration; without one the queue is an ordinary one again.
    pub fn keep_config(&mut self, is_there: bool) {
        let key = self.keys.config();
        if is_there {
            self.put(key, encoded(&self.config));
        } else {
            self.delete(&key);
        }
        self.head.configured = is_there;
    }

    pub fn put(&mut self, key: Key, value: Value) {
        self.txn.put(key, value, ContentType::Binary, None);
    }

    pub fn delete(&mut self, key: &Key) -> bool {
        self.txn.delete(key, Cause::Command)
    }

    pub fn record(&self, id: MessageId) -> Option<Arc<Record>> {
        self.txn.get(&self.keys.body(id)).cloned()
    }

    /// Number a message and write what was sent. It stands nowhere yet.
    pub fn write<'d>(&mut self, draft: Draft<'d>, item: Option<Arrival<'d>>) -> (MessageId, Body<'d>) {
        // No other message of this entry has its number, in whichever queue: so no receipt of one is one of another.
        let id = MessageId { revision: self.txn.revision(), number: self.txn.number() };
        self.head.bytes += draft.value.len() as u64;
        let body = Body {
            sent: self.txn.now(),
            priority: draft.priority,
            group: draft.group,
            expires: draft.expires,
            headers: draft.headers,
            value: draft.value,
            death: draft.death,
            item,
        };
        if let Some(at) = body.expires {
            time::set_expiry(self.txn, &self.keys, id, at);
        }
        self.txn.put(self.keys.body(id), encoded(&body), draft.content_type, None);
        if self.head.retention.is_none() {
            self.watch_retention(self.txn.now().after(self.config.retention));
        }
        (id, body)
    }

    /// Look at the oldest message then.
    pub fn watch_retention(&mut self, at: Timestamp) {
        if let Some(before) = self.head.retention.replace(at) {
            time::clear_retention(self.txn, &self.keys, before);
        }
        time::set_retention(self.txn, &self.keys, at);
    }

    /// Where a message stands when it is ready.
    pub fn place(id: MessageId, body: &Body<'_>) -> Place {
        match &body.item {
            None => Place { slot: 0, order: 9 - body.priority.min(9), id },
            Some(arrival) => Place { slot: arrival.slot, order: arrival.role.order(), id },
        }
    }

    /// Let it be delivered, or wait behind its group.
    pub fn make_ready(&mut self, id: MessageId, body: &Body<'_>, tally: &Tally) {
        let place = Self::place(id, body);
        let Some(group) = body.group else { return self.put_ready(place, tally) };
        match self.occupant(group) {
            None => {
                self.occupy(group, Some(place));
                self.put_ready(place, tally);
            }
            // It goes before the one that stands for the group.
            Some(Occupant { ready: Some(other) }) if place < other => {
                let key = self.keys.ready(other);
                let behind = self.txn.get(&key).map(|record| decoded::<Tally>(&record.value));
                self.delete(&key);
                self.head.ready -= 1;
                self.block(group, other, &behind.unwrap_or_default());
                self.occupy(group, Some(place));
                self.put_ready(place, tally);
            }
            Some(_) => self.block(group, place, tally),
        }
    }

    /// Not before `until`.
    pub fn delay(&mut self, id: MessageId, tally: Tally, until: Timestamp, retry: bool) {
        time::set_delay(self.txn, &self.keys, id, until);
        self.put(self.keys.delayed(id), encoded(Delayed { tally, until, retry }));
        self.head.delayed += 1;
    }

    /// Its delay is over.
    pub fn undelay(&mut self, id: MessageId) {
        let key = self.keys.delayed(id);
        let Some(delayed) = self.txn.get(&key).map(|record| decoded::<Delayed>(&record.value)) else {
            return;
        };
        if delayed.until > self.txn.now() {
            return;
        }
        let Some(record) = self.record(id) else { return };
        self.delete(&key);
        self.head.delayed -= 1;
        let body: Body<'_> = decoded(&record.value);
        if delayed.retry {
            self.stand_again(id, &body, &delayed.tally);
        } else {
            self.make_ready(id, &body, &delayed.tally);
        }
    }

    /// Back at its old place, first of its group.
    pub fn stand_again(&mut self, id: MessageId, body: &Body<'_>, tally: &Tally) {
        let Some(group) = body.group else { return self.make_ready(id, body, tally) };
        self.block(group, Self::place(id, body), tally);
        self.next_of(group);
    }

    fn put_ready(&mut self, place: Place, tally: &Tally) {
        self.put(self.keys.ready(place), encoded(tally));
        *self.counted(place) += 1;
    }

    fn block(&mut self, group: &str, place: Place, tally: &Tally) {
        self.put(self.keys.blocked(group, place), encoded(tally));
        self.head.blocked += 1;
    }

    fn occupant(&self, group: &str) -> Option<Occupant> {
        self.txn.get(&self.keys.occupied(group)).map(|record| decoded(&record.value))
    }

    pub fn occupy(&mut self, group: &str, ready: Option<Place>) {
        self.put(self.keys.occupied(group), encoded(Occupant { ready }));
    }

    /// The one that stood for the group is gone: the next takes its place.
    pub fn next_of(&mut self, group: &str) {
        let first = self.txn.view().front(self.keys.blocked_of(group)).next();
        let Some((key, record)) = first.map(|(key, record)| (key.clone(), record.clone())) else {
            self.delete(&self.keys.occupied(group));
            return;
        };
        let place = Place::last_of(&key).expect("only a queue writes its keys");
        self.delete(&key);
        self.head.blocked -= 1;
        self.occupy(group, Some(place));
        self.put_ready(place, &decoded(&record.value));
    }

    /// Whoever stood for the group of this message is gone.
    pub fn vacate(&mut self, body: &Body<'_>) {
        if let Some(group) = body.group {
            self.next_of(group);
        }
    }

    /// Take a message out, whatever its state; true if there was one.
    pub fn remove(&mut self, id: MessageId, end: End) -> bool {
        let Some(record) = self.record(id) else { return false };
        let body: Body<'_> = decoded(&record.value);
        if self.unplace(id, &body, end != End::Acked) {
            self.vacate(&body);
        }
        self.forget(id, &body, end);
        true
    }

    /// A delivery is settled: the message is no more. True if there was one.
    pub fn settle(&mut self, flight: &Flight) -> bool {
        self.land(flight, false);
        let id = flight.place.id;
        let Some(record) = self.txn.take(&self.keys.body(id), Cause::Command) else { return false };
        let body: Body<'_> = decoded(&record.value);
        self.vacate(&body);
        self.erased(id, &body);
        if let Some(arrival) = &body.item {
            self.ended(arrival, End::Acked);
        }
        true
    }

    /// Take a message out of its state; true if it stood for its group. `taken`: from whoever has it.
    pub fn unplace(&mut self, id: MessageId, body: &Body<'_>, taken: bool) -> bool {
        if let Some(flight) = self.flight(id) {
            self.land(&flight, taken);
            return true;
        }
        let delayed = self.keys.delayed(id);
        if let Some(waits) = self.txn.get(&delayed).map(|record| decoded::<Delayed>(&record.value)) {
            time::clear_delay(self.txn, &self.keys, id, waits.until);
            self.delete(&delayed);
            self.head.delayed -= 1;
            return waits.retry;
        }
        let place = Self::place(id, body);
        if self.delete(&self.keys.ready(place)) {
            *self.counted(place) -= 1;
            return true;
        }
        if let Some(group) = body.group
            && self.delete(&self.keys.blocked(group, place))
        {
            self.head.blocked -= 1;
        }
        false
    }

    /// The message is no more; it stands nowhere.
    pub fn forget(&mut self, id: MessageId, body: &Body<'_>, end: End) {
        self.erase(id, body);
        if let Some(arrival) = &body.item {
            self.ended(arrival, end);
        }
    }

    fn erase(&mut self, id: MessageId, body: &Body<'_>) {
        self.erased(id, body);
        self.delete(&self.keys.body(id));
    }

    fn erased(&mut self, id: MessageId, body: &Body<'_>) {
        if let Some(at) = body.expires {
            time::clear_expiry(self.txn, &self.keys, id, at);
        }
        self.head.bytes = self.head.bytes.saturating_sub(body.value.len() as u64);
    }

    /// To the dead letters. It stands nowhere any more.
    pub fn bury(&mut self, id: MessageId, record: &Record, tally: &Tally, why: &str) {
        let body: Body<'_> = decoded(&record.value);
        let reason = match &tally.reason {
            Some(reason) => reason.clone(),
            None => why.into(),
        };
        if let Some(Arrival { role: Role::Batch, number, .. }) = body.item {
            // What it stands for dies, not the message that says so.
            self.erase(id, &body);
            return self.batch_ended(number, Sweep::Dead(reason));
        }
        self.forget(id, &body, End::Dead);
        let Some(dead) = look::dead_letter(&self.config, &self.keys.name()) else { return };
        let death = Death {
            queue: self.keys.name().into(),
            id,
            deliveries: tally.deliveries,
            reason,
            sent: body.sent,
        };
        let draft = Draft {
            value: body.value,
            content_type: record.content_type.clone(),
            priority: 0,
            group: None,
            expires: None,
            headers: body.headers,
            death: Some(death),
        };
        let mut desk = Desk::open(self.txn, &dead);
        desk.add(draft);
        desk.finish();
    }

    /// Add a message that is ready at once, over every bound: a dead letter, or one that comes back.
    pub fn add(&mut self, draft: Draft<'_>) {
        if self.config.kind == Kind::Barrier {
            // Without a session there is nothing to refuse.
            let _ = self.arrive(draft, None, None);
            return;
        }
        let (id, body) = self.write(draft, None);
        self.make_ready(id, &body, &Tally::default());
    }

    /// Make room for one more: refuse, or let the oldest of the lowest priority die.
    pub fn make_place(&mut self) -> Result<(), StoreRefusal> {
        let Some(most) = self.config.max_length else { return Ok(()) };
        while self.head.length() >= most {
            let full = Refusal::Full(self.head.length(), most);
            if self.config.overflow == Overflow::Reject || self.config.kind == Kind::Barrier {
                return Err(full.into());
            }
            let view = self.txn.view();
            let first_of = |order| view.front(self.keys.order(self.head.front, order)).next();
            let Some(place) = (0..=9).rev().find_map(first_of).and_then(|(key, _)| Place::last_of(key))
            else {
                // All is in flight, delayed or behind it.
                return Err(full.into());
            };
            let record = self.record(place.id).expect("a message that stands somewhere has been sent");
            let body: Body<'_> = decoded(&record.value);
            let key = self.keys.ready(place);
            let tally: Tally = self.txn.get(&key).map(|record| decoded(&record.value)).unwrap_or_default();
            self.unplace(place.id, &body, true);
            self.bury(place.id, &record, &tally, "overflow");
            self.vacate(&body);
        }
        Ok(())
    }
}

impl super::Role {
    /// Within a generation.
    pub(super) fn order(self) -> u8 {
        match self {
            Self::Batch => 0,
            Self::Item => 1,
            Self::Finalizer => 2,
        }
    }
}
