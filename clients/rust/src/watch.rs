//! Watches: streams of changes that survive cuts, and say what happened on the way.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use coracle_api::{ByeReason, Frame, Retry, Span};
use futures::stream::{BoxStream, Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::backoff::Backoff;
use crate::call::Call;
use crate::client::Events;
use crate::transport::Failure;
use crate::{Coracle, Error};

/// What a watch tells. Every change appears exactly once, in order, or a [`Update::Gap`] says which are missing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update<I> {
    /// The state at `revision`, in chunks. With `first` a new state begins: forget everything before it.
    Snapshot { revision: u64, items: Vec<I>, first: bool, more: bool },
    /// The past is told; what follows happens now.
    Synced { revision: u64 },
    /// All that one revision changed.
    Change { revision: u64, time: coracle_api::Instant, events: Events },
    /// Nothing else happened up to `revision`.
    Progress { revision: u64 },
    /// The changes after `from` up to and including `to` are no longer kept; a snapshot follows.
    Gap { from: u64, to: u64 },
    /// We read too slowly and were cut off; nothing is lost, the watch goes on by itself.
    Lagged { revision: u64 },
    /// The node said goodbye; nothing is lost, the watch goes on elsewhere by itself.
    Bye { reason: ByeReason },
    /// The connection failed; nothing is lost, the watch goes on by itself.
    Reconnecting { detail: String },
}

/// A watch to be opened by [`WatchBuilder::from_now`], [`WatchBuilder::after`] or [`WatchBuilder::from_snapshot`].
#[derive(Debug)]
#[must_use = "a watch starts with from_now(), after() or from_snapshot()"]
pub struct WatchBuilder<I> {
    client: Coracle,
    call: Call,
    heartbeat: Duration,
    on_gap_error: bool,
    items: PhantomData<fn() -> I>,
}

/// A running watch. It ends only with an error, when dropped, or never.
pub struct Watch<I> {
    updates: BoxStream<'static, Result<Update<I>, Error>>,
}

impl<I: DeserializeOwned + Send + 'static> WatchBuilder<I> {
    pub(crate) fn new(client: Coracle, call: Call) -> Self {
        let heartbeat = Duration::from_secs(5);
        Self { client, call, heartbeat, on_gap_error: false, items: PhantomData }
    }

    /// How often the server shows that it lives; 5 s if not set. After two and a half of silence the watch goes elsewhere.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// End with 410 `compacted` where changes are missing, in place of a gap and a snapshot.
    pub fn error_on_gap(mut self) -> Self {
        self.on_gap_error = true;
        self
    }

    /// Only narrow what the stream tells: add a parameter of the family, such as `prefix`.
    pub fn filter(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.call = self.call.query(name, value);
        self
    }

    /// Changes from now on; the first update is [`Update::Synced`].
    #[must_use]
    pub fn from_now(self) -> Watch<I> {
        self.start(Position::Now)
    }

    /// Changes after `revision`.
    #[must_use]
    pub fn after(self, revision: u64) -> Watch<I> {
        self.start(Position::After(revision))
    }

    /// The current state, then its changes.
    #[must_use]
    pub fn from_snapshot(self) -> Watch<I> {
        self.start(Position::Snapshot)
    }

    fn start(self, position: Position) -> Watch<I> {
        let mut call =
            self.call.flag("watch", true).query("heartbeat", Span::from(self.heartbeat).to_string());
        if self.on_gap_error {
            call = call.query("on_gap", "error");
        }
        let reader = Reader {
            give_up: Some(Instant::now() + self.client.deadline()),
            client: self.client,
            call: call.header("accept", "application/x-ndjson"),
            silence: self.heartbeat.mul_f64(2.5).max(Duration::from_secs(1)),
            position,
            backoff: Backoff::default(),
            open: None,
            buffer: BytesMut::new(),
            scanned: 0,
            ready: VecDeque::new(),
            new_snapshot: true,
            ended: false,
        };
        let updates = futures::stream::unfold(reader, |mut reader| async move {
            reader.next().await.map(|update| (update, reader))
        });
        Watch { updates: updates.boxed() }
    }
}

impl<I> Stream for Watch<I> {
    type Item = Result<Update<I>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.updates.poll_next_unpin(context)
    }
}

impl<I> std::fmt::Debug for Watch<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// Where the watch goes on after a cut.
#[derive(Debug, Clone, Copy)]
enum Position {
    Now,
    After(u64),
    Snapshot,
}

type Chunks = BoxStream<'static, reqwest::Result<bytes::Bytes>>;

struct Reader<I> {
    client: Coracle,
    call: Call,
    /// Silence after which the connection counts as dead.
    silence: Duration,
    position: Position,
    backoff: Backoff,
    /// Until the first connection stands: when to stop trying.
    give_up: Option<Instant>,
    open: Option<Chunks>,
    /// Bytes of a line not yet complete; `scanned` of them are known to hold no line end.
    buffer: BytesMut,
    scanned: usize,
    ready: VecDeque<Update<I>>,
    /// The next snapshot chunk begins a new state.
    new_snapshot: bool,
    ended: bool,
}

impl<I: DeserializeOwned> Reader<I> {
    async fn next(&mut self) -> Option<Result<Update<I>, Error>> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(update) = self.ready.pop_front() {
                return Some(Ok(update));
            }
            let step = match self.open.take() {
                None => self.reconnect().await,
                Some(chunks) => self.read(chunks).await,
            };
            match step {
                Ok(Some(update)) => return Some(Ok(update)),
                Ok(None) => {}
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Open the stream where the last one ended. A failure that may pass is an update, then another attempt.
    async fn reconnect(&mut self) -> Result<Option<Update<I>>, Error> {
        let call = match self.position {
            Position::Now => self.call.clone().query("initial", "false"),
            Position::After(revision) => self.call.clone().query("after", revision.to_string()),
            Position::Snapshot => self.call.clone(),
        };
        let transport = &self.client.transport;
        match transport.open(&call, transport.attempt_timeout).await? {
            Ok(response) => {
                self.give_up = None;
                self.buffer.clear();
                self.scanned = 0;
                self.new_snapshot = true;
                self.open = Some(response.bytes_stream().boxed());
                Ok(None)
            }
            Err(failure) => {
                let effect = coracle_api::Effect::None;
                let (passing, pause, detail) = match &failure {
                    Failure::Broken { detail, .. } | Failure::Untrusted { detail } => {
                        (true, Duration::ZERO, detail.clone())
                    }
                    Failure::Problem { problem, retry_after } => (
                        matches!(problem.retry, Retry::SameRequest | Retry::OtherNode),
                        retry_after.unwrap_or_default(),
                        problem.to_string(),
                    ),
                };
                let pause = pause.max(self.backoff.next());
                if !passing || self.give_up.is_some_and(|end| Instant::now() + pause >= end) {
                    return Err(failure.into_error(effect));
                }
                tokio::time::sleep(pause).await;
                Ok(Some(Update::Reconnecting { detail }))
            }
        }
    }

    /// Take what the connection brings next. The connection is put back unless it ended.
    async fn read(&mut self, mut chunks: Chunks) -> Result<Option<Update<I>>, Error> {
        match tokio::time::timeout(self.silence, chunks.next()).await {
            Ok(Some(Ok(chunk))) => {
                self.buffer.extend_from_slice(&chunk);
                if self.take_lines()? {
                    self.open = Some(chunks);
                }
                Ok(None)
            }
            Ok(Some(Err(error))) => Ok(Some(self.cut(error.to_string()).await)),
            Ok(None) => Ok(Some(self.cut("the connection was closed".to_owned()).await)),
            Err(_) => Ok(Some(self.cut("the connection fell silent".to_owned()).await)),
        }
    }

    /// The connection is gone. A line it left unfinished is dropped: its revision comes again.
    async fn cut(&mut self, detail: String) -> Update<I> {
        self.client.transport.leave_current();
        tokio::time::sleep(self.backoff.next()).await;
        Update::Reconnecting { detail }
    }

    /// Turn all complete lines into updates; false if one of them ended the stream.
    fn take_lines(&mut self) -> Result<bool, Error> {
        while let Some(found) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(self.scanned + found);
            self.buffer.advance(1);
            self.scanned = 0;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let frame = serde_json::from_slice(&line).map_err(|error| {
                let start: String = String::from_utf8_lossy(&line).chars().take(200).collect();
                Error::Protocol(format!("{error} frame={start:?}"))
            })?;
            if !self.take(frame)? {
                return Ok(false);
            }
        }
        self.scanned = self.buffer.len();
        Ok(true)
    }

    /// Turn a frame into an update; false if it ends the stream.
    fn take(&mut self, frame: Frame<I>) -> Result<bool, Error> {
        let seen = match self.position {
            Position::After(revision) => Some(revision),
            Position::Now | Position::Snapshot => None,
        };
        // A change seen before would be a fault of the server; it must not become one of ours.
        if let Frame::Change { revision, .. } = &frame
            && seen.is_some_and(|seen| *revision <= seen)
        {
            return Ok(true);
        }
        if let Some(revision) = frame.resume_after() {
            self.position = Position::After(revision.max(seen.unwrap_or(0)));
        }
        self.backoff.reset();
        let (update, goes_on) = match frame {
            Frame::Snapshot { revision, items, more } => {
                let first = std::mem::replace(&mut self.new_snapshot, !more);
                // Half a snapshot is no state to continue from: after a cut it starts anew.
                if first && more {
                    self.position = Position::Snapshot;
                }
                (Update::Snapshot { revision, items, first, more }, true)
            }
            Frame::Synced { revision } => (Update::Synced { revision }, true),
            Frame::Change { revision, time, events } => (Update::Change { revision, time, events }, true),
            Frame::Progress { revision } => (Update::Progress { revision }, true),
            Frame::Gap { from, to } => {
                self.new_snapshot = true;
                self.position = Position::Snapshot;
                (Update::Gap { from, to }, true)
            }
            Frame::Lagged { revision } => (Update::Lagged { revision }, false),
            Frame::Bye { reason, .. } => {
                if reason != ByeReason::Limit {
                    self.client.transport.leave_current();
                }
                (Update::Bye { reason }, false)
            }
            Frame::Error { problem } => {
                if !matches!(problem.retry, Retry::SameRequest | Retry::OtherNode) {
                    return Err(problem.into());
                }
                self.client.transport.leave_current();
                (Update::Reconnecting { detail: problem.to_string() }, false)
            }
            Frame::Other { .. } => return Ok(true),
        };
        self.ready.push_back(update);
        Ok(goes_on)
    }
}
