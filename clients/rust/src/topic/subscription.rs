//! Durable subscriptions: receive, settle, move.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::Duration;

use coracle_api::{
    Deleted, Gap, SettledMany, Subscription as View, SubscriptionConfig, TopicDelivery, TopicMessage,
    TopicReceived,
};
use reqwest::Method;

use super::Topic;
use crate::call::Call;
use crate::escape::escape;
use crate::inbox::{Inbox, Receive};
use crate::kv::Pending;
use crate::{Error, Nack};

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
        self.topic.client.ask(self.inbox().change("seek").query("to", to.to_string())).await
    }

    /// Messages to be received.
    pub fn receive(&self) -> Receive<Self> {
        Receive::new(self.clone())
    }

    /// Acknowledge deliveries by their receipts: for good.
    pub async fn ack(&self, receipts: Vec<String>) -> Result<SettledMany, Error> {
        self.inbox().ack(receipts).await
    }

    /// Give deliveries back.
    pub async fn nack(&self, receipts: Vec<String>, nack: &Nack) -> Result<SettledMany, Error> {
        self.inbox().nack(receipts, nack).await
    }

    /// Keep deliveries so much longer; as long as the subscription has it unless said.
    pub async fn renew(
        &self,
        receipts: Vec<String>,
        visibility: Option<Duration>,
    ) -> Result<SettledMany, Error> {
        self.inbox().renew(receipts, visibility).await
    }

    fn inbox(&self) -> Inbox {
        Inbox { client: self.topic.client.clone(), path: self.path("") }
    }

    fn path(&self, tail: &str) -> String {
        self.topic.path(&format!("/subscriptions/{}{tail}", escape(self.name.as_bytes())))
    }
}

impl Receive<Subscription> {
    /// One delivery after the other, without end; the wait is not counted.
    #[must_use]
    pub fn consume(self) -> Consume {
        Consume { receive: self.wait(Duration::MAX), ready: VecDeque::new(), acks: Vec::new(), gap: None }
    }

    async fn run(&self, acks: Vec<String>) -> Result<TopicReceived, Error> {
        let enough = |received: &TopicReceived| !received.items.is_empty() || received.gap.is_some();
        let (received, _) = self.source.inbox().receive(&self.terms, acks, enough).await?;
        Ok(received)
    }
}

impl IntoFuture for Receive<Subscription> {
    type Output = Result<TopicReceived, Error>;
    type IntoFuture = Pending<TopicReceived>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.run(Vec::new()).await })
    }
}

/// Deliveries one by one. What is acknowledged here goes with the next receive: one entry a batch.
#[derive(Debug)]
pub struct Consume {
    receive: Receive<Subscription>,
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
                return Ok(Delivery { subscription: self.receive.source.clone(), delivery });
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
        match self.receive.source.ack(receipts).await {
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
    pub async fn renew(&self, visibility: Option<Duration>) -> Result<(), Error> {
        self.subscription.renew(vec![self.delivery.receipt.clone()], visibility).await.map(drop)
    }
}
