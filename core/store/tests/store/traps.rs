//! Bugs that somebody had, and bounds that no small conversation reaches.

use coracle_store::command::{Delete, DeleteRange, Expiry, OpenSession, Precondition, Put};
use coracle_store::limits::{COMPACT_SLICE, DELETE_SLICE, EXPIRE_SLICE, HOLDS, OPERATIONS};
use coracle_store::program::NoProgram;
use coracle_store::{
    Action, Attach, Command, ContentType, Idempotency, Key, Loader, Millis, Operation, Outcome, Principal,
    Refusal, Reply, Revision, RowSource, SessionId, Store, Timestamp, Value,
};

use crate::rows_of;
use crate::words::kv;

fn store() -> Store {
    Store::new(Box::new(NoProgram))
}

fn apply(store: &mut Store, action: Action) -> Reply {
    let command =
        Command { principal: Principal("ann".into()), idempotency: None, guards: Vec::new(), action };
    store.apply(Timestamp(1_000), &command.encode())
}

fn put(key: Key, attach: Attach) -> Operation {
    Operation::Put(Put {
        key,
        value: Value::from(&b"v"[..]),
        content_type: ContentType::Text,
        attach,
        precondition: Precondition::None,
        return_previous: false,
    })
}

fn open(id: u64) -> Operation {
    Operation::OpenSession(OpenSession::new(SessionId(id), Millis(1_000)))
}

fn transaction(then: Vec<Operation>) -> Action {
    let (conditions, otherwise) = (Vec::new(), Vec::new());
    Action::Transaction(coracle_store::command::Transaction { conditions, then, otherwise })
}

#[test]
fn a_session_holds_so_much_and_no_more() {
    let mut store = store();
    apply(&mut store, Action::One(open(1)));
    let held = |number: usize| put(kv(&format!("{number:05}")), Attach::Session(SessionId(1)));
    for number in 0..HOLDS {
        assert!(apply(&mut store, Action::One(held(number))).result.is_ok());
    }
    let refused = apply(&mut store, Action::One(held(HOLDS))).result;
    assert_eq!(refused, Err(Refusal::TooManyHolds(SessionId(1), HOLDS as u64)));
    assert!(apply(&mut store, Action::One(held(0))).result.is_ok(), "what it holds it may write");
    let Ok(Outcome::Closed(keys)) =
        apply(&mut store, Action::One(Operation::CloseSession(SessionId(1)))).result
    else {
        panic!("closed")
    };
    assert_eq!(keys.len(), HOLDS);
    assert_eq!(keys.last(), Some(&kv("00000")), "the most recent last");
    assert_eq!(store.key_count(), 0);
}

#[test]
fn mass_expiry_goes_in_slices_and_never_splits_a_session() {
    let mut store = store();
    let many = EXPIRE_SLICE as u64 + 50;
    for id in 1..=many {
        apply(
            &mut store,
            transaction(vec![open(id), put(kv(&id.to_string()), Attach::Session(SessionId(id)))]),
        );
    }
    let all: Vec<_> = (1..=many).map(|id| Expiry { session: SessionId(id), generation: 1 }).collect();
    let first = apply(&mut store, Action::Expire(all.clone())).result;
    assert_eq!(first, Ok(Outcome::Expired(EXPIRE_SLICE as u64)));
    assert_eq!(store.key_count() as u64, 50);
    assert_eq!(store.sessions().count(), 50);
    assert_eq!(apply(&mut store, Action::Expire(all)).result, Ok(Outcome::Expired(50)));

    // Twelve sessions that hold as much as they may: ten fit.
    for id in 1..=12 {
        let mut operations = vec![open(id)];
        for number in 0..HOLDS {
            operations.push(put(kv(&format!("{id}/{number}")), Attach::Session(SessionId(id))));
            if operations.len() == OPERATIONS || number + 1 == HOLDS {
                assert!(apply(&mut store, transaction(std::mem::take(&mut operations))).result.is_ok());
            }
        }
    }
    let all: Vec<_> = (1..=12).map(|id| Expiry { session: SessionId(id), generation: 1 }).collect();
    assert_eq!(apply(&mut store, Action::Expire(all.clone())).result, Ok(Outcome::Expired(10)));
    assert_eq!(store.key_count(), 2 * HOLDS);
    assert_eq!(apply(&mut store, Action::Expire(all)).result, Ok(Outcome::Expired(2)));
}

#[test]
fn a_range_delete_and_a_compaction_go_in_slices() {
    let mut store = store();
    let many = DELETE_SLICE + 5;
    for number in 0..many {
        apply(&mut store, Action::One(put(kv(&format!("{number:06}")), Attach::None)));
    }
    let range = || Action::One(Operation::DeleteRange(DeleteRange { start: kv(""), end: None }));
    let Ok(Outcome::Deleted(first)) = apply(&mut store, range()).result else { panic!("deleted") };
    assert_eq!((first.deleted, first.more), (DELETE_SLICE as u64, true));
    let newest = store.revision();
    assert_eq!(
        store.get_at(&kv("000007"), Revision(newest.0 - 1)).unwrap().unwrap().mod_revision,
        Revision(8)
    );
    let Ok(Outcome::Deleted(rest)) = apply(&mut store, range()).result else { panic!("deleted") };
    assert_eq!((rest.deleted, rest.more), (5, false));

    let target = store.revision();
    let compacted = |store: &mut Store| apply(store, Action::Compact(target)).result;
    assert_eq!(compacted(&mut store), Ok(Outcome::Compacted(Revision(COMPACT_SLICE as u64))));
    // The big change counts by its events: it ends its slice.
    assert_eq!(compacted(&mut store), Ok(Outcome::Compacted(newest)));
    assert_eq!(compacted(&mut store), Ok(Outcome::Compacted(target)));
    assert_eq!(store.history().bytes, 0);
}

#[test]
fn a_transaction_has_so_many_operations_and_no_more() {
    let mut store = store();
    let puts = |count: usize| (0..count).map(|number| put(kv(&number.to_string()), Attach::None)).collect();
    assert!(apply(&mut store, transaction(puts(OPERATIONS))).result.is_ok());
    let refused = apply(&mut store, transaction(puts(OPERATIONS + 1))).result;
    assert_eq!(refused, Err(Refusal::TooManyOperations(OPERATIONS as u64)));
}

#[test]
fn keys_of_other_families_are_out_of_reach() {
    let mut store = store();
    apply(&mut store, Action::One(open(1)));
    let hash = store.hash();
    let foreign = Key::from_bytes(b"s\0\0\0\0\0\0\0\x01").unwrap();
    let delete = Delete { key: foreign.clone(), precondition: Precondition::None, return_previous: false };
    let range = DeleteRange { start: foreign.clone(), end: None };
    for operation in [
        put(foreign.clone(), Attach::None),
        Operation::Delete(delete),
        Operation::DeleteRange(range),
        Operation::Get(foreign),
    ] {
        let refusal = apply(&mut store, Action::One(operation)).result.unwrap_err();
        assert!(matches!(refusal, Refusal::OutOfBounds(ref what, ..) if &**what == "family"), "{refusal}");
    }
    // A range of keys ends with its family, even if its end is beyond.
    let range = DeleteRange { start: kv(""), end: Key::from_bytes(b"z") };
    apply(&mut store, Action::One(Operation::DeleteRange(range)));
    assert_eq!(store.hash(), hash);
}

#[test]
fn remembered_replies_are_capped_and_the_oldest_go_first() {
    let mut store = store();
    let value = Value::from(vec![b'v'; 1024 * 1024]);
    let large = |number: u64| {
        Operation::Put(Put {
            key: kv(&number.to_string()),
            value: value.clone(),
            content_type: ContentType::Text,
            attach: Attach::None,
            precondition: Precondition::None,
            return_previous: false,
        })
    };
    for number in 0..8 {
        apply(&mut store, Action::One(large(number)));
    }
    // Each answer carries 8 MiB, and 64 MiB are kept.
    let ask = |store: &mut Store, key: u64| {
        let action = transaction((0..8).map(|number| Operation::Get(kv(&number.to_string()))).collect());
        let idempotency = Some(Idempotency { key: key.to_string().into(), fingerprint: 7 });
        let command = Command { principal: Principal("ann".into()), idempotency, guards: Vec::new(), action };
        store.apply(Timestamp(1_000), &command.encode()).replayed
    };
    for number in 0..20 {
        assert!(!ask(&mut store, number));
    }
    assert!((13..20).all(|number| ask(&mut store, number)), "the newest stay");
    assert!(!ask(&mut store, 12), "the oldest went");
    assert!(!ask(&mut store, 13), "and what came again drops the next");
}

#[test]
fn large_histories_are_cut_into_chunks_that_go_one_by_one() {
    let mut store = store();
    let large = |number: u64| {
        Action::One(Operation::Put(Put {
            key: kv(&format!("{}", number % 3)),
            value: vec![b'v'; 10_000].into(),
            content_type: ContentType::Binary,
            attach: Attach::None,
            precondition: Precondition::None,
            return_previous: false,
        }))
    };
    let mut disk = std::collections::BTreeMap::new();
    for number in 0..100 {
        apply(&mut store, large(number));
        if number % 40 == 0 {
            for row in rows_of(&store.take_delta()) {
                disk.insert((row.table, row.key), row.value.unwrap());
            }
        }
    }
    apply(&mut store, Action::Compact(Revision(55)));
    for row in rows_of(&store.take_delta()) {
        match row.value {
            Some(value) => disk.insert((row.table, row.key), value),
            None => disk.remove(&(row.table, row.key)),
        };
    }
    let chunks: Vec<_> =
        disk.iter().filter(|((table, _), _)| *table == coracle_store::Table::Changes).collect();
    assert!(chunks.len() >= 8, "{}", chunks.len());
    // With key, checksum and lengths in a page of 64 KiB, and most of it used.
    assert!(chunks.iter().all(|(_, value)| value.len() < 64 * 1024 - 64));
    let bytes: usize = chunks.iter().map(|(_, value)| value.len()).sum();
    assert!(bytes / chunks.len() > 40 * 1024, "{bytes} bytes in {} chunks", chunks.len());
    let mut loader = Loader::new(Box::new(NoProgram));
    for ((table, key), value) in &disk {
        loader.row(*table, key, value).unwrap();
    }
    let again = loader.finish().unwrap();
    assert_eq!(again.compact_revision(), Revision(55));
    assert!(again.rows() == store.rows());
    assert!(again.changes_after(Revision(55)).unwrap().eq(store.changes_after(Revision(55)).unwrap()));
}

/// Each piece of long work in one go is a moment at which the thread may give way.
#[test]
fn the_rows_of_a_delta_are_found_and_let_go_in_turns() {
    const CHANGES: usize = 1_000;
    let mut store = store();
    for _ in 0..CHANGES {
        apply(&mut store, transaction(vec![put(kv("same"), Attach::None)]));
    }
    let delta = Box::new(store.take_delta());
    let (mut found, mut let_go) = (0, 0);
    drop(delta.rows(&mut || found += 1));
    assert!(found >= CHANGES, "{found}");
    delta.discard(&mut || let_go += 1);
    assert!(let_go >= CHANGES, "{let_go}");
}
