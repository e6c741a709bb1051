//! Random items, signals and time around the condition of a barrier queue, against a model that asks it anew every time.

use std::collections::BTreeSet;

use coracle_recipes::queue::barrier::{Act, Barrier, Control, Deadline, HandOut, OnBreak};
use coracle_recipes::queue::{self, Config, Kind, Message, MessageId, Operation, Outcome, Own, Send};
use coracle_store::{Attach, Millis, SessionId, Timestamp};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::driver::{Driver, message};

const QUEUE: &str = "b";
const SECOND: u64 = 1_000;
const IDS: [&str; 4] = ["a", "b", "c", "d"];
const SIGNALS: [&str; 2] = ["go", "now"];
const SESSIONS: u64 = 3;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    /// By its name, or without one; a session that stands for it.
    Put(Option<&'static str>, Option<u64>),
    /// The n-th item of those that gather.
    Remove(usize),
    Signal(&'static str),
    OpenNow,
    Break(OnBreak),
    Expire(BTreeSet<u64>),
    Seconds(u64),
    Restart,
}

fn on_break() -> impl Strategy<Value = OnBreak> {
    select(&[OnBreak::CarryOver, OnBreak::DeadLetter, OnBreak::Drop][..])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = 1..=SESSIONS;
    let step = prop_oneof![
        3 => session.clone().prop_map(Step::Open),
        12 => (prop::option::weighted(0.8, select(&IDS[..])), prop::option::weighted(0.5, session.clone()))
            .prop_map(|(id, session)| Step::Put(id, session)),
        2 => (0..4_usize).prop_map(Step::Remove),
        3 => select(&SIGNALS[..]).prop_map(Step::Signal),
        1 => Just(Step::OpenNow),
        1 => on_break().prop_map(Step::Break),
        2 => btree_set(session, 1..3).prop_map(Step::Expire),
        4 => (1..4_u64).prop_map(Step::Seconds),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..50)
}

fn some(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Box<str>>> {
    let some = prop::sample::subsequence(names, 0..=2);
    some.prop_map(|names| names.into_iter().map(Into::into).collect())
}

fn barrier() -> impl Strategy<Value = Barrier> {
    let deadline = (1..5_u64, any::<bool>())
        .prop_map(|(after, breaks)| Deadline { after: Millis(after * SECOND), breaks });
    let hand_out = select(&[HandOut::Work, HandOut::Batch, HandOut::Own, HandOut::Broadcast][..]);
    (
        (any::<bool>(), prop::option::of(1..5_u64), some(&IDS), some(&IDS[2..]), some(&SIGNALS)),
        (prop::option::of(deadline), hand_out, on_break()),
    )
        .prop_map(|((any, size, contains, absent, signals), (deadline, hand_out, on_break))| Barrier {
            any,
            size,
            contains,
            absent,
            signals,
            deadline,
            hand_out,
            on_break,
            ..Barrier::default()
        })
}

#[derive(Debug, Clone)]
struct Item {
    id: MessageId,
    name: Option<&'static str>,
    session: Option<u64>,
}

struct Model {
    barrier: Barrier,
    now: u64,
    sessions: BTreeSet<u64>,
    number: u64,
    items: Vec<Item>,
    signals: BTreeSet<&'static str>,
    deadline: Option<u64>,
    /// The generation released by the present step.
    released: Option<(u64, Vec<Item>)>,
}

impl Model {
    fn has(&self, name: &str) -> bool {
        self.items.iter().any(|item| item.name == Some(name))
    }

    /// The condition, as it is written.
    fn holds(&self) -> bool {
        let barrier = &self.barrier;
        let mut said = Vec::new();
        said.extend(barrier.size.map(|size| self.items.len() as u64 >= size));
        if !barrier.contains.is_empty() {
            said.push(barrier.contains.iter().all(|name| self.has(name)));
        }
        said.extend(barrier.absent.iter().map(|name| !self.has(name)));
        said.extend(barrier.signals.iter().map(|name| self.signals.contains(&**name)));
        if barrier.any { said.contains(&true) } else { !said.is_empty() && !said.contains(&false) }
    }

    fn next(&mut self) -> Vec<Item> {
        self.number += 1;
        self.signals.clear();
        self.deadline = None;
        std::mem::take(&mut self.items)
    }

    fn release(&mut self) {
        let number = self.number;
        let items = self.next();
        self.released = Some((number, items));
    }

    fn break_up(&mut self, how: OnBreak) {
        let items = self.next();
        if how == OnBreak::CarryOver {
            self.items = items;
            self.begin();
        }
    }

    /// The clock of a generation runs from its first item.
    fn begin(&mut self) {
        if !self.items.is_empty() {
            self.deadline = self.barrier.deadline.map(|deadline| self.now + deadline.after.0);
        }
    }

    fn settle(&mut self) {
        if self.items.is_empty() {
            self.deadline = None;
        } else if self.holds() {
            self.release();
        }
    }

    fn second(&mut self) {
        self.now += SECOND;
        if self.deadline.is_some_and(|at| at <= self.now) {
            match self.barrier.deadline.map(|deadline| deadline.breaks) {
                Some(true) => self.break_up(self.barrier.on_break),
                _ => self.release(),
            }
        }
        self.settle();
    }
}

struct Run {
    driver: Driver,
    model: Model,
}

impl Run {
    fn queue(&mut self, operation: Operation) -> Option<Outcome> {
        match self.driver.run(&coracle_recipes::Operation::Queue(operation)) {
            Ok(coracle_recipes::Outcome::Queue(outcome)) => Some(outcome),
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    fn control(&mut self, act: Act) -> Option<Outcome> {
        self.queue(Operation::Control(Control { queue: QUEUE.into(), token: None, act }))
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.model.released = None;
        match step {
            Step::Open(id) => {
                prop_assert_eq!(self.driver.open(*id), self.model.sessions.insert(*id));
            }
            Step::Put(name, session) => self.put(*name, *session)?,
            Step::Remove(n) => {
                let Some(id) = self.model.items.get(*n).map(|item| item.id) else { return Ok(()) };
                self.queue(Operation::Remove(QUEUE.into(), id)).unwrap();
                self.model.items.remove(*n);
                self.model.settle();
            }
            Step::Signal(name) => {
                let known = self.model.barrier.signals.iter().any(|signal| **signal == **name);
                prop_assert_eq!(self.control(Act::Signal((*name).into())).is_some(), known);
                if known {
                    self.model.signals.insert(name);
                    self.model.settle();
                }
            }
            Step::OpenNow => {
                self.control(Act::Open).unwrap();
                if !self.model.items.is_empty() {
                    self.model.release();
                }
            }
            Step::Break(how) => {
                self.control(Act::Break("".into(), Some(*how))).unwrap();
                if !self.model.items.is_empty() || !self.model.signals.is_empty() {
                    self.model.break_up(*how);
                    self.model.settle();
                }
            }
            Step::Expire(ids) => {
                self.driver.expire(&ids.iter().copied().collect::<Vec<_>>());
                self.model.sessions.retain(|id| !ids.contains(id));
                self.model.items.retain(|item| item.session.is_none_or(|session| !ids.contains(&session)));
                self.model.settle();
            }
            Step::Seconds(count) => {
                for _ in 0..*count {
                    self.model.released = None;
                    self.driver.wait(SECOND);
                    self.model.second();
                    self.check()?;
                }
            }
            Step::Restart => self.driver.restart(),
        }
        self.check()
    }

    fn put(&mut self, name: Option<&'static str>, session: Option<u64>) -> Result<(), TestCaseError> {
        let message = Message { item: name.map(Into::into), ..message() };
        let attach = session.map_or(Attach::None, |session| Attach::Session(SessionId(session)));
        let wanted = Send { queue: QUEUE.into(), messages: vec![message], attach };
        let outcome = self.queue(Operation::Send(wanted));
        if session.is_some_and(|session| !self.model.sessions.contains(&session)) {
            prop_assert!(outcome.is_none());
            return Ok(());
        }
        let Some(Outcome::Sent(sent)) = outcome else { panic!("{outcome:?}") };
        prop_assert_eq!(sent[0].generation, Some(self.model.number), "the generation it came for");
        let known = self.model.items.iter_mut().find(|item| name.is_some() && item.name == name);
        prop_assert_eq!(sent[0].duplicate, known.is_some());
        if let Some(known) = known {
            prop_assert_eq!(known.id, sent[0].id);
            known.session = session;
        } else {
            self.model.items.push(Item { id: sent[0].id, name, session });
            if self.model.items.len() == 1 {
                self.model.begin();
            }
        }
        self.model.settle();
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let (view, model) = (self.driver.store.view(), &self.model);
        let seen = queue::progress(view, QUEUE).unwrap();
        prop_assert_eq!(seen.filling.number, model.number, "generation");
        prop_assert_eq!(seen.filling.live, model.items.len() as u64, "items");
        prop_assert_eq!(seen.filling.deadline, model.deadline.map(Timestamp));
        let signals: BTreeSet<&str> = seen.filling.signals.iter().map(|name| &**name).collect();
        prop_assert_eq!(signals, model.signals.iter().copied().collect::<BTreeSet<_>>());
        let missing = model.barrier.contains.iter().filter(|name| !model.has(name)).cloned();
        prop_assert_eq!(seen.filling.missing, missing.clone().count() as u64);
        prop_assert_eq!(seen.missing, missing.collect::<Vec<_>>(), "who is missing");
        prop_assert!(model.items.is_empty() || !model.holds(), "nothing waits that need not");
        for item in &model.items {
            let own = Own::Filling(model.number, model.items.len() as u64);
            prop_assert_eq!(queue::own(view, QUEUE, item.id), own);
        }
        // All of it, at once, in the order of arrival.
        let Some((number, items)) = &model.released else { return Ok(()) };
        for (place, item) in (0..).zip(items) {
            let Own::Released { generation, ordinal, size, delivery, .. } = queue::own(view, QUEUE, item.id)
            else {
                return Err(TestCaseError::fail(format!("not released: {item:?}")));
            };
            let expected = (*number, place, items.len() as u64, self.driver.store.revision());
            prop_assert_eq!((generation, ordinal, size, delivery), expected);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_generation_is_released_when_its_condition_holds(barrier in barrier(), steps in steps()) {
        let mut driver = Driver::new();
        let config = Config { kind: Kind::Barrier, barrier: Some(barrier.clone()), ..Config::default() };
        let configure = Operation::Configure(QUEUE.into(), Some(config));
        driver.run(&coracle_recipes::Operation::Queue(configure)).unwrap();
        let model = Model {
            barrier,
            now: driver.now.0,
            sessions: BTreeSet::new(),
            number: 1,
            items: Vec::new(),
            signals: BTreeSet::new(),
            deadline: None,
            released: None,
        };
        let mut run = Run { driver, model };
        for step in &steps {
            run.step(step)?;
        }
    }
}
