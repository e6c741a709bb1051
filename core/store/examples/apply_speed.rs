//! How long the store takes for one entry, and for a million keys: `cargo run --release --example apply_speed`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a stopwatch stands outside the store"
)]

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

/// Time this thread has had a processor, so that a busy machine does not blur the figures.
fn on_processor() -> u128 {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedule.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0)
}

fn timed<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let begin = (Instant::now(), on_processor());
    let result = work();
    let (took, processor) = (begin.0.elapsed(), on_processor() - begin.1);
    let each = processor / u128::from(count);
    println!(
        "{what:44} {:6} ms, on processor {:6} ms, {each:6} ns each",
        took.as_millis(),
        processor / 1_000_000
    );
    result
}

/// Resident memory, where the system tells it.
fn resident(what: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = status.lines().find(|line| line.starts_with("VmRSS")) {
        println!("{what:44} {}", line.trim_start_matches("VmRSS:").trim());
    }
}

fn main() {
    let keys = 1_000_000;
    let mut store = Store::new(Box::new(NoProgram));
    timed("create 1 M keys of 256 B (and encode)", keys, || {
        for at in 0..keys {
            let _ = black_box(store.apply(Timestamp(at), &put(at * 7_919 % keys, 256)));
            if at % 10_000 == 0 {
                compact(&mut store, Timestamp(at));
                drop(store.take_delta());
            }
        }
    });
    resident("resident, with 100 k changes of history");
    let mut disk = BTreeMap::new();
    for row in timed("all rows", keys, || store.rows()) {
        disk.insert((row.table, row.key), row.value.unwrap_or_default());
    }
    compact(&mut store, Timestamp(keys));
    timed("overwrite 200 k of them (and encode)", 200_000, || {
        for number in 0..200_000 {
            let _ = black_box(store.apply(Timestamp(keys), &put(number * 7_919 % keys, 256)));
        }
    });
    for few in [100, 10_000] {
        let same: Vec<Vec<u8>> = (0..few).map(|number| put(number * 7_919 % keys, 256)).collect();
        timed(&format!("overwrite {few} keys, 200 k times"), 200_000, || {
            for command in same.iter().cycle().take(200_000) {
                let _ = black_box(store.apply(Timestamp(keys), command));
            }
        });
    }
    timed("compact", 600_000, || compact(&mut store, Timestamp(keys)));
    drop(store);
    let loaded = timed("load the rows", keys, || {
        let mut loader = Loader::new(Box::new(NoProgram));
        for ((table, key), value) in &disk {
            loader.row(*table, key, value).expect("rows of a store");
        }
        loader.finish().expect("a whole store")
    });
    println!("{} keys, {} bytes, hash {:032x}", loaded.key_count(), loaded.live_bytes(), loaded.hash());
}
