//! Looking at queues: how they are configured, what is in them, who waits.

use coracle_store::{ContentType, Event, Key, Record, Revision, SessionId, Timestamp, Value, View};

use super::barrier::{self, Generation, Stage};
use super::keys::{Keys, MessageId, Part, Place};
use super::state::{Arrival, Body, Delayed, Flight, Head, Role, Tally, Terms, Waiter};
use super::{Config, DEAD, Death, Header, NAME, Ordinal, Ticket, decoded};
use crate::Described;

/// Where a receiver that waits is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Waiting,
    /// Something is assigned: collect it.
    Assigned,
    /// Collected, given up, or gone with its session.
    Gone,
}

/// A queue, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// In force.
    pub config: Config,
    pub configured: bool,
    pub ready: u64,
    /// Behind another of their group.
    pub blocked: u64,
    pub delayed: u64,
    pub in_flight: u64,
    /// Items of a barrier queue whose generation is not delivered yet.
    pub held: u64,
    /// Dead letters of this queue.
    pub dead: u64,
    /// Where they are; a queue of dead letters has none.
    pub dead_letter: Option<String>,
    /// Of the values.
    pub bytes: u64,
    /// Receivers in line.
    pub waiting: u64,
    /// When the oldest message that is still there was sent.
    pub oldest: Option<Timestamp>,
    /// The one consumer of a queue with `single_active`.
    pub active: Option<SessionId>,
}

/// A receiver in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    pub ticket: Ticket,
    pub session: SessionId,
    pub terms: Terms,
    pub since: Timestamp,
}

/// Messages in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    Blocked,
    Delayed,
    InFlight,
    /// Of the generation that fills.
    Held,
}

/// Which messages to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Messages {
    /// In the order of delivery (ready), of the sends (all, delayed, in flight), or by group (blocked).
    pub state: Option<State>,
    /// Behind this position, as [`Item::position`] gave it.
    pub after: Option<Vec<u8>>,
    pub limit: usize,
}

/// A message at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub id: MessageId,
    pub standing: Standing,
    /// Deliveries that count.
    pub deliveries: u32,
    /// Why the last one failed.
    pub reason: Option<Box<str>>,
    pub sent: Timestamp,
    pub expires: Option<Timestamp>,
    pub priority: u8,
    pub group: Option<Box<str>>,
    pub headers: Vec<Header>,
    pub value: Value,
    pub content_type: ContentType,
    pub death: Option<Death>,
    /// Its place in a released generation.
    pub place: Option<Ordinal>,
    /// As its producer named it.
    pub name: Option<Box<str>>,
    /// For the next page.
    pub position: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Ready,
    Blocked,
    /// In a generation that is not delivered (yet).
    Held,
    Delayed {
        until: Timestamp,
        /// It was delivered before.
        retry: bool,
    },
    InFlight {
        since: Timestamp,
        until: Option<Timestamp>,
        session: Option<SessionId>,
        delivery: Revision,
        /// Assigned to a receiver that has not answered yet.
        assigned: bool,
    },
}

/// The configuration of a queue that nobody configured.
pub(super) fn plain(name: &str) -> Config {
    let mut config = Config::default();
    if name.ends_with(DEAD) {
        config.max_deliveries = 0;
    }
    config
}

pub(super) fn config(view: View<'_>, keys: &Keys, name: &str) -> Config {
    configured(view, keys).unwrap_or_else(|| plain(name))
}

pub(super) fn configured(view: View<'_>, keys: &Keys) -> Option<Config> {
    view.get(&keys.config()).map(|record| decoded(&record.value))
}

/// Where its dead letters go. Dead letters die no more, unless they are told where.
pub(super) fn dead_letter(config: &Config, name: &str) -> Option<String> {
    match &config.dead_letter {
        Some(named) => Some(named.to_string()),
        None if name.ends_with(DEAD) => None,
        None => Some(format!("{name}{DEAD}")),
    }
}

pub(super) fn turn(view: View<'_>, queue: &str, ticket: Ticket) -> Turn {
    let keys = Keys::new(queue);
    if view.get(&keys.parcel(ticket)).is_some() {
        Turn::Assigned
    } else if view.get(&keys.waiter(ticket)).is_some() {
        Turn::Waiting
    } else {
        Turn::Gone
    }
}

fn head(view: View<'_>, keys: &Keys) -> Option<Head> {
    view.get(&keys.head()).map(|record| decoded(&record.value))
}

pub(super) fn statistics(view: View<'_>, queue: &str) -> Option<Statistics> {
    let keys = Keys::new(queue);
    let configured = view.get(&keys.config()).is_some();
    let head = head(view, &keys);
    if head.is_none() && !configured {
        return None;
    }
    let Head { ready, blocked, delayed, in_flight, held, bytes, waiting, .. } = head.unwrap_or_default();
    let config = super::progress::whole(view, &keys, config(view, &keys, queue));
    let dead_letter = dead_letter(&config, queue);
    let dead = dead_letter.as_ref().and_then(|dead| self::head(view, &Keys::new(dead)));
    let oldest = view.front(keys.bodies()).next();
    Some(Statistics {
        configured,
        ready,
        blocked,
        delayed,
        in_flight,
        held,
        dead: dead.map_or(0, |head| head.length()),
        dead_letter,
        bytes,
        waiting,
        oldest: oldest.map(|(_, record)| decoded::<Body<'_>>(&record.value).sent),
        active: view.get(&keys.active()).and_then(|record| record.session),
        config,
    })
}

/// The line of receivers, the first `limit`.
#[must_use]
pub fn consumers(view: View<'_>, queue: &str, limit: usize) -> Vec<Consumer> {
    let keys = Keys::new(queue);
    let before = keys.waiters().as_bytes().len();
    let consumer = |(key, record): (&Key, &std::sync::Arc<Record>)| {
        let Waiter { session, terms, since } = decoded(&record.value);
        Some(Consumer { ticket: Ticket::from_bytes(&key.as_bytes()[before..])?, session, terms, since })
    };
    view.under(keys.waiters()).take(limit).filter_map(consumer).collect()
}

/// The consumer of a queue that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneConsumer {
    pub session: SessionId,
    /// The revision at which it became that: it rises with each.
    pub since: Revision,
    /// Log time of that.
    pub at: Timestamp,
}

/// The one consumer of a queue, if it has one.
#[must_use]
pub fn consumer(view: View<'_>, queue: &str) -> Option<OneConsumer> {
    let record = view.get(&watched_consumer(queue))?;
    let at = minicbor::decode(&record.value).ok()?;
    Some(OneConsumer { session: record.session?, since: record.mod_revision, at })
}

/// What changes when another becomes the one consumer.
#[must_use]
pub fn watched_consumer(queue: &str) -> Key {
    Keys::new(queue).active()
}

/// How many receivers are in line ahead of a ticket, or at all. Costs them.
#[must_use]
pub fn ahead(view: View<'_>, queue: &str, ticket: Option<Ticket>) -> u64 {
    let keys = Keys::new(queue);
    let own = ticket.map(|ticket| keys.waiter(ticket));
    let line = view.under(keys.waiters());
    line.take_while(|(key, _)| own.as_ref().is_none_or(|own| *key < own)).count() as u64
}

/// The keys of what a session has in flight in a queue: one that changes is settled.
#[must_use]
pub fn flights(view: View<'_>, queue: &str, session: SessionId) -> Vec<Key> {
    view.attached_under(session, Keys::new(queue).flights().as_bytes()).cloned().collect()
}

/// One message.
#[must_use]
pub fn message(view: View<'_>, queue: &str, id: MessageId) -> Option<Item> {
    let keys = Keys::new(queue);
    let record = view.get(&keys.body(id))?;
    Some(item(view, &keys, id, record, id.bytes().to_vec()))
}

/// A page of messages. Costs what it answers.
#[must_use]
pub fn messages(view: View<'_>, queue: &str, wanted: &Messages) -> Vec<Item> {
    let keys = Keys::new(queue);
    let part = match wanted.state {
        None => keys.bodies(),
        Some(State::Ready) => keys.slot(head(view, &keys).map_or(0, |head| head.front)),
        Some(State::Held) => keys.slot(head(view, &keys).map_or(0, |head| head.filling)),
        Some(State::Blocked) => keys.all_blocked(),
        Some(State::Delayed) => keys.all_delayed(),
        Some(State::InFlight) => keys.flights(),
    };
    let from = wanted.after.as_ref().map_or_else(|| part.clone(), |after| part.within(&[after, &[0]]));
    let within = view.seek(&from).take_while(|(key, _)| key.as_bytes().starts_with(part.as_bytes()));
    let mut items = Vec::new();
    for (key, _) in within.take(wanted.limit) {
        let position = key.as_bytes()[part.as_bytes().len()..].to_vec();
        let id =
            key.as_bytes().len().checked_sub(12).and_then(|at| MessageId::from_bytes(&key.as_bytes()[at..]));
        if let Some(id) = id
            && let Some(record) = view.get(&keys.body(id))
        {
            items.push(item(view, &keys, id, record, position));
        }
    }
    items
}

/// Items of a released generation that nobody has taken out, in their order.
pub(super) fn items_of(
    view: View<'_>,
    keys: &Keys,
    slot: u64,
    after: Option<MessageId>,
    limit: usize,
) -> Vec<Item> {
    let part = keys.order(slot, Role::Item.order());
    let from = after.map_or_else(|| part.clone(), |after| part.within(&[&after.bytes(), &[0]]));
    let within = view.seek(&from).take_while(|(key, _)| key.as_bytes().starts_with(part.as_bytes()));
    let ids = within.take(limit).filter_map(|(key, _)| Place::last_of(key)).map(|place| place.id);
    ids.filter_map(|id| Some(item(view, keys, id, view.get(&keys.body(id))?, id.bytes().to_vec()))).collect()
}

fn item(view: View<'_>, keys: &Keys, id: MessageId, record: &Record, position: Vec<u8>) -> Item {
    let body: Body<'_> = decoded(&record.value);
    let (standing, Tally { deliveries, reason }) = standing(view, keys, id, &body);
    Item {
        id,
        standing,
        deliveries,
        reason,
        sent: body.sent,
        expires: body.expires,
        priority: body.priority,
        group: body.group.map(Into::into),
        headers: body.headers,
        value: Value::from(body.value),
        content_type: record.content_type.clone(),
        death: body.death,
        place: body.item.as_ref().and_then(|arrival| place(view, keys, arrival)),
        name: body.item.and_then(|arrival| arrival.id).map(Into::into),
        position,
    }
}

fn standing(view: View<'_>, keys: &Keys, id: MessageId, body: &Body<'_>) -> (Standing, Tally) {
    if let Some(record) = view.get(&keys.flight(id)) {
        let Flight { tally, delivery, since, until, session, ticket, .. } = decoded(&record.value);
        return (Standing::InFlight { since, until, session, delivery, assigned: ticket.is_some() }, tally);
    }
    if let Some(record) = view.get(&keys.delayed(id)) {
        let Delayed { tally, until, retry } = decoded(&record.value);
        return (Standing::Delayed { until, retry }, tally);
    }
    let place: Place = super::desk::Desk::place(id, body);
    let tally = |key: &Key| view.get(key).map(|record| decoded::<Tally>(&record.value));
    if let Some(tally) = tally(&keys.ready(place)) {
        let held = body.item.as_ref().is_some_and(|arrival| held(view, keys, arrival));
        return (if held { Standing::Held } else { Standing::Ready }, tally);
    }
    let tally = body.group.and_then(|group| tally(&keys.blocked(group, place)));
    (Standing::Blocked, tally.unwrap_or_default())
}

/// What a message of a barrier queue is, once its generation is released.
pub(super) fn place(view: View<'_>, keys: &Keys, arrival: &Arrival<'_>) -> Option<Ordinal> {
    let slot = if arrival.role == Role::Item { arrival.slot } else { arrival.number };
    let generation: Generation = decoded(&view.get(&keys.generation(slot))?.value);
    let size = generation.released?.size;
    let ordinal = (arrival.role == Role::Item).then(|| barrier::ordinal(view, keys, slot, arrival.number));
    Some(Ordinal {
        role: arrival.role,
        generation: generation.number,
        ordinal,
        size,
        id: arrival.id.map(Into::into),
    })
}

/// Whether an item waits for its generation, or is not for receivers.
fn held(view: View<'_>, keys: &Keys, arrival: &Arrival<'_>) -> bool {
    let head = head(view, keys).unwrap_or_default();
    let barrier = view.get(&keys.config()).and_then(|record| decoded::<Config>(&record.value).barrier);
    let works = barrier.is_some_and(|barrier| barrier.hand_out == barrier::HandOut::Work);
    let front = arrival.slot == head.front && head.front < head.filling;
    arrival.role == Role::Item && !(works && front)
}

/// Whether the record of a delivery begins one: it is not the same that was there before.
pub(super) fn is_delivery(record: &Record, previous: Option<&Record>) -> bool {
    let delivery = |record: &Record| decoded::<Flight>(&record.value).delivery;
    previous.is_none_or(|previous| delivery(previous) != delivery(record))
}

/// Whether a ready message has been delivered before, from the record of its place.
pub(super) fn was_delivered(record: &Record) -> bool {
    let tally: Tally = decoded(&record.value);
    tally.deliveries > 0
}

/// What an event did to where one message stands: it `entered` the state, or `left` it.
#[must_use]
pub fn moved(event: &Event) -> Option<(Described, State)> {
    let (name, part) = Keys::of(&event.key)?;
    let (id, state) = match part {
        Part::Ready(place) => (place.id, State::Ready),
        Part::Blocked(id) => (id, State::Blocked),
        Part::Delayed(id) => (id, State::Delayed),
        Part::Flight(id) => (id, State::InFlight),
        _ => return None,
    };
    let (op, record) = match (&event.previous, &event.record) {
        (None, Some(record)) => ("entered", record),
        (Some(record), None) => ("left", record),
        _ => return None,
    };
    let (item, session) = (Some(id.to_string()), record.session);
    Some((Described { family: NAME, op, name, item, session, token: None }, state))
}

/// Whether an event is about messages, and not about who receives them or how the queue is configured.
#[must_use]
pub fn of_messages(event: &Event) -> bool {
    let part = Keys::of(&event.key).map(|(_, part)| part);
    matches!(
        part,
        Some(Part::Body(_) | Part::Ready(_) | Part::Delayed(_) | Part::Flight(_) | Part::Generation(_))
    )
}

/// The message that an event has brought in: what it says.
#[must_use]
pub fn said(event: &Event) -> Option<Value> {
    let Some((_, Part::Body(_))) = Keys::of(&event.key) else { return None };
    let body: Body<'_> = decoded(&event.record.as_ref()?.value);
    Some(Value::from(body.value))
}

/// What a change of a generation's record means; `None` for mere counting.
pub(super) fn told(record: &Record, previous: Option<&Record>, there: bool) -> Option<&'static str> {
    let now: Generation = decoded(&record.value);
    let before = previous.map(|record| decoded::<Generation>(&record.value));
    let filled = before.as_ref().is_none_or(|before| before.stage == Stage::Filling);
    match (there, now.stage) {
        (false, _) => Some("done"),
        (true, Stage::Filling) if before.as_ref().is_none_or(|before| before.number != now.number) => {
            Some(if now.broken.is_some() { "broken" } else { "filling" })
        }
        (true, Stage::Released) if filled => Some("released"),
        (true, Stage::Sweeping(_)) if filled => Some("broken"),
        (true, _) => None,
    }
}
