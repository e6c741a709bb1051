//! Calls that go from node to node until somebody answers for sure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;

use crate::http::{Http, Reply};

/// Of one call; each has the same Idempotency-Key.
const ATTEMPTS: u32 = 6;

/// The calls of one client.
pub struct Caller {
    nodes: Vec<Http>,
    node: usize,
    seed: u64,
    keys: Arc<AtomicU64>,
}

impl Caller {
    /// It begins at one of the nodes. `keys` counts the calls of all that have this seed.
    #[must_use]
    pub fn new(nodes: Vec<Http>, number: usize, seed: u64, keys: Arc<AtomicU64>) -> Self {
        Self { node: number % nodes.len(), nodes, seed, keys }
    }

    pub async fn post(&mut self, path: &str, body: &str) -> Option<Reply> {
        self.call(Method::POST, path, body, &[]).await
    }

    /// `None` is left in doubt.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Option<Reply> {
        let key = format!("{}-{}", self.seed, self.keys.fetch_add(1, Ordering::Relaxed));
        for _ in 0..ATTEMPTS {
            let mut call = self.nodes[self.node].call(method.clone(), path).body(body.to_owned());
            for (name, value) in headers {
                call = call.header(name, value);
            }
            match call.header("idempotency-key", &key).patience(Duration::from_secs(6)).send().await {
                // A node that cannot say: another one can, by the key.
                Ok(reply) if reply.status >= 500 || reply.status == 429 => {}
                Ok(reply) => return Some(reply),
                Err(_) => {}
            }
            self.node = (self.node + 1) % self.nodes.len();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }
}
