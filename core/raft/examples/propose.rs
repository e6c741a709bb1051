//! CPU time of one proposal and one read barrier over three nodes in one process, without HTTP: what replication
//! itself costs. `cargo run --release -p coracle-raft --example propose [SECONDS] [CLIENTS]`
//!
//! Each node has a runtime of one thread, as in production; clients are spread over the nodes.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use coracle_raft::types::Member;
use coracle_raft::{Node, Options, Start};
use coracle_store::command::{Precondition, Put};
use coracle_store::program::NoProgram;
use coracle_store::{Action, Attach, Command, ContentType, Family, Key, Operation, Principal};

const NODES: usize = 3;
const KEYS: u64 = 10_000;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let seconds = arguments.next().unwrap_or(5);
    let clients = arguments.next().unwrap_or(64);
    for reads in [false, true] {
        let (operations, cpu) = run(Duration::from_secs(seconds), clients, reads);
        let name = if reads { "read barrier" } else { "put 256 B" };
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let (rate, cost) = (operations as f64 / seconds as f64, cpu.as_secs_f64() * 1e6 / operations as f64);
        println!("{name}: {rate:.0}/s, {cost:.1} µs of CPU each, clients and all nodes together");
    }
}

fn run(time: Duration, clients: u64, reads: bool) -> (u64, Duration) {
    let listeners: Vec<_> = (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let members: Vec<_> = listeners
        .iter()
        .enumerate()
        .map(|(n, listener)| Member {
            name: format!("n{n}"),
            peer: listener.local_addr().expect("bound").to_string(),
            client: String::new(),
        })
        .collect();
    drop(listeners);
    let (gate, done, count) =
        (Arc::new(Barrier::new(NODES + 1)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let threads: Vec<_> = (0..NODES)
        .map(|n| {
            let (members, gate, done, count) = (members.clone(), gate.clone(), done.clone(), count.clone());
            let share = clients / NODES as u64 + u64::from((n as u64) < clients % NODES as u64);
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(serve(n, members, share, reads, &gate, done, count));
            })
        })
        .collect();
    gate.wait();
    let before = cpu();
    std::thread::sleep(time);
    let (operations, used) = (count.load(Ordering::Relaxed), cpu().checked_sub(before).unwrap());
    done.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a node");
    }
    (operations, used)
}

async fn serve(
    n: usize,
    members: Vec<Member>,
    clients: u64,
    reads: bool,
    gate: &Arc<Barrier>,
    done: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) {
    let data = tempfile::TempDir::new().expect("a directory");
    let (member, address) = (members[n].clone(), members[n].peer.parse().expect("an address"));
    let start = Start::Found { members, token: "bench".into() };
    let options = Options::new(data.path().to_owned(), member, address, start);
    let node = Node::start(options, || Box::new(NoProgram)).await.expect("a node");
    node.read_barrier(Instant::now() + Duration::from_secs(20)).await.expect("a leader");
    let gate = gate.clone();
    tokio::task::spawn_blocking(move || gate.wait()).await.expect("everybody");
    let load = (0..clients).map(|client| {
        let (node, done, count) = (node.clone(), done.clone(), count.clone());
        tokio::spawn(async move {
            let mut next = client * 7919 + n as u64;
            while !done.load(Ordering::Relaxed) {
                let deadline = Instant::now() + Duration::from_secs(10);
                next = (next * 6_364_136_223 + 1) % KEYS;
                if reads {
                    node.read_barrier(deadline).await.expect("a read");
                } else {
                    node.propose(&put(next), deadline).await.expect("a write");
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    futures::future::join_all(load.collect::<Vec<_>>()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.shutdown().await;
}

fn put(key: u64) -> Command {
    Command {
        principal: Principal("anonymous".into()),
        idempotency: None,
        guards: Vec::new(),
        action: Action::One(Operation::Put(Put {
            key: Key::new(Family::KV, format!("key-{key:08}").as_bytes()),
            value: vec![b'x'; 256].into(),
            content_type: ContentType::Text,
            attach: Attach::None,
            precondition: Precondition::None,
            return_previous: false,
        })),
    }
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}
