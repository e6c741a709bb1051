//! Candidates of one election: each campaigns, leads for a while, says something, and resigns, stands again or is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::caller::Caller;
use crate::check::elections::{ElectionHistory, News, Spoke, Term};
use crate::http::Http;

pub const ELECTION: &str = "load";
/// Short, so that whoever is lost is followed within the test.
const TTL: Duration = Duration::from_secs(2);
const CANDIDATES: usize = 6;

/// An election in use until it is stopped.
pub struct ElectionLoad {
    shared: Arc<Shared>,
    candidates: Vec<JoinHandle<ElectionHistory>>,
    observers: Vec<JoinHandle<Vec<News>>>,
}

struct Shared {
    nodes: Vec<Http>,
    start: Instant,
    terms: AtomicU64,
    stop: AtomicBool,
}

struct Candidate {
    shared: Arc<Shared>,
    caller: Caller,
    random: StdRng,
    session: String,
    /// When the last renewal that was answered well was sent.
    renewed: Duration,
    history: ElectionHistory,
}

impl ElectionLoad {
    #[must_use]
    pub fn start(nodes: Vec<Http>) -> Self {
        let seed = rand::random();
        eprintln!("election load: seed {seed}");
        let (terms, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { nodes, start: Instant::now(), terms, stop });
        let keys = Arc::new(AtomicU64::new(0));
        let candidate = |number: usize| Candidate {
            caller: Caller::new(shared.nodes.clone(), number, seed, keys.clone()),
            random: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
            shared: shared.clone(),
            session: String::new(),
            renewed: Duration::ZERO,
            history: ElectionHistory::default(),
        };
        let candidates = (0..CANDIDATES).map(|number| tokio::spawn(candidate(number).run())).collect();
        let observers =
            (0..shared.nodes.len()).map(|node| tokio::spawn(observe(shared.clone(), node))).collect();
        Self { shared, candidates, observers }
    }

    /// Waits until so many more terms have begun.
    pub async fn goes_on(&self, terms: u64) {
        let begun = || self.shared.terms.load(Ordering::Relaxed);
        let goal = begun() + terms;
        crate::wait::until("leaders follow each other", Duration::from_mins(1), || async {
            if begun() >= goal { Ok(()) } else { Err(format!("{} of {goal} terms", begun())) }
        })
        .await;
    }

    /// Lets everybody end what it does, and gathers what all were told.
    ///
    /// # Panics
    /// If one panicked.
    pub async fn stop(self) -> ElectionHistory {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = ElectionHistory::default();
        for candidate in self.candidates {
            history.extend(candidate.await.expect("a candidate that does not panic"));
        }
        for observer in self.observers {
            history.observers.push(observer.await.expect("an observer that does not panic"));
        }
        eprintln!("election load: {}", history.summary());
        history
    }
}

impl Candidate {
    fn now(&self) -> Duration {
        self.shared.start.elapsed()
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    async fn run(mut self) -> ElectionHistory {
        while !self.stopped() {
            if self.open().await {
                self.stand().await;
            }
        }
        self.history
    }

    async fn open(&mut self) -> bool {
        let call = self.now();
        let Some(reply) = self.caller.post("/v1/sessions?ttl=2s", "").await else { return false };
        assert_eq!(reply.status, 201, "{reply:?}");
        (self.session, self.renewed) = (reply.member("id"), call);
        true
    }

    /// False: the session is over.
    async fn renew(&mut self) -> bool {
        let call = self.now();
        match self.caller.post(&format!("/v1/sessions/{}/renew", self.session), "").await {
            Some(reply) if reply.status == 200 => self.renewed = call,
            Some(reply) if reply.status == 410 => return false,
            Some(reply) => panic!("{reply:?}"),
            None => {}
        }
        true
    }

    /// Campaign with one session until it is over.
    async fn stand(&mut self) {
        let priority = self.random.random_range(0..3);
        let path = format!(
            "/v1/elections/{ELECTION}/campaign?session={}&priority={priority}&wait=400ms&keep=true",
            self.session
        );
        while !self.stopped() {
            let call = self.now();
            let Some(reply) = self.caller.post(&path, "here").await else { continue };
            match reply.status {
                200 => {
                    let (session, ret) = (self.session.clone(), self.now());
                    self.shared.terms.fetch_add(1, Ordering::Relaxed);
                    let token = reply.number("token");
                    let sure = self.lead(token).await;
                    self.history.terms.push(Term { session, token, call, ret, sure });
                }
                202 => {}
                410 => return,
                _ => panic!("{reply:?}"),
            }
            if !self.renew().await {
                return;
            }
        }
        // Whatever it may still be goes with its session.
        self.caller.call(Method::DELETE, &format!("/v1/sessions/{}", self.session), "", &[]).await;
    }

    /// Lead for a while; until when it was sure to.
    async fn lead(&mut self, token: u64) -> Duration {
        for _ in 0..self.random.random_range(1..4) {
            self.speak(token).await;
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..50))).await;
            if !self.renew().await {
                break;
            }
        }
        let lost = self.renewed + TTL;
        if self.chance(25) {
            // It sleeps past its time, and does not know.
            tokio::time::sleep(TTL + TTL / 2).await;
            self.speak(token).await;
            return lost;
        }
        let rejoin = if self.chance(30) { "&rejoin=true" } else { "" };
        let resigns = self.now();
        let session = &self.session;
        let path = format!("/v1/elections/{ELECTION}/resign?session={session}&token={token}{rejoin}");
        self.caller.post(&path, "").await;
        self.speak(token).await;
        resigns.min(lost)
    }

    /// Say something as the leader, and write something that only the leader may.
    async fn speak(&mut self, token: u64) {
        let (session, held) = (&self.session, format!("elections/{ELECTION}; token={token}"));
        let said = format!("/v1/elections/{ELECTION}/proclaim?session={session}&token={token}");
        let written =
            self.caller.call(Method::PUT, "/v1/kv/led", &token.to_string(), &[("if-held", &held)]).await;
        let replies = [written, self.caller.post(&said, "still here").await];
        for reply in replies.into_iter().flatten() {
            match reply.status {
                200 | 201 => self.history.spoke.push(Spoke { token, revision: reply.revision() }),
                409 | 410 | 412 => self.history.late += 1,
                _ => panic!("{reply:?}"),
            }
        }
    }
}

/// What an observer of one node, or of the next if that is down, is told of who leads.
async fn observe(shared: Arc<Shared>, mut node: usize) -> Vec<News> {
    let (mut seen, mut after) = (Vec::new(), 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let path = format!("/v1/events?family=elections&after={after}&heartbeat=1s");
        node = (node + 1) % shared.nodes.len();
        let Ok(mut frames) = shared.nodes[node].stream(Method::GET, &path).await else { continue };
        while frames.status == 200 && !shared.stop.load(Ordering::Relaxed) {
            let line = frames.line_within(Duration::from_mins(1));
            let Ok(Some(line)) = tokio::time::timeout(Duration::from_secs(2), line).await else { break };
            let Ok(frame) = serde_json::from_str::<Value>(&line) else { break };
            assert_ne!(frame["type"], "gap", "nothing is compacted here");
            let Some(revision) = frame["revision"].as_u64() else { continue };
            for event in frame["events"].as_array().into_iter().flatten() {
                let op = event["op"].as_str().unwrap_or_default();
                if matches!(op, "elected" | "proclaimed" | "vacant") {
                    seen.push((revision, op.to_owned(), event["token"].as_u64()));
                }
            }
            after = after.max(revision);
        }
    }
    seen
}
