//! Clients that write, read and lock at once, and write down what they were told.

mod actor;
mod caller;
mod draw;
pub mod elections;
pub mod queues;
mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::history::{History, Op, Sample};
use crate::http::Http;

/// How much, and on what.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Clients of keys, and clients of locks.
    pub clients: usize,
    pub lockers: usize,
    /// Few, so that they meet.
    pub keys: usize,
    pub locks: usize,
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { clients: 6, lockers: 3, keys: 12, locks: 2, seed: rand::random() }
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    shared: Arc<Shared>,
    actors: Vec<JoinHandle<Vec<Op>>>,
    samplers: Vec<JoinHandle<Vec<Sample>>>,
}

/// What all clients of one load share.
struct Shared {
    nodes: Vec<Http>,
    stop: AtomicBool,
    written: AtomicU64,
    start: Instant,
    shape: Shape,
}

impl Load {
    /// Starts the clients, each at a node of its own choice.
    #[must_use]
    pub fn start(nodes: Vec<Http>, shape: Shape) -> Self {
        eprintln!("load: {shape:?}");
        let all = shape.clients + shape.lockers;
        let shared = Shared {
            nodes,
            stop: AtomicBool::new(false),
            written: AtomicU64::new(0),
            start: Instant::now(),
            shape,
        };
        let shared = Arc::new(shared);
        let actors = (0..all).map(|client| tokio::spawn(actor::run(client, Arc::clone(&shared)))).collect();
        let nodes = 0..shared.nodes.len();
        let samplers = nodes.map(|node| tokio::spawn(sample(Arc::clone(&shared), node))).collect();
        Self { shared, actors, samplers }
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged.
    pub async fn goes_on(&self, writes: u64) {
        let goal = self.written() + writes;
        crate::wait::until("the load goes on", Duration::from_secs(40), || async {
            let written = self.written();
            if written >= goal { Ok(()) } else { Err(format!("{written} of {goal} writes")) }
        })
        .await;
    }

    /// Lets every client end what it does.
    ///
    /// # Panics
    /// If one panicked.
    pub async fn stop(self) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        for actor in self.actors {
            history.ops.extend(actor.await.expect("a client that does not panic"));
        }
        for sampler in self.samplers {
            history.samples.extend(sampler.await.expect("a sampler that does not panic"));
        }
        eprintln!("load: {} actions: {}", history.ops.len(), history.summary());
        history
    }
}

/// Ask a node again and again what it takes itself for.
async fn sample(shared: Arc<Shared>, node: usize) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let call = shared.nodes[node].get("/v1/cluster").patience(Duration::from_secs(3));
        let Ok(reply) = call.send().await else { continue };
        let json = reply.json();
        let (Some(term), leader) = (json["term"].as_u64(), json["leader"].as_str()) else { continue };
        samples.push(Sample { node, term, leader: leader.map(str::to_owned) });
    }
    samples
}
