//! Loading very many keys, and how a node comes back with them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use serde_json::json;

use crate::cluster::Cluster;
use crate::http::Http;

/// Keys of one transaction: as many as it may have.
const TOGETHER: usize = 128;
/// Transactions under way at once.
const CLIENTS: usize = 16;

/// How many keys of what size.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    pub keys: usize,
    /// Of each value.
    pub bytes: usize,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub load: Duration,
    /// From the start of the process after `kill -9` to the first good `/readyz`.
    pub ready: Duration,
    pub resident_before: u64,
    pub resident_after: u64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "loaded in {:.1} s; after kill -9 ready in {:.2} s; resident {} MiB before, {} MiB after the restart",
            self.load.as_secs_f64(),
            self.ready.as_secs_f64(),
            self.resident_before >> 20,
            self.resident_after >> 20
        )
    }
}

impl Volume {
    fn value(self, key: usize) -> String {
        let mut value = format!("{key:08x}-").repeat(self.bytes / 9 + 1);
        value.truncate(self.bytes);
        value
    }

    /// Writes all the keys.
    ///
    /// # Errors
    /// If a write fails.
    pub async fn load(self, http: &Http) -> Result<()> {
        let starts = (0..self.keys).step_by(TOGETHER);
        let writes = starts.map(|start| async move {
            let range = start..(start + TOGETHER).min(self.keys);
            let puts: Vec<_> = range
                .map(|key| json!({"op": "put", "key": format!("scale/{key:08}"), "value": self.value(key)}))
                .collect();
            let reply = http
                .post("/v1/txn", json!({"then": puts}).to_string())
                .patience(Duration::from_mins(1))
                .send()
                .await?;
            ensure!(reply.status == 200, "{reply:?}");
            Ok(())
        });
        let mut writes = futures::stream::iter(writes).buffer_unordered(CLIENTS);
        while let Some(written) = writes.next().await {
            written?;
        }
        Ok(())
    }

    /// Whether all are there, by their number and by some of them.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(self, http: &Http) -> Result<()> {
        let count = http.get("/v1/kv?prefix=scale/&count_only=true").send().await?.number("count");
        ensure!(count == self.keys as u64, "{count} of {} keys", self.keys);
        for key in (0..self.keys).step_by((self.keys / 100).max(1)) {
            let reply = http.get(&format!("/v1/kv/scale/{key:08}")).send().await?;
            ensure!(reply.text() == self.value(key), "{reply:?}");
        }
        Ok(())
    }

    /// Loads one node, kills it, and measures how it comes back.
    ///
    /// # Errors
    /// If anything fails or is missing afterwards.
    pub async fn measure(self) -> Result<Figures> {
        let mut cluster = Cluster::start(1).await;
        let http = cluster.nodes[0].http().clone();
        let start = Instant::now();
        self.load(&http).await.context("load")?;
        let load = start.elapsed();
        self.check(&http).await.context("before the kill")?;
        let resident_before = cluster.nodes[0].resident_bytes();
        cluster.nodes[0].kill9();
        let start = Instant::now();
        cluster.nodes[0].restart().await;
        let ready = start.elapsed();
        self.check(&http).await.context("after the restart")?;
        let resident_after = cluster.nodes[0].resident_bytes();
        Ok(Figures { load, ready, resident_before, resident_after })
    }
}
