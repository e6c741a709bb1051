//! Figures of a connection for the metrics page.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Shared by all who touch a connection.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) bytes_out: AtomicU64,
}

/// Totals since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub frames_out: u64,
    pub frames_in: u64,
    /// Connections established.
    pub connects: u64,
    /// Requests that had no answer in time.
    pub timeouts: u64,
    /// Smoothed time from request to answer; zero if there was none yet.
    pub round_trip: Duration,
}
