//! Receiving and settling by receipt: what queues and durable subscriptions have in common.

use std::time::{Duration, Instant};

use coracle_api::{Receipts, SessionId, SettledMany, Span};
use reqwest::Method;
use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::{Coracle, Error};

/// Longest single request of a wait: a node that died silently costs no more than this.
const STEP: Duration = Duration::from_secs(20);

/// Where messages are received and settled, by its path.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    pub(crate) client: Coracle,
    pub(crate) path: String,
}

impl Inbox {
    pub(crate) fn change(&self, verb: &str) -> Call {
        Call::change(Method::POST, format!("{}/{verb}", self.path))
    }

    pub(crate) async fn ack(&self, receipts: Vec<String>) -> Result<SettledMany, Error> {
        self.client.ask(self.change("ack").json(&Receipts { receipts })?).await
    }

    pub(crate) async fn nack(&self, receipts: Vec<String>, nack: &Nack) -> Result<SettledMany, Error> {
        let call = self
            .change("nack")
            .query_some("delay", nack.delay.map(Span::from))
            .query_some("count", nack.uncounted.then_some(false))
            .flag("fatal", nack.fatal)
            .query_some("reason", nack.reason.as_deref());
        self.client.ask(call.json(&Receipts { receipts })?).await
    }

    pub(crate) async fn renew(
        &self,
        receipts: Vec<String>,
        visibility: Option<Duration>,
    ) -> Result<SettledMany, Error> {
        let call = self.change("renew").query_some("visibility", visibility.map(Span::from));
        self.client.ask(call.json(&Receipts { receipts })?).await
    }

    /// Receive until an answer has what is `enough`, or the wait is over; and when that answer was asked for.
    pub(crate) async fn receive<T: DeserializeOwned>(
        &self,
        terms: &Terms,
        mut acks: Vec<String>,
        enough: impl Fn(&T) -> bool,
    ) -> Result<(T, Instant), Error> {
        let end = Instant::now().checked_add(terms.wait);
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()));
            // A lost answer is asked for again under the same key: the same messages, not the next ones.
            let mut call = self
                .change("receive")
                .query("max", terms.max.to_string())
                .query_some("visibility", terms.visibility.map(Span::from))
                .query_some("session", terms.session);
            for receipt in std::mem::take(&mut acks) {
                call = call.query("acks", receipt);
            }
            if !left.is_zero() {
                call = call.waiting(left.min(STEP));
            }
            let answer = self.client.send(call).await?;
            let (sent, received) = (answer.sent, answer.json()?);
            if enough(&received) || left.is_zero() {
                return Ok((received, sent));
            }
        }
    }
}

/// How messages are received.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) max: u32,
    pub(crate) wait: Duration,
    pub(crate) visibility: Option<Duration>,
    pub(crate) session: Option<SessionId>,
}

/// Messages to be received from a [`crate::Queue`] or [`crate::Subscription`]; await it for one answer. Nothing to be
/// had is an empty one.
#[derive(Debug, Clone)]
#[must_use = "nothing is received before it is awaited"]
pub struct Receive<S> {
    pub(crate) source: S,
    pub(crate) terms: Terms,
}

impl<S> Receive<S> {
    pub(crate) fn new(source: S) -> Self {
        let terms = Terms { max: 1, wait: Duration::ZERO, visibility: None, session: None };
        Self { source, terms }
    }

    /// At most so many, 1 to 100.
    pub fn max(mut self, max: u32) -> Self {
        self.terms.max = max;
        self
    }

    /// How long to wait for the first. [`Duration::MAX`] waits without end.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.terms.wait = wait;
        self
    }

    /// How long a delivery is nobody else's; as the queue or subscription has it unless said.
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.terms.visibility = Some(visibility);
        self
    }

    /// The deliveries live with this session instead of a time. An exclusive subscription and a queue of a single
    /// active consumer need one.
    pub fn session(mut self, session: SessionId) -> Self {
        self.terms.session = Some(session);
        self
    }
}

/// How a delivery is given back.
#[derive(Debug, Clone, Default)]
pub struct Nack {
    /// Not again before; the queue's back-off unless said.
    pub delay: Option<Duration>,
    /// The delivery does not count: a worker that shuts down.
    pub uncounted: bool,
    /// To the dead letters at once.
    pub fatal: bool,
    /// For people.
    pub reason: Option<String>,
}
