//! Receiving: the server assigns to whoever has waited longest.

use std::future::IntoFuture;
use std::time::Duration;

use coracle_api::queue::Received;
use coracle_api::{SessionId, Span};

use super::{Job, Queue};
use crate::Error;
use crate::kv::Pending;

/// Longest single request of a wait: a node that died silently costs no more than this.
const STEP: Duration = Duration::from_secs(20);

/// Messages to be received; await it. Nothing to be had is an empty list.
#[derive(Debug)]
#[must_use = "nothing is received before it is awaited"]
pub struct Receive {
    queue: Queue,
    max: u32,
    wait: Duration,
    visibility: Option<Duration>,
    session: Option<SessionId>,
}

impl Receive {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, max: 1, wait: Duration::ZERO, visibility: None, session: None }
    }

    /// At most so many, 1 to 100.
    pub fn max(mut self, max: u32) -> Self {
        self.max = max;
        self
    }

    /// How long to wait for the first. [`Duration::MAX`] waits without end.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long a delivery is nobody else's, renewed in the background; that of the queue unless said.
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.visibility = Some(visibility);
        self
    }

    /// The deliveries live with this session instead of a time.
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    async fn run(self) -> Result<Vec<Job>, Error> {
        let end = std::time::Instant::now().checked_add(self.wait);
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(std::time::Instant::now()));
            let step = left.min(STEP);
            // A lost answer is asked for again under the same key: the same messages, not the next ones.
            let mut call = self
                .queue
                .change("/receive")
                .query("max", self.max.to_string())
                .query_some("visibility", self.visibility.map(Span::from))
                .query_some("session", self.session);
            if !step.is_zero() {
                call = call.waiting(step);
            }
            let answer = self.queue.client.send(call).await?;
            let sent = answer.sent;
            let received: Received = answer.json()?;
            if !received.items.is_empty() {
                let jobs = received.items.into_iter();
                return Ok(jobs
                    .map(|item| Job::new(self.queue.clone(), item, self.visibility, sent))
                    .collect());
            }
            if left.is_zero() {
                return Ok(Vec::new());
            }
        }
    }
}

impl IntoFuture for Receive {
    type Output = Result<Vec<Job>, Error>;
    type IntoFuture = Pending<Vec<Job>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
