//! Random sums, against a map of numbers.

use std::collections::BTreeMap;

use coracle_recipes::counter::{self, MAX, MIN, Set};
use coracle_recipes::{Operation, Outcome, Refusal};
use coracle_store::command::Precondition;
use coracle_store::{Action, Revision};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::{Driver, No};

const NAMES: [&str; 3] = ["a", "a\0", "ab"];

#[derive(Debug, Clone)]
enum Step {
    Add(usize, i64, Option<i64>, Option<i64>),
    Set(usize, i64, Known),
    Delete(usize, Known),
    Compact,
    Restart,
}

/// What a writer says it knows.
#[derive(Debug, Clone, Copy)]
enum Known {
    Nothing,
    Newest,
    Old,
    Absent,
    Present,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = || prop_oneof![8 => -9_i64..10, 1 => Just(MAX), 1 => Just(MIN), 1 => any::<i64>()];
    let known = || {
        let all = [Known::Nothing, Known::Newest, Known::Old, Known::Absent, Known::Present];
        proptest::sample::select(all.to_vec())
    };
    let name = 0..NAMES.len();
    let bound = || prop::option::weighted(0.4, number());
    let step = prop_oneof![
        10 => (name.clone(), number(), bound(), bound()).prop_map(|(n, d, min, max)| Step::Add(n, d, min, max)),
        5 => (name.clone(), number(), known()).prop_map(|(name, value, known)| Step::Set(name, value, known)),
        2 => (name, known()).prop_map(|(name, known)| Step::Delete(name, known)),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..80)
}

/// Value and revision of each counter that was written.
type Model = BTreeMap<usize, (i64, u64)>;

fn precondition(model: &Model, name: usize, known: Known) -> (Precondition, bool) {
    let now = model.get(&name).map(|(_, revision)| *revision);
    match known {
        Known::Nothing => (Precondition::None, true),
        Known::Newest => (Precondition::Matches(Revision(now.unwrap_or(0))), now.is_some()),
        Known::Old => (Precondition::Matches(Revision(now.unwrap_or(9) - 1)), false),
        Known::Absent => (Precondition::Absent, now.is_none()),
        Known::Present => (Precondition::Present, now.is_some()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_counter_is_a_number(steps in steps()) {
        let mut driver = Driver::new();
        let mut model = Model::new();
        for step in steps {
            let next = driver.store.revision().0 + 1;
            match step {
                Step::Add(name, delta, min, max) => {
                    let previous = model.get(&name).map_or(0, |(value, _)| *value);
                    let sum = i128::from(previous) + i128::from(delta);
                    let (least, most) = (min.unwrap_or(MIN).max(MIN), max.unwrap_or(MAX).min(MAX));
                    let expect = if (i128::from(least)..=i128::from(most)).contains(&sum) {
                        let sum = i64::try_from(sum).unwrap();
                        if delta != 0 {
                            model.insert(name, (sum, next));
                        }
                        Ok(Outcome::Counter(counter::Outcome::Value(sum, previous)))
                    } else {
                        Err(No::Recipe(Refusal::Counter(counter::Refusal::OutOfRange(previous, least, most))))
                    };
                    prop_assert_eq!(driver.run(&counter::add(NAMES[name], delta, min, max)), expect);
                }
                Step::Set(name, value, known) => {
                    let (precondition, holds) = precondition(&model, name, known);
                    let set = Set { counter: NAMES[name].into(), value, precondition };
                    let done = driver.run(&Operation::Counter(counter::Operation::Set(set))).is_ok();
                    prop_assert_eq!(done, holds && (MIN..=MAX).contains(&value));
                    if done {
                        model.insert(name, (value, next));
                    }
                }
                Step::Delete(name, known) => {
                    let (precondition, holds) = precondition(&model, name, known);
                    let delete = counter::Operation::Delete(NAMES[name].into(), precondition);
                    let done = driver.run(&Operation::Counter(delete)).is_ok();
                    prop_assert_eq!(done, holds);
                    if done {
                        model.remove(&name);
                    }
                }
                Step::Compact => {
                    driver.action(Action::Compact(driver.store.revision())).unwrap();
                }
                Step::Restart => driver.restart(),
            }
            for (at, name) in NAMES.iter().enumerate() {
                let now = counter::read(driver.store.view(), name);
                prop_assert_eq!((now.value, now.revision.0), model.get(&at).copied().unwrap_or((0, 0)));
            }
            let names: Vec<_> = model.keys().map(|name| NAMES[*name].to_owned()).collect();
            prop_assert_eq!(counter::names(driver.store.view(), "", None, 9), names);
        }
    }
}
