//! Random comings and goings, against a map of members; and the division of the work.

use std::collections::{BTreeMap, BTreeSet};

use coracle_recipes::group::{self, Join, Leave, Seen};
use coracle_recipes::{Operation, Outcome};
use coracle_store::{Action, Attach, ContentType, SessionId};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use crate::driver::{Driver, attach};

const NAMES: [&str; 2] = ["a", "ab"];
const IDS: [&str; 4] = ["w", "w1", "v", "\0"];
const SESSIONS: u64 = 5;

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    /// A session and whether it is private; `None` keeps the one it is in.
    Join(usize, usize, Option<(u64, bool)>, u8),
    Leave(usize, usize, Option<u64>),
    Expire(Vec<u64>),
    Close(BTreeSet<u64>),
    Compact,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (name, id, session) = (0..NAMES.len(), 0..IDS.len(), 1..=SESSIONS);
    let live = prop_oneof![
        1 => Just(None),
        4 => (session.clone(), prop::bool::weighted(0.3)).prop_map(Some),
    ];
    let step = prop_oneof![
        4 => session.clone().prop_map(Step::Open),
        12 => (name.clone(), id.clone(), live, 0_u8..3).prop_map(|(n, id, s, said)| Step::Join(n, id, s, said)),
        4 => (name, id, prop::option::of(session.clone())).prop_map(|(n, id, s)| Step::Leave(n, id, s)),
        2 => vec(session.clone(), 1..4).prop_map(Step::Expire),
        1 => btree_set(session, 1..3).prop_map(Step::Close),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..60)
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Group {
    members: BTreeMap<&'static str, (u64, u8)>,
    view: u64,
}

#[derive(Default)]
struct Model {
    /// Alive, and whether private.
    sessions: BTreeMap<u64, bool>,
    groups: [Group; 2],
}

impl Model {
    fn end(&mut self, ended: &BTreeSet<u64>, revision: u64) {
        self.sessions.retain(|id, _| !ended.contains(id));
        for group in &mut self.groups {
            let before = group.members.len();
            group.members.retain(|_, (session, _)| !ended.contains(session));
            if group.members.len() < before {
                group.view = revision;
            }
        }
    }

    fn step(&mut self, step: &Step, revision: u64) -> bool {
        let accepted = match step {
            Step::Open(id) => {
                let fresh = !self.sessions.contains_key(id);
                self.sessions.entry(*id).or_insert(false);
                fresh
            }
            Step::Join(name, id, live, said) => {
                let group = &mut self.groups[*name];
                let current = group.members.get(IDS[*id]).map(|(session, _)| *session);
                let session = match live {
                    None => current,
                    Some((session, private)) => {
                        (self.sessions.contains_key(session) != *private).then_some(*session)
                    }
                };
                if let Some(session) = session {
                    if let Some((_, true)) = live {
                        self.sessions.insert(session, true);
                    }
                    group.members.insert(IDS[*id], (session, *said));
                    if current != Some(session) {
                        group.view = revision;
                    }
                }
                session.is_some()
            }
            Step::Leave(name, id, session) => {
                let group = &mut self.groups[*name];
                let holder = group.members.get(IDS[*id]).map(|(session, _)| *session);
                let may = holder.is_none() || session.is_none() || *session == holder;
                if may && group.members.remove(IDS[*id]).is_some() {
                    group.view = revision;
                }
                may
            }
            Step::Expire(ids) => {
                self.end(&ids.iter().copied().collect(), revision);
                true
            }
            Step::Close(ids) => {
                let all = ids.iter().all(|id| self.sessions.contains_key(id));
                if all {
                    self.end(ids, revision);
                }
                all
            }
            Step::Compact | Step::Restart => true,
        };
        let groups = &self.groups;
        self.sessions.retain(|id, private| {
            let used =
                groups.iter().flat_map(|group| group.members.values()).any(|(session, _)| session == id);
            !*private || used
        });
        accepted
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_group_is_a_map_of_members(steps in steps()) {
        let mut driver = Driver::new();
        let mut model = Model::default();
        for step in steps {
            let revision = driver.store.revision().0 + 1;
            let accepted = match &step {
                Step::Open(id) => driver.open(*id),
                Step::Join(name, id, live, said) => {
                    let attach = live.map_or(Attach::Keep, |(session, private)| attach(session, private));
                    let join = Join {
                        group: NAMES[*name].into(),
                        id: IDS[*id].into(),
                        attach,
                        payload: vec![*said].into(),
                        content_type: ContentType::Binary,
                        progress: Some(*said),
                    };
                    driver.run(&Operation::Group(group::Operation::Join(join))).is_ok()
                }
                Step::Leave(name, id, session) => {
                    let session = session.map(SessionId);
                    let leave = Leave { group: NAMES[*name].into(), id: IDS[*id].into(), session };
                    let there = model.groups[*name].members.contains_key(IDS[*id]);
                    match driver.run(&Operation::Group(group::Operation::Leave(leave))) {
                        Ok(Outcome::Group(group::Outcome::Left(_, left))) => {
                            prop_assert_eq!(left, there);
                            true
                        }
                        _ => false,
                    }
                }
                Step::Expire(ids) => {
                    driver.expire(ids);
                    true
                }
                Step::Close(ids) => driver.close(&ids.iter().copied().collect::<Vec<_>>()),
                Step::Compact => driver.action(Action::Compact(driver.store.revision())).is_ok(),
                Step::Restart => {
                    driver.restart();
                    true
                }
            };
            prop_assert_eq!(accepted, model.step(&step, revision), "{:?}", step);
            for (name, group) in NAMES.iter().zip(&model.groups) {
                let members: Vec<_> = group::members(driver.store.view(), name)
                    .map(|(id, session, member)| (id, session.0, member.progress.unwrap()))
                    .collect();
                let expect: Vec<_> =
                    group.members.iter().map(|(id, (session, said))| (String::from(*id), *session, *said)).collect();
                prop_assert_eq!(&members, &expect);
                let view = if members.is_empty() { 0 } else { group.view };
                let seen = group::seen(driver.store.view(), name);
                prop_assert_eq!((seen.size, seen.view.0), (members.len() as u64, view));
            }
            let alive: Vec<u64> = driver.store.sessions().map(|session| session.id.0).collect();
            prop_assert_eq!(alive, model.sessions.keys().copied().collect::<Vec<_>>());
        }
        driver.expire(&(1..=SESSIONS).collect::<Vec<_>>());
        prop_assert_eq!(driver.store.live_bytes(), 0, "nobody is left, and nothing");
        prop_assert_eq!(group::seen(driver.store.view(), "a"), Seen::default());
    }

    #[test]
    fn who_goes_leaves_only_its_own_slots(ids in btree_set("[a-z]{1,8}", 2..12), gone in any::<prop::sample::Index>()) {
        let ids: Vec<String> = ids.into_iter().collect();
        let gone = gone.index(ids.len());
        let rest: Vec<&String> = ids.iter().filter(|id| **id != ids[gone]).collect();
        let (before, after) = (group::shares(&ids, 256), group::shares(&rest, 256));
        prop_assert_eq!((before.len(), after.len()), (256, 256));
        for (owner, heir) in before.into_iter().zip(after) {
            prop_assert!(owner == gone || ids[owner] == *rest[heir]);
        }
    }
}

/// What nodes of different versions have to agree about is written down here once.
#[test]
fn the_division_never_changes() {
    let ids = ["a", "b", "c", "worker-1", "é"];
    assert_eq!(group::shares(&ids, 16), [3, 3, 3, 0, 1, 2, 4, 1, 2, 2, 2, 1, 2, 4, 2, 3]);
    let many: Vec<String> = (0..10).map(|n| format!("10.0.0.{n}:7070")).collect();
    let mut load = [0; 10];
    for owner in group::shares(&many, 4_096) {
        load[owner] += 1;
    }
    assert!(load.iter().all(|slots| (330..500).contains(slots)), "{load:?}");
}

#[test]
fn a_group_is_as_large_as_it_may_be_and_goes_at_once() {
    let mut driver = Driver::new();
    let join = |driver: &mut Driver, id: u64| {
        let join = Join {
            group: "g".into(),
            id: id.to_string().into(),
            attach: attach(id, true),
            payload: vec![].into(),
            content_type: ContentType::Text,
            progress: None,
        };
        driver.run(&Operation::Group(group::Operation::Join(join)))
    };
    for id in 1..=group::MEMBERS {
        join(&mut driver, id).unwrap();
    }
    join(&mut driver, group::MEMBERS + 1).unwrap_err();
    assert_eq!(group::seen(driver.store.view(), "g").size, group::MEMBERS);
    let all: Vec<u64> = (1..=group::MEMBERS).collect();
    for slice in all.chunks(256) {
        driver.expire(slice);
    }
    assert_eq!(driver.store.live_bytes(), 0);
}
