//! The index of watchers finds what asking each of them would find.

use std::collections::{BTreeMap, BTreeSet};

use coracle_store::{Cause, Change, Event, Revision, Selection, Timestamp, Watchers};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::commands::key;

fn selection() -> impl Strategy<Value = Selection> {
    prop_oneof![
        1 => Just(Selection::All),
        4 => key().prop_map(Selection::Key),
        4 => (key(), 0..5_usize).prop_map(|(key, length)| {
            Selection::Prefix(key.as_bytes()[..length.min(key.as_bytes().len())].to_vec())
        }),
        2 => (key(), key()).prop_map(|(start, end)| Selection::Range(start, end)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn found_are_those_that_select_an_event(
        selections in vec((selection(), any::<bool>()), 0..20),
        keys in vec(key(), 1..5),
    ) {
        let mut watchers = Watchers::default();
        let mut expected = BTreeMap::new();
        for (selection, stays) in selections {
            let id = watchers.insert(selection.clone());
            if stays {
                expected.insert(id, selection);
            } else {
                watchers.remove(id);
                watchers.remove(id);
            }
        }
        prop_assert_eq!(watchers.len(), expected.len());
        let events = keys.iter().map(|key| Event { key: key.clone(), record: None, previous: None, cause: Cause::Command });
        let change = Change { revision: Revision(1), time: Timestamp(1), events: events.collect() };
        let mut found = Vec::new();
        watchers.matching(&change, &mut |id| found.push(id));
        let once: BTreeSet<_> = found.iter().copied().collect();
        prop_assert_eq!(once.len(), found.len(), "each once");
        expected.retain(|_, selection| keys.iter().any(|key| selection.contains(key)));
        prop_assert_eq!(once, expected.into_keys().collect::<BTreeSet<_>>());
    }
}
