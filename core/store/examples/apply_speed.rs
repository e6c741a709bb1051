//! How long the store takes for one entry, and for a million keys: `cargo run --release --example apply_speed`.

#![allow(clippy::disallowed_types, reason = "a stopwatch stands outside the store")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use coracle_store::command::{Attach, Precondition, Put};
use coracle_store::program::NoProgram;
use coracle_store::{
    Action, Command, ContentType, Family, Key, Loader, Operation, Principal, Revision, Store, Timestamp,
    Value,
};

fn put(number: u64, bytes: usize) -> Vec<u8> {
    let key = Key::new(Family::KV, format!("bench/keys/{number:012}").as_bytes());
    let action = Action::One(Operation::Put(Put {
        key,
        value: Value::from(vec![b'v'; bytes]),
        content_type: ContentType::Text,
        attach: Attach::None,
        precondition: Precondition::None,
        return_previous: false,
    }));
    Command { principal: Principal("anonymous".into()), idempotency: None, guards: Vec::new(), action }
        .encode()
}

fn compact(store: &mut Store, time: Timestamp) {
    let target = Revision(store.revision().0.saturating_sub(100_000));
    let action = Action::Compact(target);
    let command =
        Command { principal: Principal("leader".into()), idempotency: None, guards: Vec::new(), action };
    while store.compact_revision() < target {
        store.apply(time, &command.encode());
    }
}

fn timed<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    let took = begin.elapsed();
    println!("{what:44} {:6} ms  {:6} ns each", took.as_millis(), took.as_nanos() / u128::from(count));
    result
}

fn main() {
    let keys = 1_000_000;
    let commands: Vec<Vec<u8>> = (0..keys).map(|number| put(number * 7_919 % keys, 256)).collect();
    let mut store = Store::new(Box::new(NoProgram));
    timed("create 1 M keys of 256 B", keys, || {
        for (at, command) in (0..).zip(&commands) {
            let _ = black_box(store.apply(Timestamp(at), command));
            if at % 100_000 == 0 {
                compact(&mut store, Timestamp(at));
            }
        }
    });
    let delta = timed("take the delta", keys, || store.take_delta());
    let rows = timed("its rows", keys, || delta.rows());
    drop(delta);
    let mut disk = BTreeMap::new();
    for row in rows {
        disk.insert((row.table, row.key), row.value.unwrap_or_default());
    }
    compact(&mut store, Timestamp(keys));
    timed("overwrite 200 k of them", 200_000, || {
        for command in &commands[..200_000] {
            let _ = black_box(store.apply(Timestamp(keys), command));
        }
    });
    let same: Vec<Vec<u8>> = (0..100).map(|number| put(number, 256)).collect();
    timed("overwrite 100 keys, 200 k times", 200_000, || {
        for command in same.iter().cycle().take(200_000) {
            let _ = black_box(store.apply(Timestamp(keys), command));
        }
    });
    timed("compact", 400_000, || compact(&mut store, Timestamp(keys)));
    let loaded = timed("load the rows", keys, || {
        let mut loader = Loader::new(Box::new(NoProgram));
        for ((table, key), value) in &disk {
            loader.row(*table, key, value).expect("rows of a store");
        }
        loader.finish().expect("a whole store")
    });
    println!("{} keys, {} bytes, hash {:032x}", loaded.key_count(), loaded.live_bytes(), loaded.hash());
}
