//! A stream of lines that survives cuts: it is opened again where it ended, on whatever node answers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use coracle_api::{Problem, Retry, Span};
use futures::stream::{BoxStream, StreamExt};
use serde::de::DeserializeOwned;

use crate::backoff::Backoff;
use crate::call::Call;
use crate::transport::Failure;
use crate::{Coracle, Error};

/// What the frames of a stream mean, and where it goes on.
pub(crate) trait Frames: Send + 'static {
    type Frame: DeserializeOwned;
    type Update: Send + 'static;

    /// The call that opens the stream where the last one ended.
    fn resume(&self, call: Call) -> Call;

    /// A new connection stands.
    fn opened(&mut self) {}

    /// Turn a frame into an update, if it is one.
    ///
    /// # Errors
    /// What ends the stream for good.
    fn take(&mut self, frame: Self::Frame) -> Result<Taken<Self::Update>, Error>;

    /// The connection failed, and the stream goes on by itself.
    fn reconnecting(detail: String) -> Self::Update;
}

/// What became of a frame.
pub(crate) enum Taken<U> {
    /// Nothing to tell.
    Nothing,
    Update(U),
    /// This was the last frame of the connection; `leave`: go on with another node.
    Last {
        update: U,
        leave: bool,
    },
}

impl<U> Taken<U> {
    /// A problem that may pass is an update, and the stream goes on elsewhere.
    pub(crate) fn problem(problem: Problem, update: impl FnOnce(String) -> U) -> Result<Self, Error> {
        if matches!(problem.retry, Retry::SameRequest | Retry::OtherNode) {
            return Ok(Self::Last { update: update(problem.to_string()), leave: true });
        }
        Err(problem.into())
    }
}

/// The updates of a call that is followed. They end only with an error, or never.
pub(crate) fn follow<F: Frames>(
    client: Coracle,
    call: Call,
    heartbeat: Duration,
    frames: F,
) -> BoxStream<'static, Result<F::Update, Error>> {
    let call = call.flag("watch", true).query("heartbeat", Span::from(heartbeat).to_string());
    let reader = Reader {
        give_up: Some(Instant::now() + client.deadline()),
        client,
        call: call.header("accept", "application/x-ndjson"),
        silence: heartbeat.mul_f64(2.5).max(Duration::from_secs(1)),
        frames,
        backoff: Backoff::default(),
        open: None,
        buffer: BytesMut::new(),
        scanned: 0,
        ready: VecDeque::new(),
        ended: false,
    };
    let updates = futures::stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|update| (update, reader))
    });
    updates.boxed()
}

type Chunks = BoxStream<'static, reqwest::Result<bytes::Bytes>>;

struct Reader<F: Frames> {
    client: Coracle,
    call: Call,
    /// Silence after which the connection counts as dead.
    silence: Duration,
    frames: F,
    backoff: Backoff,
    /// Until the first connection stands: when to stop trying.
    give_up: Option<Instant>,
    open: Option<Chunks>,
    /// Bytes of a line not yet complete; `scanned` of them are known to hold no line end.
    buffer: BytesMut,
    scanned: usize,
    ready: VecDeque<F::Update>,
    ended: bool,
}

impl<F: Frames> Reader<F> {
    async fn next(&mut self) -> Option<Result<F::Update, Error>> {
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
    async fn reconnect(&mut self) -> Result<Option<F::Update>, Error> {
        let call = self.frames.resume(self.call.clone());
        let transport = &self.client.transport;
        match transport.open(&call, transport.attempt_timeout).await? {
            Ok(response) => {
                self.give_up = None;
                self.buffer.clear();
                self.scanned = 0;
                self.frames.opened();
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
                Ok(Some(F::reconnecting(detail)))
            }
        }
    }

    /// Take what the connection brings next. The connection is put back unless it ended.
    async fn read(&mut self, mut chunks: Chunks) -> Result<Option<F::Update>, Error> {
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

    /// The connection is gone. A line it left unfinished is dropped: it comes again.
    async fn cut(&mut self, detail: String) -> F::Update {
        self.client.transport.leave_current();
        tokio::time::sleep(self.backoff.next()).await;
        F::reconnecting(detail)
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
            self.backoff.reset();
            match self.frames.take(frame)? {
                Taken::Nothing => {}
                Taken::Update(update) => self.ready.push_back(update),
                Taken::Last { update, leave } => {
                    if leave {
                        self.client.transport.leave_current();
                    }
                    self.ready.push_back(update);
                    return Ok(false);
                }
            }
        }
        self.scanned = self.buffer.len();
        Ok(true)
    }
}
