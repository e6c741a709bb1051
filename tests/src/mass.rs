//! Very many sessions that run out in the same moment, and whether anybody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use reqwest::Method;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::http::{Frames, Http};

/// Requests under way at once while the sessions are opened.
const CLIENTS: usize = 64;
/// Sessions that one entry ends at most.
const SLICE: usize = 256;
/// Sessions that are kept meanwhile, and locks that are taken and released.
const OTHERS: usize = 4;

/// How many sessions, each with one key.
#[derive(Clone, Copy, Debug)]
pub struct Mass {
    pub sessions: usize,
    /// From the first opening to the common end.
    pub within: Duration,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub opened: Duration,
    /// From the moment they run out to the last expiry.
    pub gone: Duration,
    /// Entries it took.
    pub entries: usize,
    /// The slowest of each, of all that were asked from just before the end to the last expiry.
    pub renewal: Duration,
    pub release: Duration,
    pub asked: usize,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "opened in {:.1?}; all gone {:.2?} after their end in {} entries; meanwhile {} calls, the slowest renewal \
             {:.0?}, the slowest release {:.0?}",
            self.opened, self.gone, self.entries, self.asked, self.renewal, self.release
        )
    }
}

impl Mass {
    /// Opens the sessions on three nodes so that all end in one moment, and watches that moment.
    ///
    /// # Errors
    /// If one ended early, or was left, if an entry ended too many, or if a session that was renewed was lost.
    pub async fn measure(self) -> Result<Figures> {
        let mut cluster = Cluster::start(3).await;
        let nodes = cluster.https();
        let start = Instant::now();
        let end = start + self.within;
        let first = nodes[0].get("/v1/kv?prefix=mass/&count_only=true").send().await?.revision();
        self.open(&nodes, end).await.context("open")?;
        let opened = start.elapsed();
        ensure!(opened < self.within, "not open before their end: {opened:.1?} of {:.1?}", self.within);

        let path = format!("/v1/events?family=sessions&after={first}");
        let events = nodes[1].stream(Method::GET, &path).await?;
        tokio::time::sleep_until((start + self.within.saturating_sub(Duration::from_millis(700))).into())
            .await;
        let left = nodes[2].get("/v1/kv?prefix=mass/&count_only=true").send().await?.number("count");
        ensure!(left == self.sessions as u64, "{left} of {} before their end", self.sessions);
        let stop = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..OTHERS)
            .flat_map(|other| {
                let (keeper, locker) = (nodes[other % 3].clone(), nodes[(other + 1) % 3].clone());
                let (stop, again) = (stop.clone(), stop.clone());
                [tokio::spawn(keep(keeper, stop)), tokio::spawn(lock(locker, other, again))]
            })
            .collect();
        let (entries, last) = self.expiries(events).await?;
        stop.store(true, Ordering::Relaxed);
        let [renewals, releases] = gather(others).await?;
        let left = nodes[2].get("/v1/kv?prefix=mass/&count_only=true").send().await?.number("count");
        ensure!(left == 0, "{left} keys of sessions that have ended");
        cluster.converged().await;
        let slowest = |took: &[Duration]| took.iter().max().copied().unwrap_or_default();
        Ok(Figures {
            opened,
            gone: last.saturating_duration_since(end),
            entries,
            renewal: slowest(&renewals),
            release: slowest(&releases),
            asked: renewals.len() + releases.len(),
        })
    }

    /// A key with a ttl is a session of its own.
    async fn open(self, nodes: &[Http], end: Instant) -> Result<()> {
        let puts = (0..self.sessions).map(|session| {
            let node = &nodes[session % nodes.len()];
            async move {
                let ttl = end.saturating_duration_since(Instant::now()).as_millis();
                let path = format!("/v1/kv/mass/{session:06}?ttl={ttl}ms");
                let reply = node.put(&path, "x").patience(Duration::from_secs(20)).send().await?;
                ensure!(reply.status == 201, "{reply:?}");
                Ok(())
            }
        });
        let mut puts = futures::stream::iter(puts).buffer_unordered(CLIENTS);
        while let Some(put) = puts.next().await {
            put?;
        }
        Ok(())
    }

    /// Read until all have expired: in how many entries, and when the last was seen.
    async fn expiries(self, mut events: Frames) -> Result<(usize, Instant)> {
        let (mut seen, mut entries) = (0, 0);
        while seen < self.sessions {
            let frame = events.next_within(Duration::from_secs(30)).await;
            let frame = frame.with_context(|| format!("{seen} of {} have expired", self.sessions))?;
            let expired = frame["events"].as_array().into_iter().flatten().filter(|e| e["op"] == "expired");
            let expired = expired.count();
            ensure!(expired <= SLICE, "{expired} sessions ended by one entry");
            seen += expired;
            entries += usize::from(expired > 0);
        }
        Ok((entries, Instant::now()))
    }
}

/// Which of the two a call was.
enum Took {
    Renewal(Duration),
    Release(Duration),
}

/// Keep a short session, and time each renewal.
async fn keep(node: Http, stop: Arc<AtomicBool>) -> Result<Vec<Took>> {
    let session = node.post("/v1/sessions", r#"{"ttl":"3s"}"#).send().await?.member("id");
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let reply = node.post(&format!("/v1/sessions/{session}/renew"), "").send().await?;
        ensure!(reply.status == 200, "a renewed session was lost: {reply:?}");
        took.push(Took::Renewal(start.elapsed()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(took)
}

/// Take a lock and release it, and time each release.
async fn lock(node: Http, number: usize, stop: Arc<AtomicBool>) -> Result<Vec<Took>> {
    let session = node.post("/v1/sessions", r#"{"ttl":"1m"}"#).send().await?.member("id");
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let verb = |verb: &str| format!("/v1/locks/other-{number}/{verb}?session={session}");
        let reply = node.post(&verb("acquire"), "").send().await?;
        ensure!(reply.status == 200, "{reply:?}");
        let start = Instant::now();
        let reply = node.post(&verb("release"), "").send().await?;
        ensure!(reply.status == 200, "{reply:?}");
        took.push(Took::Release(start.elapsed()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(took)
}

/// The times of all renewals, and of all releases.
async fn gather(others: Vec<JoinHandle<Result<Vec<Took>>>>) -> Result<[Vec<Duration>; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for other in others {
        for took in other.await?? {
            match took {
                Took::Renewal(time) => times[0].push(time),
                Took::Release(time) => times[1].push(time),
            }
        }
    }
    Ok(times)
}
