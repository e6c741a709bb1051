//! What all requests share: the node, the settings, the bounds on work in progress, the state of the shutdown.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coracle_api::{Code, Problem, Span};
use coracle_raft::node::Node;
use coracle_store::SessionId;
use http::HeaderValue;
use tokio::sync::watch;

use crate::config::Config;
use crate::http::overload::Overload;
use crate::http::problem::{Answer, Refused};
use crate::http::validity::Renewals;
use crate::lines::Lines;
use crate::metrics::Metrics;
use crate::pools::Pools;

/// Handle to the shared state of the edge; clones are cheap.
#[derive(Clone)]
pub struct Edge(Arc<Shared>);

/// See [`Edge`].
pub struct Shared {
    pub node: Node,
    pub config: Config,
    /// Base URL by which clients reach this node.
    pub client_url: String,
    pub metrics: Metrics,
    pub hosts: Hosts,
    /// Renewals acknowledged through this node.
    pub renewals: Renewals,
    /// What picks come from.
    pub pools: Pools,

    /// Receivers that wait, by what they receive from.
    pub receivers: Lines,
    pub requests: Bound,
    pub waiters: Bound,
    pub streams: Bound,
    /// Id of this node, as a header.
    pub member: HeaderValue,
    /// What is answered to one request too many.
    pub overload: Overload,
    draining: AtomicBool,
    drain: watch::Sender<bool>,
}

impl Deref for Edge {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Edge {
    #[must_use]
    pub fn new(node: Node, config: Config, client_url: String, hosts: Hosts) -> Self {
        Self(Arc::new(Shared {
            member: HeaderValue::from(node.id()),
            overload: Overload::new(config.max_requests),
            node,
            client_url,
            metrics: Metrics::default(),
            hosts,
            renewals: Renewals::default(),
            pools: Pools::default(),

            receivers: Lines::default(),
            requests: Bound::new(config.max_requests),
            waiters: Bound::new(config.max_waiters),
            streams: Bound::new(config.max_streams),
            draining: AtomicBool::new(false),
            drain: watch::Sender::new(false),
            config,
        }))
    }

    /// Take a place among the requests worked on; `None`: there is no more. What frees resources is always taken, and
    /// whether it does is only asked when there is no place.
    pub fn admit(&self, frees: impl FnOnce() -> bool) -> Option<Admitted> {
        if !self.requests.try_add() {
            if !frees() {
                return None;
            }
            self.requests.add();
        }
        Some(Admitted { edge: self.clone(), kind: Kind::Request })
    }

    /// Take a place among the parked requests.
    ///
    /// # Errors
    /// `too_many_waiters`.
    pub fn park(&self) -> Answer<Admitted> {
        self.bounded(&self.waiters, Kind::Waiter, Code::TooManyWaiters)
    }

    /// Take a place among the open streams.
    ///
    /// # Errors
    /// `too_many_streams`.
    pub fn open_stream(&self) -> Answer<Admitted> {
        self.bounded(&self.streams, Kind::Stream, Code::TooManyStreams)
    }

    fn bounded(&self, bound: &Bound, kind: Kind, code: Code) -> Answer<Admitted> {
        if bound.try_add() {
            return Ok(Admitted { edge: self.clone(), kind });
        }
        let detail = format!("this node has no place for another max={}", bound.max);
        Err(Problem::new(code, detail).with("max", bound.max).into())
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From now on readiness is refused, streams say `bye`, waits are answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.send_replace(true);
    }

    /// Resolves when the node begins to drain.
    pub async fn drained(&self) {
        let mut receiver = self.drain.subscribe();
        // The sender lives as long as `self`.
        let _ = receiver.wait_for(|drain| *drain).await;
    }

    /// What the end of a wait by shutdown is answered with.
    #[must_use]
    pub fn shutting_down() -> Refused {
        Problem::new(Code::ShuttingDown, "the node is shutting down; ask another node").into()
    }

    /// Until when a request that begins now is owed an answer.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.config.request_timeout.as_duration()
    }

    /// Time a session is good for: from the renewals seen here, else as the leader counts it, else zero.
    pub async fn valid_for(&self, session: SessionId) -> Span {
        if let Some(left) = self.renewals.valid_for(session, Instant::now()) {
            return left.into();
        }
        let left = self.node.validity(&[session], self.deadline()).await;
        left.first().copied().flatten().unwrap_or(Duration::ZERO).into()
    }

    /// The same for many, as the leader counts it where it can be asked; for people.
    pub async fn validity(&self, sessions: &[SessionId]) -> Vec<Option<Duration>> {
        if sessions.is_empty() {
            return Vec::new();
        }
        let (asked, now) = (self.node.validity(sessions, self.deadline()).await, Instant::now());
        let known = sessions.iter().map(|session| self.renewals.valid_for(*session, now));
        asked.into_iter().zip(known).map(|(asked, known)| asked.or(known)).collect()
    }
}

/// A counter with a bound.
pub struct Bound {
    now: AtomicUsize,
    pub max: usize,
}

impl Bound {
    fn new(max: usize) -> Self {
        Self { now: AtomicUsize::new(0), max }
    }

    #[must_use]
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.now.fetch_add(1, Ordering::Relaxed);
    }

    fn try_add(&self) -> bool {
        if self.now.fetch_add(1, Ordering::Relaxed) < self.max {
            return true;
        }
        self.now.fetch_sub(1, Ordering::Relaxed);
        false
    }

    fn sub(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place under a bound; given back on drop.
pub struct Admitted {
    edge: Edge,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Request,
    Waiter,
    Stream,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        match self.kind {
            Kind::Request => self.edge.requests.sub(),
            Kind::Waiter => self.edge.waiters.sub(),
            Kind::Stream => self.edge.streams.sub(),
        }
    }
}

/// Names that a `Host` header may carry. Addresses always may: a browser cannot be tricked into sending a request
/// for a name to an address and still name the address.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    any: bool,
    names: Vec<String>,
}

impl Hosts {
    /// `localhost`, the advertised hosts and those of `--allowed-host`; `*` allows all.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut hosts = Self { any: false, names: vec!["localhost".to_owned()] };
        for name in names {
            if name == "*" {
                hosts.any = true;
            } else {
                hosts.names.push(host_of(&name).to_ascii_lowercase());
            }
        }
        hosts
    }

    /// Whether a request for this authority (`host` or `host:port`) is for us.
    #[must_use]
    pub fn allows(&self, authority: &str) -> bool {
        if self.any {
            return true;
        }
        let host = host_of(authority);
        let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        address.parse::<std::net::IpAddr>().is_ok()
            || self.names.iter().any(|name| name.eq_ignore_ascii_case(host.strip_suffix('.').unwrap_or(host)))
    }
}

/// `[::1]:7070` → `[::1]`, `a.b:7070` → `a.b`
fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_ours() {
        let hosts = Hosts::new(["coracle.example:7070".to_owned(), "Other".to_owned()]);
        for ours in [
            "localhost",
            "LOCALHOST:7070",
            "127.0.0.1:7070",
            "10.1.2.3",
            "[::1]:7070",
            "[fe80::1]",
            "coracle.example",
            "coracle.example.:80",
            "other:1",
        ] {
            assert!(hosts.allows(ours), "{ours}");
        }
        for foreign in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7070", "", ":7070", "[::1"]
        {
            assert!(!hosts.allows(foreign), "{foreign}");
        }
        assert!(Hosts::new(["*".to_owned()]).allows("evil.example"));
    }
}
