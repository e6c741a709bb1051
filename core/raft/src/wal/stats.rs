//! Counters of the log, read by the metrics endpoint.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts per bucket: bucket `i` holds values below `2^i` (and not below `2^(i-1)`), the last one all above.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; 28],
    sum: AtomicU64,
}

impl Histogram {
    fn observe(&self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.buckets[bucket.min(self.buckets.len() - 1)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// `(exclusive upper bound, count)` of each bucket, not cumulative; the last bound is `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let last = self.buckets.len() - 1;
        self.buckets.iter().enumerate().map(move |(i, count)| {
            let bound = if i == last { u64::MAX } else { 1 << i };
            (bound, count.load(Relaxed))
        })
    }

    /// Number of values observed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Sum of the values observed.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

/// What the log has done since it was opened.
#[derive(Debug, Default)]
pub struct WalStats {
    /// Duration of each fsync of a segment, in microseconds.
    pub sync_micros: Histogram,
    /// Records (entries, votes, truncations, purges, commits) per fsync.
    pub batch_records: Histogram,
    entries: AtomicU64,
    bytes: AtomicU64,
    segments: AtomicU64,
    recycled: AtomicU64,
}

impl WalStats {
    pub(super) fn synced(&self, took: Duration) {
        self.sync_micros.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn wrote(&self, records: u64, entries: u64, bytes: u64) {
        self.batch_records.observe(records);
        self.entries.fetch_add(entries, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn began_segment(&self) {
        self.segments.fetch_add(1, Relaxed);
    }

    pub(super) fn recycled(&self) {
        self.recycled.fetch_add(1, Relaxed);
    }

    /// Entries written.
    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// Bytes of records written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Segments begun behind a full one.
    pub fn segments(&self) -> u64 {
        self.segments.load(Relaxed)
    }

    /// Segment files used again after a purge.
    pub fn recycled_segments(&self) -> u64 {
        self.recycled.load(Relaxed)
    }
}
