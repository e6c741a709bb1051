//! Durable subscriptions: a cursor in the log of what a subject covers, and what was handed out and not yet settled.
//!
//! | key, after the subject and `u` and the name | value | |
//! |---|---|---|
//! | `s` | the [`Subscription`] | settings, cursor, counts |
//! | `f` place | [`InFlight`] | handed out, or delayed; attached to the session of the receive, if it has one |
//! | `wr` place | [`Returned`] | to be handed out again, before anything new |
//! | `wx` | | the one consumer of an exclusive subscription, attached to its session |
//!
//! A receiver that waits leaves no key: it watches the messages and the keys under `w`, and receives again. So a
//! publish does nothing for subscriptions, whether they match or not, and nobody waits in a line that could keep a
//! place for the dead. Each receive is one entry, so two receivers never get the same delivery.

use coracle_store::limits::{KEY_OVERHEAD, NAME_BYTES};
use coracle_store::{Cause, Key, Millis, Refusal as StoreRefusal, Revision, Selection, Timestamp, Txn, View};
use minicbor::{Decode, Encode};

use super::log::{self, Place, Topic, decoded, put};
use super::retention::Alarm;
use super::{FAMILY, Outcome, Refusal, read, subject};
use crate::{bounded, names, timer};

pub(super) const SUBSCRIPTION: u8 = b'u';
const RECORD: u8 = b's';
const IN_FLIGHT: u8 = b'f';
/// What waiting receivers watch.
const WAKE: u8 = b'w';
const RETURNED: u8 = b'r';
const CONSUMER: u8 = b'x';

/// Deliveries of one subscription that are neither acknowledged nor returned.
pub const IN_FLIGHT_MAX: u64 = 10_000;
/// Subscriptions of one subject.
pub const SUBSCRIPTIONS: usize = 1_000;
/// Shortest and longest visibility, in milliseconds.
pub const VISIBILITY_MS: std::ops::RangeInclusive<u64> = 1_000..=43_200_000;
/// Most that `max_deliveries` may ask for.
pub const DELIVERIES: u64 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Subscription {
    #[n(0)]
    pub settings: Settings,
    /// All up to here was handed out once, or passed over.
    #[n(1)]
    pub cursor: Place,
    /// Handed out or delayed, not yet acknowledged.
    #[n(2)]
    pub in_flight: u64,
    /// Waiting to be handed out again.
    #[n(3)]
    pub returned: u64,
    /// Deliveries, acknowledged ones, and messages given up, since the subscription was made.
    #[n(4)]
    pub delivered: u64,
    #[n(5)]
    pub acked: u64,
    #[n(6)]
    pub dead: u64,
    /// How often retention took what the subscription had not yet seen.
    #[n(7)]
    pub gaps: u64,
    /// Position up to which that was told.
    #[n(8)]
    pub gap_told: u64,
    #[n(9)]
    pub created: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    #[n(0)]
    pub mode: Mode,
    /// How long a delivery may stay unacknowledged.
    #[n(1)]
    pub visibility: Millis,
    /// So many deliveries, then the message is dead; 0 is any number.
    #[n(2)]
    pub max_deliveries: u64,
    /// Topic that the dead are published to; `None` is [`dead_letter`].
    #[n(3)]
    pub dead_letter: Option<Box<str>>,
    /// Only messages whose key this covers, with wildcards as in subjects.
    #[n(4)]
    pub filter: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Mode {
    /// Messages are divided among all that receive.
    #[default]
    #[n(0)]
    Shared,
    /// One session receives; when it ends, the next that asks.
    #[n(1)]
    Exclusive,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Shared,
            visibility: Millis(30_000),
            max_deliveries: 5,
            dead_letter: None,
            filter: None,
        }
    }
}

/// Which subscription.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Name {
    /// A topic, or a pattern over topics.
    #[n(0)]
    pub subject: Box<str>,
    #[n(1)]
    pub name: Box<str>,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Start {
    /// With what is published from now on.
    #[n(0)]
    New,
    /// With the oldest message kept.
    #[n(1)]
    First,
    #[n(2)]
    After(#[n(0)] Place),
}

/// A delivery that is under way, or waits for its delay to end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct InFlight {
    #[n(0)]
    pub topic: Box<str>,
    /// This one included.
    #[n(1)]
    pub deliveries: u64,
    /// Revision of the entry that handed it out; 0 while delayed. With its place, this is the receipt.
    #[n(2)]
    pub delivered: Revision,
    /// `None`: as long as the session lives.
    #[n(3)]
    pub until: Option<Timestamp>,
}

/// A message that came back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Returned {
    #[n(0)]
    pub topic: Box<str>,
    /// So far.
    #[n(1)]
    pub deliveries: u64,
}

/// One subscription, by what its keys begin with.
pub(super) struct Subscriber<'n> {
    pub subject: &'n str,
    pub name: &'n str,
    prefix: Vec<u8>,
}

impl Name {
    pub(super) fn subscriber(&self) -> Subscriber<'_> {
        Subscriber::new(&self.subject, &self.name)
    }
}

impl<'n> Subscriber<'n> {
    pub fn new(subject: &'n str, name: &'n str) -> Self {
        let key = Topic::new(subject).key(SUBSCRIPTION, &names::closed(name));
        Self { subject, name, prefix: key.as_bytes().to_vec() }
    }

    pub fn load(&self, view: View<'_>) -> Option<Subscription> {
        view.get(&self.key(&[RECORD], &[])).map(|record| decoded(&record.value))
    }

    pub fn store(&self, txn: &mut Txn<'_>, subscription: &Subscription) {
        put(txn, self.key(&[RECORD], &[]), subscription);
    }

    pub fn in_flight(&self, place: Place) -> Key {
        self.key(&[IN_FLIGHT], &place.bytes())
    }

    pub fn returned(&self, place: Place) -> Key {
        self.key(&[WAKE, RETURNED], &place.bytes())
    }

    pub fn consumer(&self) -> Key {
        self.key(&[WAKE, CONSUMER], &[])
    }

    /// The first message to be handed out again.
    pub fn first_returned(&self, view: View<'_>) -> Option<(Place, Returned)> {
        let (key, record) = view.scan(FAMILY, self.key(&[WAKE, RETURNED], &[]).name()).next()?;
        Some((Place::of(key), decoded(&record.value)))
    }

    pub fn alarm(&self, place: Place) -> Vec<u8> {
        Alarm::Delivery(self.subject.into(), self.name.into(), place).encode()
    }

    /// Forget all deliveries: their receipts are worth nothing from now on.
    fn forget(&self, txn: &mut Txn<'_>) {
        let in_flight = self.key(&[IN_FLIGHT], &[]);
        let deliveries: Vec<(Key, InFlight)> = txn
            .view()
            .scan(FAMILY, in_flight.name())
            .map(|(key, record)| (key.clone(), decoded(&record.value)))
            .collect();
        for (key, delivery) in deliveries {
            txn.delete(&key, Cause::Command);
            if let Some(at) = delivery.until {
                timer::clear(txn, at, FAMILY, &self.alarm(Place::of(&key)));
            }
        }
        while let Some((place, _)) = self.first_returned(txn.view()) {
            txn.delete(&self.returned(place), Cause::Command);
        }
    }

    fn key(&self, part: &[u8], rest: &[u8]) -> Key {
        Key::new(FAMILY, &[&self.prefix[1..], part, rest].concat())
    }
}

/// The subscription that a key belongs to, and what the key is of it.
pub(super) fn of(subject: &str, rest: &[u8]) -> Option<(Name, Part)> {
    let (name, rest) = names::split(rest)?;
    let part = match rest.split_first()? {
        (&RECORD, _) => Part::Record,
        (&IN_FLIGHT, _) => Part::InFlight,
        (&WAKE, [RETURNED, ..]) => Part::Returned,
        _ => Part::Consumer,
    };
    Some((Name { subject: subject.into(), name: name.into() }, part))
}

#[derive(Clone, Copy)]
pub(super) enum Part {
    Record,
    InFlight,
    Returned,
    Consumer,
}

/// A subscription; `None` if there is none.
#[must_use]
pub fn show(view: View<'_>, name: &Name) -> Option<Subscription> {
    name.subscriber().load(view)
}

/// The session that receives from an exclusive subscription, and since which revision.
#[must_use]
pub fn consumer(view: View<'_>, name: &Name) -> Option<(coracle_store::SessionId, Revision, Timestamp)> {
    let record = view.get(&name.subscriber().consumer())?;
    Some((record.session?, record.mod_revision, decoded(&record.value)))
}

/// The keys of what a session has in flight of a subscription: one that changes is settled.
#[must_use]
pub fn flights(view: View<'_>, name: &Name, session: coracle_store::SessionId) -> Vec<Key> {
    let prefix = name.subscriber().key(&[IN_FLIGHT], &[]);
    view.attached_under(session, prefix.as_bytes()).cloned().collect()
}

/// Names of the subscriptions of a subject, behind `after`, at most `limit`, in order of their bytes.
#[must_use]
pub fn names(view: View<'_>, subject: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let prefix = Topic::new(subject).part(SUBSCRIPTION);
    let past = |name: &str| Key::after_prefix(&[&prefix[..], &names::closed(name)].concat());
    let mut from = after.and_then(past).or_else(|| Key::from_bytes(&prefix));
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(start) = from.take()
    {
        let next = view.seek(&start).next();
        let Some(rest) = next.and_then(|(key, _)| key.as_bytes().strip_prefix(&prefix[..])) else { break };
        let Some((name, _)) = names::split(rest) else { break };
        from = past(&name);
        found.push(name);
    }
    found
}

/// What a waiting receiver watches beside the messages.
#[must_use]
pub fn wake(name: &Name) -> Selection {
    Selection::Prefix(name.subscriber().key(&[WAKE], &[]).as_bytes().to_vec())
}

/// Where the dead go if the settings do not say: a topic beside the one topic, or named after the subscription.
#[must_use]
pub fn dead_letter(name: &Name) -> String {
    let Name { subject, name } = name;
    format!("{}.dead", if subject::is_pattern(subject) { name } else { subject })
}

/// How many messages are ahead of a subscription that it will hand out, counting at most `most`; and the time of the
/// first of them.
#[must_use]
pub fn lag(
    view: View<'_>,
    name: &Name,
    subscription: &Subscription,
    most: usize,
) -> (usize, Option<Timestamp>) {
    let reach = read::Reach { messages: most, bytes: usize::MAX, looks: most, whole: false };
    let ahead = read::matching(view, &name.subject, subscription.cursor, reach, |message| {
        subscription.takes(name, message)
    });
    (ahead.found.len(), ahead.found.first().map(|found| found.message.time))
}

/// Whether a receive would hand something out, looking at most at so many messages behind `after`, which is the cursor
/// or what an earlier look came to.
#[must_use]
pub fn pending(
    view: View<'_>,
    name: &Name,
    subscription: &Subscription,
    after: Place,
    looks: usize,
) -> Pending {
    if subscription.returned > 0 {
        return Pending { ready: true, upto: after, looked: 0, end: true };
    }
    let reach = read::Reach { messages: 1, bytes: usize::MAX, looks, whole: false };
    let wanted = |message: &super::Message| subscription.takes(name, message);
    let read::Ahead { found, upto, looked, end } = read::matching(view, &name.subject, after, reach, wanted);
    Pending { ready: !found.is_empty(), upto, looked, end }
}

/// What [`pending`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    pub ready: bool,
    /// Nothing for this subscription is up to here.
    pub upto: Place,
    pub looked: usize,
    /// Nothing more is there now.
    pub end: bool,
}

impl Subscription {
    /// Whether a message is for this subscription: not what it gave up itself.
    pub(super) fn takes(&self, name: &Name, message: &super::Message) -> bool {
        let own = message.dead.as_ref().is_some_and(|dead| dead.of == *name);
        let key = message.key.as_deref();
        let filter = self.settings.filter.as_deref();
        !own && filter.is_none_or(|filter| key.is_some_and(|key| subject::covers(filter, key)))
    }
}

/// Make a subscription, or change its settings; an existing one stays where it is.
pub(super) fn subscribe(
    txn: &mut Txn<'_>,
    name: &Name,
    settings: Settings,
    start: Start,
) -> Result<Outcome, StoreRefusal> {
    check(name)?;
    let Settings { visibility, max_deliveries, dead_letter: dead, filter, .. } = &settings;
    let visible = usize::try_from(visibility.0).unwrap_or(usize::MAX);
    let ms = |bound: &u64| usize::try_from(*bound).unwrap_or(usize::MAX);
    bounded("visibility", visible, ms(VISIBILITY_MS.start()), ms(VISIBILITY_MS.end()))?;
    bounded("max_deliveries", ms(max_deliveries), 0, ms(&DELIVERIES))?;
    let dead = dead.as_deref().map_or_else(|| dead_letter(name), str::to_owned);
    bounded("dead_letter", dead.len(), 1, NAME_BYTES)?;
    if !subject::is_topic(&dead) {
        return Err(Refusal::NoSubject(dead.into()).into());
    }
    if let Some(filter) = filter {
        bounded("filter", filter.len(), 1, NAME_BYTES)?;
        if !subject::is_subject(filter) {
            return Err(Refusal::NoSubject(filter.clone()).into());
        }
    }
    let subscriber = name.subscriber();
    if let Some(mut subscription) = subscriber.load(txn.view()) {
        if subscription.settings != settings {
            subscription.settings = settings;
            subscriber.store(txn, &subscription);
        }
        return Ok(Outcome::Subscribed(false, subscription));
    }
    if names(txn.view(), &name.subject, None, SUBSCRIPTIONS).len() >= SUBSCRIPTIONS {
        return Err(Refusal::TooManySubscriptions(SUBSCRIPTIONS as u64).into());
    }
    txn.make_room(KEY_OVERHEAD + 128 + name.subject.len() + name.name.len())?;
    let subscription = Subscription {
        settings,
        cursor: place(txn.view(), name, start),
        in_flight: 0,
        returned: 0,
        delivered: 0,
        acked: 0,
        dead: 0,
        gaps: 0,
        gap_told: told(txn.view(), name, start),
        created: txn.now(),
    };
    subscriber.store(txn, &subscription);
    Ok(Outcome::Subscribed(true, subscription))
}

/// Go to another place: what was handed out is forgotten, and its receipts with it.
pub(super) fn seek(txn: &mut Txn<'_>, name: &Name, start: Start) -> Result<Outcome, StoreRefusal> {
    let subscriber = name.subscriber();
    let Some(mut subscription) = subscriber.load(txn.view()) else {
        return Err(Refusal::NoSubscription.into());
    };
    subscriber.forget(txn);
    subscription.cursor = place(txn.view(), name, start);
    subscription.gap_told = told(txn.view(), name, start);
    (subscription.in_flight, subscription.returned) = (0, 0);
    subscriber.store(txn, &subscription);
    Ok(Outcome::Subscribed(false, subscription))
}

/// Forget a subscription; true if there was one.
pub(super) fn unsubscribe(txn: &mut Txn<'_>, name: &Name) -> bool {
    let subscriber = name.subscriber();
    if !txn.delete(&subscriber.key(&[RECORD], &[]), Cause::Command) {
        return false;
    }
    subscriber.forget(txn);
    txn.delete(&subscriber.consumer(), Cause::Command);
    true
}

pub(super) fn check(name: &Name) -> Result<(), StoreRefusal> {
    bounded("subscription", name.name.len(), 1, NAME_BYTES)?;
    bounded("topic", name.subject.len(), 1, NAME_BYTES)?;
    if !subject::is_subject(&name.subject) {
        return Err(Refusal::NoSubject(name.subject.clone()).into());
    }
    if !subject::is_topic(&name.name) {
        return Err(Refusal::NoSubject(name.name.clone()).into());
    }
    Ok(())
}

fn place(view: View<'_>, name: &Name, start: Start) -> Place {
    match start {
        Start::New => read::newest(view, &name.subject),
        Start::First => read::oldest(view, &name.subject),
        Start::After(place) => place,
    }
}

/// Whoever asks for the oldest is told of no gap before it.
fn told(view: View<'_>, name: &Name, start: Start) -> u64 {
    match start {
        Start::First if subject::is_pattern(&name.subject) => log::floor(view).0,
        Start::First | Start::New | Start::After(_) => 0,
    }
}
