//! Random producers, consumers and time around one queue, against a model that is a list of messages.

use std::collections::BTreeSet;

use coracle_recipes::queue::{
    self, Config, Kind, Message, MessageId, Nack, Operation, Outcome, Receipt, Receipts, Receive, Send,
    Standing, Terms, Ticket, Turn,
};
use coracle_recipes::{Outcome as AnyOutcome, Recipes};
use coracle_store::command::{Expiry, OpenSession};
use coracle_store::{
    Action, Attach, Command, Loader, Millis, Outcome as StoreOutcome, Principal, Revision, SessionId, Store,
    Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::message;
use crate::queue_list::{MOST, Model, Sent, State, VISIBILITY, Waiter};

const QUEUE: &str = "q";
const SESSIONS: u64 = 4;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Expire(Vec<u64>),
    Close(u64),
    /// How many, priority, group, delay in seconds.
    Send(usize, u8, Option<u8>, u64),
    /// Session, how many, whether to wait.
    Receive(Option<u64>, u32, bool),
    /// The n-th waiter or parcel.
    Collect(usize),
    Leave(usize),
    /// The n-th delivery known.
    Ack(usize),
    /// Whether fatal, counted, delay in seconds.
    Nack(usize, bool, bool, u64),
    Renew(usize),
    Remove(usize),
    Purge(bool),
    Pause(bool),
    Tick(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = 1..=SESSIONS;
    let group = prop_oneof![2 => Just(None), 2 => (0..2u8).prop_map(Some)];
    let step = prop_oneof![
        4 => session.clone().prop_map(Step::Open),
        2 => vec(session.clone(), 1..3).prop_map(Step::Expire),
        1 => session.clone().prop_map(Step::Close),
        10 => (1..4usize, 0..3u8, group, prop_oneof![3 => Just(0), 1 => 1..8u64])
            .prop_map(|(count, priority, group, delay)| Step::Send(count, priority, group, delay)),
        12 => (prop::option::weighted(0.7, session), 1..4u32, any::<bool>())
            .prop_map(|(session, max, wait)| Step::Receive(session, max, wait)),
        6 => (0..8usize).prop_map(Step::Collect),
        2 => (0..8usize).prop_map(Step::Leave),
        7 => (0..12usize).prop_map(Step::Ack),
        6 => (0..12usize, prop::bool::weighted(0.2), any::<bool>(), prop_oneof![2 => Just(0), 1 => 1..8u64])
            .prop_map(|(n, fatal, counted, delay)| Step::Nack(n, fatal, counted, delay)),
        2 => (0..12usize).prop_map(Step::Renew),
        1 => (0..12usize).prop_map(Step::Remove),
        1 => any::<bool>().prop_map(Step::Purge),
        1 => any::<bool>().prop_map(Step::Pause),
        5 => (1..9_000u64).prop_map(Step::Tick),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..80)
}

fn open(id: u64) -> OpenSession {
    OpenSession::new(SessionId(id), Millis(10_000))
}

fn restart(store: &Store) -> Store {
    let mut loader = Loader::new(Box::new(Recipes));
    for row in store.rows() {
        loader.row(row.table, &row.key, &row.value.expect("a row")).expect("rows of a store");
    }
    loader.finish().expect("a whole store")
}

struct Run {
    store: Store,
    model: Model,
    /// Every receipt ever given, the newest first.
    receipts: Vec<Receipt>,
    acked: BTreeSet<MessageId>,
}

impl Run {
    fn apply(&mut self, action: Action) -> Result<StoreOutcome, coracle_store::Refusal> {
        let command =
            Command { principal: Principal("ann".into()), idempotency: None, guards: Vec::new(), action };
        self.store.apply(Timestamp(self.model.now), &command.encode()).result
    }

    fn queue(&mut self, operation: Operation) -> Option<Outcome> {
        let action = Action::One(coracle_recipes::Operation::Queue(operation).encode());
        let StoreOutcome::Program(bytes) = self.apply(action).ok()? else { panic!("not a recipe's") };
        let AnyOutcome::Queue(outcome) = AnyOutcome::decode(&bytes).unwrap() else { panic!("not a queue's") };
        Some(outcome)
    }

    fn receipt(&self, n: usize) -> Receipt {
        let none = Receipt { id: MessageId { revision: Revision(1), number: 99 }, delivery: Revision(0) };
        self.receipts.get(n).copied().unwrap_or(none)
    }

    fn ticket(&self, n: usize) -> Ticket {
        let line = self.model.line.iter().map(|waiter| waiter.ticket);
        let mut tickets: Vec<_> =
            line.chain(self.model.parcels.iter().map(|(waiter, _)| waiter.ticket)).collect();
        tickets.sort_unstable();
        tickets.get(n).copied().unwrap_or(Ticket { revision: Revision(0), number: 0 })
    }

    fn delivered(
        &mut self,
        messages: &[queue::Delivery],
        expected: &[MessageId],
    ) -> Result<(), TestCaseError> {
        let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
        prop_assert_eq!(&ids, expected, "delivered");
        for message in messages {
            prop_assert!(!self.acked.contains(&message.id), "delivered after its ack");
            let text = format!("{}-{}", message.id.revision, message.id.number);
            prop_assert_eq!(
                message.deliveries,
                self.model.messages[self.model.at(message.id).unwrap()].deliveries,
                "{}",
                text
            );
            self.receipts.insert(0, Receipt { id: message.id, delivery: message.delivery });
        }
        Ok(())
    }

    #[allow(clippy::too_many_lines, reason = "one arm a step")]
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let revision = self.store.revision().next().0;
        let name: Box<str> = QUEUE.into();
        let receipts =
            |receipt: Receipt| Receipts { queue: QUEUE.into(), receipts: vec![receipt], all: true };
        match step {
            Step::Open(id) => {
                let opened =
                    self.apply(Action::One(coracle_store::Operation::OpenSession(open(*id)))).is_ok();
                prop_assert_eq!(opened, !self.model.sessions.contains_key(id));
                self.model.sessions.entry(*id).or_insert(false);
            }
            Step::Expire(ids) => {
                let expiry = |id: &u64| Expiry { session: SessionId(*id), generation: 1 };
                self.apply(Action::Expire(ids.iter().map(expiry).collect())).unwrap();
                let ids: Vec<u64> =
                    ids.iter().copied().filter(|id| self.model.sessions.contains_key(id)).collect();
                if !ids.is_empty() {
                    self.model.end(&ids, true, revision);
                }
            }
            Step::Close(id) => {
                let closed =
                    self.apply(Action::One(coracle_store::Operation::CloseSession(SessionId(*id)))).is_ok();
                prop_assert_eq!(closed, self.model.sessions.contains_key(id));
                if closed {
                    self.model.end(&[*id], false, revision);
                }
            }
            Step::Send(count, priority, group, delay) => {
                let message = Message {
                    priority: *priority,
                    group: group.map(|group| format!("g{group}").into()),
                    delay: Millis(delay * 1_000),
                    ..message()
                };
                let wanted = Send { queue: name, messages: vec![message; *count], attach: Attach::None };
                let Some(Outcome::Sent(sent)) = self.queue(Operation::Send(wanted)) else {
                    panic!("refused")
                };
                for sent in sent {
                    let state = match delay {
                        0 => State::Ready,
                        delay => State::Delayed { until: self.model.now + delay * 1_000, retry: false },
                    };
                    self.model.messages.push(Sent {
                        id: sent.id,
                        priority: *priority,
                        group: *group,
                        state,
                        deliveries: 0,
                    });
                }
                self.model.assign(revision);
            }
            Step::Receive(session, max, wait) => self.receive(*session, *max, *wait, revision)?,
            Step::Collect(n) => {
                let ticket = self.ticket(*n);
                let outcome = self.queue(Operation::Collect(name, ticket));
                let parcel = self.model.parcels.iter().position(|(waiter, _)| waiter.ticket == ticket);
                match (outcome, parcel) {
                    (Some(Outcome::Delivered(delivered)), Some(at)) => {
                        let (waiter, ids) = self.model.parcels.remove(at);
                        let mut expected = Vec::new();
                        for id in ids {
                            let Some(at) = self.model.at(id) else { continue };
                            let State::Flight { delivery, ticket: Some(its), .. } =
                                self.model.messages[at].state
                            else {
                                continue;
                            };
                            if its == ticket {
                                let session = (!waiter.private).then_some(waiter.session);
                                self.model.messages[at].state = self.model.departed(delivery, session);
                                expected.push(id);
                            }
                        }
                        self.delivered(&delivered.messages, &expected)?;
                    }
                    (Some(Outcome::Waiting(..)), None) => {
                        prop_assert!(self.model.line.iter().any(|waiter| waiter.ticket == ticket));
                    }
                    (None, None) => {
                        prop_assert!(self.model.line.iter().all(|waiter| waiter.ticket != ticket));
                    }
                    (outcome, parcel) => prop_assert!(false, "{:?} {:?}", outcome, parcel),
                }
            }
            Step::Leave(n) => {
                let ticket = self.ticket(*n);
                self.queue(Operation::Leave(name, ticket)).unwrap();
                self.model.line.retain(|waiter| waiter.ticket != ticket);
                if let Some(at) = self.model.parcels.iter().position(|(waiter, _)| waiter.ticket == ticket) {
                    let (_, ids) = self.model.parcels.remove(at);
                    self.model.give_back(&ids, ticket);
                }
                self.model.assign(revision);
            }
            Step::Ack(n) => {
                let receipt = self.receipt(*n);
                let acked = self.queue(Operation::Ack(receipts(receipt))).is_some();
                let at = self.model.current(receipt);
                prop_assert_eq!(acked, at.is_some(), "ack of {:?}", receipt);
                if let Some(at) = at {
                    prop_assert!(self.acked.insert(receipt.id), "acked twice");
                    self.model.messages.remove(at);
                    self.model.assign(revision);
                }
            }
            Step::Nack(n, fatal, counted, delay) => {
                let receipt = self.receipt(*n);
                let nack = Nack {
                    delay: Some(Millis(delay * 1_000)),
                    uncounted: !counted,
                    fatal: *fatal,
                    reason: "".into(),
                };
                let settled = self.queue(Operation::Nack(receipts(receipt), nack)).is_some();
                let at = self.model.current(receipt);
                prop_assert_eq!(settled, at.is_some());
                if let Some(at) = at {
                    self.model.fail(at, *counted, *fatal, delay * 1_000);
                    self.model.assign(revision);
                }
            }
            Step::Renew(n) => {
                let receipt = self.receipt(*n);
                let renewed = self.queue(Operation::Renew(receipts(receipt), None)).is_some();
                let at = self.model.current(receipt);
                prop_assert_eq!(renewed, at.is_some());
                if let Some(at) = at
                    && let State::Flight { until: Some(until), .. } = &mut self.model.messages[at].state
                {
                    *until = self.model.now + VISIBILITY;
                }
            }
            Step::Remove(n) => {
                let Some(id) = self.model.messages.get(*n).map(|message| message.id) else { return Ok(()) };
                self.queue(Operation::Remove(name, id)).unwrap();
                let at = self.model.at(id).unwrap();
                self.model.messages.remove(at);
                self.model.assign(revision);
            }
            Step::Purge(in_flight) => {
                self.queue(Operation::Purge(name, Revision(u64::MAX), *in_flight)).unwrap();
                self.model
                    .messages
                    .retain(|message| !in_flight && matches!(message.state, State::Flight { .. }));
            }
            Step::Pause(paused) => {
                self.queue(Operation::Pause(name, *paused)).unwrap();
                self.model.paused = *paused;
                self.model.assign(revision);
            }
            Step::Tick(by) => {
                self.model.tick(*by, revision);
                self.apply(Action::Advance).unwrap();
            }
            Step::Restart => self.store = restart(&self.store),
        }
        self.model.prune();
        self.check()
    }

    fn receive(
        &mut self,
        session: Option<u64>,
        max: u32,
        wait: bool,
        revision: u64,
    ) -> Result<(), TestCaseError> {
        let private = 1_000 + self.model.next_private;
        self.model.next_private += 1;
        let attach = match session {
            Some(session) => Attach::Session(SessionId(session)),
            None if wait => Attach::Private(open(private)),
            None => Attach::None,
        };
        let terms = Terms { max, visibility: None, bound: session.is_some(), at_most_once: false };
        let receive = Receive { queue: QUEUE.into(), terms, attach, wait, acks: Vec::new() };
        let outcome = self.queue(Operation::Receive(receive));
        let dead = session.is_some_and(|session| !self.model.sessions.contains_key(&session));
        if dead || (self.model.single && session.is_none()) {
            prop_assert!(outcome.is_none());
            return Ok(());
        }
        let mine = !self.model.single || self.model.active.is_none_or(|active| Some(active) == session);
        let now = self.model.departed(revision, session);
        let ids = if mine { self.model.deliver(max, revision, |_| now.clone()) } else { Vec::new() };
        if self.model.single && !ids.is_empty() {
            self.model.active = session;
        }
        match outcome.expect("not refused") {
            Outcome::Delivered(delivered) => {
                prop_assert!(!ids.is_empty() || !wait);
                self.delivered(&delivered.messages, &ids)?;
            }
            Outcome::Waiting(ticket, owner, _) => {
                prop_assert!(ids.is_empty() && wait);
                prop_assert_eq!(owner.0, session.unwrap_or(private));
                if session.is_none() {
                    self.model.sessions.insert(private, true);
                }
                let waiter = Waiter { ticket, session: owner.0, max, private: session.is_none() };
                self.model.line.push(waiter);
                self.model.assign(revision);
            }
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let view = self.store.view();
        let wanted = queue::Messages { state: None, after: None, limit: 1_000 };
        let seen = queue::messages(view, QUEUE, &wanted);
        prop_assert_eq!(seen.len(), self.model.messages.len());
        for (item, message) in seen.iter().zip(&self.model.messages) {
            prop_assert_eq!(item.id, message.id);
            prop_assert_eq!(item.deliveries, message.deliveries);
            let same = match (&item.standing, &message.state) {
                (Standing::Ready | Standing::Blocked, State::Ready) => true,
                (Standing::Delayed { until, retry }, State::Delayed { until: at, retry: again }) => {
                    until.0 == *at && retry == again
                }
                (
                    Standing::InFlight { until, session, delivery, assigned, .. },
                    State::Flight { delivery: of, until: at, session: who, ticket },
                ) => {
                    (delivery.0, until.map(|until| until.0), session.map(|id| id.0), *assigned)
                        == (*of, *at, *who, ticket.is_some())
                }
                _ => false,
            };
            prop_assert!(same, "{:?} is not {:?}", item, message);
        }
        let count =
            |of: fn(&State) -> bool| self.model.messages.iter().filter(|m| of(&m.state)).count() as u64;
        if let Some(seen) = queue::statistics(view, QUEUE) {
            prop_assert_eq!(seen.ready + seen.blocked, count(|state| *state == State::Ready));
            prop_assert_eq!(seen.delayed, count(|state| matches!(state, State::Delayed { .. })));
            prop_assert_eq!(seen.in_flight, count(|state| matches!(state, State::Flight { .. })));
            prop_assert_eq!(seen.waiting, self.model.line.len() as u64);
            prop_assert_eq!(seen.active.map(|id| id.0), self.model.active);
        } else {
            prop_assert!(self.model.messages.is_empty() && self.model.line.is_empty());
        }
        let dead = queue::messages(view, "q.dead", &wanted);
        let dead: Vec<_> = dead.iter().map(|item| item.death.as_ref().unwrap().id).collect();
        prop_assert_eq!(
            &dead.iter().collect::<BTreeSet<_>>(),
            &self.model.dead.iter().collect::<BTreeSet<_>>()
        );
        prop_assert_eq!(dead.len(), self.model.dead.len(), "a dead letter twice");
        for waiter in &self.model.line {
            prop_assert_eq!(queue::turn(view, QUEUE, waiter.ticket), Turn::Waiting);
        }
        for (waiter, _) in &self.model.parcels {
            prop_assert_eq!(queue::turn(view, QUEUE, waiter.ticket), Turn::Assigned);
        }
        let alive: Vec<u64> = self.store.sessions().map(|session| session.id.0).collect();
        prop_assert_eq!(alive, self.model.sessions.keys().copied().collect::<Vec<_>>());
        Ok(())
    }

    /// When everybody has gone, nothing is left.
    fn clean_up(&mut self) -> Result<(), TestCaseError> {
        let ids: Vec<u64> = self.model.sessions.keys().copied().collect();
        let expiry = |id: &u64| Expiry { session: SessionId(*id), generation: 1 };
        self.apply(Action::Expire(ids.iter().map(expiry).collect())).unwrap();
        for name in ["q", "q.dead"] {
            self.queue(Operation::Purge(name.into(), Revision(u64::MAX), true)).unwrap();
        }
        self.queue(Operation::Configure(QUEUE.into(), None)).unwrap();
        prop_assert_eq!(self.store.view().scan(queue::FAMILY, &[]).count(), 0, "no ghosts");
        prop_assert_eq!(self.store.due(), None, "no timers");
        prop_assert_eq!(self.store.live_bytes(), 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_is_a_list(steps in steps(), single in prop::bool::weighted(0.2)) {
        let model = Model { single, ..Model::default() };
        let store = Store::new(Box::new(Recipes));
        let mut run = Run { store, model, receipts: Vec::new(), acked: BTreeSet::new() };
        let config = Config {
            kind: Kind::Priority,
            visibility: Millis(VISIBILITY),
            max_deliveries: MOST,
            single_active: single,
            ..Config::default()
        };
        run.queue(Operation::Configure(QUEUE.into(), Some(config))).unwrap();
        for step in &steps {
            run.step(step)?;
        }
        run.clean_up()?;
    }
}
