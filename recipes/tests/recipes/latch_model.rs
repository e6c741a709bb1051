//! Random counting down, against a set of ids.

use std::collections::{BTreeMap, BTreeSet};

use coracle_recipes::latch::{self, CountDown, Create, Latch};
use coracle_recipes::{Operation, Outcome};
use coracle_store::Action;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use crate::driver::Driver;

const NAMES: [&str; 2] = ["a", "ab"];
const IDS: [&str; 6] = ["api", "db", "d", "web", "l", "\0"];

#[derive(Debug, Clone)]
enum Step {
    Create(usize, u64, BTreeSet<usize>),
    Down(usize, usize),
    Delete(usize),
    Compact,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (name, id) = (0..NAMES.len(), 0..IDS.len());
    let members = prop_oneof![2 => Just(BTreeSet::new()), 1 => btree_set(id.clone(), 1..4)];
    let step = prop_oneof![
        3 => (name.clone(), 0_u64..5, members).prop_map(|(name, count, members)| Step::Create(name, count, members)),
        12 => (name.clone(), id).prop_map(|(name, id)| Step::Down(name, id)),
        1 => name.prop_map(Step::Delete),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..80)
}

#[derive(Debug, Clone, PartialEq)]
struct Model {
    count: u64,
    members: BTreeSet<&'static str>,
    counted: BTreeSet<&'static str>,
}

impl Model {
    fn latch(&self) -> Latch {
        Latch { count: self.count, left: self.count - self.counted.len() as u64 }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_latch_is_a_set_of_ids(steps in steps()) {
        let mut driver = Driver::new();
        let mut models: BTreeMap<usize, Model> = BTreeMap::new();
        for step in steps {
            let before = driver.store.revision();
            match step {
                Step::Create(name, count, members) => {
                    let members: BTreeSet<_> = members.into_iter().map(|id| IDS[id]).collect();
                    let count = if members.is_empty() { count } else { members.len() as u64 };
                    let expect = match models.get(&name) {
                        Some(model) => (model.count == count && model.members == members).then_some(false),
                        None if count == 0 => None,
                        None => {
                            let counted = BTreeSet::new();
                            models.insert(name, Model { count, members: members.clone(), counted });
                            Some(true)
                        }
                    };
                    let members = members.into_iter().map(Box::from).collect();
                    let create = latch::Operation::Create(Create { latch: NAMES[name].into(), count, members });
                    let outcome = driver.run(&Operation::Latch(create)).ok();
                    let latch = models.get(&name).map(Model::latch);
                    let expect = expect.map(|made| Outcome::Latch(latch::Outcome::Latch(latch.unwrap(), made)));
                    prop_assert_eq!(outcome, expect);
                }
                Step::Down(name, id) => {
                    let down = CountDown { latch: NAMES[name].into(), id: IDS[id].into() };
                    let outcome = driver.run(&Operation::Latch(latch::Operation::CountDown(down))).ok();
                    let expect = models.get_mut(&name).and_then(|model| {
                        let named = model.members.is_empty() || model.members.contains(IDS[id]);
                        let counts = named && model.latch().left > 0 && model.counted.insert(IDS[id]);
                        named.then(|| Outcome::Latch(latch::Outcome::Counted(model.latch(), counts)))
                    });
                    prop_assert_eq!(outcome, expect);
                }
                Step::Delete(name) => {
                    let delete = latch::Operation::Delete(NAMES[name].into());
                    let done = driver.run(&Operation::Latch(delete)).is_ok();
                    prop_assert_eq!(done, models.remove(&name).is_some());
                }
                Step::Compact => {
                    driver.action(Action::Compact(driver.store.revision())).unwrap();
                }
                Step::Restart => driver.restart(),
            }
            for (at, name) in NAMES.iter().enumerate() {
                let actual = latch::read(driver.store.view(), name).map(|(latch, _)| latch);
                prop_assert_eq!(actual, models.get(&at).map(Model::latch));
                let missing = latch::missing(driver.store.view(), name, 9);
                let expect: Vec<_> = models.get(&at).into_iter()
                    .flat_map(|model| model.members.difference(&model.counted).map(|id| (*id).to_owned()))
                    .collect();
                prop_assert_eq!(missing, expect);
                // What waits for the opening hears of each opening, making and deleting, and of nothing else.
                let turns = latch::turning_points(name);
                let told = driver.store.changes_after(before).into_iter().flatten()
                    .any(|change| change.events.iter().any(|event| turns.contains(&event.key)));
                let was = was_closed(&driver, name, before);
                let is = actual.is_some_and(|latch| latch.left > 0);
                prop_assert_eq!(told, was != is);
            }
        }
        for name in NAMES {
            let _ = driver.run(&Operation::Latch(latch::Operation::Delete(name.into())));
        }
        prop_assert_eq!(driver.store.live_bytes(), 0, "nothing is left");
    }
}

/// Whether the latch was there and closed at an earlier revision.
fn was_closed(driver: &Driver, name: &str, at: coracle_store::Revision) -> bool {
    match driver.store.get_at(&latch::whole(name), at) {
        Ok(Some(record)) => minicbor::decode::<Latch>(&record.value).unwrap().left > 0,
        Ok(None) => false,
        Err(_) => latch::read(driver.store.view(), name).is_some_and(|(latch, _)| latch.left > 0),
    }
}
