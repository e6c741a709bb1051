//! Random publishers, readers and receivers around a few topics, against the model.

use coracle_recipes::topic::{
    self, Draft, Nack, Operation, Overflow, Place, Publish, Reach, Receipt, Receive, Retention, Settings,
    Settle, Start,
};
use coracle_recipes::{Outcome, Recipes};
use coracle_store::command::{Expiry, OpenSession, Transaction};
use coracle_store::{
    Action, Attach, Command, ContentType, Loader, Millis, Outcome as StoreOutcome, Principal, Revision,
    SessionId, Store, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::topic_model::{Durable, Model, New, SUBSCRIPTIONS, VISIBILITY, name};

const TOPICS: [&str; 3] = ["a", "a.b", "b"];
const SUBJECTS: [&str; 8] = ["a", "a.b", "b", "*", "a.>", ">", "a.dead", "none"];
const KEYS: [&str; 2] = ["k", "l"];
const SESSIONS: u64 = 2;

/// A message with a key and a ttl in seconds, or without.
type Item = (Option<usize>, Option<u64>);

#[derive(Debug, Clone)]
enum Step {
    /// Messages, each with a key and a ttl in seconds, or without.
    Publish(usize, Vec<Item>, Option<u64>),
    /// One entry publishes to several topics.
    Together(Vec<usize>),
    Configure(usize, Option<[Option<u64>; 4]>, bool),
    Delete(usize),
    Subscribe(usize, bool),
    Unsubscribe(usize),
    Seek(usize, u64),
    Receive {
        of: usize,
        session: Option<u64>,
        max: u64,
        at_most_once: bool,
    },
    /// The n-th of the receipts ever given, and what to do with it: ack, nack, nack later, fatal, renew.
    Settle(usize, u8),
    Open(u64),
    Expire(Vec<u64>),
    Tick(u64),
    Compact,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let topic = 0..TOPICS.len();
    let of = 0..SUBSCRIPTIONS.len();
    let item = (prop::option::of(0..KEYS.len()), prop::option::weighted(0.2, 1u64..6));
    let bound = |most| prop::option::weighted(0.4, 1u64..most);
    let bounds = (bound(8), bound(1_500), bound(5), bound(3))
        .prop_map(|(age, bytes, count, key)| [age, bytes, count, key]);
    let step = prop_oneof![
        10 => (topic.clone(), vec(item, 1..4), prop::option::weighted(0.1, 0u64..6))
            .prop_map(|(topic, items, expect)| Step::Publish(topic, items, expect)),
        2 => vec(topic.clone(), 1..4).prop_map(Step::Together),
        2 => (topic.clone(), prop::option::weighted(0.8, bounds), prop::bool::weighted(0.2))
            .prop_map(|(topic, bounds, reject)| Step::Configure(topic, bounds, reject)),
        1 => topic.prop_map(Step::Delete),
        3 => (of.clone(), any::<bool>()).prop_map(|(of, first)| Step::Subscribe(of, first)),
        1 => of.clone().prop_map(Step::Unsubscribe),
        1 => (of.clone(), 0u64..12).prop_map(|(of, after)| Step::Seek(of, after)),
        10 => (of, prop::option::of(1..=SESSIONS), 1u64..4, prop::bool::weighted(0.1))
            .prop_map(|(of, session, max, at_most_once)| Step::Receive { of, session, max, at_most_once }),
        8 => (any::<prop::sample::Index>(), 0u8..5).prop_map(|(nth, how)| Step::Settle(nth.index(64), how)),
        2 => (1..=SESSIONS).prop_map(Step::Open),
        2 => vec(1..=SESSIONS, 1..3).prop_map(Step::Expire),
        5 => (1u64..4).prop_map(Step::Tick),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..80)
}

fn draft((key, ttl, body, _): &New) -> Draft {
    Draft {
        key: key.as_deref().map(Into::into),
        ttl: ttl.map(|ttl| Millis(ttl * 1_000)),
        headers: Vec::new(),
        content_type: ContentType::Text,
        body: body.as_bytes().into(),
        dead: None,
    }
}

struct Run {
    store: Store,
    model: Model,
    /// Every receipt ever given, with its subscription.
    receipts: Vec<(usize, Receipt)>,
    /// What was handed out and acknowledged: never again, until a seek.
    acked: Vec<(usize, String, u64)>,
}

impl Run {
    fn apply(&mut self, action: Action) -> Result<StoreOutcome, coracle_store::Refusal> {
        let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
        let command = Command { principal, idempotency, guards, action }.encode();
        self.store.apply(Timestamp(self.model.now * 1_000), &command).result
    }

    fn operate(&mut self, operation: Operation) -> Result<topic::Outcome, coracle_store::Refusal> {
        let operation = coracle_recipes::Operation::Topic(operation).encode();
        match self.apply(Action::One(operation))? {
            StoreOutcome::Program(bytes) => {
                let Ok(Outcome::Topic(outcome)) = Outcome::decode(&bytes) else { panic!("{bytes:?}") };
                Ok(outcome)
            }
            other => panic!("{other:?}"),
        }
    }

    fn items(&mut self, items: &[Item]) -> Vec<New> {
        let mut item = |(key, ttl): &Item| {
            self.model.bodies += 1;
            (key.map(|key| KEYS[key].to_owned()), *ttl, format!("body {}", self.model.bodies), None)
        };
        items.iter().map(&mut item).collect()
    }

    fn step(&mut self, step: &Step) {
        let revision = self.store.revision().next().0;
        match step {
            Step::Publish(topic, items, expect) => {
                let topic = TOPICS[*topic];
                let items = self.items(items);
                let (topic_name, messages) = (topic.into(), items.iter().map(draft).collect());
                let publish = Publish { topic: topic_name, messages, expect_last_seq: *expect };
                let actual = self.operate(Operation::Publish(publish));
                let last = self.model.logs.get(topic).map_or(0, |log| log.last);
                if expect.is_some_and(|expect| expect != last) {
                    assert!(actual.is_err());
                    return;
                }
                let before = (self.model.all.clone(), self.model.logs.clone());
                let fits = self.model.fits(topic, &items);
                let first = self.model.log(topic).last + 1;
                self.model.append(topic, items, revision);
                let last = self.model.log(topic).last;
                let full =
                    self.model.bounds(topic).overflow == Overflow::Reject && self.model.exceeded(topic);
                if full || !fits {
                    (self.model.all, self.model.logs) = before;
                    assert!(actual.is_err());
                    return;
                }
                self.model.trim(topic);
                assert_eq!(actual, Ok(topic::Outcome::Published(first, last)));
            }
            Step::Together(topics) => {
                let before = (self.model.all.clone(), self.model.logs.clone());
                let mut then = Vec::new();
                let mut fits = true;
                for topic in topics {
                    let items = self.items(&[(None, None)]);
                    let messages = items.iter().map(draft).collect();
                    let publish = Publish { topic: TOPICS[*topic].into(), messages, expect_last_seq: None };
                    then.push(coracle_recipes::Operation::Topic(Operation::Publish(publish)).encode());
                    fits &= self.model.fits(TOPICS[*topic], &items);
                    self.model.append(TOPICS[*topic], items, revision);
                    let reject = self.model.bounds(TOPICS[*topic]).overflow == Overflow::Reject;
                    fits &= !(reject && self.model.exceeded(TOPICS[*topic]));
                    self.model.trim(TOPICS[*topic]);
                    self.model.forget();
                }
                let (conditions, otherwise) = (Vec::new(), Vec::new());
                let actual = self.apply(Action::Transaction(Transaction { conditions, then, otherwise }));
                assert_eq!(actual.is_ok(), fits, "{actual:?}");
                if !fits {
                    (self.model.all, self.model.logs) = before;
                }
            }
            Step::Configure(topic, bounds, reject) => {
                let topic = TOPICS[*topic];
                let retention = bounds.map(|[age, bytes, count, key]| Retention {
                    max_age: age.map(|age| Millis(age * 1_000)),
                    max_bytes: bytes.map(|bytes| bytes + 200),
                    max_messages: count,
                    max_per_key: key,
                    overflow: if *reject { Overflow::Reject } else { Overflow::DropOldest },
                });
                let had = self.model.bounds(topic);
                let configured = self.model.bounds.contains_key(topic);
                self.operate(Operation::Configure(topic.into(), retention.clone())).unwrap();
                match &retention {
                    Some(retention) => self.model.bounds.insert(topic.into(), retention.clone()),
                    None => self.model.bounds.remove(topic),
                };
                self.model.log(topic);
                if !configured || had != retention.clone().unwrap_or_default() {
                    self.model.trim(topic);
                    if let Some(most) = self.model.bounds(topic).max_per_key {
                        for key in KEYS {
                            self.model.supersede(topic, key, most);
                        }
                    }
                }
            }
            Step::Delete(topic) => {
                let topic = TOPICS[*topic];
                let mine = |of: &usize| SUBSCRIPTIONS[*of].0 == topic;
                let known = self.model.logs.contains_key(topic) || self.model.subscriptions.keys().any(mine);
                let actual = self.operate(Operation::Delete(topic.into()));
                assert_eq!(actual.is_ok(), known);
                self.model.bounds.remove(topic);
                while self.model.of(topic).next().is_some() {
                    self.model.drop_oldest(topic);
                }
                self.model.subscriptions.retain(|of, _| !mine(of));
                self.acked.retain(|(of, ..)| !mine(of));
            }
            _ => self.subscribe_step(step, revision),
        }
    }

    fn subscribe_step(&mut self, step: &Step, revision: u64) {
        match step {
            Step::Subscribe(of, first) => {
                let (subject, _, exclusive, max_deliveries, filter) = SUBSCRIPTIONS[*of];
                let mode = if exclusive { topic::Mode::Exclusive } else { topic::Mode::Shared };
                let (visibility, filter) = (Millis(VISIBILITY * 1_000), filter.map(Into::into));
                let settings = Settings { mode, visibility, max_deliveries, dead_letter: None, filter };
                let start = if *first { Start::First } else { Start::New };
                let view = self.store.view();
                let cursor = if *first { topic::oldest(view, subject) } else { topic::newest(view, subject) };
                let floors = self.model.logs.values().map(|log| log.floor_revision);
                let floor = floors.max().unwrap_or(0).max(self.model.mark.1);
                self.operate(Operation::Subscribe(name(*of), settings, start)).unwrap();
                let told = if *first && topic::is_pattern(subject) { floor } else { 0 };
                let fresh = Durable { cursor, told, ..Durable::default() };
                self.model.subscriptions.entry(*of).or_insert(fresh);
            }
            Step::Unsubscribe(of) => {
                let actual = self.operate(Operation::Unsubscribe(name(*of)));
                assert_eq!(actual.is_ok(), self.model.subscriptions.remove(of).is_some());
                self.acked.retain(|(other, ..)| other != of);
            }
            Step::Seek(of, after) => {
                let pattern = topic::is_pattern(SUBSCRIPTIONS[*of].0);
                let place = if pattern { Place::after(Revision(*after)) } else { Place::after_seq(*after) };
                let actual = self.operate(Operation::Seek(name(*of), Start::After(place)));
                assert_eq!(actual.is_ok(), self.model.subscriptions.contains_key(of));
                if let Some(durable) = self.model.subscriptions.get_mut(of) {
                    durable.flying.clear();
                    durable.returned.clear();
                    (durable.cursor, durable.told) = (place, 0);
                }
                self.acked.retain(|(other, ..)| other != of);
            }
            Step::Receive { of, session, max, at_most_once } => {
                let attach = session.map_or(Attach::None, |id| Attach::Session(SessionId(id)));
                let (from, acks, visibility, ack) = (name(*of), Vec::new(), None, *at_most_once);
                let receive = Receive { from, attach, max: *max, visibility, acks, ack };
                let actual = self.operate(Operation::Receive(receive));
                let expected = self.model.receive(*of, *session, *max, !at_most_once, revision);
                let (Ok(topic::Outcome::Received(actual)), Some(expected)) = (&actual, &expected) else {
                    assert!(actual.is_err() && expected.is_none(), "{actual:?} {expected:?}");
                    return;
                };
                let one = |d: &topic::Delivery| {
                    let body = String::from_utf8(d.message.body.to_vec()).unwrap();
                    (d.topic.to_string(), d.receipt.place, body, d.deliveries)
                };
                assert_eq!((actual.deliveries.iter().map(one).collect::<Vec<_>>(), actual.gap), *expected);
                assert!(!actual.more);
                for delivery in &actual.deliveries {
                    let what = (*of, delivery.topic.to_string(), delivery.receipt.place.seq);
                    assert!(!self.acked.contains(&what), "acknowledged is final");
                    self.receipts.push((*of, delivery.receipt));
                    if *at_most_once {
                        self.acked.push(what);
                    }
                }
            }
            Step::Settle(nth, how) => {
                let Some((of, receipt)) =
                    self.receipts.get(self.receipts.len().saturating_sub(1 + nth)).copied()
                else {
                    return;
                };
                let settle = match how {
                    0 => Settle::Ack,
                    1 => Settle::Nack(Nack::default()),
                    2 => Settle::Nack(Nack { delay: Millis(2_000), ..Nack::default() }),
                    3 => Settle::Nack(Nack { fatal: true, ..Nack::default() }),
                    _ => Settle::Renew(Some(Millis(5_000))),
                };
                let topic = self.model.subscriptions.get(&of).and_then(|durable| {
                    durable.flying.get(&receipt.place).map(|flying| flying.message.topic.clone())
                });
                let actual = self.operate(Operation::Settle(name(of), vec![receipt], settle));
                let expected = self.model.settle(of, receipt, *how, revision);
                let visibility = (*how > 3).then_some(Millis(5_000));
                assert_eq!(actual.ok(), expected.map(|ok| topic::Outcome::Settled(vec![ok], visibility)));
                if *how == 0 && expected == Some(true) {
                    self.acked.push((of, topic.unwrap(), receipt.place.seq));
                }
            }
            _ => self.session_step(step, revision),
        }
    }

    fn session_step(&mut self, step: &Step, revision: u64) {
        match step {
            Step::Open(id) => {
                let open = OpenSession::new(SessionId(*id), Millis(10_000));
                let opened = self.apply(Action::One(coracle_store::Operation::OpenSession(open)));
                if opened.is_ok() {
                    self.model.sessions.push(*id);
                }
            }
            Step::Expire(sessions) => {
                let expiry = |id: &u64| Expiry { session: SessionId(*id), generation: 1 };
                self.apply(Action::Expire(sessions.iter().map(expiry).collect())).unwrap();
                self.model.expire(sessions, revision);
            }
            Step::Tick(seconds) => {
                for _ in 0..*seconds {
                    self.model.now += 1;
                    let revision = self.store.revision().next().0;
                    self.apply(Action::Advance).unwrap();
                    self.model.tick(revision);
                }
            }
            Step::Compact => drop(self.apply(Action::Compact(self.store.revision()))),
            Step::Restart => self.store = restart(&self.store),
            _ => unreachable!("a step of topics"),
        }
    }

    /// What is there is what should be; `closely`: however it is asked for.
    fn compare(&self, closely: bool) {
        let view = self.store.view();
        let all = Reach { messages: usize::MAX, bytes: usize::MAX, looks: usize::MAX, whole: false };
        for subject in SUBJECTS {
            let shown = |found: &topic::Found| {
                let body = String::from_utf8(found.message.body.to_vec()).unwrap();
                (found.topic.to_string(), found.place, body)
            };
            let ahead = topic::ahead(view, subject, Place::default(), all);
            let actual: Vec<_> = ahead.found.iter().map(shown).collect();
            let expected = self.model.all.iter().filter(|kept| topic::covers(subject, &kept.topic));
            let expected: Vec<_> =
                expected.map(|kept| (kept.topic.clone(), kept.place, kept.body.clone())).collect();
            assert_eq!(actual, expected, "messages of {subject}");
            assert!(ahead.end);
            if !closely {
                continue;
            }
            // Page by page it is the same, wherever the pages end.
            for (reach, whole) in [(1, false), (2, true)] {
                let (mut after, mut paged) = (Place::default(), Vec::new());
                loop {
                    let reach = Reach { messages: reach, bytes: usize::MAX, looks: 3, whole };
                    let page = topic::ahead(view, subject, after, reach);
                    paged.extend(page.found.iter().map(shown));
                    let pattern = topic::is_pattern(subject);
                    after = match (whole, pattern) {
                        (true, true) => Place::after(page.upto.revision),
                        (_, false) => Place::after_seq(page.upto.seq),
                        (false, true) => page.upto,
                    };
                    if page.end {
                        break;
                    }
                }
                assert_eq!(paged, expected, "pages of {subject}");
            }
            for position in 0..6 {
                let position = position * self.store.revision().0 / 5;
                for after in [Place::after(Revision(position)), Place::after_seq(position)] {
                    if after.number == 0 && topic::is_pattern(subject) {
                        continue;
                    }
                    let lost = topic::lost(view, subject, after, usize::MAX);
                    assert_eq!(lost, self.model.lost(subject, after), "lost of {subject} after {position}");
                }
                let time = position.min(self.model.now);
                let from = topic::before_time(view, subject, Timestamp(time * 1_000));
                let ahead = topic::ahead(view, subject, from, all);
                let since = self.model.all.iter().filter(|kept| kept.time >= time);
                let since = since.filter(|kept| topic::covers(subject, &kept.topic)).count();
                assert_eq!(ahead.found.len(), since, "{subject} since {time}");
            }
        }
        for (name, log) in &self.model.logs {
            let shown = topic::shown(view, name).unwrap().log.unwrap();
            let (count, bytes) =
                self.model.of(name).fold((0, 0), |(count, bytes), kept| (count + 1, bytes + kept.size));
            assert_eq!(
                (shown.last_seq, shown.count, shown.bytes, shown.floor),
                (log.last, count, bytes, log.floor)
            );
        }
        for of in 0..SUBSCRIPTIONS.len() {
            let actual = topic::show(view, &name(of));
            let Some(durable) = self.model.subscriptions.get(&of) else {
                assert!(actual.is_none());
                continue;
            };
            let actual = actual.unwrap();
            assert_eq!(actual.in_flight, durable.flying.len() as u64);
            assert_eq!(actual.returned, durable.returned.len() as u64);
            assert_eq!((actual.gaps, actual.dead), (durable.gaps, durable.dead));
            let consumer = topic::consumer(view, &name(of)).map(|(id, ..)| id.0);
            assert_eq!(consumer, durable.consumer);
        }
    }
}

fn restart(store: &Store) -> Store {
    let mut loader = Loader::new(Box::new(Recipes));
    for row in store.rows() {
        loader.row(row.table, &row.key, &row.value.expect("a row")).expect("rows of a store");
    }
    loader.finish().expect("a whole store")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn topics_are_one_list(steps in steps()) {
        let (store, model) = (Store::new(Box::new(Recipes)), Model::default());
        let mut run = Run { store, model, receipts: Vec::new(), acked: Vec::new() };
        for (i, step) in (1..).zip(&steps) {
            run.step(step);
            run.model.forget();
            run.compare(i % 16 == 0 || i == steps.len());
        }
        // Everything deleted leaves what remembers it, and nothing that waits.
        for of in 0..SUBSCRIPTIONS.len() {
            let _ = run.operate(Operation::Unsubscribe(name(of)));
        }
        for topic in ["a", "a.b", "b", "a.dead", "x.dead", "f.dead", "y.dead"] {
            let _ = run.operate(Operation::Delete(topic.into()));
        }
        let left = run.store.view().scan(topic::FAMILY, &[]).count();
        prop_assert!(left <= 2, "{left} keys left");
        prop_assert_eq!(run.store.due(), None, "timers are cleared with what they were for");
    }
}
