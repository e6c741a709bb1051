//! Properties of random conversations: like the model, alike on two nodes, whole after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_store::program::NoProgram;
use coracle_store::{
    Delta, Family, HistoryError, Key, Loader, Order, Range, Record, Revision, Row, Session, SessionId, Store,
    Table, Timestamp, View,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use crate::commands::{Entry, entries, key};
use crate::model::{Keys, Model, live_bytes};
use crate::rows_of;

fn store() -> Store {
    Store::new(Box::new(NoProgram))
}

fn load<'a>(rows: impl Iterator<Item = (Table, &'a [u8], &'a [u8])>) -> Store {
    let mut loader = Loader::new(Box::new(NoProgram));
    for (table, key, value) in rows {
        loader.row(table, key, value).expect("rows of a store");
    }
    // Loading counts and hashes everything from scratch and compares it with the running hash.
    loader.finish().expect("a whole store")
}

type Disk = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn write(disk: &mut Disk, delta: &Delta) {
    let rows = rows_of(delta);
    assert!(rows == rows_of(delta), "the same rows when it is gone through again");
    assert_eq!(delta.is_empty(), rows.is_empty());
    assert!(rows.is_sorted_by(|a, b| (a.table, &a.key) < (b.table, &b.key)), "in order, one row a key");
    for Row { table, key, value } in rows {
        match value {
            Some(value) => {
                let before = disk.insert((table, key), value);
                assert!(table != Table::Changes || before.is_none(), "a chunk is written once");
            }
            None => assert!(
                disk.remove(&(table, key)).is_some() || table == Table::Keys || table == Table::Replies
            ),
        }
    }
}

fn load_disk(disk: &Disk) -> Store {
    load(disk.iter().map(|((table, key), value)| (*table, &key[..], &value[..])))
}

/// The same for all that can be asked, whatever the checkpoints were.
fn assert_same(a: &Store, b: &Store) {
    assert_eq!(a.hash(), b.hash());
    assert!(a.rows() == b.rows(), "equal rows");
    assert_eq!(a.live_bytes(), b.live_bytes());
    assert_eq!(a.key_count(), b.key_count());
    assert_eq!(a.history(), b.history());
    assert_eq!(a.due(), b.due());
    assert!(a.sessions().eq(b.sessions()));
    for session in a.sessions() {
        assert!(a.view().attached(session.id).eq(b.view().attached(session.id)));
    }
    let compacted = a.compact_revision();
    assert_eq!(compacted, b.compact_revision());
    assert!(a.changes_after(compacted).unwrap().eq(b.changes_after(compacted).unwrap()));
}

fn all_keys(store: &Store) -> Keys {
    let mut keys = Keys::new();
    for family in [Family::KV, Family::SESSION] {
        keys.extend(store.view().scan(family, &[]).map(|(key, record)| (key.clone(), Record::clone(record))));
    }
    keys
}

/// Everything that can be asked of the past.
fn assert_history(store: &Store, model: &Model) {
    let (compacted, newest) = (model.compacted, model.revision().0);
    let names: BTreeSet<&Key> = model.at.iter().flat_map(BTreeMap::keys).collect();
    for at in (0..newest + 2).map(Revision) {
        let gone = HistoryError::Compacted(Revision(compacted));
        let past = model.at.get(usize::try_from(at.0).unwrap());
        match past {
            Some(past) if at.0 >= compacted => {
                let time = model.times[usize::try_from(at.0).unwrap()];
                assert_view(store.view_at(at).unwrap(), at, past);
                assert!(at.0 == compacted || at.0 == newest || store.view_at(at).unwrap().now() == time);
            }
            _ => assert!(store.view_at(at).is_err()),
        }
        for name in &names {
            let actual = store.get_at(name, at);
            match past {
                _ if at.0 < compacted => assert_eq!(actual, Err(gone)),
                None => assert_eq!(actual, Err(HistoryError::Future(Revision(newest)))),
                Some(past) => assert_eq!(actual.unwrap().as_deref(), past.get(*name), "{name:?} at {at}"),
            }
        }
        if let Some(past) = past.filter(|_| at.0 >= compacted) {
            assert_left(store, model, at, past);
        }
        match store.changes_after(at) {
            Err(error) => {
                assert!(at.0 < compacted);
                assert_eq!(error, gone);
            }
            Ok(changes) => {
                let changes: Vec<_> = changes.collect();
                assert!(at.0 >= compacted);
                assert_eq!(changes.len() as u64, newest.saturating_sub(at.0), "no gap and no end too soon");
                for (revision, change) in (at.0 + 1..).zip(changes) {
                    assert_change(change, model, revision);
                }
            }
        }
    }
    for name in names {
        let touched = |revision: &u64| {
            let now = usize::try_from(*revision).unwrap();
            model.at[now].get(name) != model.at[now - 1].get(name)
        };
        let expected: Vec<u64> = (compacted + 1..=newest).rev().filter(touched).collect();
        let actual = store.key_history(name);
        assert_eq!(actual.map(|(revision, ..)| revision.0).collect::<Vec<_>>(), expected);
    }
}

/// What hung on a session then or since, and does not now, is told with the revision at which it left.
fn assert_left(store: &Store, model: &Model, at: Revision, past: &Keys) {
    let since = usize::try_from(at.0).unwrap();
    for id in (0..8).map(SessionId) {
        let hangs = |keys: &Keys, key: &Key| keys.get(key).is_some_and(|record| record.session == Some(id));
        let mut expected = BTreeMap::new();
        for (before, (revision, after)) in
            model.at[since..].iter().zip((at.0 + 1..).zip(&model.at[since + 1..]))
        {
            let left = before.keys().filter(|key| hangs(before, key) && !hangs(after, key));
            expected.extend(left.map(|key| (key.clone(), Revision(revision))));
        }
        expected.retain(|key, _| !hangs(model.keys(), key));
        let told: BTreeMap<_, _> =
            store.left(id, at).map(|(revision, event)| (event.key.clone(), revision)).collect();
        assert_eq!(told, expected, "what left {id} after {at}, {} keys then", past.len());
    }
}

/// A view of a revision answers what was there then, whatever is asked and from whichever end.
fn assert_view(view: View<'_>, at: Revision, past: &Keys) {
    assert_eq!(view.revision(), at);
    let all: Vec<(&Key, &Record)> = past.iter().collect();
    let of = |chosen: &dyn Fn(&Key) -> bool| -> Vec<(Key, Record)> {
        let chosen = all.iter().filter(|(key, _)| chosen(key));
        chosen.map(|(key, record)| ((*key).clone(), Record::clone(record))).collect()
    };
    let owned = |(key, record): (&Key, &Arc<Record>)| (key.clone(), Record::clone(record));
    for family in [Family::KV, Family::SESSION] {
        for prefix in [&b""[..], b"a", b"a/", b"b"] {
            let expected = of(&|key| key.family() == family && key.name().starts_with(prefix));
            assert_eq!(view.scan(family, prefix).map(owned).collect::<Vec<_>>(), expected);
            let mut backwards: Vec<_> = view.scan(family, prefix).rev().map(owned).collect();
            backwards.reverse();
            assert_eq!(backwards, expected);
            let start = Key::new(family, prefix);
            let behind = of(&|key| key.family() == family && *key >= start);
            assert_eq!(view.seek(&start).map(owned).collect::<Vec<_>>(), behind);
            // From both ends at once: each key is met by one of them.
            let (mut ends, mut met) = (view.seek(&start), Vec::new());
            while let Some(first) = ends.next() {
                met.push(owned(first));
                met.extend(ends.next_back().map(owned));
            }
            met.sort_by(|(a, _), (b, _)| a.cmp(b));
            assert_eq!(met, behind);
        }
    }
    let living: Vec<Session> = of(&|key| key.family() == Family::SESSION)
        .iter()
        .map(|(_, record)| Session::decode(&record.value).unwrap())
        .collect();
    let shown: Vec<Session> = view.sessions(None).map(|session| Session::clone(&session)).collect();
    assert_eq!(shown, living);
    for id in (0..8).map(SessionId) {
        let expected = living.iter().find(|session| session.id == id);
        assert_eq!(view.session(id).as_deref().map(|session| &**session), expected);
        assert_eq!(view.sessions(Some(id)).count(), living.iter().filter(|s| s.id > id).count());
        let attached = |prefix: &[u8]| {
            let keys = past
                .iter()
                .filter(|(key, record)| record.session == Some(id) && key.as_bytes().starts_with(prefix));
            keys.map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(view.attached(id).collect::<Vec<_>>(), attached(b""));
        for prefix in [&b"k"[..], b"ka", b"kb", b"\xff"] {
            assert_eq!(view.attached_under(id, prefix).collect::<Vec<_>>(), attached(prefix));
        }
    }
}

/// A change is exactly what differs between two revisions, each key once.
fn assert_change(change: &coracle_store::Change, model: &Model, revision: u64) {
    let now = usize::try_from(revision).unwrap();
    let (before, after) = (&model.at[now - 1], &model.at[now]);
    assert_eq!(change.revision.0, revision);
    assert_eq!(change.time, model.times[now]);
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    let expected: BTreeMap<&Key, _> = keys
        .into_iter()
        .map(|key| (key, (before.get(key), after.get(key))))
        .filter(|(_, (a, b))| a != b)
        .collect();
    let record = |record: &'_ Option<Arc<Record>>| record.as_deref().cloned();
    assert_eq!(change.events.len(), expected.len());
    for event in &change.events {
        let (previous, new) = expected[&event.key];
        assert_eq!(record(&event.previous).as_ref(), previous, "previous of {:?}", event.key);
        assert_eq!(record(&event.record).as_ref(), new);
    }
}

/// Any range, in pages of any size: each key of that revision exactly once, in order.
fn assert_pages(store: &Store, model: &Model, asked: &Range) {
    let at = asked.at.unwrap_or(model.revision());
    let Some(past) = model.at.get(usize::try_from(at.0).unwrap()).filter(|_| at.0 >= model.compacted) else {
        assert!(store.range(asked).is_err());
        assert!(store.count(asked).is_err());
        return;
    };
    let inside = |key: &Key| {
        key.family() == Family::KV && *key >= asked.start && asked.end.as_ref().is_none_or(|end| key < end)
    };
    let mut expected: Vec<(Key, Record)> = past
        .iter()
        .filter(|(key, _)| inside(key))
        .map(|(key, record)| (key.clone(), record.clone()))
        .collect();
    assert_eq!(store.count(asked).unwrap(), expected.len());
    if asked.order == Order::Descending {
        expected.reverse();
    }
    let mut actual = Vec::new();
    let mut page_asked = asked.clone();
    loop {
        let page = store.range(&page_asked).unwrap();
        assert_eq!(page.revision, at);
        assert!(page.items.len() <= asked.limit);
        actual.extend(page.items.iter().map(|(key, record)| (key.clone(), Record::clone(record))));
        let Some((last, _)) = page.items.last().filter(|_| page.more) else { break };
        match asked.order {
            Order::Ascending => {
                page_asked.start = Key::new(Family::KV, &[last.name(), &[0]].concat());
            }
            Order::Descending => page_asked.end = Some(last.clone()),
        }
    }
    assert_eq!(actual, expected);
}

fn range() -> impl Strategy<Value = Range> {
    let order = prop_oneof![Just(Order::Ascending), Just(Order::Descending)];
    let at = proptest::option::of((0..40_u64).prop_map(Revision));
    (key(), proptest::option::of(key()), order, 1..5_usize, at)
        .prop_map(|(start, end, order, limit, at)| Range { start, end, order, limit, at })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_model(entries in entries(40), ranges in prop::collection::vec(range(), 8)) {
        let (mut store, mut model) = (store(), Model::new());
        let mut time = Timestamp(0);
        for Entry { pass, command } in &entries {
            time.0 += pass;
            let before = (*pass == 0).then(|| store.rows());
            let reply = store.apply(time, &command.encode());
            prop_assert_eq!(&reply, &model.apply(time, command), "{:?}", command);
            prop_assert_eq!(store.revision(), model.revision());
            prop_assert_eq!(store.now(), model.now);
            prop_assert_eq!(store.due(), model.due());
            prop_assert_eq!(&all_keys(&store), model.keys());
            prop_assert_eq!(store.live_bytes(), live_bytes(model.keys()));
            if let Some(before) = before.filter(|_| reply.result.is_err() && command.idempotency.is_none()) {
                prop_assert!(before == store.rows(), "a refusal leaves the state byte for byte as it was");
            }
        }
        assert_history(&store, &model);
        for range in &ranges {
            assert_pages(&store, &model, range);
        }
    }

    #[test]
    fn a_restart_at_any_time_changes_nothing(entries in entries(40), every in 1..6_usize) {
        let mut never = store();
        let mut often = store();
        let mut disk = Disk::new();
        let mut time = Timestamp(0);
        for (count, Entry { pass, command }) in (1..).zip(&entries) {
            time.0 += pass;
            let command = command.encode();
            prop_assert_eq!(never.apply(time, &command), often.apply(time, &command));
            prop_assert_eq!(never.hash(), often.hash());
            if count % every == 0 {
                write(&mut disk, &often.take_delta());
                if count % (2 * every) == 0 {
                    often = load_disk(&disk);
                    prop_assert!(often.take_delta().is_empty(), "what was loaded is saved");
                }
            }
        }
        assert_same(&never, &often);
        write(&mut disk, &often.take_delta());
        let loaded = load_disk(&disk);
        assert_same(&never, &loaded);
        let rows = never.rows();
        let spooled = load(rows.iter().map(|row| (row.table, &row.key[..], &row.value.as_ref().unwrap()[..])));
        assert_same(&never, &spooled);
        // The first delta of a store that was never asked has everything.
        let mut all = Disk::new();
        write(&mut all, &never.take_delta());
        assert_same(&never, &load_disk(&all));
        prop_assert!(never.take_delta().is_empty());
    }

    #[test]
    fn any_bytes_give_a_reply(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut store = store();
        let hash = store.hash();
        let reply = store.apply(Timestamp(1), &bytes);
        prop_assert!(reply.result.is_ok() || store.hash() == hash);
    }
}

#[test]
fn a_damaged_row_is_found() {
    let mut store = store();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..50 {
        let entry = entries(2).new_tree(&mut runner).unwrap().current();
        for Entry { command, .. } in entry {
            store.apply(Timestamp(1), &command.encode());
        }
    }
    let rows = store.rows();
    for (damaged, row) in rows.iter().enumerate().filter(|(_, row)| row.table != Table::Replies) {
        for byte in 0..row.value.as_ref().unwrap().len() {
            let mut loader = Loader::new(Box::new(NoProgram));
            let mut result = Ok(());
            for (position, row) in rows.iter().enumerate() {
                let mut value = row.value.clone().unwrap();
                if position == damaged {
                    value[byte] ^= 0x10;
                }
                result = result.and_then(|()| loader.row(row.table, &row.key, &value));
            }
            assert!(
                result.and_then(|()| loader.finish().map(drop)).is_err(),
                "row {damaged} byte {byte} of {row:?}"
            );
        }
    }
    // A missing row is found, too.
    for missing in 0..rows.len() {
        if rows[missing].table == Table::Replies {
            continue;
        }
        let mut loader = Loader::new(Box::new(NoProgram));
        for (_, row) in rows.iter().enumerate().filter(|(position, _)| *position != missing) {
            loader.row(row.table, &row.key, row.value.as_ref().unwrap()).unwrap();
        }
        assert!(loader.finish().is_err());
    }
}
