//! Clients of one queue: some send, some receive and settle, each writes down what it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::caller::Caller;
use crate::check::queues::{Delivery, QueueHistory, Sent, Settled, Verb};
use crate::http::Http;

pub const QUEUE: &str = "load";
/// How long a delivery is nobody else's. Short, so that what is left lying comes back within the test.
pub const VISIBILITY: Duration = Duration::from_secs(2);
/// Messages under way above which senders wait: on a fast machine they would leave workers behind for minutes.
const AHEAD: u64 = 150;
const SENDERS: usize = 3;
const WORKERS: usize = 4;

/// A queue in use until it is drained.
pub struct QueueLoad {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<QueueHistory>>,
    workers: Vec<JoinHandle<QueueHistory>>,
    looker: JoinHandle<QueueHistory>,
}

struct Shared {
    nodes: Vec<Http>,
    start: Instant,
    seed: u64,
    calls: Arc<AtomicU64>,
    sent: AtomicU64,
    settled: AtomicU64,
    sending: AtomicBool,
    working: AtomicBool,
}

struct Client {
    shared: Arc<Shared>,
    number: usize,
    caller: Caller,
    random: StdRng,
    history: QueueHistory,
}

impl QueueLoad {
    /// Configures the queue and starts the clients.
    pub async fn start(nodes: Vec<Http>) -> Self {
        let config = json!({"visibility": format!("{}ms", VISIBILITY.as_millis()), "max_deliveries": 1000});
        nodes[0].put(&format!("/v1/queues/{QUEUE}"), config.to_string()).expect(201).await;
        let seed = rand::random();
        eprintln!("queue load: seed {seed}");
        let shared = Arc::new(Shared {
            nodes,
            start: Instant::now(),
            seed,
            calls: Arc::default(),
            sent: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            sending: AtomicBool::new(true),
            working: AtomicBool::new(true),
        });
        let client = |number: usize| Client::new(&shared, number);
        let senders = (0..SENDERS).map(|n| tokio::spawn(client(n).send())).collect();
        let workers = (SENDERS..SENDERS + WORKERS).map(|n| tokio::spawn(client(n).work())).collect();
        let looker = tokio::spawn(look(shared.clone()));
        Self { shared, senders, workers, looker }
    }

    /// Waits until so many more messages are acknowledged.
    pub async fn goes_on(&self, messages: u64) {
        let done = || self.shared.settled.load(Ordering::Relaxed);
        let goal = done() + messages;
        crate::wait::until("the queue moves", Duration::from_secs(40), || async {
            if done() >= goal { Ok(()) } else { Err(format!("{} of {goal} acknowledged", done())) }
        })
        .await;
    }

    /// Stops sending, lets the workers empty the queue, and gathers what all were told.
    ///
    /// # Panics
    /// If it does not become empty.
    pub async fn drain(self) -> QueueHistory {
        self.shared.sending.store(false, Ordering::Relaxed);
        let mut history = QueueHistory { visibility: VISIBILITY, ..QueueHistory::default() };
        for sender in self.senders {
            history.extend(sender.await.expect("a sender that does not panic"));
        }
        let node = &self.shared.nodes[0];
        crate::wait::until("the queue is empty", Duration::from_mins(1), || async {
            let state = node.get(&format!("/v1/queues/{QUEUE}")).send().await.map_err(|e| e.to_string())?;
            let length = state.json()["length"].as_u64();
            if length == Some(0) { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
        self.shared.working.store(false, Ordering::Relaxed);
        for worker in self.workers {
            history.extend(worker.await.expect("a worker that does not panic"));
        }
        history.extend(self.looker.await.expect("a looker that does not panic"));
        eprintln!("queue load: {}", history.summary());
        history
    }
}

/// Ask one node after the other how long the queue is.
async fn look(shared: Arc<Shared>) -> QueueHistory {
    let mut history = QueueHistory::default();
    for node in shared.nodes.iter().cycle() {
        if !shared.working.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let call = node.get(&format!("/v1/queues/{QUEUE}")).patience(Duration::from_secs(3));
        let Ok(reply) = call.send().await else { continue };
        if let Some(length) = reply.json()["length"].as_u64() {
            history.lengths.push((reply.revision(), length));
        }
    }
    history
}

impl Client {
    fn new(shared: &Arc<Shared>, number: usize) -> Self {
        Self {
            caller: Caller::new(shared.nodes.clone(), number, shared.seed, shared.calls.clone()),
            random: StdRng::seed_from_u64(shared.seed.wrapping_add(number as u64)),
            shared: shared.clone(),
            number,
            history: QueueHistory::default(),
        }
    }

    fn now(&self) -> Duration {
        self.shared.start.elapsed()
    }

    async fn send(mut self) -> QueueHistory {
        let mut count = 0;
        while self.shared.sending.load(Ordering::Relaxed) {
            let ahead = self
                .shared
                .sent
                .load(Ordering::Relaxed)
                .saturating_sub(self.shared.settled.load(Ordering::Relaxed));
            if ahead > AHEAD {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            self.shared.sent.fetch_add(1, Ordering::Relaxed);
            count += 1;
            let value = format!("message-{}-{count}", self.number);
            let call = self.now();
            let reply = self.caller.post(&format!("/v1/queues/{QUEUE}/messages"), &value).await;
            let id = reply.map(|reply| {
                assert_eq!(reply.status, 201, "{reply:?}");
                reply.member("id")
            });
            self.history.sends.push(Sent { value, id, call, ret: self.now() });
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..20))).await;
        }
        self.history
    }

    async fn work(mut self) -> QueueHistory {
        while self.shared.working.load(Ordering::Relaxed) {
            let call = self.now();
            let most = self.random.random_range(1..4);
            let path = format!("/v1/queues/{QUEUE}/receive?max={most}&wait=500ms");
            let Some(reply) = self.caller.post(&path, "").await else { continue };
            assert_eq!(reply.status, 200, "{reply:?}");
            let ret = self.now();
            let received = deliveries(&reply.json(), call, ret);
            self.history.deliveries.extend(received.iter().cloned());
            for delivery in received {
                self.settle(&delivery).await;
            }
        }
        self.history
    }

    /// Mostly acknowledge; sometimes give it back, or leave it lying until it is somebody else's.
    async fn settle(&mut self, delivery: &Delivery) {
        let verb = match self.random.random_range(0..100) {
            0..75 => Verb::Ack,
            75..88 => Verb::Nack,
            _ => return,
        };
        if self.random.random_range(0..100) < 5 {
            // Too late, perhaps.
            tokio::time::sleep(VISIBILITY + Duration::from_millis(200)).await;
        }
        let word = if verb == Verb::Ack { "ack" } else { "nack" };
        let path = format!("/v1/queues/{QUEUE}/{word}?receipt={}", delivery.receipt);
        let call = self.now();
        let reply = self.caller.post(&path, "").await;
        let good = reply.map(|reply| match reply.status {
            200 => true,
            409 if reply.code() == "receipt_stale" => false,
            _ => panic!("{reply:?}"),
        });
        if verb == Verb::Ack && good == Some(true) {
            self.shared.settled.fetch_add(1, Ordering::Relaxed);
        }
        let (id, receipt) = (delivery.id.clone(), delivery.receipt.clone());
        self.history.settled.push(Settled { id, receipt, verb, good, call, ret: self.now() });
    }
}

fn deliveries(json: &Value, call: Duration, ret: Duration) -> Vec<Delivery> {
    let text = |item: &Value, member: &str| item[member].as_str().expect("a member of text").to_owned();
    let items = json["items"].as_array().expect("items").iter();
    let delivery = |item: &Value| Delivery {
        id: text(item, "id"),
        receipt: text(item, "receipt"),
        value: text(item, "value"),
        number: item["deliveries"].as_u64().expect("a number of deliveries"),
        call,
        ret,
    };
    items.map(delivery).collect()
}
