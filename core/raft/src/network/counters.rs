//! Figures of connections for the metrics page.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
    pub fn queued(&self) {
        self.frames_out.fetch_add(1, Relaxed);
    }

    pub fn received(&self) {
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

    /// Received and sent.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed))
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

/// One half of a stream, its bytes counted as they pass.
pub struct Counted<T> {
    inner: T,
    counters: Arc<Counters>,
}

impl<T> Counted<T> {
    pub fn new(inner: T, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.counters.bytes_in.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        read
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Counted<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.counters.bytes_out.fetch_add(*bytes as u64, Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
