//! Durable subscriptions: receive, settle, move.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use coracle_api::{
    Deleted, Gap, SessionId, Subscription as View, SubscriptionConfig, TopicDelivery, TopicMessage,
    TopicReceipts, TopicReceived, TopicSettled,
};
use reqwest::Method;

use super::{Topic, visible, wait_of};
use crate::call::Call;
use crate::escape::escape;
use crate::kv::Pending;
use crate::{Error, Nack};

/// Longest single request of a wait: a node that died silently costs no more than this.
const STEP: Duration = Duration::from_secs(20);

/// A durable subscription of a topic or pattern.
#[derive(Debug, Clone)]
pub struct Subscription {
    topic: Topic,
    name: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once: see Error")]
impl Subscription {
    pub(super) fn new(topic: Topic, name: String) -> Self {
        Self { topic, name }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Make it, or change its settings: one that exists stays where it is.
    pub async fn configure(&self, config: &SubscriptionConfig) -> Result<View, Error> {
        self.topic.client.ask(Call::change(Method::PUT, self.path("")).json(config)?).await
    }

    /// Where it is, and how far behind.
    pub async fn show(&self) -> Result<View, Error> {
        self.topic.client.ask(Call::get(self.path(""))).await
    }

    /// Forget it.
    pub async fn delete(&self) -> Result<Deleted, Error> {
        self.topic.client.ask(Call::change(Method::DELETE, self.path(""))).await
    }

    /// Go to `new`, `first`, `last`, a seq, or a time; what was handed out is forgotten.
    pub async fn seek(&self, to: impl ToString) -> Result<View, Error> {
        self.topic.client.ask(self.change("/seek").query("to", to.to_string())).await
    }

    /// Messages to be received; await it.
    pub fn receive(&self) -> ReceiveFrom {
        ReceiveFrom {
            subscription: self.clone(),
            max: 1,
            wait: Duration::ZERO,
            visibility: None,
            session: None,
        }
    }

    /// Acknowledge deliveries by their receipts: for good.
    pub async fn ack(&self, receipts: Vec<String>) -> Result<TopicSettled, Error> {
        self.topic.client.ask(self.change("/ack").json(&TopicReceipts { receipts })?).await
    }

    /// Give deliveries back.
    pub async fn nack(&self, receipts: Vec<String>, nack: &Nack) -> Result<TopicSettled, Error> {
        let call = self
            .change("/nack")
            .query_some("delay", visible(nack.delay))
            .query_some("count", nack.uncounted.then_some(false))
            .flag("fatal", nack.fatal)
            .query_some("reason", nack.reason.as_deref());
        self.topic.client.ask(call.json(&TopicReceipts { receipts })?).await
    }

    /// Keep deliveries so much longer.
    pub async fn renew(&self, receipts: Vec<String>, visibility: Duration) -> Result<TopicSettled, Error> {
        let call = self.change("/renew").query_some("visibility", visible(Some(visibility)));
        self.topic.client.ask(call.json(&TopicReceipts { receipts })?).await
    }

    fn path(&self, tail: &str) -> String {
        self.topic.path(&format!("/subscriptions/{}{tail}", escape(self.name.as_bytes())))
    }

    fn change(&self, tail: &str) -> Call {
        Call::change(Method::POST, self.path(tail))
    }
}

/// Messages to be received; await it for one answer, or consume one by one. Nothing to be had is an empty list.
#[derive(Debug, Clone)]
#[must_use = "nothing is received before it is awaited"]
pub struct ReceiveFrom {
    subscription: Subscription,
    max: u32,
    wait: Duration,
    visibility: Option<Duration>,
    session: Option<SessionId>,
}

impl ReceiveFrom {
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

    /// How long a delivery may stay unsettled; that of the subscription unless said.
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.visibility = Some(visibility);
        self
    }

    /// The deliveries live with this session instead of a time. An exclusive subscription needs one.
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// One delivery after the other, without end; the wait is not counted.
    #[must_use]
    pub fn consume(self) -> Consume {
        Consume { receive: self.wait(Duration::MAX), ready: VecDeque::new(), acks: Vec::new(), gap: None }
    }

    async fn run(&self, mut acks: Vec<String>) -> Result<TopicReceived, Error> {
        let end = Instant::now().checked_add(self.wait);
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()));
            // A lost answer is asked for again under the same key: the same messages, not the next ones.
            let mut call = self
                .subscription
                .change("/receive")
                .query("max", self.max.to_string())
                .query_some("visibility", visible(self.visibility))
                .query_some("session", self.session);
            for receipt in std::mem::take(&mut acks) {
                call = call.query("acks", receipt);
            }
            let received: TopicReceived =
                self.subscription.topic.client.ask(wait_of(call, left.min(STEP))).await?;
            if !received.items.is_empty() || received.gap.is_some() || left.is_zero() {
                return Ok(received);
            }
        }
    }
}

impl IntoFuture for ReceiveFrom {
    type Output = Result<TopicReceived, Error>;
    type IntoFuture = Pending<TopicReceived>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.run(Vec::new()).await })
    }
}

/// Deliveries one by one. What is acknowledged here goes with the next receive: one entry a batch.
#[derive(Debug)]
pub struct Consume {
    receive: ReceiveFrom,
    ready: VecDeque<TopicDelivery>,
    acks: Vec<String>,
    gap: Option<Gap>,
}

/// Receipts that fit into a query beside the other parameters.
const ACKS: usize = 50;

impl Consume {
    /// The next delivery. A loss on the way is told by [`Consume::gap`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Ok(Delivery { subscription: self.receive.subscription.clone(), delivery });
            }
            while self.acks.len() > ACKS {
                let rest = self.acks.split_off(ACKS);
                self.settle(rest).await?;
            }
            // Whoever waits long for the next message has acknowledged the last one before.
            let acks = std::mem::take(&mut self.acks);
            let received = if acks.is_empty() {
                self.receive.run(acks).await?
            } else {
                self.receive.clone().wait(Duration::ZERO).run(acks).await?
            };
            self.gap = received.gap.or(self.gap);
            self.ready.extend(received.items);
        }
    }

    /// It is done: acknowledged with the next receive, or by [`Consume::flush`].
    pub fn done(&mut self, delivery: Delivery) {
        self.acks.push(delivery.delivery.receipt);
    }

    /// Acknowledge now what is done.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        let acks = std::mem::take(&mut self.acks);
        if acks.is_empty() { Ok(()) } else { self.settle(acks).await }
    }

    /// Messages that retention took before they were received, since this was asked last.
    pub fn gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }

    /// A receipt that came too late is no error of the others: its message comes again.
    async fn settle(&self, receipts: Vec<String>) -> Result<(), Error> {
        match self.receive.subscription.ack(receipts).await {
            Err(error) if error.code() == Some(coracle_api::Code::ReceiptStale) => Ok(()),
            settled => settled.map(drop),
        }
    }
}

/// A message in our hands.
#[derive(Debug, Clone)]
pub struct Delivery {
    subscription: Subscription,
    delivery: TopicDelivery,
}

#[allow(clippy::missing_errors_doc, reason = "said once: see Error")]
impl Delivery {
    #[must_use]
    pub fn message(&self) -> &TopicMessage {
        &self.delivery.message
    }

    /// The bytes that were published.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.delivery.message.value.bytes
    }

    /// 1 the first time.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.delivery.deliveries
    }

    #[must_use]
    pub fn receipt(&self) -> &str {
        &self.delivery.receipt
    }

    /// It is done, for good. `receipt_stale` if it was handed out again meanwhile.
    pub async fn ack(self) -> Result<(), Error> {
        self.subscription.ack(vec![self.delivery.receipt]).await.map(drop)
    }

    /// Give it back.
    pub async fn nack(self, nack: &Nack) -> Result<(), Error> {
        self.subscription.nack(vec![self.delivery.receipt], nack).await.map(drop)
    }

    /// Keep it so much longer.
    pub async fn renew(&self, visibility: Duration) -> Result<(), Error> {
        self.subscription.renew(vec![self.delivery.receipt.clone()], visibility).await.map(drop)
    }
}
