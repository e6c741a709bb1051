//! The index of watchers finds what asking each of them would find.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_store::{
    Cause, Change, ContentType, Event, Record, Revision, Selection, SessionId, Timestamp, Watchers, session,
};
use proptest::collection::vec;
use proptest::option;
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
        3 => session().prop_map(Selection::Session),
    ]
}

fn session() -> impl Strategy<Value = SessionId> {
    (1..4_u64).prop_map(SessionId)
}

fn record() -> impl Strategy<Value = Option<Arc<Record>>> {
    let record = |session| {
        Arc::new(Record {
            value: b"".as_slice().into(),
            content_type: ContentType::Text,
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            session,
        })
    };
    option::of(option::of(session()).prop_map(record))
}

fn event() -> impl Strategy<Value = Event> {
    let key = prop_oneof![4 => key(), 1 => session().prop_map(session::key)];
    (key, record(), record()).prop_map(|(key, record, previous)| Event {
        key,
        record,
        previous,
        cause: Cause::Command,
    })
}

/// As it is said: the session itself, or what is or was attached to it.
fn concerns(selection: &Selection, event: &Event) -> bool {
    let Selection::Session(id) = selection else { return selection.contains(&event.key) };
    let attached = |record: &Option<Arc<Record>>| record.as_ref().is_some_and(|it| it.session == Some(*id));
    event.key == session::key(*id) || attached(&event.record) || attached(&event.previous)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn found_are_those_that_select_an_event(
        selections in vec((selection(), any::<bool>()), 0..20),
        events in vec(event(), 1..5),
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
        let change = Change { revision: Revision(1), time: Timestamp(1), events: events.clone().into() };
        let mut found = Vec::new();
        watchers.matching(&change, &mut |id| found.push(id));
        let once: BTreeSet<_> = found.iter().copied().collect();
        prop_assert_eq!(once.len(), found.len(), "each once");
        for selection in expected.values() {
            prop_assert!(events.iter().all(|event| selection.concerns(event) == concerns(selection, event)));
        }
        expected.retain(|_, selection| events.iter().any(|event| concerns(selection, event)));
        prop_assert_eq!(once, expected.into_keys().collect::<BTreeSet<_>>());
    }
}
