//! What a checkpoint costs: `cargo run --release -p coracle-raft --example checkpoint_speed -- DIR`.
//!
//! As a loaded server does it: 200 000 puts of 256 B between two checkpoints, of which history keeps the last
//! 100 000; to few keys, many, and all different. For each: time under the state's lock, processor time of the write
//! and how long it takes, per put. The directory is used and left behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_raft::checkpoint::{Checkpoint, Options, Position};
use coracle_raft::types::LogId;
use coracle_store::command::{Attach, Precondition, Put};
use coracle_store::program::NoProgram;
use coracle_store::{
    Action, Command, ContentType, Family, Key, Operation, Principal, Revision, Store, Timestamp, Value,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PUTS: u32 = 200_000;
const HISTORY: u64 = 100_000;
const ROUNDS: u32 = 6;

fn command(action: Action) -> Vec<u8> {
    Command { principal: Principal("anonymous".into()), idempotency: None, guards: Vec::new(), action }
        .encode()
}

fn put(number: u64) -> Vec<u8> {
    command(Action::One(Operation::Put(Put {
        key: Key::new(Family::KV, format!("bench/keys/{number:012}").as_bytes()),
        value: Value::from(vec![b'v'; 256]),
        content_type: ContentType::Text,
        attach: Attach::None,
        precondition: Precondition::None,
        return_previous: false,
    })))
}

/// Time this thread has had a processor.
fn on_processor() -> Duration {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(schedule.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn measure(dir: &Path, keys: u64) {
    let _ = fs::remove_dir_all(dir);
    let (checkpoint, _) = Checkpoint::open(dir, Options::default()).expect("a usable directory");
    let mut store = Store::new(Box::new(NoProgram));
    let (mut locked, mut busy, mut took) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut next = 0;
    // The first two fill keys and history, and are not counted.
    for round in 0..ROUNDS + 2 {
        for _ in 0..PUTS {
            next += 1;
            store.apply(Timestamp(next), &put(next * 7_919 % keys));
            let old = Revision(store.revision().0.saturating_sub(HISTORY));
            if old.0 > store.compact_revision().0 + 1_000 {
                store.apply(Timestamp(next), &command(Action::Compact(old)));
            }
        }
        let before = (Instant::now(), on_processor());
        let delta = store.take_delta();
        let between = Instant::now();
        let position =
            Position { cluster: 1, applied: Some(LogId::new_term_index(1, next)), ..Position::default() };
        checkpoint.write(&delta, &position).expect("a write");
        drop(delta);
        if round >= 2 {
            locked += between - before.0;
            took += between.elapsed();
            busy += on_processor().saturating_sub(before.1);
        }
    }
    let puts = ROUNDS * PUTS;
    println!(
        "{keys:8} keys: {:4} ns locked, {:5} ns on processor, {:5} ns until durable, a put; a checkpoint locks {:?}",
        (locked / puts).as_nanos(),
        (busy / puts).as_nanos(),
        (took / puts).as_nanos(),
        locked / ROUNDS,
    );
}

fn main() {
    let dir = std::env::args().nth(1).expect("a directory");
    let keys = std::env::args().nth(2).and_then(|keys| keys.parse().ok());
    for keys in keys.map_or(vec![100, 10_000, 1_000_000], |keys| vec![keys]) {
        measure(Path::new(&dir), keys);
    }
}
