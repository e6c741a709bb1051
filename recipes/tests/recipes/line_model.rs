//! Random sessions around a semaphore and an election, against models that are lists; and long lines.

use std::collections::{BTreeMap, BTreeSet};

use coracle_recipes::Operation;
use coracle_recipes::election::{self, Campaign, Candidacy};
use coracle_recipes::semaphore::{self, Acquire};
use coracle_store::{ContentType, SessionId, View};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::{Driver, attach};

const SESSIONS: u64 = 6;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Claim {
        session: u64,
        /// Permits, or the priority.
        what: u64,
        wait: bool,
        private: bool,
        /// The limit that a claim on permits brings along.
        limit: Option<u64>,
    },
    GiveUp(u64),
    Withdraw(u64),
    Transfer(u64, u64),
    /// The limit; in an election, resign and stand again.
    Change(u64),
    /// End all holds; in an election, the n-th session says something, with the token of the term or another.
    Break(u64, bool),
    Expire(Vec<u64>),
    Close(Vec<u64>),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = 1..=SESSIONS;
    let limit = prop_oneof![3 => Just(None), 3 => Just(Some(3)), 1 => (1..5_u64).prop_map(Some)];
    let claim = ((session.clone(), 1..4_u64), (prop::bool::weighted(0.8), prop::bool::weighted(0.2), limit))
        .prop_map(|((session, what), (wait, private, limit))| Step::Claim {
            session,
            what,
            wait,
            private,
            limit,
        });
    let step = prop_oneof![
        4 => session.clone().prop_map(Step::Open),
        12 => claim,
        5 => session.clone().prop_map(Step::GiveUp),
        2 => session.clone().prop_map(Step::Withdraw),
        2 => (session.clone(), session.clone()).prop_map(|(from, to)| Step::Transfer(from, to)),
        2 => (1..6_u64).prop_map(Step::Change),
        2 => (session.clone(), any::<bool>()).prop_map(|(session, right)| Step::Break(session, right)),
        2 => vec(session.clone(), 1..4).prop_map(Step::Expire),
        1 => vec(session, 1..4).prop_map(Step::Close),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..60)
}

/// Who has what, in the order of the grants; who wants what, in the order of the line.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Line {
    holders: Vec<(u64, u64)>,
    waiters: Vec<(u64, u64)>,
}

impl Line {
    fn has(&self, session: u64) -> bool {
        self.own(session).is_some()
    }

    /// What a session has or wants.
    fn own(&self, session: u64) -> Option<u64> {
        self.holders.iter().chain(&self.waiters).find(|(id, _)| *id == session).map(|(_, what)| *what)
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

/// A store and what is the same for both: sessions.
struct Run {
    driver: Driver,
    line: Line,
    /// Alive, and whether private.
    alive: BTreeMap<u64, bool>,
}

impl Run {
    fn new() -> Self {
        Self { driver: Driver::new(), line: Line::default(), alive: BTreeMap::new() }
    }

    fn does(&mut self, operation: &Operation) -> bool {
        self.driver.run(operation).is_ok()
    }

    /// Whether a step about sessions went as it should; `None`: it is about the line.
    fn common(&mut self, step: &Step) -> Option<bool> {
        Some(match step {
            Step::Open(id) => {
                let fresh = !self.alive.contains_key(id);
                self.alive.entry(*id).or_insert(false);
                self.driver.open(*id) == fresh
            }
            Step::Expire(ids) => {
                self.driver.expire(ids);
                self.end(ids);
                true
            }
            Step::Close(ids) => {
                let distinct: BTreeSet<_> = ids.iter().collect();
                let all = ids.iter().all(|id| self.alive.contains_key(id)) && distinct.len() == ids.len();
                if all {
                    self.end(ids);
                }
                self.driver.close(ids) == all
            }
            Step::Restart => {
                self.driver.restart();
                true
            }
            _ => return None,
        })
    }

    fn end(&mut self, ids: &[u64]) {
        self.alive.retain(|id, _| !ids.contains(id));
        self.line.drop(ids);
    }

    /// Whether a claim of somebody who has none finds its session.
    fn may(&self, session: u64, private: bool) -> bool {
        self.alive.contains_key(&session) != private
    }

    fn claims(&mut self, session: u64, what: u64, private: bool) {
        self.alive.entry(session).or_insert(private);
        self.line.waiters.push((session, what));
    }

    /// Private sessions end with their claim; otherwise those live that should.
    fn assert_sessions(&mut self) {
        let line = &self.line;
        self.alive.retain(|id, private| !*private || line.has(*id));
        let alive: Vec<u64> = self.driver.store.sessions().map(|session| session.id.0).collect();
        assert_eq!(alive, self.alive.keys().copied().collect::<Vec<_>>());
    }

    /// What was seen at each revision is seen there still, and when everybody is gone nothing is left.
    fn finish<S: PartialEq + std::fmt::Debug>(
        &mut self,
        seen: BTreeMap<coracle_store::Revision, S>,
        show: impl Fn(View<'_>) -> S,
    ) {
        for (revision, seen) in seen {
            assert_eq!(show(self.driver.store.view_at(revision).unwrap()), seen, "at {revision}");
        }
        self.driver.expire(&(1..=SESSIONS).collect::<Vec<_>>());
        self.driver.wait(1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_semaphore_is_two_lists_and_a_limit(steps in steps(), stays in any::<bool>()) {
        let (mut run, mut seen) = (Run::new(), BTreeMap::new());
        // How many there are, and whether that was set by itself.
        let mut limit = None;
        let claim = |session: u64| semaphore::Claim {
            semaphore: "s".into(), session: SessionId(session), token: None
        };
        let used = |holders: &[(u64, u64)]| holders.iter().map(|(_, permits)| *permits).sum::<u64>();
        if stays {
            run.does(&Operation::Semaphore(semaphore::Operation::Configure("s".into(), 3)));
            limit = Some((3, true));
        }
        for step in steps {
            let known = run.common(&step);
            let (operation, accepted) = match &step {
                Step::Claim { session, what: permits, wait, private, limit: given } => {
                    let operation = semaphore::Operation::Acquire(Acquire {
                        semaphore: "s".into(), permits: *permits, limit: *given,
                        attach: attach(*session, *private),
                        owner: "".into(), meta: "".into(), wait: *wait,
                    });
                    let most = limit.map(|(most, _)| most);
                    let fitting = most.or(*given).filter(|most| given.is_none_or(|given| given == *most));
                    let free = run.line.waiters.is_empty()
                        && fitting.is_some_and(|most| used(&run.line.holders) + permits <= most);
                    let own = run.line.own(*session);
                    let accepted = match own {
                        Some(has) => has == *permits,
                        None => fitting.is_some_and(|most| *permits <= most)
                            && run.may(*session, *private) && (free || *wait),
                    };
                    if accepted && own.is_none() {
                        run.claims(*session, *permits, *private);
                        limit = limit.or(fitting.map(|most| (most, false)));
                    }
                    (operation, accepted)
                }
                Step::GiveUp(session) => {
                    let had = run.line.has(*session);
                    run.line.drop(&[*session]);
                    (semaphore::Operation::Release(claim(*session)), had)
                }
                Step::Withdraw(session) => {
                    if run.line.holds(*session).is_none() {
                        run.line.drop(&[*session]);
                    }
                    (semaphore::Operation::Withdraw(claim(*session)), true)
                }
                Step::Transfer(from, to) => {
                    let line = &mut run.line;
                    let waits = line.waiters.iter().find(|(id, _)| id == to).map(|(_, permits)| *permits);
                    let has = line.holds(*from);
                    let accepted = has.is_some() && run.alive.contains_key(to) && line.holds(*to).is_none()
                        && waits.is_none_or(|permits| Some(permits) == has);
                    if let Some(permits) = has.filter(|_| accepted) {
                        line.drop(&[*from, *to]);
                        line.holders.push((*to, permits));
                    }
                    (semaphore::Operation::Transfer(claim(*from), SessionId(*to)), accepted)
                }
                Step::Change(to) => {
                    limit = Some((*to, true));
                    (semaphore::Operation::Configure("s".into(), *to), true)
                }
                Step::Break(_, reason) => {
                    let there = limit.is_some();
                    limit = limit.map(|(most, _)| (most, false));
                    run.line.holders.clear();
                    let reason = if *reason { "stuck" } else { "" };
                    (semaphore::Operation::Break("s".into(), reason.into()), there)
                }
                _ => (semaphore::Operation::Withdraw(claim(0)), true),
            };
            if let Some(agreed) = known {
                prop_assert!(agreed, "{step:?}");
            } else {
                prop_assert_eq!(run.does(&Operation::Semaphore(operation)), accepted, "{:?}", step);
            }
            let most = limit.map_or(0, |(most, _)| most);
            run.line.advance(|holders, permits| used(holders) + permits <= most);
            // What nobody set by itself goes with the last claim.
            let line = &run.line;
            limit = limit.filter(|(_, stays)| *stays || !(line.holders.is_empty() && line.waiters.is_empty()));
            let shown = semaphore::show(run.driver.store.view(), "s", 100);
            prop_assert_eq!(shown.as_ref().map(|shown| shown.limit), limit.map(|(most, _)| most));
            if let Some(shown) = &shown {
                let holders = shown.holders.iter().map(|hold| (hold.session.0, hold.terms.0)).collect();
                let waiters = shown.waiters.iter().map(|place| (place.session.0, place.terms.0)).collect();
                prop_assert_eq!(shown.free, most.saturating_sub(used(&line.holders)));
                prop_assert_eq!(&Line { holders, waiters }, line);
                prop_assert_eq!(shown.waiting, line.waiters.len());
                prop_assert!(shown.holders.is_sorted_by_key(|hold| (hold.token, hold.ordinal)));
            }
            seen.insert(run.driver.store.revision(), shown);
            run.assert_sessions();
        }
        run.finish(seen, |view| semaphore::show(view, "s", 100));
        // A limit that was set by itself is forgotten when it is broken.
        run.does(&Operation::Semaphore(semaphore::Operation::Break("s".into(), "".into())));
        prop_assert_eq!(run.driver.store.live_bytes(), 0, "no ghosts");
    }

    #[test]
    fn an_election_is_a_leader_and_a_sorted_list(steps in steps()) {
        let (mut run, mut seen, mut newest) = (Run::new(), BTreeMap::new(), (0, 0));
        // What the leader said last, if it said anything.
        let mut said: Option<(u64, &[u8])> = None;
        let claim = |session: u64, token| election::Claim {
            election: "e".into(), session: SessionId(session), token
        };
        for step in steps {
            let known = run.common(&step);
            let (operation, accepted) = match &step {
                Step::Claim { session, what: priority, wait, private, .. } => {
                    let operation = election::Operation::Campaign(Campaign {
                        election: "e".into(),
                        candidacy: Candidacy {
                            priority: u8::try_from(*priority).unwrap(),
                            value: coracle_store::Value::from(&b"v"[..]),
                            content_type: ContentType::Text,
                        },
                        attach: attach(*session, *private),
                        owner: "".into(),
                        wait: *wait,
                    });
                    let own = run.line.own(*session);
                    let accepted = match own {
                        Some(has) => has == *priority,
                        None => run.may(*session, *private) && (run.line.holders.is_empty() || *wait),
                    };
                    if accepted && own.is_none() {
                        run.claims(*session, *priority, *private);
                    }
                    (operation, accepted)
                }
                Step::GiveUp(session) => {
                    let had = run.line.has(*session);
                    run.line.drop(&[*session]);
                    (election::Operation::Resign(claim(*session, None), false), had)
                }
                Step::Change(session) => {
                    // A candidate that does this leaves; a leader goes to the tail.
                    let line = &mut run.line;
                    let had = line.has(*session);
                    let led = line.holds(*session);
                    line.drop(&[*session]);
                    line.waiters.sort_by_key(|(_, priority)| u64::MAX - priority);
                    line.advance(|holders, _| holders.is_empty());
                    line.waiters.extend(led.map(|priority| (*session, priority)));
                    (election::Operation::Resign(claim(*session, None), true), had)
                }
                Step::Withdraw(session) => {
                    if run.line.holds(*session).is_none() {
                        run.line.drop(&[*session]);
                    }
                    (election::Operation::Withdraw(claim(*session, None)), true)
                }
                Step::Transfer(from, to) => {
                    let line = &mut run.line;
                    let leads = line.holds(*from);
                    let accepted = leads.is_some() && run.alive.contains_key(to);
                    if let Some(priority) = leads.filter(|_| accepted && from != to) {
                        let stood = line.waiters.iter().find(|(id, _)| id == to).map(|(_, own)| *own);
                        line.drop(&[*from, *to]);
                        line.holders.push((*to, stood.unwrap_or(priority)));
                    }
                    (election::Operation::Transfer(claim(*from, None), SessionId(*to)), accepted)
                }
                Step::Break(session, right) => {
                    let token = coracle_store::Revision(if *right { newest.0 } else { newest.0 + 1 });
                    let accepted = *right && run.line.holds(*session).is_some();
                    if accepted {
                        said = Some((newest.0, b"w"));
                    }
                    let value = coracle_store::Value::from(&b"w"[..]);
                    (election::Operation::Proclaim(claim(*session, Some(token)), value, ContentType::Text), accepted)
                }
                _ => (election::Operation::Withdraw(claim(0, None)), true),
            };
            if let Some(agreed) = known {
                prop_assert!(agreed, "{step:?}");
            } else {
                prop_assert_eq!(run.does(&Operation::Election(operation)), accepted, "{:?}", step);
            }
            run.line.waiters.sort_by_key(|(_, priority)| u64::MAX - priority);
            run.line.advance(|holders, _| holders.is_empty());
            let shown = election::show(run.driver.store.view(), "e", 100);
            let leads = shown.leader.iter().map(|led| (led.session.0, u64::from(led.candidacy.priority)));
            let candidates = shown.candidates.iter().map(|place| (place.session.0, u64::from(place.terms.priority)));
            let line = Line { holders: leads.collect(), waiters: candidates.collect() };
            prop_assert_eq!(&line, &run.line);
            prop_assert_eq!(shown.waiting, run.line.waiters.len());
            if let Some(led) = &shown.leader {
                // One term, one token.
                prop_assert!((led.token.0, led.session.0) == newest || led.token.0 > newest.0);
                newest = (led.token.0, led.session.0);
                let transferred = said.is_some_and(|(token, _)| token < led.token.0);
                let expected = said.filter(|(token, _)| *token == led.token.0).map_or(&b"v"[..], |(_, said)| said);
                prop_assert!(&*led.candidacy.value == expected || transferred, "{:?}", led);
            } else {
                prop_assert_eq!(run.driver.store.view().scan(election::FAMILY, &[]).count(), 0, "a vacant one leaves nothing");
            }
            seen.insert(run.driver.store.revision(), shown);
            run.assert_sessions();
        }
        run.finish(seen, |view| election::show(view, "e", 100));
        prop_assert_eq!(run.driver.store.live_bytes(), 0, "no ghosts");
    }
}

/// What happens at the head of a full line touches a handful of keys, however long it is.
#[test]
fn the_head_moves_alone() {
    let mut driver = Driver::new();
    let newest = |driver: &Driver| {
        let store = &driver.store;
        let change = store.changes_after(coracle_store::Revision(store.revision().0 - 1)).unwrap().next();
        change.map_or(0, |change| change.events.len())
    };
    for id in 1..=semaphore::WAITERS + 1 {
        let acquire = semaphore::Operation::Acquire(Acquire {
            semaphore: "s".into(),
            permits: 1,
            limit: Some(1),
            attach: attach(id, true),
            owner: "".into(),
            meta: "".into(),
            wait: true,
        });
        driver.run(&Operation::Semaphore(acquire)).unwrap();
    }
    for id in 1..20 {
        let claim = semaphore::Claim { semaphore: "s".into(), session: SessionId(id), token: None };
        driver.run(&Operation::Semaphore(semaphore::Operation::Release(claim))).unwrap();
        // Hold ended, place and hold of the next, counts, private session.
        assert_eq!(newest(&driver), 5);
    }
    let campaign = |id: u64| {
        election::Operation::Campaign(Campaign {
            election: "e".into(),
            candidacy: Candidacy {
                priority: 0,
                value: coracle_store::Value::from(&b"v"[..]),
                content_type: ContentType::Text,
            },
            attach: attach(id + 20_000, true),
            owner: "".into(),
            wait: true,
        })
    };
    for id in 1..=500 {
        driver.run(&Operation::Election(campaign(id))).unwrap();
    }
    for id in 1..20 {
        let claim = election::Claim { election: "e".into(), session: SessionId(id + 20_000), token: None };
        driver.run(&Operation::Election(election::Operation::Resign(claim, false))).unwrap();
        // The same, and the public record of the leader.
        assert_eq!(newest(&driver), 6);
    }
}
