//! How fast the log takes entries on this disk: `cargo run --release -p coracle-raft --example wal_speed -- DIR`.
//!
//! For a few numbers of entries in flight: entries a second, entries per sync, processor time per entry, and how
//! long a caller waits. Then how long the log takes to open. The directory is used and left behind.

#![expect(clippy::cast_precision_loss, reason = "rates are printed, not computed with")]

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_raft::files;
use coracle_raft::types::{Entry, EntryPayload, LogId, Payload, Types};
use coracle_raft::wal::{Identity, Options, Wal};
use coracle_store::Timestamp;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

const VALUE: usize = 256;

fn entry(index: u64, command: &Bytes) -> Entry {
    let payload = EntryPayload::Normal(Payload { time: Timestamp(index), command: command.clone() });
    Entry { log_id: LogId::new_term_index(1, index), payload }
}

/// Processor time of this process, user and system.
fn processor() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Keep `depth` entries in flight for a while.
async fn drive(wal: &Wal, depth: usize, next: &mut u64) {
    let command = Bytes::from(vec![7; VALUE]);
    let mut wal = wal.clone();
    let mut waits = Vec::new();
    let mut flying = VecDeque::new();
    let (before, spent, began) = (wal.stats().sync_micros.count(), processor(), Instant::now());
    while began.elapsed() < Duration::from_secs(3) {
        while flying.len() < depth {
            let (tx, rx) = Types::oneshot();
            wal.append([entry(*next, &command)], IOFlushed::signal(tx)).await.expect("the log takes entries");
            *next += 1;
            flying.push_back((Instant::now(), rx));
        }
        let (since, rx) = flying.pop_front().expect("something is in flight");
        rx.await.expect("an answer").expect("durable");
        waits.push(since.elapsed());
    }
    let (took, spent) = (began.elapsed(), processor().saturating_sub(spent));
    let count = waits.len();
    waits.sort();
    let at = |share: usize| waits[(count * share / 1000).min(count - 1)].as_micros();
    println!(
        "in flight {depth:>4}: {:>7.0} entries/s, {:>5.1} per sync, {:>5.2} us of processor each, wait p50 {} p99 {} p99.9 {} max {} us",
        count as f64 / took.as_secs_f64(),
        count as f64 / (wal.stats().sync_micros.count() - before) as f64,
        spent.as_secs_f64() * 1e6 / count as f64,
        at(500),
        at(990),
        at(999),
        at(1000),
    );
}

fn main() {
    let dir = PathBuf::from(env::args().nth(1).expect("usage: wal_speed DIR [FILL_KIB]"));
    let mut options = Options::new(Identity { cluster: 1, node: 1 });
    if let Some(kib) = env::args().nth(2) {
        options.fill_bytes = kib.parse::<u32>().expect("a number of KiB") << 10;
    }
    let open = || {
        let began = Instant::now();
        let (wal, recovered) = Wal::open(files::native(), &dir, options.clone()).expect("the log opens");
        println!(
            "open: {:?}, {} entries in {} segments",
            began.elapsed(),
            recovered.entries,
            recovered.segments
        );
        (wal, recovered)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (wal, recovered) = open();
    let mut next = recovered.stamp.last.map_or(0, |last| last.index + 1);
    for depth in [1, 16, 64, 256] {
        runtime.block_on(drive(&wal, depth, &mut next));
    }
    println!("log: {} MiB in {} segments", wal.log_bytes() >> 20, wal.segments());
    drop(wal);
    open();
}
