//! Queues: send, receive, settle; and what an operator does with them.

mod job;

use std::future::IntoFuture;
use std::time::Duration;

use coracle_api::queue::{
    Controlled, Count, Message, MessageState, OnBreak, Queue as QueueView, QueueConfig, Received, Send,
    SendMany, Sent, SentMany,
};
use coracle_api::{Deleted, SessionId, SettledMany, Value};
use reqwest::Method;

use crate::call::Call;
use crate::escape::escape;
use crate::inbox::{Inbox, Nack, Receive};
use crate::kv::Pending;
use crate::session::all_pages;
use crate::{Coracle, Error, Fence, WatchBuilder};

pub use job::Job;

/// One queue by its name. It exists as soon as somebody sends to it.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Coracle,
    name: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once: see Error")]
impl Queue {
    pub(crate) fn new(client: Coracle, name: String) -> Self {
        Self { client, name }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A message to be sent; await it. The answer means that it is committed.
    pub fn send(&self, value: impl Into<Value>) -> SendMessage {
        SendMessage {
            queue: self.clone(),
            send: value.into().into(),
            session: None,
            wait: None,
            fences: Vec::new(),
        }
    }

    /// Several messages: all of them or none, one behind the other.
    pub async fn send_all(&self, items: Vec<Send>) -> Result<SentMany, Error> {
        let call = self.change("/messages").flag("batch", true).json(&SendMany { items })?;
        self.client.ask(call).await
    }

    /// Receive messages; each renews its visibility until it is settled.
    pub fn receive(&self) -> Receive<Self> {
        Receive::new(self.clone())
    }

    /// Acknowledge deliveries by their receipts; for each whether it was current.
    pub async fn ack(&self, receipts: Vec<String>) -> Result<SettledMany, Error> {
        self.inbox().ack(receipts).await
    }

    /// Give deliveries back.
    pub async fn nack(&self, receipts: Vec<String>, nack: &Nack) -> Result<SettledMany, Error> {
        self.inbox().nack(receipts, nack).await
    }

    /// Begin the visibility of deliveries anew.
    pub async fn renew(
        &self,
        receipts: Vec<String>,
        visibility: Option<Duration>,
    ) -> Result<SettledMany, Error> {
        self.inbox().renew(receipts, visibility).await
    }

    /// How the queue is configured and stands.
    pub async fn show(&self) -> Result<QueueView, Error> {
        self.client.ask(Call::get(self.path(""))).await
    }

    pub async fn configure(&self, config: &QueueConfig) -> Result<QueueView, Error> {
        self.client.ask(Call::change(Method::PUT, self.path("")).json(config)?).await
    }

    /// Forget the configuration and all messages.
    pub async fn delete(&self) -> Result<Deleted, Error> {
        self.client.ask(Call::change(Method::DELETE, self.path(""))).await
    }

    /// Messages in the order of their delivery, without an effect on them; of one state, or all.
    pub async fn messages(&self, state: Option<MessageState>) -> Result<Vec<Message>, Error> {
        all_pages(&self.client, &Call::get(self.path("/messages")).query_some("state", state.map(word))).await
    }

    /// The first messages, at most `limit`.
    pub async fn peek(&self, state: Option<MessageState>, limit: u64) -> Result<Vec<Message>, Error> {
        let call = Call::get(self.path("/messages")).query_some("state", state.map(word));
        let page: coracle_api::Page<Message> =
            self.client.ask(call.query("limit", limit.to_string())).await?;
        Ok(page.items)
    }

    pub async fn message(&self, id: &str) -> Result<Message, Error> {
        self.client.ask(Call::get(self.message_path(id))).await
    }

    /// Take one message out, whatever its state.
    pub async fn remove(&self, id: &str) -> Result<Deleted, Error> {
        self.client.ask(Call::change(Method::DELETE, self.message_path(id))).await
    }

    /// Remove all messages that are not in flight.
    pub async fn purge(&self) -> Result<Count, Error> {
        self.client.ask(self.change("/purge")).await
    }

    /// Bring dead letters back to the queues they died in, or to this one.
    pub async fn redrive(&self, to: Option<&str>) -> Result<Count, Error> {
        self.client.ask(self.change("/redrive").query_some("to", to)).await
    }

    /// Deliver nothing until [`Queue::open`].
    pub async fn close(&self) -> Result<Controlled, Error> {
        self.client.ask(self.change("/close")).await
    }

    /// Go on after [`Queue::close`]; release the generation of a barrier queue that fills.
    pub async fn open(&self) -> Result<Controlled, Error> {
        self.open_with(None).await
    }

    /// The same, with proof of the claim that the guard of a barrier queue asks for.
    pub async fn open_with(&self, fence: Option<&Fence>) -> Result<Controlled, Error> {
        let fences = fence.cloned().into_iter().collect::<Vec<_>>();
        self.client.ask(self.change("/open").fences(&fences)).await
    }

    /// Give a barrier queue the signal of that name.
    pub async fn signal(&self, signal: &str, fence: Option<&Fence>) -> Result<Controlled, Error> {
        let fences = fence.cloned().into_iter().collect::<Vec<_>>();
        self.client.ask(self.change("/open").query("signal", signal).fences(&fences)).await
    }

    /// Break the generation of a barrier queue that fills; its items as configured, or as said here.
    pub async fn break_generation(&self, reason: &str, items: Option<OnBreak>) -> Result<Controlled, Error> {
        let items = items.map(|items| match items {
            OnBreak::CarryOver => "carry_over",
            OnBreak::DeadLetter => "dead_letter",
            OnBreak::Drop => "drop",
        });
        self.client.ask(self.change("/break").query("reason", reason).query_some("items", items)).await
    }

    /// Follow the messages, or which of them come to be in a state and which leave it.
    pub fn watch_messages(&self, state: Option<MessageState>) -> WatchBuilder<Message> {
        let call = Call::get(self.path("/messages")).query_some("state", state.map(word));
        WatchBuilder::new(self.client.clone(), call)
    }

    /// Follow the queue.
    pub fn watch(&self) -> WatchBuilder<QueueView> {
        WatchBuilder::new(self.client.clone(), Call::get(self.path("")))
    }

    fn inbox(&self) -> Inbox {
        Inbox { client: self.client.clone(), path: self.path("") }
    }

    fn path(&self, tail: &str) -> String {
        format!("/v1/queues/{}{tail}", escape(self.name.as_bytes()))
    }

    fn message_path(&self, id: &str) -> String {
        self.path(&format!("/messages/{}", escape(id.as_bytes())))
    }

    fn change(&self, tail: &str) -> Call {
        Call::change(Method::POST, self.path(tail))
    }
}

fn word(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::Blocked => "blocked",
        MessageState::Delayed => "delayed",
        MessageState::InFlight => "in_flight",
        MessageState::Held => "held",
    }
}

impl IntoFuture for Receive<Queue> {
    type Output = Result<Vec<Job>, Error>;
    type IntoFuture = Pending<Vec<Job>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { source: queue, terms } = self;
            let enough = |received: &Received| !received.items.is_empty();
            let (received, sent) = queue.inbox().receive(&terms, Vec::new(), enough).await?;
            let job = |item| Job::new(queue.clone(), item, terms.visibility, sent);
            Ok(received.items.into_iter().map(job).collect())
        })
    }
}

/// A message on its way; await it.
#[derive(Debug)]
#[must_use = "a message is sent when it is awaited"]
pub struct SendMessage {
    queue: Queue,
    send: Send,
    session: Option<SessionId>,
    wait: Option<Duration>,
    fences: Vec<Fence>,
}

impl SendMessage {
    /// At most one message of a group is in flight.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.send.group = Some(group.into());
        self
    }

    /// 0 to 9, the highest first; in queues of kind priority.
    pub fn priority(mut self, priority: u8) -> Self {
        self.send.priority = Some(priority);
        self
    }

    /// Not delivered before.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.send.delay = Some(delay.into());
        self
    }

    /// Not delivered later than this.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.send.ttl = Some(ttl.into());
        self
    }

    /// Within the queue's window the same id is the same message.
    pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
        self.send.dedup_id = Some(id.into());
        self
    }

    /// The name of an item of a barrier queue: once a generation.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.send.id = Some(id.into());
        self
    }

    /// The item of a barrier queue withdraws if this session ends before the release.
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// Wait for the release of the generation: the answer has the ordinal.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Something that travels with the message.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.send.headers.insert(name.into(), value.into());
        self
    }

    /// Send only while this claim is current.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }

    fn call(&self) -> Call {
        let Send { value, group, priority, delay, ttl, dedup_id, id, headers } = &self.send;
        let mut call = self
            .queue
            .change("/messages")
            .query_some("group", group.as_deref())
            .query_some("priority", *priority)
            .query_some("delay", *delay)
            .query_some("ttl", *ttl)
            .query_some("dedup_id", dedup_id.as_deref())
            .query_some("id", id.as_deref())
            .query_some("session", self.session)
            .fences(&self.fences);
        if let Some(wait) = self.wait {
            call = call.waiting(wait);
        }
        for (name, value) in headers {
            call = call.meta(name, value);
        }
        call.body(value.bytes.clone(), &value.content_type)
    }
}

impl IntoFuture for SendMessage {
    type Output = Result<Sent, Error>;
    type IntoFuture = Pending<Sent>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.queue.client.ask(self.call()).await })
    }
}
