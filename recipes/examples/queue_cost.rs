//! What an operation of a queue costs while the queue is short and while it is long:
//! `cargo run --release -p coracle-recipes --example queue_cost`.
//!
//! Nothing here may grow with the messages that an operation does not touch, but for the depth of the map they are in.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a stopwatch stands outside the recipes"
)]

use std::time::Instant;

use coracle_recipes::Recipes;
use coracle_recipes::queue::barrier::{Barrier, HandOut};
use coracle_recipes::queue::{
    Config, Kind, Message, MessageId, Nack, Operation, Outcome, Receipt, Receipts, Receive, Send, Terms,
};
use coracle_store::{
    Action, Attach, Command, ContentType, Millis, Outcome as StoreOutcome, Principal, Revision, Store,
    Timestamp,
};

/// So many operations of a kind are timed at each length.
const TIMED: usize = 20_000;

struct Queue {
    store: Store,
    now: u64,
}

impl Queue {
    fn new() -> Self {
        Self { store: Store::new(Box::new(Recipes)), now: 1 }
    }

    fn act(&mut self, action: Action) -> StoreOutcome {
        let command =
            Command { principal: Principal("ann".into()), idempotency: None, guards: Vec::new(), action };
        self.store.apply(Timestamp(self.now), &command.encode()).result.expect("taken")
    }

    fn run(&mut self, operation: Operation) -> Outcome {
        let operation = coracle_recipes::Operation::Queue(operation).encode();
        let StoreOutcome::Program(bytes) = self.act(Action::One(operation)) else { panic!("not a recipe's") };
        match coracle_recipes::Outcome::decode(&bytes).expect("an outcome") {
            coracle_recipes::Outcome::Queue(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, count: usize, group: Option<&str>, delay: u64) {
        let message = Message {
            value: b"a message of forty bytes, or nearly so.."[..].into(),
            content_type: ContentType::Text,
            priority: 0,
            group: group.map(Into::into),
            delay: Millis(delay),
            ttl: None,
            dedup_id: None,
            headers: Vec::new(),
            item: None,
        };
        let send = Send { queue: "q".into(), messages: vec![message; count], attach: Attach::None };
        self.run(Operation::Send(send));
    }

    fn receive(&mut self, max: u32) -> Vec<Receipt> {
        let terms = Terms { max, visibility: Some(Millis(3_600_000)), bound: false, at_most_once: false };
        let receive =
            Receive { queue: "q".into(), terms, attach: Attach::None, wait: false, acks: Vec::new() };
        let Outcome::Delivered(delivered) = self.run(Operation::Receive(receive)) else { panic!("refused") };
        delivered
            .messages
            .iter()
            .map(|message| Receipt { id: message.id, delivery: message.delivery })
            .collect()
    }

    fn settle(&mut self, receipt: Receipt, nack: Option<Nack>) {
        let receipts = Receipts { queue: "q".into(), receipts: vec![receipt], all: true };
        self.run(match nack {
            None => Operation::Ack(receipts),
            Some(nack) => Operation::Nack(receipts, nack),
        });
    }

    /// History is not what is measured.
    fn forget(&mut self) {
        while self.store.compact_revision() < self.store.revision() {
            self.act(Action::Compact(self.store.revision()));
        }
    }
}

/// Nanoseconds each: the shortest of ten runs of a tenth, so that a busy machine does not blur the figures.
fn timed(count: usize, mut work: impl FnMut()) -> u128 {
    let tenth = (count / 10).max(1);
    let mut shortest = u128::MAX;
    for _ in 0..count / tenth {
        let begin = Instant::now();
        for _ in 0..tenth {
            work();
        }
        shortest = shortest.min(begin.elapsed().as_nanos() / tenth as u128);
    }
    shortest
}

fn at_length(length: usize) {
    let mut queue = Queue::new();
    // A tenth each in flight and delayed, a tenth behind one group; the rest is ready.
    let (tenth, mut built) = (length / 10, 0);
    while built < tenth {
        queue.send(1_000.min(tenth - built), None, 0);
        built += 1_000;
    }
    for _ in 0..tenth.div_ceil(100) {
        queue.receive(100);
    }
    for (group, delay, share) in
        [(None, 3_600_000, tenth), (Some("one"), 0, tenth), (None, 0, length - 3 * tenth)]
    {
        let mut built = 0;
        while built < share {
            queue.send(1_000.min(share - built), group, delay);
            built += 1_000;
        }
        queue.forget();
    }
    let send = timed(TIMED, || queue.send(1, None, 0));
    let mut receipts = Vec::new();
    let receive = timed(TIMED, || receipts.extend(queue.receive(1)));
    let mut given_back = receipts.split_off(TIMED / 2).into_iter();
    let ack = timed(TIMED / 2, || queue.settle(receipts.pop().expect("received"), None));
    let nack = timed(TIMED / 2, || {
        let later = Nack { delay: Some(Millis(1_000)), ..Nack::default() };
        queue.settle(given_back.next().expect("received"), Some(later));
    });
    queue.now += 2_000;
    let due = timed(TIMED / 2 / 256, || {
        queue.act(Action::Advance);
    }) / 256;
    let grouped = timed(TIMED, || queue.send(1, Some("one"), 0));
    println!("{length:>9} {send:>9} {receive:>9} {ack:>9} {nack:>9} {due:>9} {grouped:>9}");
}

fn release(items: usize) {
    let mut queue = Queue::new();
    let barrier = Barrier { size: Some(items as u64), hand_out: HandOut::Work, ..Barrier::default() };
    let config = Config { kind: Kind::Barrier, barrier: Some(barrier), ..Config::default() };
    queue.run(Operation::Configure("q".into(), Some(config)));
    for _ in 0..items / 1_000 - 1 {
        queue.send(1_000, None, 0);
    }
    queue.send(999, None, 0);
    queue.forget();
    let before = timed(1, || {
        drop(queue.run(Operation::Remove("q".into(), MessageId { revision: Revision(2), number: 0 })));
    });
    let put = timed(1, || queue.send(1, None, 0));
    let released = timed(1, || queue.send(1, None, 0));
    let receive = timed(1, || {
        assert_eq!(queue.receive(1).len(), 1, "released");
    });
    println!("{items:>9} {before:>9} {put:>9} {released:>9} {receive:>9}");
}

fn main() {
    println!("nanoseconds each");
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "messages", "send", "receive", "ack", "nack", "due", "grouped"
    );
    for length in [1_000, 10_000, 100_000, 1_000_000] {
        at_length(length);
    }
    println!("{:>9} {:>9} {:>9} {:>9} {:>9}", "items", "withdraw", "put", "release", "receive");
    for items in [1_000, 10_000, 100_000] {
        release(items);
    }
}
