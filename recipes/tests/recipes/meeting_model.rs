//! Random arrivals at a cyclic and at double barriers, against lists of names.

use std::collections::{BTreeMap, BTreeSet};

use coracle_recipes::barrier::{self, Claim, Config, Create, Enter, Kind, Outcome, Place};
use coracle_recipes::{Operation, Turn};
use coracle_store::{Action, Attach, Millis, SessionId};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use crate::driver::{Driver, attach};

const NAME: &str = "b";
const IDS: [&str; 5] = ["w", "w1", "v", "\0", "é"];
const SESSIONS: u64 = 5;
const TIMEOUT: u64 = 1_000;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    /// A session and whether it is private; `None` is for good. Whether it waits.
    Enter(usize, Option<(u64, bool)>, bool),
    Leave(usize, Option<u64>),
    Withdraw(usize),
    Expire(Vec<u64>),
    Close(BTreeSet<u64>),
    Time(u64),
    Compact,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (id, session) = (0..IDS.len(), 1..=SESSIONS);
    let live = prop_oneof![
        1 => Just(None),
        5 => (session.clone(), prop::bool::weighted(0.4)).prop_map(Some),
    ];
    let step = prop_oneof![
        3 => session.clone().prop_map(Step::Open),
        14 => (id.clone(), live, prop::bool::weighted(0.85)).prop_map(|(id, live, wait)| Step::Enter(id, live, wait)),
        6 => (id.clone(), prop::option::weighted(0.2, session.clone())).prop_map(|(id, s)| Step::Leave(id, s)),
        1 => id.prop_map(Step::Withdraw),
        2 => vec(session.clone(), 1..3).prop_map(Step::Expire),
        1 => btree_set(session, 1..3).prop_map(Step::Close),
        1 => (1..2 * TIMEOUT).prop_map(Step::Time),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..60)
}

type Party = (&'static str, Option<u64>);

struct Model {
    config: Config,
    /// Alive, and whether private.
    sessions: BTreeMap<u64, bool>,
    line: Vec<Party>,
    inside: Vec<Party>,
    out: Vec<Party>,
    generation: u64,
    due: Option<u64>,
    /// What became of each generation of a cyclic barrier.
    fates: BTreeMap<u64, bool>,
}

/// What the model says of a step.
#[derive(Debug, PartialEq)]
enum Said {
    Passed(u64),
    Waiting(u64),
    Left(u64),
    Withdrawn,
    Done,
    No,
}

impl Model {
    fn running(&self) -> bool {
        !self.inside.is_empty() || !self.out.is_empty()
    }

    fn end(&mut self, passed: bool) {
        self.fates.insert(self.generation, passed);
        self.generation += 1;
        self.line.clear();
        self.due = None;
    }

    /// Everything that follows by itself.
    fn settle(&mut self) {
        let parties = usize::try_from(self.config.parties).unwrap();
        if self.config.kind == Kind::Double {
            if self.inside.is_empty() && !self.out.is_empty() {
                self.out.clear();
                self.generation += 1;
            }
            if !self.running() && self.line.len() >= parties {
                let most = if self.config.exact { parties } else { self.line.len() };
                self.inside = self.line.drain(..most).collect();
            }
        } else if self.line.len() >= parties {
            self.end(true);
        }
        let (line, inside, out) = (&self.line, &self.inside, &self.out);
        self.sessions.retain(|id, private| {
            !*private || line.iter().chain(inside).chain(out).any(|(_, session)| *session == Some(*id))
        });
    }

    fn drop(&mut self, ended: &BTreeSet<u64>) {
        self.sessions.retain(|id, _| !ended.contains(id));
        let stays = |(_, session): &Party| session.is_none_or(|session| !ended.contains(&session));
        let (waiting, was_inside) = (self.line.len(), !self.inside.is_empty());
        self.line.retain(stays);
        self.inside.retain(stays);
        self.out.retain(stays);
        if self.config.kind == Kind::Cyclic && self.line.len() < waiting {
            self.end(false);
        }
        if was_inside && self.inside.is_empty() && self.out.is_empty() {
            self.generation += 1;
        }
    }

    fn step(&mut self, step: &Step, now: u64) -> Said {
        let said = self.said(step, now);
        self.settle();
        said
    }

    fn said(&mut self, step: &Step, now: u64) -> Said {
        match step {
            Step::Open(id) => {
                let fresh = !self.sessions.contains_key(id);
                self.sessions.entry(*id).or_insert(false);
                if fresh { Said::Done } else { Said::No }
            }
            Step::Enter(id, live, wait) => self.enter(IDS[*id], *live, *wait, now),
            Step::Leave(id, session) => {
                let id = IDS[*id];
                let own = |(other, live): &&Party| *other == id && (session.is_none() || *live == *session);
                if self.line.iter().any(|party| own(&party)) {
                    self.line.retain(|(other, _)| *other != id);
                    if self.config.kind == Kind::Cyclic {
                        self.end(false);
                    }
                    return Said::Withdrawn;
                }
                if let Some(party) = self.inside.iter().find(own).copied() {
                    self.inside.retain(|(other, _)| *other != id);
                    self.out.push(party);
                    return Said::Left(self.inside.len() as u64);
                }
                if self.out.iter().any(|party| own(&party)) {
                    return Said::Left(self.inside.len() as u64);
                }
                Said::No
            }
            Step::Withdraw(id) => {
                let waiting = self.line.len();
                self.line.retain(|(other, _)| *other != IDS[*id]);
                if self.config.kind == Kind::Cyclic && self.line.len() < waiting {
                    self.end(false);
                }
                Said::Withdrawn
            }
            Step::Expire(ids) => {
                self.drop(&ids.iter().copied().collect());
                Said::Done
            }
            Step::Close(ids) => {
                if !ids.iter().all(|id| self.sessions.contains_key(id)) {
                    return Said::No;
                }
                self.drop(ids);
                Said::Done
            }
            Step::Time(_) => {
                if self.due.is_some_and(|due| due <= now) {
                    self.end(false);
                }
                Said::Done
            }
            Step::Compact | Step::Restart => Said::Done,
        }
    }

    fn enter(&mut self, id: &'static str, live: Option<(u64, bool)>, wait: bool, now: u64) -> Said {
        let in_line = self.line.iter().any(|(other, _)| *other == id);
        let is_inside = self.inside.iter().any(|(other, _)| *other == id);
        let completes = self.line.len() as u64 + 1 >= self.config.parties;
        let joins = self.running() && !self.config.exact;
        let gets_in = is_inside || (!in_line && (joins || (completes && !self.running())));
        let session_is_fine =
            live.is_none_or(|(session, private)| self.sessions.contains_key(&session) != private);
        if (!wait && !gets_in) || !session_is_fine {
            return Said::No;
        }
        if let Some((session, true)) = live {
            self.sessions.insert(session, true);
        }
        let party = (id, live.map(|(session, _)| session));
        self.out.retain(|(other, _)| *other != id);
        for other in self.line.iter_mut().chain(&mut self.inside).filter(|(other, _)| *other == id) {
            *other = party;
        }
        if is_inside {
            return Said::Passed(self.generation);
        }
        if joins {
            self.inside.push(party);
            return Said::Passed(self.generation);
        }
        if !in_line {
            self.line.push(party);
            if self.line.len() == 1 && self.config.kind == Kind::Cyclic && self.config.timeout.is_some() {
                self.due = Some(now + TIMEOUT);
            }
        }
        let first = usize::try_from(self.config.parties).unwrap();
        let admitted = if self.config.exact { first } else { usize::MAX };
        let position = self.line.iter().position(|(other, _)| *other == id).unwrap();
        if !self.running() && self.line.len() >= first && position < admitted {
            return Said::Passed(self.generation);
        }
        Said::Waiting(position as u64 + 1)
    }
}

fn said(outcome: Option<Outcome>) -> (Said, Option<Place>) {
    match outcome {
        None => (Said::No, None),
        Some(Outcome::Passed(passed)) => (Said::Passed(passed.generation), None),
        Some(Outcome::Waiting(place)) => (Said::Waiting(place.position), Some(place)),
        Some(Outcome::Left(_, inside)) => (Said::Left(inside), None),
        Some(Outcome::Withdrawn) => (Said::Withdrawn, None),
        Some(other) => panic!("{other:?}"),
    }
}

fn done(yes: bool) -> (Said, Option<Place>) {
    (if yes { Said::Done } else { Said::No }, None)
}

fn run(driver: &mut Driver, operation: barrier::Operation) -> Option<Outcome> {
    match driver.run(&Operation::Barrier(operation)) {
        Ok(coracle_recipes::Outcome::Barrier(outcome)) => Some(outcome),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

fn take(driver: &mut Driver, step: &Step) -> (Said, Option<Place>) {
    match step {
        Step::Open(id) => done(driver.open(*id)),
        Step::Enter(id, live, wait) => {
            let attach = live.map_or(Attach::None, |(session, private)| attach(session, private));
            let (barrier, id) = (NAME.into(), IDS[*id].into());
            let enter = Enter { barrier, id, attach, wait: *wait, generation: None };
            said(run(driver, barrier::Operation::Enter(enter)))
        }
        Step::Leave(id, session) => {
            said(run(driver, barrier::Operation::Leave(claim(IDS[*id], session.map(SessionId)))))
        }
        Step::Withdraw(id) => said(run(driver, barrier::Operation::Withdraw(claim(IDS[*id], None)))),
        Step::Expire(ids) => {
            driver.expire(ids);
            done(true)
        }
        Step::Close(ids) => done(driver.close(&ids.iter().copied().collect::<Vec<_>>())),
        Step::Time(millis) => {
            driver.wait(*millis);
            done(true)
        }
        Step::Compact => done(driver.action(Action::Compact(driver.store.revision())).is_ok()),
        Step::Restart => {
            driver.restart();
            done(true)
        }
    }
}

fn claim(id: &str, session: Option<SessionId>) -> Claim {
    Claim { barrier: NAME.into(), id: id.into(), session, generation: None }
}

fn assert_room(driver: &Driver, model: &Model) {
    let view = driver.store.view();
    let it = barrier::read(view, NAME).unwrap();
    let numbers = (it.generation, it.waiting, it.inside, it.leaving);
    let lens = [&model.line, &model.inside, &model.out].map(|list| list.len() as u64);
    assert_eq!(numbers, (model.generation, lens[0], lens[1], lens[2]));
    assert_eq!(it.due.map(|due| due.0), model.due);
    let parties = barrier::parties(view, NAME, 99);
    let shown = |waits: bool| {
        let some = parties.iter().filter(move |party| party.inside.is_none() == waits);
        some.map(|party| (party.id.clone(), party.session.map(|session| session.0)))
    };
    let owned = |list: &[Party]| list.iter().map(|(id, s)| (String::from(*id), *s)).collect::<Vec<_>>();
    assert_eq!(shown(true).collect::<Vec<_>>(), owned(&model.line));
    let inside: BTreeSet<_> = shown(false).collect();
    assert_eq!(inside, owned(&model.inside).into_iter().collect());
    let alive: Vec<u64> = driver.store.sessions().map(|session| session.id.0).collect();
    assert_eq!(alive, model.sessions.keys().copied().collect::<Vec<_>>());
}

/// Everybody who was told to wait learns what became of it, however late it asks.
fn assert_told(driver: &Driver, model: &Model, told: &BTreeMap<(String, u64), Place>) {
    for ((id, generation), place) in told {
        let turn = barrier::poll(driver.store.view(), NAME, id, place);
        let in_line = model.line.iter().any(|(other, _)| other == id);
        match (model.fates.get(generation), turn) {
            // Asked by one that has come again since: that is what it is told.
            (_, Turn::Waiting(_)) => assert!(in_line),
            (Some(true), Turn::Granted(Ok(passed))) => assert_eq!(passed.generation, *generation),
            (Some(false), Turn::Granted(Err((broken, _)))) => assert_eq!(broken, *generation),
            (fate, turn) => panic!("{id} {generation} {fate:?} {turn:?}"),
        }
    }
}

fn config() -> impl Strategy<Value = Config> {
    (2_u64..4, 0..3, any::<bool>()).prop_map(|(parties, kind, timed)| match kind {
        0 => {
            let timeout = timed.then_some(Millis(TIMEOUT));
            Config { kind: Kind::Cyclic, parties, exact: false, timeout }
        }
        kind => Config { kind: Kind::Double, parties, exact: kind == 1, timeout: None },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_barrier_is_a_line_and_a_room(config in config(), steps in steps()) {
        let mut driver = Driver::new();
        let create = Create { barrier: NAME.into(), config, members: Vec::new() };
        run(&mut driver, barrier::Operation::Create(create)).unwrap();
        let generation = driver.store.revision().0;
        let mut model = Model {
            config,
            sessions: BTreeMap::new(),
            line: Vec::new(),
            inside: Vec::new(),
            out: Vec::new(),
            generation,
            due: None,
            fates: BTreeMap::new(),
        };
        let mut told = BTreeMap::new();
        for step in steps {
            let (said, place) = take(&mut driver, &step);
            prop_assert_eq!(&said, &model.step(&step, driver.now.0), "{:?}", step);
            assert_room(&driver, &model);
            if let (Some(place), Kind::Cyclic) = (place, config.kind) {
                told.insert((place.id.to_string(), place.generation.unwrap()), place);
            }
            // So many broken ones are remembered.
            told.retain(|(_, generation), _| generation + 16 > model.generation);
            assert_told(&driver, &model, &told);
        }
        run(&mut driver, barrier::Operation::Delete(NAME.into())).unwrap();
        driver.expire(&(1..=SESSIONS).collect::<Vec<_>>());
        prop_assert_eq!(driver.store.live_bytes(), 0, "nothing is left, no timer either");
    }
}

#[test]
fn ten_thousand_pass_in_one_entry() {
    let mut driver = Driver::new();
    let config = Config { kind: Kind::Cyclic, parties: barrier::PARTIES, exact: false, timeout: None };
    let create = Create { barrier: NAME.into(), config, members: Vec::new() };
    run(&mut driver, barrier::Operation::Create(create)).unwrap();
    let enter = |id: u64| {
        let (barrier, id) = (NAME.into(), id.to_string().into());
        barrier::Operation::Enter(Enter { barrier, id, attach: Attach::None, wait: true, generation: None })
    };
    for id in 1..barrier::PARTIES {
        assert!(matches!(run(&mut driver, enter(id)), Some(Outcome::Waiting(place)) if place.position == id));
    }
    let last = run(&mut driver, enter(barrier::PARTIES));
    assert!(matches!(last, Some(Outcome::Passed(passed)) if passed.index == Some(barrier::PARTIES - 1)));
    assert_eq!(driver.store.view().scan(barrier::FAMILY, &[]).count(), 2, "configuration and generation");
}
