//! Random checks, against the greatest number so far.

use coracle_recipes::fence::{self, Operation as Op};
use coracle_recipes::{Operation, Outcome, Refusal};
use coracle_store::Revision;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::driver::{Driver, No};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fence_is_a_greatest_number(steps in vec((0..2_usize, prop::option::weighted(0.95, 1..20_u64)), 1..60)) {
        let mut driver = Driver::new();
        let mut seen: [Option<u64>; 2] = [None; 2];
        for (number, (which, token)) in steps.into_iter().enumerate() {
            let name = ["a", "a\0"][which];
            let before = seen[which];
            let (operation, expect) = match token {
                None => {
                    seen[which] = None;
                    (Op::Delete(name.into()), Ok(fence::Outcome::Deleted(before.map(Revision))))
                }
                Some(token) => {
                    let stale = before.filter(|seen| *seen > token);
                    seen[which] = before.max(Some(token));
                    let answer = match stale {
                        Some(seen) => Err(No::Recipe(Refusal::Fence(fence::Refusal::Stale(Revision(seen))))),
                        None => Ok(fence::Outcome::Passed(Revision(token), before.map(Revision))),
                    };
                    (Op::Check(name.into(), Revision(token)), answer)
                }
            };
            let quiet = driver.store.revision();
            prop_assert_eq!(driver.run(&Operation::Fence(operation)), expect.map(Outcome::Fence));
            prop_assert_eq!(driver.store.revision() > quiet, seen[which] != before, "only what rises is written");
            if number % 7 == 0 {
                driver.restart();
            }
            for (name, seen) in ["a", "a\0"].iter().zip(seen) {
                let actual = fence::read(driver.store.view(), name).map(|fence| fence.token.0);
                prop_assert_eq!(actual, seen);
            }
        }
    }
}
