//! One client: draws an action, sends it until it knows or gives up, writes down what it learnt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Shared;
use super::draw::Draw;
use super::send::{Told, send};
use crate::history::{Action, Answer, Op, Outcome};

/// Of one action; each has the same Idempotency-Key.
const ATTEMPTS: u32 = 4;

struct Actor {
    client: usize,
    shared: Arc<Shared>,
    draw: Draw,
    node: usize,
    ops: Vec<Op>,
}

pub async fn run(client: usize, shared: Arc<Shared>) -> Vec<Op> {
    let random = StdRng::seed_from_u64(shared.shape.seed.wrapping_add(client as u64));
    let node = client % shared.nodes.len();
    let draw = Draw::new(random, client, shared.shape.keys);
    let mut actor = Actor { client, draw, node, ops: Vec::new(), shared };
    if client < actor.shared.shape.clients {
        actor.use_keys().await;
    } else {
        actor.use_locks().await;
    }
    actor.ops
}

impl Actor {
    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    async fn use_keys(&mut self) {
        let mut session = None;
        while !self.stopped() {
            if session.is_none() {
                session = self.open_session().await;
            }
            if self.draw.chance(2)
                && let Some(session) = session.take()
            {
                // With it go its keys.
                let _ = self.shared.nodes[self.node].delete(&format!("/v1/sessions/{session}")).send().await;
                continue;
            }
            if self.draw.chance(3) {
                self.node = self.draw.choose(self.shared.nodes.len());
            }
            let action = self.draw.action(session.as_deref());
            // A read is never in doubt, and without a key a write in doubt stays so.
            let key = self.draw.chance(60);
            self.act(action, key).await;
        }
    }

    async fn use_locks(&mut self) {
        while !self.stopped() {
            let Some(session) = self.open_session().await else { continue };
            for _ in 0..50 {
                if self.stopped() {
                    return;
                }
                let lock = format!("load-{}", self.draw.choose(self.shared.shape.locks));
                let action = Action::Acquire { lock: lock.clone(), session: session.clone() };
                let outcome = self.act(action, true).await;
                let Outcome::Ok { answer: Answer::Granted { token }, .. } = outcome else {
                    if matches!(outcome, Outcome::Unknown { .. }) {
                        break;
                    }
                    continue;
                };
                let release = Action::Release { lock, session: session.clone(), token };
                if matches!(self.act(release, true).await, Outcome::Unknown { .. }) {
                    break;
                }
            }
            // Whatever it may still hold goes with it.
            let _ = self.shared.nodes[self.node].delete(&format!("/v1/sessions/{session}")).send().await;
        }
    }

    /// A session that outlives the load. Its own calls are not part of the history.
    async fn open_session(&mut self) -> Option<String> {
        let call = self.shared.nodes[self.node].post("/v1/sessions", r#"{"ttl":"10m","on_expire":"delete"}"#);
        match call.send().await {
            Ok(reply) if reply.status == 201 => Some(reply.member("id")),
            _ => {
                self.move_on();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                None
            }
        }
    }

    fn move_on(&mut self) {
        self.node = (self.node + 1) % self.shared.nodes.len();
    }

    async fn act(&mut self, action: Action, repeat: bool) -> Outcome {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let key =
            repeat.then(|| format!("{}-{}", self.shared.shape.seed, KEYS.fetch_add(1, Ordering::Relaxed)));
        let call = self.shared.start.elapsed();
        let mut in_doubt: Option<String> = None;
        let mut attempts = 0;
        let outcome = loop {
            attempts += 1;
            let told = send(&self.shared.nodes[self.node], &action, key.as_deref()).await;
            let again = repeat && attempts < ATTEMPTS;
            match told {
                Told::Known(outcome) => {
                    // A refusal is not remembered: an attempt before it may still be on its way, and find other conditions.
                    break match (&outcome, &in_doubt) {
                        (Outcome::No { .. }, Some(why)) => Outcome::Unknown { why: why.clone() },
                        _ => outcome,
                    };
                }
                Told::Nothing(code) if !again => {
                    break match in_doubt {
                        None => Outcome::No { code, revision: None, current: None },
                        Some(why) => Outcome::Unknown { why },
                    };
                }
                Told::Doubt(why) if !again => break Outcome::Unknown { why },
                Told::Doubt(why) => in_doubt = Some(why),
                Told::Nothing(_) => {}
            }
            self.move_on();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        if !matches!(outcome, Outcome::Ok { .. }) && !repeat {
            self.move_on();
        }
        let ret = self.shared.start.elapsed();
        let op = Op { client: self.client, call, ret, attempts, action, outcome: outcome.clone() };
        if op.changed() {
            self.shared.written.fetch_add(1, Ordering::Relaxed);
        }
        self.draw.learn(&op);
        self.ops.push(op);
        outcome
    }
}
