//! What an operation on topics costs while they keep little and while they keep much:
//! `cargo run --release -p coracle-recipes --example topic_cost`.
//!
//! Nothing here may grow with the messages, topics and subscriptions that an operation does not touch, but for the depth
//! of the map they are in.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a stopwatch stands outside the recipes"
)]

use std::time::Instant;

use coracle_recipes::Recipes;
use coracle_recipes::topic::{
    self, Draft, Name, Operation, Outcome, Place, Publish, Reach, Receipt, Receive, Retention, Settings,
    Settle, Start,
};
use coracle_store::{
    Action, Attach, Command, ContentType, Outcome as StoreOutcome, Principal, Revision, Store, Timestamp,
};

/// So many operations of a kind are timed.
const TIMED: usize = 10_000;
const PAGE: Reach = Reach { messages: 100, bytes: usize::MAX, looks: 2_048, whole: true };

struct Topics {
    store: Store,
}

impl Topics {
    fn new() -> Self {
        Self { store: Store::new(Box::new(Recipes)) }
    }

    fn act(&mut self, action: Action) -> StoreOutcome {
        let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
        let command = Command { principal, idempotency, guards, action };
        self.store.apply(Timestamp(1), &command.encode()).result.expect("taken")
    }

    fn run(&mut self, operation: Operation) -> Outcome {
        let operation = coracle_recipes::Operation::Topic(operation).encode();
        let StoreOutcome::Program(bytes) = self.act(Action::One(operation)) else { panic!("not a recipe's") };
        match coracle_recipes::Outcome::decode(&bytes).expect("an outcome") {
            coracle_recipes::Outcome::Topic(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn publish(&mut self, topic: &str, count: usize) {
        let (content_type, body) =
            (ContentType::Text, b"a message of forty bytes, or nearly so.."[..].into());
        let draft = Draft { key: None, ttl: None, headers: Vec::new(), content_type, body, dead: None };
        let publish = Publish { topic: topic.into(), messages: vec![draft; count], expect_last_seq: None };
        self.run(Operation::Publish(publish));
    }

    fn keep(&mut self, topic: &str, max_messages: Option<u64>) {
        let retention = Retention { max_bytes: None, max_messages, ..Retention::default() };
        self.run(Operation::Configure(topic.into(), Some(retention)));
    }

    fn subscribe(&mut self, subject: &str, name: &str) -> Name {
        let name = Name { subject: subject.into(), name: name.into() };
        self.run(Operation::Subscribe(name.clone(), Settings::default(), Start::First));
        name
    }

    fn receive(&mut self, from: &Name) -> Vec<Receipt> {
        let (attach, acks) = (Attach::None, Vec::new());
        let receive = Receive { from: from.clone(), attach, max: 1, visibility: None, acks, ack: false };
        let Outcome::Received(received) = self.run(Operation::Receive(receive)) else {
            panic!("nothing received")
        };
        received.deliveries.iter().map(|delivery| delivery.receipt).collect()
    }

    /// History is not what is measured.
    fn forget(&mut self) {
        while self.store.compact_revision() < self.store.revision() {
            self.act(Action::Compact(self.store.revision()));
        }
    }
}

/// Nanoseconds each: the shortest of ten runs of a tenth, so that a busy machine does not blur the figures.
fn timed(count: usize, mut work: impl FnMut(usize)) -> u128 {
    let (tenth, mut shortest) = (count / 10, u128::MAX);
    for run in 0..10 {
        let begin = Instant::now();
        for i in 0..tenth {
            work(run * tenth + i);
        }
        shortest = shortest.min(begin.elapsed().as_nanos() / tenth as u128);
    }
    shortest
}

/// One topic that keeps so many messages, beside others that keep as many together.
fn at_length(length: usize) {
    let mut topics = Topics::new();
    topics.keep("orders.paid", None);
    let mut kept = 0;
    while kept < length {
        topics.publish("orders.paid", 1_000);
        // Every hundredth publish is of another topic.
        topics.publish(&format!("other.{}", kept / 1_000), 1_000);
        kept += 1_000;
        topics.forget();
    }
    let live = topics.store.live_bytes() / (2 * length as u64);
    let publish = timed(TIMED, |_| topics.publish("orders.paid", 1));
    topics.forget();
    topics.keep("orders.paid", Some((length + TIMED) as u64));
    let full = timed(TIMED, |_| topics.publish("orders.paid", 1));
    topics.forget();
    let last = topic::newest(topics.store.view(), "orders.paid").seq;
    let view = topics.store.view();
    let read = timed(TIMED, |i| {
        let after = Place::after_seq(last - (i * 7 % length) as u64 - 200);
        assert!(topic::ahead(view, "orders.paid", after, PAGE).found.len() >= 100);
    });
    let newest = view.revision().0;
    let pattern = timed(TIMED, |i| {
        let after = Place::after(Revision(newest - (i % TIMED) as u64 - 200));
        assert!(topic::ahead(view, "orders.*", after, PAGE).found.len() >= 100);
    });
    let time = timed(TIMED, |_| {
        assert!(topic::before_time(view, "orders.*", Timestamp(1)).revision < view.revision());
    });
    let name = topics.subscribe("orders.*", "s");
    topics.run(Operation::Seek(
        name.clone(),
        Start::After(Place::after(Revision(newest - 2 * TIMED as u64 + 1))),
    ));
    let mut receipts = Vec::new();
    let receive = timed(TIMED / 2, |_| receipts.extend(topics.receive(&name)));
    let ack = timed(TIMED / 2, |_| {
        let receipts = vec![receipts.pop().expect("received")];
        topics.run(Operation::Settle(name.clone(), receipts, Settle::Ack));
    });
    println!(
        "{length:>9}  {publish:>7}  {full:>7}  {:>5}  {:>7}  {time:>5}  {receive:>7}  {ack:>6}  {live:>6}",
        read / 100,
        pattern / 100
    );
}

/// A publish while so many subscriptions are there, a hundredth of which cover it.
fn at_subscriptions(count: usize) {
    let mut topics = Topics::new();
    for number in 0..count {
        let subject = format!("{}.{number}.>", if number % 100 == 0 { "orders" } else { "other" });
        topics.subscribe(&subject, "s");
    }
    for number in 0..count / 10 {
        topics.subscribe("orders.>", &format!("s{}", number % 1_000));
    }
    let publish = timed(TIMED, |_| topics.publish("orders.1.paid", 1));
    println!("{count:>13}  {publish:>7}");
}

fn main() {
    println!("nanoseconds each; live bytes of a message of 40 bytes");
    println!(" messages  publish  at full   read  pattern   time  receive     ack    live");
    for length in [1_000, 10_000, 100_000, 1_000_000] {
        at_length(length);
    }
    println!("subscriptions  publish");
    for count in [100, 1_000, 10_000] {
        at_subscriptions(count);
    }
}
