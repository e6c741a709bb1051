//! Random sessions around three locks, against the model: every way to claim, to give back, to be lost, and to wait.

use std::collections::BTreeMap;

use coracle_recipes::lock::{self, Acquire, AcquireMany, Claim, Config, Mode, Operation, Turn, TurnOfMany};
use coracle_recipes::{Outcome, Refusal};
use coracle_store::command::OpenSession;
use coracle_store::{Action, Millis, Revision, SessionId, Store, Timestamp, View};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::driver::{Driver, No, attach, open};
use crate::lock_model::{LOCKS, Line, Model, SESSIONS, Step, Verdict};

fn mode() -> impl Strategy<Value = Mode> + Clone {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared)]
}

fn millis(most: u64) -> impl Strategy<Value = Millis> {
    prop_oneof![Just(Millis(0)), (1..most).prop_map(Millis)]
}

/// What happens most.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mostly {
    All,
    /// What depends on time, which holds up everything else.
    Times,
    /// Few sessions that wait for each other, and give little back.
    Waits,
}

fn steps(mostly: Mostly) -> impl Strategy<Value = Vec<Step>> {
    let timed = mostly == Mostly::Times;
    let (lock, session) = (0..LOCKS.len(), 1..=if mostly == Mostly::Waits { 4 } else { SESSIONS });
    let acquire = (
        (lock.clone(), session.clone(), mode()),
        prop_oneof![4 => Just("ann"), 1 => Just("bob")],
        (prop::bool::weighted(0.85), prop::bool::weighted(0.15), prop::bool::weighted(0.3)),
    )
        .prop_map(|((lock, session, mode), owner, (wait, private, reentrant))| Step::Acquire {
            lock,
            session,
            mode,
            owner,
            wait,
            private,
            reentrant,
        });
    let convert = (lock.clone(), session.clone(), mode(), prop::bool::weighted(0.8))
        .prop_map(|(lock, session, mode, wait)| Step::Convert { lock, session, mode, wait });
    let together = (
        btree_map(lock.clone(), mode(), 1..4),
        session.clone(),
        (prop::bool::weighted(0.85), prop::bool::weighted(0.15)),
    )
        .prop_map(|(locks, session, (wait, private))| Step::Together { locks, session, wait, private });
    let config = (millis(3_000), millis(3_000), millis(4_000)).prop_map(move |times| {
        let (lock_delay, min_hold, max_hold) = times;
        if timed { Config { lock_delay, min_hold, max_hold } } else { Config::default() }
    });
    let release = (lock.clone(), session.clone(), prop::option::weighted(0.3, prop::bool::weighted(0.7)))
        .prop_map(|(lock, session, token)| Step::Release(lock, session, token));
    let withdraw = (lock.clone(), session.clone()).prop_map(|(lock, session)| Step::Withdraw(lock, session));
    let transfer = (lock.clone(), session.clone(), session.clone())
        .prop_map(|(lock, from, to)| Step::Transfer(lock, from, to));
    let reason = prop_oneof![Just(""), Just("stuck")];
    let (time, back) = match mostly {
        Mostly::All => (1, 4),
        Mostly::Times => (4, 4),
        Mostly::Waits => (1, 1),
    };
    let delay = move |millis: Millis| if timed { millis.0 } else { 0 };
    let step = prop_oneof![
        4 => (session.clone(), millis(2_000)).prop_map(move |(id, wanted)| Step::Open(id, delay(wanted))),
        12 => acquire,
        5 => convert,
        5 => together,
        back => release,
        2 => withdraw,
        6 => transfer,
        1 => (lock.clone(), reason).prop_map(|(lock, reason)| Step::Break(lock, reason)),
        time => (lock, config).prop_map(|(lock, config)| Step::Configure(lock, config)),
        time => (1..3_000_u64).prop_map(Step::Wait),
        back.min(2) => vec(session.clone(), 1..4).prop_map(Step::Expire),
        1 => vec(session, 1..4).prop_map(Step::Close),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    // Some are there from the beginning, or most steps would be those of nobody.
    let opened = (1..=4).map(|session| Step::Open(session, 0)).collect::<Vec<_>>();
    vec(step, 1..80).prop_map(move |steps| [opened.clone(), steps].concat())
}

fn operation(step: &Step, model: &Model) -> Option<Operation> {
    let claim = |lock: &usize, session: &u64, token| Claim {
        lock: LOCKS[*lock].into(),
        session: SessionId(*session),
        token,
    };
    let acquire = |lock: &usize, session: &u64, mode: &Mode, private, owner: &str| Acquire {
        lock: LOCKS[*lock].into(),
        mode: *mode,
        attach: attach(*session, private),
        owner: owner.into(),
        meta: "".into(),
        wait: true,
        reentrant: false,
        convert: false,
    };
    Some(match step {
        Step::Acquire { lock, session, mode, owner, wait, private, reentrant } => {
            let (wait, reentrant) = (*wait, *reentrant);
            Operation::Acquire(Acquire { wait, reentrant, ..acquire(lock, session, mode, *private, owner) })
        }
        Step::Convert { lock, session, mode, wait } => {
            let (wait, convert) = (*wait, true);
            Operation::Acquire(Acquire { wait, convert, ..acquire(lock, session, mode, false, "") })
        }
        Step::Together { locks, session, wait, private } => Operation::AcquireMany(AcquireMany {
            locks: locks.iter().rev().map(|(lock, mode)| (LOCKS[*lock].into(), *mode)).collect(),
            attach: attach(*session, *private),
            owner: "".into(),
            wait: *wait,
        }),
        Step::Release(lock, session, token) => {
            let current = model.lines[*lock].hold(*session).map_or(0, |hold| hold.token);
            let token = token.map(|right| Revision(if right { current } else { current + 1 }));
            Operation::Release(claim(lock, session, token))
        }
        Step::Withdraw(lock, session) => Operation::Withdraw(claim(lock, session, None)),
        Step::Transfer(lock, from, to) => Operation::Transfer(claim(lock, from, None), SessionId(*to)),
        Step::Break(lock, reason) => Operation::Break(LOCKS[*lock].into(), (*reason).into()),
        Step::Configure(lock, config) => Operation::Configure(LOCKS[*lock].into(), *config),
        _ => return None,
    })
}

/// Do a step; a refusal of locks is told.
fn run(
    driver: &mut Driver,
    step: &Step,
    model: &Model,
) -> Result<Option<lock::Outcome>, Option<lock::Refusal>> {
    if let Some(operation) = operation(step, model) {
        return match driver.run(&coracle_recipes::Operation::Lock(operation)) {
            Ok(Outcome::Lock(outcome)) => Ok(Some(outcome)),
            Err(No::Recipe(Refusal::Lock(refusal))) => Err(Some(refusal)),
            Err(No::Store(_)) => Err(None),
            other => panic!("{other:?}"),
        };
    }
    let done = match step {
        Step::Open(id, delay) => {
            let lock_delay = (*delay > 0).then_some(Millis(*delay));
            let open = OpenSession { lock_delay, ..open(*id) };
            driver.action(Action::One(coracle_store::Operation::OpenSession(open))).is_ok()
        }
        Step::Expire(sessions) => {
            driver.expire(sessions);
            true
        }
        Step::Close(sessions) => driver.close(sessions),
        Step::Wait(millis) => {
            driver.wait(*millis);
            true
        }
        Step::Compact => driver.action(Action::Compact(driver.store.revision())).is_ok(),
        Step::Restart => {
            driver.restart();
            true
        }
        _ => unreachable!("an operation of locks"),
    };
    if done { Ok(None) } else { Err(None) }
}

fn assert_line(name: &str, line: &Line, store: &Store) {
    let Some(actual) = lock::line(store.view(), name, 100) else {
        assert!(line.is_idle() && line.closed.is_none(), "{name} is not idle");
        assert_eq!(line.config, Config::default(), "{name} is configured");
        return;
    };
    let holders = actual.holders.iter().map(|hold| {
        let terms = (hold.session.0, hold.terms, &*hold.owner);
        (terms, hold.token.0, hold.ordinal, hold.count, hold.overdue)
    });
    let expected = line.holders.iter().map(|hold| {
        ((hold.session, hold.mode, hold.owner), hold.token, hold.ordinal, hold.count, hold.overdue)
    });
    assert_eq!(holders.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "holders of {name}");
    let waiters = actual.waiters.iter().map(|place| (place.session.0, place.terms, &*place.owner));
    let expected = line.waiters.iter().map(|wait| (wait.session, wait.mode, wait.owner));
    assert_eq!(waiters.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "line of {name}");
    assert_eq!(actual.waiting, line.waiters.len());
    assert_eq!(actual.closed_until, line.closed.map(Timestamp), "when {name} opens");
    assert_eq!(actual.config.unwrap_or_default(), line.config);
    let exclusive = line.holders.iter().filter(|hold| hold.mode == Mode::Exclusive).count();
    assert!(exclusive == 0 || line.holders.len() == 1, "an exclusive holder is alone");
}

/// The turn of each session, as it asks for it.
fn assert_turns(model: &Model, store: &Store) {
    for session in 1..=SESSIONS {
        for (name, line) in LOCKS.iter().zip(&model.lines) {
            match lock::poll(store.view(), name, SessionId(session)) {
                Turn::Granted(hold) => assert!(line.hold(session).is_some() && hold.session.0 == session),
                Turn::Waiting(place) => {
                    let position = usize::try_from(place.position).unwrap() - 1;
                    assert_eq!(line.waiters[position].session, session);
                }
                Turn::Gone => assert!(!line.has(session)),
            }
            let converts = line.hold(session).is_some() && line.wait(session).is_some();
            let turn = lock::poll_convert(store.view(), name, SessionId(session), Mode::Exclusive);
            assert_eq!(converts, matches!(turn, Turn::Waiting(_)) && line.hold(session).is_some());
            let Some(wait) = line.wait(session).filter(|wait| !wait.together.is_empty()) else { continue };
            let names: Vec<Box<str>> = wait.together.iter().map(|lock| LOCKS[*lock].into()).collect();
            let turn = lock::poll_many(store.view(), &names, SessionId(session));
            assert!(matches!(turn, TurnOfMany::Waiting(_)), "all of them or none: {turn:?}");
        }
    }
}

/// What a view answers about all locks: names, lines, and each session's turn.
fn everything(view: View<'_>) -> impl PartialEq + std::fmt::Debug + use<> {
    let names = lock::names(view, "", None, 100);
    let lines: Vec<_> = names.iter().map(|name| lock::line(view, name, 100)).collect();
    let turns = (1..=SESSIONS).flat_map(|id| LOCKS.map(|name| lock::poll(view, name, SessionId(id))));
    (names, lines, turns.collect::<Vec<_>>())
}

fn behaves(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut driver, mut model) = (Driver::new(), Model::new());
    let (mut newest, mut seen) = ([0; LOCKS.len()], BTreeMap::new());
    for step in steps {
        let before = driver.store.revision();
        let asked = model.clone();
        let reply = run(&mut driver, &step, &asked);
        let store = &driver.store;
        let verdict = model.step(&step, before.next().0);
        match &reply {
            Ok(_) => prop_assert_eq!(verdict, Verdict::Done, "{:?}", step),
            // The second of two that convert is told so whether it would wait or not.
            Err(Some(lock::Refusal::WouldDeadlock(cycle))) => {
                prop_assert!(
                    verdict == Verdict::WouldDeadlock || matches!(step, Step::Convert { .. }),
                    "{step:?}"
                );
                prop_assert!(asked.would_be_a_cycle(&step, cycle), "{:?} {:?}", step, cycle);
            }
            Err(refusal) => prop_assert_eq!(verdict, Verdict::Refused, "{:?} {:?}", step, refusal),
        }
        prop_assert!(!model.is_stuck(), "nobody waits for itself");
        for (name, line) in LOCKS.iter().zip(&model.lines) {
            assert_line(name, line, store);
        }
        assert_turns(&model, store);
        seen.insert(store.revision(), everything(store.view()));
        let alive: Vec<u64> = store.sessions().map(|session| session.id.0).collect();
        prop_assert_eq!(alive, model.sessions.keys().copied().collect::<Vec<_>>());
        if let Ok(Some(lock::Outcome::Freed(_, granted))) = reply {
            prop_assert!(granted.iter().all(|hold| hold.token == store.revision()));
        }
        for (newest, line) in newest.iter_mut().zip(&model.lines) {
            let tokens = || line.holders.iter().map(|hold| hold.token);
            prop_assert!(
                tokens().filter(|token| *token > before.0).all(|token| token > *newest),
                "tokens rise"
            );
            *newest = tokens().max().unwrap_or(0).max(*newest);
        }
    }
    let Driver { store, .. } = &mut driver;
    for (revision, seen) in seen.into_iter().filter(|(revision, _)| *revision >= store.compact_revision()) {
        prop_assert_eq!(everything(store.view_at(revision).unwrap()), seen, "at {}", revision);
    }
    driver.expire(&(1..=SESSIONS).collect::<Vec<_>>());
    for lock in 0..LOCKS.len() {
        let forget = Step::Configure(lock, Config::default());
        prop_assert!(run(&mut driver, &forget, &model).is_ok());
    }
    // What closed the locks, and nothing else, has its time.
    driver.wait(3_000);
    prop_assert_eq!(driver.store.view().scan(lock::FAMILY, &[]).count(), 0, "no ghosts");
    prop_assert_eq!(driver.store.live_bytes(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lock_is_two_lists(steps in steps(Mostly::All)) {
        behaves(steps)?;
    }

    #[test]
    fn a_lock_with_times_is_two_lists(steps in steps(Mostly::Times)) {
        behaves(steps)?;
    }

    #[test]
    fn nobody_waits_for_itself(steps in steps(Mostly::Waits)) {
        behaves(steps)?;
    }
}
