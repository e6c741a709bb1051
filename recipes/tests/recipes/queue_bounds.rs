//! Random senders and consumers of a queue with bounds: lengths, windows, times to live, back-off, dead letters and back,
//! against a model that looks at every message every second.

use std::collections::BTreeMap;

use coracle_recipes::queue::{
    self, Backoff, Config, Message, MessageId, Nack, Operation, Outcome, Overflow, Receipt, Receipts,
    Receive, Send, Standing, Terms,
};
use coracle_store::{Attach, Millis, Revision};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::{Driver, message};

const QUEUE: &str = "q";
const SECOND: u64 = 1_000;
const VISIBILITY: u64 = 4 * SECOND;
const MOST: u32 = 2;

#[derive(Debug, Clone)]
enum Step {
    /// Each with a dedup id and a time to live in seconds, or without.
    Send(Vec<(Option<u8>, Option<u64>)>),
    Receive(u32),
    /// The n-th of the receipts ever given, the newest first.
    Ack(usize),
    /// Whether fatal, whether counted.
    Nack(usize, bool, bool),
    Redrive(u32),
    Purge(bool),
    Seconds(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let message = (prop::option::weighted(0.4, 0..3_u8), prop::option::weighted(0.2, 1..9_u64));
    let step = prop_oneof![
        10 => vec(message, 1..4).prop_map(Step::Send),
        8 => (1..4_u32).prop_map(Step::Receive),
        5 => (0..9_usize).prop_map(Step::Ack),
        5 => (0..9_usize, prop::bool::weighted(0.2), prop::bool::weighted(0.7))
            .prop_map(|(n, fatal, counted)| Step::Nack(n, fatal, counted)),
        2 => (1..4_u32).prop_map(Step::Redrive),
        1 => any::<bool>().prop_map(Step::Purge),
        6 => (1..7_u64).prop_map(Step::Seconds),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..60)
}

fn config() -> impl Strategy<Value = Config> {
    let backoff = (0..4_u64, 1..9_u64, 1..4_u32).prop_map(|(min, more, factor)| Backoff {
        min: Millis(min * SECOND),
        max: Millis((min + more) * SECOND),
        factor,
    });
    let overflow = prop_oneof![Just(Overflow::Reject), Just(Overflow::DropOldest)];
    (prop::option::of(1..6_u64), overflow, 1..9_u64, 5..30_u64, prop::option::of(backoff)).prop_map(
        |(max_length, overflow, window, retention, backoff)| Config {
            visibility: Millis(VISIBILITY),
            max_deliveries: MOST,
            max_length,
            overflow,
            dedup_window: Millis(window * SECOND),
            retention: Millis(retention * SECOND),
            backoff,
            ..Config::default()
        },
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Delayed(u64),
    Flight { delivery: u64, until: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    id: MessageId,
    at: u64,
    expires: Option<u64>,
    deliveries: u32,
    state: State,
}

#[derive(Debug, Clone)]
struct Model {
    config: Config,
    now: u64,
    /// In the order of the sends.
    messages: Vec<Sent>,
    /// The ids they died with, in the order of the deaths.
    dead: Vec<MessageId>,
    /// Whose id it is, and until when.
    known: BTreeMap<u8, (MessageId, u64)>,
}

impl Model {
    fn current(&self, receipt: Receipt) -> Option<usize> {
        let is_it = |sent: &Sent| {
            sent.id == receipt.id
                && matches!(sent.state, State::Flight { delivery, .. } if delivery == receipt.delivery.0)
        };
        self.messages.iter().position(is_it)
    }

    /// Room for one more; false if nothing gives way.
    fn make_place(&mut self) -> bool {
        while self.config.max_length.is_some_and(|most| self.messages.len() as u64 >= most) {
            let oldest = self.messages.iter().position(|sent| sent.state == State::Ready);
            let Some(oldest) = oldest.filter(|_| self.config.overflow == Overflow::DropOldest) else {
                return false;
            };
            self.dead.push(self.messages.remove(oldest).id);
        }
        true
    }

    fn fail(&mut self, at: usize, fatal: bool, counted: bool) {
        let sent = &mut self.messages[at];
        sent.deliveries -= u32::from(!counted);
        if sent.expires.is_some_and(|end| end <= self.now) {
            self.messages.remove(at);
        } else if fatal || (counted && sent.deliveries >= MOST) {
            self.dead.push(sent.id);
            self.messages.remove(at);
        } else {
            let wait = self.config.backoff.filter(|_| counted).map_or(0, |backoff| {
                let times = u64::from(backoff.factor).pow(sent.deliveries - 1);
                (backoff.min.0 * times).min(backoff.max.0)
            });
            sent.state = if wait > 0 { State::Delayed(self.now + wait) } else { State::Ready };
        }
    }

    /// In one second: delays end, then visibilities, then what is too old goes, then what was not to be later than now.
    fn second(&mut self) {
        self.now += SECOND;
        let now = self.now;
        for sent in &mut self.messages {
            if matches!(sent.state, State::Delayed(until) if until <= now) {
                sent.state = State::Ready;
            }
        }
        let late = |sent: &Sent| matches!(sent.state, State::Flight { until, .. } if until <= now);
        while let Some(at) = self.messages.iter().position(late) {
            self.fail(at, false, true);
        }
        let retention = self.config.retention.0;
        self.messages.retain(|sent| sent.at + retention > now);
        self.known.retain(|_, (_, until)| *until > now);
        self.messages.retain(|sent| {
            sent.expires.is_none_or(|end| end > now) || matches!(sent.state, State::Flight { .. })
        });
    }
}

struct Run {
    driver: Driver,
    model: Model,
    receipts: Vec<Receipt>,
}

impl Run {
    fn queue(&mut self, operation: Operation) -> Option<Outcome> {
        match self.driver.run(&coracle_recipes::Operation::Queue(operation)) {
            Ok(coracle_recipes::Outcome::Queue(outcome)) => Some(outcome),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let receipt = |n: usize| self.receipts.iter().rev().nth(n).copied();
        let of = |receipt: Receipt| Receipts { queue: QUEUE.into(), receipts: vec![receipt], all: true };
        match step {
            Step::Send(messages) => self.send(messages)?,
            Step::Receive(max) => self.receive(*max)?,
            Step::Ack(n) => {
                let Some(receipt) = receipt(*n) else { return Ok(()) };
                let at = self.model.current(receipt);
                prop_assert_eq!(self.queue(Operation::Ack(of(receipt))).is_some(), at.is_some());
                at.map(|at| self.model.messages.remove(at));
            }
            Step::Nack(n, fatal, counted) => {
                let Some(receipt) = receipt(*n) else { return Ok(()) };
                let at = self.model.current(receipt);
                let nack = Nack { fatal: *fatal, uncounted: !counted, ..Nack::default() };
                prop_assert_eq!(self.queue(Operation::Nack(of(receipt), nack)).is_some(), at.is_some());
                if let Some(at) = at {
                    self.model.fail(at, *fatal, *counted);
                }
            }
            Step::Redrive(limit) => {
                let limit = *limit as usize;
                let most = u32::try_from(limit).unwrap();
                let moved = self.queue(Operation::Redrive(QUEUE.into(), None, most));
                let back = self.model.dead.len().min(limit);
                prop_assert_eq!(moved, Some(Outcome::Moved(back as u64, back == limit)));
                self.model.dead.drain(..back);
                for number in 0..u32::try_from(back).unwrap() {
                    let id = MessageId { revision: self.driver.store.revision(), number };
                    let at = self.model.now;
                    self.model.messages.push(Sent {
                        id,
                        at,
                        expires: None,
                        deliveries: 0,
                        state: State::Ready,
                    });
                }
            }
            Step::Purge(in_flight) => {
                self.queue(Operation::Purge(QUEUE.into(), Revision(u64::MAX), *in_flight)).unwrap();
                let stays = |sent: &Sent| !in_flight && matches!(sent.state, State::Flight { .. });
                self.model.messages.retain(stays);
            }
            Step::Seconds(count) => {
                for _ in 0..*count {
                    self.model.second();
                    self.driver.wait(SECOND);
                }
            }
            Step::Restart => self.driver.restart(),
        }
        self.check()
    }

    fn send(&mut self, messages: &[(Option<u8>, Option<u64>)]) -> Result<(), TestCaseError> {
        let message = |(dedup, ttl): &(Option<u8>, Option<u64>)| Message {
            ttl: ttl.map(|ttl| Millis(ttl * SECOND)),
            dedup_id: dedup.map(|id| id.to_string().into()),
            ..message()
        };
        let wanted = messages.iter().map(message).collect();
        let wanted = Send { queue: QUEUE.into(), messages: wanted, attach: Attach::None };
        let outcome = self.queue(Operation::Send(wanted));
        let mut after = self.model.clone();
        let mut answers = match &outcome {
            Some(Outcome::Sent(sent)) => sent.iter(),
            _ => [].iter(),
        };
        for (dedup, ttl) in messages {
            let answer = answers.next();
            if let Some((id, _)) = dedup.and_then(|id| after.known.get(&id)) {
                prop_assert!(answer.is_none_or(|sent| sent.duplicate && sent.id == *id), "{answer:?}");
                continue;
            }
            if !after.make_place() {
                prop_assert!(outcome.is_none(), "all of it or nothing: {outcome:?}");
                return Ok(());
            }
            // Refused for what comes later in the batch: then the id is nobody's.
            let id = answer.map_or(MessageId { revision: Revision(0), number: 0 }, |sent| sent.id);
            prop_assert!(answer.is_none_or(|sent| !sent.duplicate));
            let (at, expires) = (after.now, ttl.map(|ttl| after.now + ttl * SECOND));
            after.messages.push(Sent { id, at, expires, deliveries: 0, state: State::Ready });
            if let Some(dedup) = dedup {
                after.known.insert(*dedup, (id, after.now + after.config.dedup_window.0));
            }
        }
        prop_assert!(outcome.is_some(), "there was room");
        self.model = after;
        Ok(())
    }

    fn receive(&mut self, max: u32) -> Result<(), TestCaseError> {
        let terms = Terms { max, visibility: None, bound: false, at_most_once: false };
        let receive =
            Receive { queue: QUEUE.into(), terms, attach: Attach::None, wait: false, acks: Vec::new() };
        let Some(Outcome::Delivered(delivered)) = self.queue(Operation::Receive(receive)) else {
            panic!("refused")
        };
        let revision = self.driver.store.revision().0;
        let (now, mut expected) = (self.model.now, Vec::new());
        let ready = self.model.messages.iter_mut().filter(|sent| sent.state == State::Ready);
        for sent in ready.take(max as usize) {
            sent.deliveries += 1;
            sent.state = State::Flight { delivery: revision, until: now + VISIBILITY };
            expected.push((sent.id, sent.deliveries));
        }
        let seen: Vec<_> =
            delivered.messages.iter().map(|message| (message.id, message.deliveries)).collect();
        prop_assert_eq!(seen, expected);
        let receipts = delivered.messages.iter();
        self.receipts.extend(receipts.map(|message| Receipt { id: message.id, delivery: message.delivery }));
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let view = self.driver.store.view();
        let wanted = queue::Messages { state: None, after: None, limit: 1_000 };
        let seen = queue::messages(view, QUEUE, &wanted).into_iter().map(|item| {
            let state = match item.standing {
                Standing::Ready => State::Ready,
                Standing::Delayed { until, .. } => State::Delayed(until.0),
                Standing::InFlight { until: Some(until), delivery, .. } => {
                    State::Flight { delivery: delivery.0, until: until.0 }
                }
                other => panic!("{other:?}"),
            };
            (item.id, item.deliveries, state)
        });
        let expected = self.model.messages.iter().map(|sent| (sent.id, sent.deliveries, sent.state));
        prop_assert_eq!(seen.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let dead = queue::messages(view, "q.dead", &wanted);
        let dead: Vec<_> = dead.iter().map(|item| item.death.as_ref().expect("a death").id).collect();
        prop_assert_eq!(&dead, &self.model.dead, "each dies once, in the order of the deaths");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_bounded_queue_is_a_list(config in config(), steps in steps()) {
        let mut driver = Driver::new();
        let configure = Operation::Configure(QUEUE.into(), Some(config.clone()));
        driver.run(&coracle_recipes::Operation::Queue(configure)).unwrap();
        let (messages, dead, known) = (Vec::new(), Vec::new(), BTreeMap::new());
        let model = Model { config, now: driver.now.0, messages, dead, known };
        let mut run = Run { driver, model, receipts: Vec::new() };
        for step in &steps {
            run.step(step)?;
        }
        for name in [QUEUE, "q.dead"] {
            run.queue(Operation::Purge(name.into(), Revision(u64::MAX), true)).unwrap();
        }
        run.queue(Operation::Configure(QUEUE.into(), None)).unwrap();
        run.driver.wait(10 * SECOND);
        prop_assert_eq!(run.driver.store.due(), None, "no timers");
        prop_assert_eq!(run.driver.store.live_bytes(), 0, "no ghosts");
    }
}

/// That there is a configuration stands beside the counts, which come and go with the messages.
#[test]
fn a_configuration_is_in_force_with_messages_and_without() {
    let queue = |driver: &mut Driver, operation| driver.run(&coracle_recipes::Operation::Queue(operation));
    let send = |driver: &mut Driver| {
        let send = Send { queue: QUEUE.into(), messages: vec![message()], attach: Attach::None };
        queue(driver, Operation::Send(send)).is_ok()
    };
    for before in [0, 1] {
        for restarts in [false, true] {
            let mut driver = Driver::new();
            (0..before).for_each(|_| assert!(send(&mut driver)));
            let short = Config { max_length: Some(2), ..Config::default() };
            queue(&mut driver, Operation::Configure(QUEUE.into(), Some(short))).unwrap();
            if restarts {
                driver.restart();
            }
            (before..2).for_each(|_| assert!(send(&mut driver), "not full"));
            assert!(!send(&mut driver), "full");
            queue(&mut driver, Operation::Configure(QUEUE.into(), None)).unwrap();
            assert!(send(&mut driver), "an ordinary queue again");
            queue(&mut driver, Operation::Purge(QUEUE.into(), Revision(u64::MAX), true)).unwrap();
            assert_eq!(driver.store.live_bytes(), 0, "no ghosts");
        }
    }
}
