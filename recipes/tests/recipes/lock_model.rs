//! Random sessions around two locks, against a model that is two lists.

use std::collections::{BTreeMap, BTreeSet};

use coracle_recipes::lock::{self, Acquire, Claim, Mode, Operation, Turn};
use coracle_recipes::{Outcome, Recipes};
use coracle_store::command::{Expiry, OnExpire, OpenSession, Transaction};
use coracle_store::{
    Action, Attach, Command, Loader, Millis, Outcome as StoreOutcome, Principal, SessionId, Store, Timestamp,
    View,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LOCKS: [&str; 2] = ["a", "ab"];
const SESSIONS: u64 = 7;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Acquire {
        lock: usize,
        session: u64,
        mode: Mode,
        wait: bool,
        private: bool,
    },
    Release(usize, u64),
    Withdraw(usize, u64),
    Transfer(usize, u64, u64),
    Break(usize),
    /// These run out in one entry.
    Expire(Vec<u64>),
    /// These are closed in one transaction.
    Close(Vec<u64>),
    Compact,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (lock, session) = (0..LOCKS.len(), 1..=SESSIONS);
    let mode = prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared)];
    let acquire =
        (lock.clone(), session.clone(), mode, prop::bool::weighted(0.8), prop::bool::weighted(0.2)).prop_map(
            |(lock, session, mode, wait, private)| Step::Acquire { lock, session, mode, wait, private },
        );
    let step = prop_oneof![
        4 => session.clone().prop_map(Step::Open),
        12 => acquire,
        5 => (lock.clone(), session.clone()).prop_map(|(lock, session)| Step::Release(lock, session)),
        2 => (lock.clone(), session.clone()).prop_map(|(lock, session)| Step::Withdraw(lock, session)),
        2 => (lock.clone(), session.clone(), session.clone()).prop_map(|(lock, from, to)| Step::Transfer(lock, from, to)),
        1 => lock.prop_map(Step::Break),
        2 => vec(session.clone(), 1..4).prop_map(Step::Expire),
        1 => vec(session, 1..4).prop_map(Step::Close),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..60)
}

#[derive(Default)]
struct Line {
    /// With their tokens, in the order of the grants.
    holders: Vec<(u64, Mode, u64)>,
    waiters: Vec<(u64, Mode)>,
}

impl Line {
    fn mode_of(&self, session: u64) -> Option<Mode> {
        let holds = self.holders.iter().map(|(id, mode, _)| (*id, *mode));
        holds.chain(self.waiters.iter().copied()).find(|(id, _)| *id == session).map(|(_, mode)| mode)
    }

    fn holds(&self, session: u64) -> bool {
        self.holders.iter().any(|(id, ..)| *id == session)
    }

    fn admits(&self, mode: Mode) -> bool {
        self.holders.iter().all(|(_, held, _)| *held == Mode::Shared && mode == Mode::Shared)
    }

    /// Who is before a session that waits or comes last.
    fn before(&self, session: u64, mode: Mode) -> Vec<u64> {
        let holders =
            self.holders.iter().filter(|(_, held, _)| *held == Mode::Exclusive || mode == Mode::Exclusive);
        let ahead = self.waiters.iter().take_while(|(id, _)| *id != session);
        holders.map(|(id, ..)| *id).chain(ahead.map(|(id, _)| *id)).collect()
    }

    fn drop(&mut self, sessions: &[u64]) {
        self.holders.retain(|(id, ..)| !sessions.contains(id));
        self.waiters.retain(|(id, _)| !sessions.contains(id));
    }

    /// The rule in one sentence: while the head of the line may hold, it does.
    fn advance(&mut self, revision: u64) {
        while let Some((session, mode)) = self.waiters.first().copied().filter(|(_, mode)| self.admits(*mode))
        {
            self.waiters.remove(0);
            self.holders.push((session, mode, revision));
        }
        // Those of one token stay in the order of their grants.
        self.holders.sort_by_key(|(_, _, token)| *token);
    }
}

#[derive(Default)]
struct Model {
    /// Alive, and whether private.
    sessions: BTreeMap<u64, bool>,
    lines: [Line; 2],
}

impl Model {
    /// Whether the step is accepted; `revision` is the one it would have.
    fn step(&mut self, step: &Step, revision: u64) -> bool {
        let accepted = self.accept(step, revision);
        let lines = &mut self.lines;
        for line in lines.iter_mut() {
            line.advance(revision);
        }
        self.sessions.retain(|id, private| !*private || lines.iter().any(|line| line.mode_of(*id).is_some()));
        accepted
    }

    fn accept(&mut self, step: &Step, revision: u64) -> bool {
        match step {
            Step::Open(session) => {
                let fresh = !self.sessions.contains_key(session);
                self.sessions.entry(*session).or_insert(false);
                fresh
            }
            Step::Acquire { lock, session, mode, wait, private } => {
                let line = &mut self.lines[*lock];
                if let Some(held) = line.mode_of(*session) {
                    return held == *mode;
                }
                let free = line.waiters.is_empty() && line.admits(*mode);
                let ahead = if free { Vec::new() } else { line.before(*session, *mode) };
                // Asked only of one that holds what others wait for.
                let is_waited_for =
                    self.lines.iter().any(|line| line.holds(*session) && !line.waiters.is_empty());
                if is_waited_for && ahead.iter().any(|other| self.waits_for(*other, *session)) {
                    return false;
                }
                let line = &mut self.lines[*lock];
                if (!free && !wait) || self.sessions.contains_key(session) == *private {
                    return false;
                }
                self.sessions.entry(*session).or_insert(*private);
                line.waiters.push((*session, *mode));
                true
            }
            Step::Release(lock, session) => {
                let line = &mut self.lines[*lock];
                let had = line.mode_of(*session).is_some();
                line.drop(&[*session]);
                had
            }
            Step::Withdraw(lock, session) => {
                let line = &mut self.lines[*lock];
                if !line.holds(*session) {
                    line.drop(&[*session]);
                }
                true
            }
            Step::Transfer(lock, from, to) => {
                let line = &mut self.lines[*lock];
                let mode = line.mode_of(*from);
                let fits = line.mode_of(*to).is_none_or(|waits| Some(waits) == mode) && !line.holds(*to);
                let Some(mode) = mode.filter(|_| line.holds(*from) && self.sessions.contains_key(to) && fits)
                else {
                    return false;
                };
                line.drop(&[*from, *to]);
                line.holders.push((*to, mode, revision));
                true
            }
            Step::Break(lock) => {
                let line = &mut self.lines[*lock];
                let held = !line.holders.is_empty();
                line.holders.clear();
                held
            }
            Step::Expire(sessions) => {
                self.end(sessions);
                true
            }
            Step::Close(sessions) => {
                let distinct: BTreeSet<_> = sessions.iter().collect();
                let all = sessions.iter().all(|session| self.sessions.contains_key(session));
                if distinct.len() != sessions.len() || !all {
                    return false;
                }
                self.end(sessions);
                true
            }
            Step::Compact | Step::Restart => true,
        }
    }

    /// Whether `one` waits, in the end, for `other`.
    fn waits_for(&self, one: u64, other: u64) -> bool {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![one]);
        while let Some(session) = ahead.pop() {
            if session == other {
                return true;
            }
            if seen.insert(session) {
                for line in &self.lines {
                    let waits = line.waiters.iter().find(|(id, _)| *id == session);
                    ahead.extend(waits.into_iter().flat_map(|(_, mode)| line.before(session, *mode)));
                }
            }
        }
        false
    }

    fn end(&mut self, sessions: &[u64]) {
        self.sessions.retain(|id, _| !sessions.contains(id));
        self.lines.iter_mut().for_each(|line| line.drop(sessions));
    }
}

fn open(id: u64) -> OpenSession {
    OpenSession { on_expire: OnExpire::Release, ..OpenSession::new(SessionId(id), Millis(10_000)) }
}

fn action(step: &Step, store: &Store) -> Action {
    let claim = |lock: &usize, session: &u64| Claim {
        lock: LOCKS[*lock].into(),
        session: SessionId(*session),
        token: None,
    };
    let lock = match step {
        Step::Open(id) => return Action::One(coracle_store::Operation::OpenSession(open(*id))),
        Step::Acquire { lock, session, mode, wait, private } => Operation::Acquire(Acquire {
            lock: LOCKS[*lock].into(),
            mode: *mode,
            attach: if *private {
                Attach::Private(open(*session))
            } else {
                Attach::Session(SessionId(*session))
            },
            owner: "".into(),
            meta: "".into(),
            wait: *wait,
            reentrant: false,
            convert: false,
        }),
        Step::Release(lock, session) => Operation::Release(claim(lock, session)),
        Step::Withdraw(lock, session) => Operation::Withdraw(claim(lock, session)),
        Step::Transfer(lock, from, to) => Operation::Transfer(claim(lock, from), SessionId(*to)),
        Step::Break(lock) => Operation::Break(LOCKS[*lock].into(), "".into()),
        Step::Expire(sessions) => {
            let expiry = |id: &u64| Expiry { session: SessionId(*id), generation: 1 };
            return Action::Expire(sessions.iter().map(expiry).collect());
        }
        Step::Close(sessions) => {
            let close = |id: &u64| coracle_store::Operation::CloseSession(SessionId(*id));
            let (conditions, otherwise) = (Vec::new(), Vec::new());
            let then = sessions.iter().map(close).collect();
            return Action::Transaction(Transaction { conditions, then, otherwise });
        }
        Step::Compact => return Action::Compact(store.revision()),
        Step::Restart => return Action::Noop,
    };
    Action::One(coracle_recipes::Operation::Lock(lock).encode())
}

fn restart(store: &Store) -> Store {
    let mut loader = Loader::new(Box::new(Recipes));
    for row in store.rows() {
        loader.row(row.table, &row.key, &row.value.expect("a row")).expect("rows of a store");
    }
    loader.finish().expect("a whole store")
}

fn assert_lines(store: &Store, model: &Model) {
    for (name, line) in LOCKS.iter().zip(&model.lines) {
        let actual = lock::line(store.view(), name, 100);
        let Some(actual) = actual else {
            assert!(line.holders.is_empty() && line.waiters.is_empty(), "{name} is not idle");
            continue;
        };
        let holders: Vec<_> =
            actual.holders.iter().map(|hold| (hold.session.0, hold.terms, hold.token.0)).collect();
        let waiters: Vec<_> = actual.waiters.iter().map(|place| (place.session.0, place.terms)).collect();
        assert_eq!(holders, line.holders, "holders of {name}");
        assert_eq!(waiters, line.waiters, "line of {name}");
        assert_eq!(actual.waiting, line.waiters.len());
        assert!(!line.holders.is_empty(), "nobody waits for nobody");
        let exclusive = line.holders.iter().filter(|(_, mode, _)| *mode == Mode::Exclusive).count();
        assert!(exclusive == 0 || line.holders.len() == 1, "an exclusive holder is alone");
    }
    for session in 1..=SESSIONS {
        for (name, line) in LOCKS.iter().zip(&model.lines) {
            match lock::poll(store.view(), name, SessionId(session)) {
                Turn::Granted(hold) => assert!(line.holds(session) && hold.session.0 == session),
                Turn::Waiting(place) => {
                    let position = usize::try_from(place.position).unwrap() - 1;
                    assert_eq!(line.waiters[position].0, session);
                }
                Turn::Gone => assert_eq!(line.mode_of(session), None),
            }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lock_is_two_lists(steps in steps()) {
        let mut store = Store::new(Box::new(Recipes));
        let mut model = Model::default();
        let mut newest = [0; 2];
        let mut seen = BTreeMap::new();
        for step in steps {
            let before = store.revision();
            let action = action(&step, &store);
            let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
            let reply = store.apply(Timestamp(1), &Command { principal, idempotency, guards, action }.encode());
            let accepted = model.step(&step, before.next().0);
            prop_assert_eq!(reply.result.is_ok(), accepted, "{:?} {:?}", step, reply);
            if let Step::Restart = step {
                store = restart(&store);
            }
            assert_lines(&store, &model);
            seen.insert(store.revision(), everything(store.view()));
            let alive: Vec<u64> = store.sessions().map(|session| session.id.0).collect();
            prop_assert_eq!(alive, model.sessions.keys().copied().collect::<Vec<_>>());
            if let Ok(StoreOutcome::Program(bytes)) = &reply.result
                && let Outcome::Lock(lock::Outcome::Freed(_, granted)) = Outcome::decode(bytes).unwrap()
            {
                prop_assert!(granted.iter().all(|hold| hold.token == store.revision()));
            }
            for (newest, line) in newest.iter_mut().zip(&model.lines) {
                for (_, _, token) in line.holders.iter().filter(|(_, _, token)| *token > before.0) {
                    prop_assert!(token > newest, "tokens rise");
                }
                *newest = line.holders.iter().map(|(_, _, token)| *token).max().unwrap_or(*newest).max(*newest);
            }
        }
        let all = (1..=SESSIONS).map(|id| Expiry { session: SessionId(id), generation: 1 }).collect();
        let action = Action::Expire(all);
        let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
        store.apply(Timestamp(1), &Command { principal, idempotency, guards, action }.encode());
        prop_assert_eq!(store.view().scan(lock::FAMILY, &[]).count(), 0, "no ghosts");
        prop_assert_eq!(store.live_bytes(), 0);
        for (revision, seen) in seen.into_iter().filter(|(revision, _)| *revision >= store.compact_revision()) {
            prop_assert_eq!(everything(store.view_at(revision).unwrap()), seen, "at {}", revision);
        }
    }
}
