//! Random producers around a barrier queue, against a model that is a list of generations.

use std::collections::VecDeque;

use coracle_recipes::queue::barrier::{Act, Barrier, Control, Finalizer, HandOut, OnBreak};
use coracle_recipes::queue::{
    self, Config, Kind, Message, MessageId, Nack, Operation, Outcome, Own, Receipt, Receipts, Receive, Role,
    Send, Terms,
};
use coracle_recipes::{Outcome as AnyOutcome, Recipes};
use coracle_store::command::{Expiry, OpenSession};
use coracle_store::{
    Action, Attach, Command, ContentType, Loader, Millis, Outcome as StoreOutcome, Principal, Revision,
    SessionId, Store, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::message;

const QUEUE: &str = "b";
const SESSIONS: u64 = 3;
/// An item of this name holds everything.
const VETO: u8 = 9;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Expire(Vec<u64>),
    /// Name (if any) and session (if any).
    Put(Vec<Option<u8>>, Option<u64>),
    Receive(u32),
    /// The n-th receipt known; whether it fails for good.
    Settle(usize, bool),
    /// The producer of the n-th item that is released settles it.
    SettleOwn(usize),
    Remove(usize),
    Release,
    Break(OnBreak),
    Resize(u64),
    Advance,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = prop_oneof![3 => Just(None), 4 => (0..6u8).prop_map(Some), 1 => Just(Some(VETO))];
    let on_break = prop_oneof![Just(OnBreak::CarryOver), Just(OnBreak::DeadLetter), Just(OnBreak::Drop)];
    let step = prop_oneof![
        3 => (1..=SESSIONS).prop_map(Step::Open),
        2 => vec(1..=SESSIONS, 1..3).prop_map(Step::Expire),
        14 => (vec(name, 1..4), prop::option::weighted(0.4, 1..=SESSIONS)).prop_map(|(n, s)| Step::Put(n, s)),
        8 => (1..5u32).prop_map(Step::Receive),
        10 => (0..6usize, prop::bool::weighted(0.2)).prop_map(|(n, fatal)| Step::Settle(n, fatal)),
        6 => (0..6usize).prop_map(Step::SettleOwn),
        2 => (0..9usize).prop_map(Step::Remove),
        1 => Just(Step::Release),
        1 => on_break.prop_map(Step::Break),
        1 => (1..6u64).prop_map(Step::Resize),
        3 => Just(Step::Advance),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..80)
}

#[derive(Debug, Clone)]
struct Item {
    id: MessageId,
    name: Option<u8>,
    session: Option<u64>,
    /// Fixed by the release.
    ordinal: u64,
    flying: bool,
}

#[derive(Debug, Clone)]
struct Released {
    number: u64,
    size: u64,
    revision: u64,
    items: Vec<Item>,
    /// Acked, dead, dropped.
    counts: [u64; 3],
}

struct Model {
    hand_out: HandOut,
    strict: bool,
    size: u64,
    number: u64,
    sessions: Vec<u64>,
    filling: Vec<Item>,
    released: VecDeque<Released>,
    dead: u64,
    /// Counts of finalizers that are due, with their generations.
    finalizers: VecDeque<(u64, [u64; 3])>,
    finalizer_flying: bool,
}

impl Model {
    fn evaluate(&mut self, revision: u64) {
        let vetoed = self.filling.iter().any(|item| item.name == Some(VETO));
        if self.filling.len() as u64 >= self.size && !vetoed {
            self.release(revision);
        }
    }

    fn release(&mut self, revision: u64) {
        let mut items = std::mem::take(&mut self.filling);
        if items.is_empty() {
            return;
        }
        for (ordinal, item) in (0..).zip(&mut items) {
            item.ordinal = ordinal;
        }
        let size = items.len() as u64;
        self.released.push_back(Released { number: self.number, size, revision, items, counts: [0; 3] });
        self.number += 1;
    }

    fn in_turn(&self) -> bool {
        self.hand_out == HandOut::Work || self.strict
    }

    /// Generations without items end: in turn, or each alone.
    fn finish(&mut self) {
        if self.in_turn() {
            while self.finalizers.is_empty()
                && self.released.front().is_some_and(|front| front.items.is_empty())
            {
                let done = self.released.pop_front().unwrap();
                self.finalizers.push_back((done.number, done.counts));
            }
        } else {
            for done in self.released.iter().filter(|done| done.items.is_empty()) {
                self.finalizers.push_back((done.number, done.counts));
            }
            self.released.retain(|done| !done.items.is_empty());
        }
    }

    /// What a receiver may have next, if it is an item.
    fn next(&self) -> Option<&Item> {
        if self.hand_out != HandOut::Work || !self.finalizers.is_empty() {
            return None;
        }
        let front = self.released.front()?;
        if self.strict && front.items.iter().any(|item| item.flying) {
            return None;
        }
        front.items.iter().find(|item| !item.flying)
    }

    fn settle(&mut self, id: MessageId, how: usize) -> bool {
        for released in &mut self.released {
            if let Some(at) = released.items.iter().position(|item| item.id == id) {
                released.items.remove(at);
                released.counts[how] += 1;
                return true;
            }
        }
        false
    }
}

struct Run {
    store: Store,
    model: Model,
    now: u64,
    receipts: Vec<Receipt>,
}

impl Run {
    fn apply(&mut self, action: Action) -> Result<StoreOutcome, coracle_store::Refusal> {
        let command =
            Command { principal: Principal("ann".into()), idempotency: None, guards: Vec::new(), action };
        self.store.apply(Timestamp(self.now), &command.encode()).result
    }

    fn queue(&mut self, operation: Operation) -> Option<Outcome> {
        let action = Action::One(coracle_recipes::Operation::Queue(operation).encode());
        let StoreOutcome::Program(bytes) = self.apply(action).ok()? else { panic!("not a recipe's") };
        let AnyOutcome::Queue(outcome) = AnyOutcome::decode(&bytes).unwrap() else { panic!("not a queue's") };
        Some(outcome)
    }

    fn configure(&mut self) {
        let barrier = Barrier {
            size: Some(self.model.size),
            absent: vec!["9".into()],
            hand_out: self.model.hand_out,
            strict: self.model.strict,
            finalizer: Some(Finalizer { value: None, content_type: ContentType::Json }),
            ..Barrier::default()
        };
        let config = Config {
            kind: Kind::Barrier,
            visibility: Millis(3_600_000),
            barrier: Some(barrier),
            ..Config::default()
        };
        self.queue(Operation::Configure(QUEUE.into(), Some(config))).unwrap();
    }

    fn control(&mut self, act: Act) -> Outcome {
        self.queue(Operation::Control(Control { queue: QUEUE.into(), token: None, act })).unwrap()
    }

    #[allow(clippy::too_many_lines, reason = "one arm a step")]
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let revision = self.store.revision().next().0;
        match step {
            Step::Open(id) => {
                let open = OpenSession::new(SessionId(*id), Millis(10_000));
                if self.apply(Action::One(coracle_store::Operation::OpenSession(open))).is_ok() {
                    self.model.sessions.push(*id);
                }
            }
            Step::Expire(ids) => {
                let expiry = |id: &u64| Expiry { session: SessionId(*id), generation: 1 };
                self.apply(Action::Expire(ids.iter().map(expiry).collect())).unwrap();
                self.model.sessions.retain(|id| !ids.contains(id));
                let gone = |item: &Item| item.session.is_some_and(|session| ids.contains(&session));
                self.model.filling.retain(|item| !gone(item));
                if self.model.hand_out == HandOut::Own {
                    for released in &mut self.model.released {
                        let before = released.items.len();
                        released.items.retain(|item| !gone(item));
                        released.counts[2] += (before - released.items.len()) as u64;
                    }
                }
                self.model.evaluate(revision);
            }
            Step::Put(names, session) => self.put(names, *session, revision)?,
            Step::Receive(max) => self.receive(*max, revision)?,
            Step::Settle(n, fatal) => {
                let Some(receipt) = self.receipts.get(*n).copied() else { return Ok(()) };
                self.receipts.remove(*n);
                let receipts = Receipts { queue: QUEUE.into(), receipts: vec![receipt], all: true };
                let nack = Nack { fatal: true, ..Nack::default() };
                let operation =
                    if *fatal { Operation::Nack(receipts, nack) } else { Operation::Ack(receipts) };
                let settled = self.queue(operation).is_some();
                let item = self.model.settle(receipt.id, usize::from(*fatal));
                prop_assert_eq!(settled, item || (self.model.finalizer_flying), "{:?}", receipt);
                if !item {
                    self.model.finalizer_flying = false;
                    self.model.finalizers.pop_front();
                }
                self.model.dead += u64::from(*fatal && settled);
            }
            Step::SettleOwn(n) => {
                let all =
                    self.model.released.iter().flat_map(|released| {
                        released.items.iter().map(move |item| (item.id, released.revision))
                    });
                let Some((id, delivery)) = all.clone().nth(*n) else { return Ok(()) };
                let first = all.clone().next().map(|(id, _)| id);
                let waits = !self.model.finalizers.is_empty() && self.model.strict;
                let may = self.model.hand_out == HandOut::Own
                    && (!self.model.strict || (first == Some(id) && !waits));
                let receipt = Receipt { id, delivery: Revision(delivery) };
                let receipts = Receipts { queue: QUEUE.into(), receipts: vec![receipt], all: true };
                let settled = self.queue(Operation::Ack(receipts)).is_some();
                prop_assert_eq!(settled, may);
                if may {
                    self.model.settle(id, 0);
                }
            }
            Step::Remove(n) => {
                let released = self.model.released.iter().flat_map(|released| &released.items);
                let item = self.model.filling.iter().chain(released).nth(*n).map(|item| item.id);
                let Some(id) = item else { return Ok(()) };
                self.queue(Operation::Remove(QUEUE.into(), id)).unwrap();
                self.model.filling.retain(|item| item.id != id);
                self.model.settle(id, 2);
                self.receipts.retain(|receipt| receipt.id != id);
                self.model.evaluate(revision);
            }
            Step::Release => {
                self.control(Act::Open);
                self.model.release(revision);
            }
            Step::Break(how) => {
                self.control(Act::Break("".into(), Some(*how)));
                if !self.model.filling.is_empty() {
                    self.model.number += 1;
                    if *how != OnBreak::CarryOver {
                        let items = self.model.filling.drain(..).count() as u64;
                        self.model.dead += u64::from(*how == OnBreak::DeadLetter) * items;
                        self.now += 1_000;
                        self.apply(Action::Advance).unwrap();
                    }
                }
                let revision = self.store.revision().0;
                self.model.evaluate(revision);
            }
            Step::Resize(size) => {
                self.model.size = *size;
                self.configure();
                self.model.evaluate(revision);
            }
            Step::Advance => {
                self.now += 1_000;
                self.apply(Action::Advance).unwrap();
            }
            Step::Restart => {
                let mut loader = Loader::new(Box::new(Recipes));
                for row in self.store.rows() {
                    loader.row(row.table, &row.key, &row.value.expect("a row")).expect("rows of a store");
                }
                self.store = loader.finish().expect("a whole store");
            }
        }
        self.model.finish();
        self.check()
    }

    fn put(
        &mut self,
        names: &[Option<u8>],
        session: Option<u64>,
        revision: u64,
    ) -> Result<(), TestCaseError> {
        let message =
            |name: &Option<u8>| Message { item: name.map(|name| name.to_string().into()), ..message() };
        let attach = session.map_or(Attach::None, |session| Attach::Session(SessionId(session)));
        let messages = names.iter().map(message).collect();
        let outcome = self.queue(Operation::Send(Send { queue: QUEUE.into(), messages, attach }));
        if session.is_some_and(|session| !self.model.sessions.contains(&session)) {
            prop_assert!(outcome.is_none());
            return Ok(());
        }
        let Some(Outcome::Sent(sent)) = outcome else { panic!("{outcome:?}") };
        for (name, sent) in names.iter().zip(sent) {
            prop_assert_eq!(sent.generation, Some(self.model.number));
            let known = self.model.filling.iter_mut().find(|item| name.is_some() && item.name == *name);
            prop_assert_eq!(sent.duplicate, known.is_some());
            if let Some(known) = known {
                prop_assert_eq!(known.id, sent.id);
                known.session = session;
            } else {
                let item = Item { id: sent.id, name: *name, session, ordinal: 0, flying: false };
                self.model.filling.push(item);
                self.model.evaluate(revision);
            }
        }
        Ok(())
    }

    fn receive(&mut self, max: u32, revision: u64) -> Result<(), TestCaseError> {
        let terms = Terms { max, visibility: None, bound: false, at_most_once: false };
        let receive =
            Receive { queue: QUEUE.into(), terms, attach: Attach::None, wait: false, acks: Vec::new() };
        let Some(Outcome::Delivered(delivered)) = self.queue(Operation::Receive(receive)) else {
            panic!("refused")
        };
        let mut messages = delivered.messages.into_iter();
        for _ in 0..max {
            let expected = self.model.next().map(|item| (item.id, item.ordinal));
            if let Some((id, ordinal)) = expected {
                let message = messages.next().expect("an item is ready");
                let place = message.place.expect("a place");
                let front = self.model.released.front_mut().unwrap();
                prop_assert_eq!((message.id, place.role), (id, Role::Item));
                prop_assert_eq!(
                    (place.generation, place.ordinal, place.size),
                    (front.number, Some(ordinal), front.size)
                );
                front.items.iter_mut().find(|item| item.id == id).unwrap().flying = true;
                self.receipts.push(Receipt { id, delivery: Revision(revision) });
            } else if let Some((number, counts)) = self.model.finalizers.front()
                && !self.model.finalizer_flying
            {
                let message = messages.next().expect("the finalizer is ready");
                let place = message.place.expect("a place");
                prop_assert_eq!((place.role, place.generation), (Role::Finalizer, *number));
                let counted: Vec<u64> =
                    message.headers[2..].iter().map(|header| header.value.parse().unwrap()).collect();
                prop_assert_eq!(&counted[..], &counts[..]);
                self.receipts.push(Receipt { id: message.id, delivery: Revision(revision) });
                self.model.finalizer_flying = true;
                // Finalizers of generations that end each alone are messages like others: one at a time is enough here.
                break;
            }
        }
        let rest: Vec<_> = messages.collect();
        for more in &rest {
            prop_assert!(!self.model.in_turn() && more.place.as_ref().unwrap().role == Role::Finalizer);
            // Put it back as if it had not been asked for.
            let receipts = Receipts {
                queue: QUEUE.into(),
                receipts: vec![Receipt { id: more.id, delivery: more.delivery }],
                all: true,
            };
            self.queue(Operation::Nack(receipts, Nack { uncounted: true, ..Nack::default() })).unwrap();
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let view = self.store.view();
        let progress = queue::progress(view, QUEUE).unwrap();
        prop_assert_eq!(progress.filling.live, self.model.filling.len() as u64, "items");
        prop_assert_eq!(progress.filling.number, self.model.number, "generation");
        if self.model.in_turn() && self.model.finalizers.is_empty() {
            let front = self
                .model
                .released
                .front()
                .map(|front| (front.number, front.items.len() as u64, front.counts));
            let seen =
                progress.draining.map(|seen| (seen.number, seen.live, [seen.acked, seen.dead, seen.dropped]));
            prop_assert_eq!(seen, front);
            prop_assert_eq!(progress.waiting, (self.model.released.len() as u64).saturating_sub(1));
        }
        for item in &self.model.filling {
            let own = Own::Filling(self.model.number, self.model.filling.len() as u64);
            prop_assert_eq!(queue::own(view, QUEUE, item.id), own);
        }
        for released in &self.model.released {
            for item in &released.items {
                let Own::Released { generation, ordinal, size, delivery, .. } =
                    queue::own(view, QUEUE, item.id)
                else {
                    prop_assert!(false, "not released: {:?}", item);
                    continue;
                };
                let expected = (released.number, item.ordinal, released.size, released.revision);
                prop_assert_eq!((generation, ordinal, size, delivery.0), expected);
            }
        }
        let seen = queue::statistics(view, QUEUE).unwrap();
        let items = self.model.released.iter().map(|released| released.items.len()).sum::<usize>();
        let all = items + self.model.filling.len() + self.model.finalizers.len();
        prop_assert_eq!(
            seen.ready + seen.held + seen.in_flight + seen.delayed,
            all as u64,
            "counts: {:?}",
            seen
        );
        prop_assert_eq!(seen.dead, self.model.dead);
        Ok(())
    }

    fn clean_up(&mut self) -> Result<(), TestCaseError> {
        let expiry = |id: u64| Expiry { session: SessionId(id), generation: 1 };
        self.apply(Action::Expire((1..=SESSIONS).map(expiry).collect())).unwrap();
        for _ in 0..100 {
            for name in [QUEUE, "b.dead"] {
                self.queue(Operation::Purge(name.into(), Revision(u64::MAX), true)).unwrap();
            }
            self.now += 1_000;
            self.apply(Action::Advance).unwrap();
        }
        self.queue(Operation::Configure(QUEUE.into(), None)).unwrap();
        prop_assert_eq!(self.store.view().scan(queue::FAMILY, &[]).count(), 0, "no ghosts");
        prop_assert_eq!(self.store.due(), None, "no timers");
        prop_assert_eq!(self.store.live_bytes(), 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_barrier_queue_is_a_list_of_generations(
        steps in steps(),
        size in 1..6u64,
        hand_out in prop_oneof![3 => Just(HandOut::Work), 1 => Just(HandOut::Own)],
        strict in prop::bool::weighted(0.3),
    ) {
        let model = Model {
            hand_out,
            strict,
            size,
            number: 1,
            sessions: Vec::new(),
            filling: Vec::new(),
            released: VecDeque::new(),
            dead: 0,
            finalizers: VecDeque::new(),
            finalizer_flying: false,
        };
        let mut run = Run { store: Store::new(Box::new(Recipes)), model, now: 1, receipts: Vec::new() };
        run.configure();
        for step in &steps {
            run.step(step)?;
        }
        run.clean_up()?;
    }
}
