//! Figures of connections for the metrics page.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counted by all who touch a connection, or all connections of a listener.
#[derive(Debug, Default)]
pub struct Counters {
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
    frames_out: AtomicU64,
    frames_in: AtomicU64,
    connects: AtomicU64,
    timeouts: AtomicU64,
    round_trip_nanos: AtomicU64,
}

/// Totals since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub frames_out: u64,
    pub frames_in: u64,
    /// Connections established, with greetings exchanged.
    pub connects: u64,
    /// Requests that had no answer in time.
    pub timeouts: u64,
    /// Smoothed time from request to answer; zero if there was none yet.
    pub round_trip: Duration,
}

impl Counters {
    pub fn wrote(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    pub fn queued(&self) {
        self.frames_out.fetch_add(1, Relaxed);
    }

    pub fn received(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
        self.frames_in.fetch_add(1, Relaxed);
    }

    pub fn connected(&self) {
        self.connects.fetch_add(1, Relaxed);
    }

    pub fn timed_out(&self, requests: usize) {
        self.timeouts.fetch_add(requests as u64, Relaxed);
    }

    /// Called by one task only, so that load and store need not be one step.
    pub fn answered_after(&self, elapsed: Duration) {
        let new = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let old = self.round_trip_nanos.load(Relaxed);
        let smoothed = if old == 0 { new } else { old - old / 8 + new / 8 };
        self.round_trip_nanos.store(smoothed, Relaxed);
    }

    pub fn traffic(&self) -> Traffic {
        Traffic {
            bytes_out: self.bytes_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            frames_out: self.frames_out.load(Relaxed),
            frames_in: self.frames_in.load(Relaxed),
            connects: self.connects.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            round_trip: Duration::from_nanos(self.round_trip_nanos.load(Relaxed)),
        }
    }
}
