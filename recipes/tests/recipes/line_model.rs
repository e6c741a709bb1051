//! Random sessions around a semaphore and an election, against models that are lists; and long lines.

use std::collections::BTreeSet;

use coracle_recipes::election::{self, Campaign, Candidacy};
use coracle_recipes::semaphore::{self, Acquire};
use coracle_recipes::{Operation, Recipes};
use coracle_store::command::{Expiry, OpenSession};
use coracle_store::{
    Action, Attach, Command, ContentType, Loader, Millis, Principal, SessionId, Store, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

const SESSIONS: u64 = 6;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    /// Permits, or the priority.
    Claim(u64, u64, bool),
    GiveUp(u64),
    Withdraw(u64),
    Transfer(u64, u64),
    /// The limit; in an election, resign and stand again.
    Change(u64),
    Expire(Vec<u64>),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = 1..=SESSIONS;
    let step = prop_oneof![
        4 => session.clone().prop_map(Step::Open),
        12 => (session.clone(), 1..4_u64, prop::bool::weighted(0.8)).prop_map(|(s, n, w)| Step::Claim(s, n, w)),
        5 => session.clone().prop_map(Step::GiveUp),
        2 => session.clone().prop_map(Step::Withdraw),
        2 => (session.clone(), session.clone()).prop_map(|(from, to)| Step::Transfer(from, to)),
        2 => (1..6_u64).prop_map(Step::Change),
        2 => vec(session, 1..4).prop_map(Step::Expire),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..60)
}

/// Who has what, in the order of the grants; who wants what, in the order of the line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    holders: Vec<(u64, u64)>,
    waiters: Vec<(u64, u64)>,
}

impl Line {
    fn has(&self, session: u64) -> bool {
        self.holders.iter().chain(&self.waiters).any(|(id, _)| *id == session)
    }

    fn holds(&self, session: u64) -> Option<u64> {
        self.holders.iter().find(|(id, _)| *id == session).map(|(_, what)| *what)
    }

    fn drop(&mut self, sessions: &[u64]) {
        self.holders.retain(|(id, _)| !sessions.contains(id));
        self.waiters.retain(|(id, _)| !sessions.contains(id));
    }

    /// The rule in one sentence: while the head of the line fits, it is granted.
    fn advance(&mut self, fits: impl Fn(&[(u64, u64)], u64) -> bool) {
        while let Some(first) = self.waiters.first().copied().filter(|(_, what)| fits(&self.holders, *what)) {
            self.waiters.remove(0);
            self.holders.push(first);
        }
    }
}

fn open(id: u64) -> OpenSession {
    OpenSession::new(SessionId(id), Millis(10_000))
}

fn run(store: &mut Store, action: Action) -> bool {
    let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
    store.apply(Timestamp(1), &Command { principal, idempotency, guards, action }.encode()).result.is_ok()
}

fn restarted(store: &Store) -> Store {
    let mut loader = Loader::new(Box::new(Recipes));
    for row in store.rows() {
        loader.row(row.table, &row.key, &row.value.expect("a row")).expect("rows of a store");
    }
    loader.finish().expect("a whole store")
}

/// What is the same for both: sessions. `None`: the step is about the line.
fn common(store: &mut Store, alive: &mut BTreeSet<u64>, line: &mut Line, step: &Step) -> Option<bool> {
    match step {
        Step::Open(session) => {
            let opened = run(store, Action::One(coracle_store::Operation::OpenSession(open(*session))));
            Some(opened == alive.insert(*session))
        }
        Step::Expire(sessions) => {
            let expiry = |id: &u64| Expiry { session: SessionId(*id), generation: 1 };
            run(store, Action::Expire(sessions.iter().map(expiry).collect()));
            alive.retain(|id| !sessions.contains(id));
            line.drop(sessions);
            Some(true)
        }
        Step::Restart => {
            *store = restarted(store);
            Some(true)
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_semaphore_is_two_lists_and_a_limit(steps in steps()) {
        let mut store = Store::new(Box::new(Recipes));
        let (mut line, mut alive, mut limit) = (Line::default(), BTreeSet::new(), 3);
        let claim = |session: u64| semaphore::Claim {
            semaphore: "s".into(), session: SessionId(session), token: None
        };
        let used = |holders: &[(u64, u64)]| holders.iter().map(|(_, permits)| *permits).sum::<u64>();
        run(&mut store, Action::One(Operation::Semaphore(semaphore::Operation::Configure("s".into(), 3)).encode()));
        for step in steps {
            let known = common(&mut store, &mut alive, &mut line, &step);
            let fits = |holders: &[(u64, u64)], permits: u64| used(holders) + permits <= limit;
            let (operation, accepted) = match &step {
                Step::Claim(session, permits, wait) => {
                    let operation = semaphore::Operation::Acquire(Acquire {
                        semaphore: "s".into(), permits: *permits, limit: None,
                        attach: Attach::Session(SessionId(*session)),
                        owner: "".into(), meta: "".into(), wait: *wait,
                    });
                    let own = line.holders.iter().chain(&line.waiters).find(|(id, _)| id == session);
                    let free = line.waiters.is_empty() && fits(&line.holders, *permits);
                    let accepted = match own {
                        Some((_, has)) => has == permits,
                        None => *permits <= limit && alive.contains(session) && (free || *wait),
                    };
                    if accepted && own.is_none() {
                        line.waiters.push((*session, *permits));
                    }
                    (operation, accepted)
                }
                Step::GiveUp(session) => {
                    let had = line.has(*session);
                    line.drop(&[*session]);
                    (semaphore::Operation::Release(claim(*session)), had)
                }
                Step::Withdraw(session) => {
                    if line.holds(*session).is_none() {
                        line.drop(&[*session]);
                    }
                    (semaphore::Operation::Withdraw(claim(*session)), true)
                }
                Step::Transfer(from, to) => {
                    let waits = line.waiters.iter().find(|(id, _)| id == to).map(|(_, permits)| *permits);
                    let has = line.holds(*from);
                    let accepted = has.is_some() && alive.contains(to) && line.holds(*to).is_none()
                        && waits.is_none_or(|permits| Some(permits) == has);
                    if let Some(permits) = has.filter(|_| accepted) {
                        line.drop(&[*from, *to]);
                        line.holders.push((*to, permits));
                    }
                    (semaphore::Operation::Transfer(claim(*from), SessionId(*to)), accepted)
                }
                Step::Change(to) => {
                    limit = *to;
                    (semaphore::Operation::Configure("s".into(), *to), true)
                }
                _ => (semaphore::Operation::Withdraw(claim(0)), true),
            };
            if let Some(agreed) = known {
                prop_assert!(agreed, "{step:?}");
            } else {
                let taken = run(&mut store, Action::One(Operation::Semaphore(operation).encode()));
                prop_assert_eq!(taken, accepted, "{:?}", step);
            }
            line.advance(|holders, permits| used(holders) + permits <= limit);
            let seen = semaphore::show(store.view(), "s", 100).expect("its limit was set by itself");
            let holders: Vec<_> = seen.holders.iter().map(|hold| (hold.session.0, hold.terms.0)).collect();
            let waiters: Vec<_> = seen.waiters.iter().map(|place| (place.session.0, place.terms.0)).collect();
            prop_assert_eq!(seen.free, limit.saturating_sub(used(&line.holders)));
            prop_assert_eq!(Line { holders, waiters }, Line { holders: line.holders.clone(), waiters: line.waiters.clone() });
            prop_assert_eq!(seen.waiting, line.waiters.len());
            prop_assert!(seen.holders.is_sorted_by_key(|hold| (hold.token, hold.ordinal)));
        }
    }

    #[test]
    fn an_election_is_a_leader_and_a_sorted_list(steps in steps()) {
        let mut store = Store::new(Box::new(Recipes));
        let (mut line, mut alive, mut newest) = (Line::default(), BTreeSet::new(), (0, 0));
        let claim = |session: u64| election::Claim {
            election: "e".into(), session: SessionId(session), token: None
        };
        for step in steps {
            let known = common(&mut store, &mut alive, &mut line, &step);
            let (operation, accepted) = match &step {
                Step::Claim(session, priority, wait) => {
                    let operation = election::Operation::Campaign(Campaign {
                        election: "e".into(),
                        candidacy: Candidacy {
                            priority: u8::try_from(*priority).unwrap(),
                            value: coracle_store::Value::from(&b"v"[..]),
                            content_type: ContentType::Text,
                        },
                        attach: Attach::Session(SessionId(*session)),
                        owner: "".into(),
                        wait: *wait,
                    });
                    let own = line.holders.iter().chain(&line.waiters).find(|(id, _)| id == session);
                    let accepted = match own {
                        Some((_, has)) => has == priority,
                        None => alive.contains(session) && (line.holders.is_empty() || *wait),
                    };
                    if accepted && own.is_none() {
                        line.waiters.push((*session, *priority));
                    }
                    (operation, accepted)
                }
                Step::GiveUp(session) => {
                    let had = line.has(*session);
                    line.drop(&[*session]);
                    (election::Operation::Resign(claim(*session), false), had)
                }
                Step::Change(session) => {
                    // A candidate that does this leaves; a leader goes to the tail.
                    let had = line.has(*session);
                    let led = line.holds(*session);
                    line.drop(&[*session]);
                    line.waiters.sort_by_key(|(_, priority)| u64::MAX - priority);
                    line.advance(|holders, _| holders.is_empty());
                    line.waiters.extend(led.map(|priority| (*session, priority)));
                    (election::Operation::Resign(claim(*session), true), had)
                }
                Step::Withdraw(session) => {
                    if line.holds(*session).is_none() {
                        line.drop(&[*session]);
                    }
                    (election::Operation::Withdraw(claim(*session)), true)
                }
                Step::Transfer(from, to) => {
                    let leads = line.holds(*from);
                    let accepted = leads.is_some() && alive.contains(to);
                    if let Some(priority) = leads.filter(|_| accepted && from != to) {
                        let stood = line.waiters.iter().find(|(id, _)| id == to).map(|(_, own)| *own);
                        line.drop(&[*from, *to]);
                        line.holders.push((*to, stood.unwrap_or(priority)));
                    }
                    (election::Operation::Transfer(claim(*from), SessionId(*to)), accepted)
                }
                _ => (election::Operation::Withdraw(claim(0)), true),
            };
            if let Some(agreed) = known {
                prop_assert!(agreed, "{step:?}");
            } else {
                let taken = run(&mut store, Action::One(Operation::Election(operation).encode()));
                prop_assert_eq!(taken, accepted, "{:?}", step);
            }
            line.waiters.sort_by_key(|(_, priority)| u64::MAX - priority);
            line.advance(|holders, _| holders.is_empty());
            let seen = election::show(store.view(), "e", 100);
            let leads = seen.leader.iter().map(|led| (led.session.0, u64::from(led.candidacy.priority)));
            let candidates = seen.candidates.iter().map(|place| (place.session.0, u64::from(place.terms.priority)));
            let shown = Line { holders: leads.collect(), waiters: candidates.collect() };
            prop_assert_eq!(shown, Line { holders: line.holders.clone(), waiters: line.waiters.clone() });
            prop_assert_eq!(seen.waiting, line.waiters.len());
            if let Some(led) = &seen.leader {
                // One term, one token.
                prop_assert!((led.token.0, led.session.0) == newest || led.token.0 > newest.0);
                newest = (led.token.0, led.session.0);
            } else {
                prop_assert_eq!(store.view().scan(election::FAMILY, &[]).count(), 0, "a vacant one leaves nothing");
            }
        }
    }
}

/// What happens at the head of a full line touches a handful of keys, however long it is.
#[test]
fn the_head_moves_alone() {
    let mut store = Store::new(Box::new(Recipes));
    let newest = |store: &Store| {
        let change = store.changes_after(coracle_store::Revision(store.revision().0 - 1)).unwrap().next();
        change.map_or(0, |change| change.events.len())
    };
    for id in 1..=semaphore::WAITERS + 1 {
        let acquire = semaphore::Operation::Acquire(Acquire {
            semaphore: "s".into(),
            permits: 1,
            limit: Some(1),
            attach: Attach::Private(open(id)),
            owner: "".into(),
            meta: "".into(),
            wait: true,
        });
        assert!(run(&mut store, Action::One(Operation::Semaphore(acquire).encode())));
    }
    for id in 1..20 {
        let claim = semaphore::Claim { semaphore: "s".into(), session: SessionId(id), token: None };
        assert!(run(
            &mut store,
            Action::One(Operation::Semaphore(semaphore::Operation::Release(claim)).encode())
        ));
        // Hold ended, place and hold of the next, counts, private session.
        assert_eq!(newest(&store), 5);
    }
    let campaign = |id: u64| {
        election::Operation::Campaign(Campaign {
            election: "e".into(),
            candidacy: Candidacy {
                priority: 0,
                value: coracle_store::Value::from(&b"v"[..]),
                content_type: ContentType::Text,
            },
            attach: Attach::Private(open(id + 20_000)),
            owner: "".into(),
            wait: true,
        })
    };
    for id in 1..=500 {
        assert!(run(&mut store, Action::One(Operation::Election(campaign(id)).encode())));
    }
    for id in 1..20 {
        let claim = election::Claim { election: "e".into(), session: SessionId(id + 20_000), token: None };
        assert!(run(
            &mut store,
            Action::One(Operation::Election(election::Operation::Resign(claim, false)).encode())
        ));
        // The same, and the public record of the leader.
        assert_eq!(newest(&store), 6);
    }
}
