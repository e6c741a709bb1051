//! The bytes a connection still has to write, shared by everyone who writes to it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::counters::Counters;
use super::wire::{Kind, put_frame};
use crate::gather::{ALL, company};

/// A listener reads no further requests while so many bytes of answers wait to be written.
const FULL: usize = 8 << 20;
/// A buffer that once grew beyond this is not kept.
const KEEP: usize = 1 << 20;
/// A peer that takes nothing for so long is given up.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing runs under these locks that could leave them half-changed, but for an encoder that panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Write whatever `take` swaps into the empty buffer it is given, until it says that the connection is closed.
/// Everything that gathered while one write was under way goes out in the next; `waiting` says how much that is.
pub async fn drain(
    writer: &mut (impl AsyncWrite + Unpin),
    wake: &Notify,
    waiting: impl Fn() -> usize,
    mut take: impl FnMut(&mut Vec<u8>) -> bool,
) -> io::Result<()> {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if batch.capacity() > KEEP {
            batch = Vec::new();
        }
        company(ALL, &waiting).await;
        let open = take(&mut batch);
        if !batch.is_empty() {
            let write = async {
                writer.write_all(&batch).await?;
                writer.flush().await
            };
            tokio::time::timeout(WRITE_DEADLINE, write).await.map_err(|_| io::ErrorKind::TimedOut)??;
        }
        if !open {
            return writer.shutdown().await;
        }
        if batch.is_empty() {
            wake.notified().await;
        }
    }
}

/// The answers of a listener's connection.
pub struct Out {
    state: Mutex<State>,
    wake: Notify,
    drained: Notify,
    pub counters: Arc<Counters>,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    closed: bool,
}

impl Out {
    pub fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), wake: Notify::new(), drained: Notify::new(), counters })
    }

    /// Queue a frame; silently nothing if the connection is closed.
    pub fn put(&self, kind: Kind, id: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return;
            }
            if put_frame(&mut state.buffer, kind, id, encode).is_err() {
                let reason = |out: &mut Vec<u8>| out.extend_from_slice(b"the answer is too large");
                put_frame(&mut state.buffer, Kind::Failed, id, reason).expect("small");
            }
        }
        self.counters.queued();
        self.wake.notify_one();
    }

    /// Queue a whole frame.
    pub fn put_raw(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut lock(&self.state).buffer);
        self.counters.queued();
        self.wake.notify_one();
    }

    pub fn fail(&self, id: u64, reason: &str) {
        self.put(Kind::Failed, id, |out| out.extend_from_slice(reason.as_bytes()));
    }

    /// Write until closed; then what is left, and end the stream.
    pub async fn write_to(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let take = |batch: &mut Vec<u8>| {
            let mut state = lock(&self.state);
            let was_full = state.buffer.len() > FULL;
            std::mem::swap(&mut state.buffer, batch);
            if was_full {
                self.drained.notify_one();
            }
            !state.closed
        };
        drain(writer, &self.wake, || lock(&self.state).buffer.len(), take).await
    }

    /// Wait until the peer has taken enough of its answers to be asked for more.
    pub async fn room(&self) {
        while lock(&self.state).buffer.len() > FULL {
            self.drained.notified().await;
        }
    }

    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_one();
    }
}

/// Answers one request. May be used on any thread; the frame goes straight into the connection's buffer.
/// Dropped without an answer, it tells the peer so, rather than leave it to its deadline.
pub struct ReplySender {
    out: Option<Arc<Out>>,
    id: u64,
}

impl ReplySender {
    pub(super) fn new(out: Arc<Out>, id: u64) -> Self {
        Self { out: Some(out), id }
    }

    pub fn send(self, body: &[u8]) {
        self.send_with(|out| out.extend_from_slice(body));
    }

    /// As [`send`](Self::send), for a body that is encoded in place. `encode` must only append, and not block.
    pub fn send_with(mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(out) = self.out.take() {
            out.put(Kind::Reply, self.id, encode);
        }
    }
}

impl Drop for ReplySender {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            out.fail(self.id, "the request was dropped");
        }
    }
}
