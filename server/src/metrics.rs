//! Metrics: prefix `coracle_`, base units, no names of clients in labels.

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::edge::Edge;

#[derive(Debug, Clone, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

// Both are looked for with every answer. Lengths tell nearly all of them apart, and cost a third of their text.
impl Hash for Answered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.route.len() << 24 | self.method.len() << 16 | usize::from(self.status));
    }
}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.route.len());
    }
}

/// What this node's edge counts.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
    frames: Counter,
    pub lagged: Counter,
    pub connections: Counter,
    pub handshake_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("coracle");
        let requests = Family::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        let durations = Family::new_with_constructor(buckets);
        let help = "Time to the head of the answer; waits of parked requests included";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, durations.clone());
        let frames = Counter::default();
        registry.register("stream_writes", "Writes of one or more frames to watch streams", frames.clone());
        let lagged = Counter::default();
        registry.register("lagged", "Watch streams closed because their reader was too slow", lagged.clone());
        let connections = Counter::default();
        registry.register("connections", "Client connections accepted", connections.clone());
        let handshake_failures = Counter::default();
        registry.register(
            "tls_handshake_failures",
            "TLS handshakes with clients that failed",
            handshake_failures.clone(),
        );
        Self { registry, requests, durations, frames, lagged, connections, handshake_failures }
    }
}

impl Metrics {
    pub fn answered(&self, route: &'static str, method: &Method, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::PUT => "PUT",
            Method::POST => "POST",
            Method::DELETE => "DELETE",
            Method::HEAD => "HEAD",
            _ => "other",
        };
        self.requests.get_or_create(&Answered { route, method, status: status.as_u16() }).inc();
        self.durations.get_or_create(&Route { route }).observe(took.as_secs_f64());
    }

    pub fn frames_sent(&self, writes: u64) {
        self.frames.inc_by(writes);
    }

    /// What the node counts of itself.
    fn node_figures(text: &mut String, edge: &Edge) {
        let figures = edge.node.figures();
        let mut counter = |name: &str, help: &str, value: u64| {
            let _ = writeln!(
                text,
                "# HELP coracle_{name} {help}.\n# TYPE coracle_{name} counter\ncoracle_{name}_total {value}"
            );
        };
        counter(
            "raft_proposals",
            "Proposals of this node that were answered or are under way",
            figures.proposed,
        );
        counter(
            "raft_proposals_failed",
            "Proposals of this node that got no answer from the log",
            figures.failed,
        );
        counter("leader_changes", "Changes of leader seen", figures.leader_changes);
        counter("sessions_expired", "Sessions this node has expired as leader", figures.sessions_expired);
        counter("wal_entries", "Entries written to the log", figures.wal.entries());
        counter("wal_written_bytes", "Bytes written to the log", figures.wal.bytes());
        counter("wal_segments", "Files of the log begun behind a full one", figures.wal.segments());
        counter("checkpoints", "Checkpoints written", figures.checkpoint.written.load(Ordering::Relaxed));
        let [spooled, installed] = [&figures.snapshots.spooled, &figures.snapshots.installed]
            .map(|count| count.load(Ordering::Relaxed));
        counter("snapshots_spooled", "Snapshots made for members that were away for too long", spooled);
        counter("snapshots_installed", "Snapshots received and installed", installed);
        let pending = figures.pending;
        let _ = writeln!(
            text,
            "# HELP coracle_proposals_pending Proposals under way.\n# TYPE coracle_proposals_pending gauge\ncoracle_proposals_pending {pending}"
        );
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let spent = seconds(figures.checkpoint.micros.load(Ordering::Relaxed));
        let _ = writeln!(
            text,
            "# HELP coracle_checkpoint_seconds Time spent in checkpoints.\n# TYPE coracle_checkpoint_seconds counter\ncoracle_checkpoint_seconds_total {spent}"
        );
        let name = "coracle_wal_fsync_duration_seconds";
        let _ = writeln!(text, "# HELP {name} Time of one fsync of the log.\n# TYPE {name} histogram");
        let mut cumulative = 0;
        for (bound, count) in figures.wal.sync_micros.buckets() {
            cumulative += count;
            if bound != u64::MAX {
                let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {cumulative}", seconds(bound));
            }
        }
        let sum = seconds(figures.wal.sync_micros.sum());
        let _ = writeln!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {cumulative}\n{name}_sum {sum}\n{name}_count {cumulative}"
        );
        let name = "coracle_peer_round_trip_seconds";
        let _ = writeln!(
            text,
            "# HELP {name} Smoothed time from a request to a peer to its answer.\n# TYPE {name} gauge"
        );
        for (peer, class, traffic) in figures.traffic {
            let class = format!("{class:?}").to_ascii_lowercase();
            let _ = writeln!(
                text,
                "{name}{{peer=\"{peer}\",class=\"{class}\"}} {}",
                traffic.round_trip.as_secs_f64()
            );
        }
    }

    /// The text that Prometheus scrapes: what was counted here, and what the node knows of itself now.
    #[must_use]
    pub fn render(&self, edge: &Edge) -> String {
        let mut text = String::with_capacity(8192);
        let mut gauge = |name: &str, help: &str, value: u64| {
            let _ = writeln!(
                text,
                "# HELP coracle_{name} {help}.\n# TYPE coracle_{name} gauge\ncoracle_{name} {value}"
            );
        };
        let status = edge.node.status();
        gauge("server_has_leader", "Whether a leader is known", u64::from(status.leader.is_some()));
        gauge("is_leader", "Whether this node leads", u64::from(status.leader == Some(status.id)));
        gauge("raft_term", "Term of this node", status.term);
        gauge("raft_last_log_index", "Last entry in the log", status.last_log);
        gauge("raft_committed_index", "Last entry known to be committed", status.committed);
        gauge("raft_applied_index", "Last entry applied", status.applied);
        gauge("checkpoint_index", "Last entry in the durable checkpoint", status.checkpointed);
        gauge("revision", "Store revision", status.revision.0);
        gauge("compact_revision", "Oldest revision that can be read", status.compact_revision.0);
        gauge("state_bytes", "Live bytes counted against the quota", status.live_bytes);
        gauge("quota_bytes", "The quota", status.settings.quota_bytes);
        gauge("diverged", "Whether a replica has another state hash", u64::from(status.diverged));
        gauge("log_full", "Whether the log has no space", u64::from(status.full));
        let (keys, sessions, history) =
            edge.node.read(|store| (store.key_count(), store.sessions().count(), store.history()));
        gauge("keys", "Keys of the key-value family", keys as u64);
        gauge("sessions", "Living sessions", sessions as u64);
        gauge("history_changes", "Changes kept", history.changes as u64);
        gauge("history_bytes", "Bytes of changes kept", history.bytes as u64);
        gauge("requests_in_flight", "Requests worked on", edge.requests.now() as u64);
        gauge("parked_requests", "Requests waiting for something to change", edge.waiters.now() as u64);
        gauge("watch_streams", "Open streams", edge.streams.now() as u64);
        Self::node_figures(&mut text, edge);
        // Ends with the `# EOF` of the exposition format.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}
