//! Topics: publish, read, follow; and durable subscriptions.

mod subscription;

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_api::{
    ByeReason, PublishBatch, PublishItem, Published, Topic as TopicView, TopicConfig, TopicDeleted,
    TopicFrame, TopicMessage, TopicMessages, Value,
};
use futures::stream::{BoxStream, Stream, StreamExt};
use reqwest::Method;
use serde::Serialize;

use crate::call::Call;
use crate::escape::escape;
use crate::follow::{Frames, Taken, follow};
use crate::kv::Pending;
use crate::session::all_pages;
use crate::{Coracle, Error, Fence};

pub use subscription::{Consume, Delivery, Subscription};

/// One topic by its name, or a pattern over topics: `*` stands for one token, `>` for the rest.
#[derive(Debug, Clone)]
pub struct Topic {
    client: Coracle,
    name: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once: see Error")]
impl Topic {
    pub(crate) fn new(client: Coracle, name: String) -> Self {
        Self { client, name }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A message to be published; await it. The answer means that it is committed.
    pub fn publish(&self, value: impl Into<Value>) -> Publish {
        let item = PublishItem { key: None, ttl: None, headers: BTreeMap::new(), value: value.into() };
        Publish { topic: self.clone(), item, expect_last_seq: None, fences: Vec::new() }
    }

    /// A message that is JSON.
    pub fn publish_json(&self, value: &impl Serialize) -> Result<Publish, Error> {
        let json = serde_json::to_vec(value).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.publish(Value::new(json, "application/json")))
    }

    /// Several messages: all of them or none, one behind the other.
    pub async fn publish_all(&self, items: Vec<PublishItem>) -> Result<Published, Error> {
        let call = Call::change(Method::POST, self.path("/messages")).flag("batch", true);
        self.client.ask(call.json(&PublishBatch { items })?).await
    }

    /// Messages behind a position, a page of them: a seq of a topic, a revision of a pattern; 0 is the beginning.
    pub async fn read(&self, after: u64, limit: u64) -> Result<TopicMessages, Error> {
        let call = Call::get(self.path("/messages")).query("limit", limit.to_string());
        // Whoever knows no position is told of no gap before the first message.
        let call =
            if after == 0 { call.query("from", "first") } else { call.query("after", after.to_string()) };
        self.client.ask(call).await
    }

    /// The newest message, or that revision of a pattern that has it.
    pub async fn last(&self) -> Result<Vec<TopicMessage>, Error> {
        let page: TopicMessages =
            self.client.ask(Call::get(self.path("/messages")).query("from", "last")).await?;
        Ok(page.items)
    }

    /// One message.
    pub async fn message(&self, seq: u64) -> Result<TopicMessage, Error> {
        self.client.ask(Call::get(self.path(&format!("/messages/{seq}")))).await
    }

    /// Follow the messages, without a trace on the server: at most once, with gaps told.
    pub fn subscribe(&self) -> Subscribe {
        let heartbeat = Duration::from_secs(5);
        Subscribe { client: self.client.clone(), call: Call::get(self.path("/messages")), heartbeat }
    }

    /// A durable subscription by its name: it keeps its place, and messages come back until they are acknowledged.
    #[must_use]
    pub fn subscription(&self, name: impl Into<String>) -> Subscription {
        Subscription::new(self.clone(), name.into())
    }

    /// The durable subscriptions of this topic or pattern.
    pub async fn subscriptions(&self) -> Result<Vec<coracle_api::Subscription>, Error> {
        all_pages(&self.client, &Call::get(self.path("/subscriptions"))).await
    }

    /// What the topic keeps.
    pub async fn show(&self) -> Result<TopicView, Error> {
        self.client.ask(Call::get(self.path(""))).await
    }

    pub async fn configure(&self, config: &TopicConfig) -> Result<TopicView, Error> {
        self.client.ask(Call::change(Method::PUT, self.path("")).json(config)?).await
    }

    /// Forget messages, bounds and subscriptions.
    pub async fn delete(&self) -> Result<TopicDeleted, Error> {
        self.client.ask(Call::change(Method::DELETE, self.path(""))).await
    }

    fn path(&self, tail: &str) -> String {
        format!("/v1/topics/{}{tail}", escape(self.name.as_bytes()))
    }
}

/// A message on its way; await it.
#[derive(Debug)]
#[must_use = "a message is published when it is awaited"]
pub struct Publish {
    topic: Topic,
    item: PublishItem,
    expect_last_seq: Option<u64>,
    fences: Vec<Fence>,
}

impl Publish {
    /// What the message is about: of a table of current values, the name of the value.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.item.key = Some(key.into());
        self
    }

    /// Gone after this.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.item.ttl = Some(ttl.into());
        self
    }

    /// Something that travels with the message.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.item.headers.insert(name.into(), value.into());
        self
    }

    /// Only if this is the last seq of the topic; 0: only if it does not exist. 412 `seq_mismatch` otherwise.
    pub fn expect_last_seq(mut self, seq: u64) -> Self {
        self.expect_last_seq = Some(seq);
        self
    }

    /// Publish only while this claim is current.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }

    fn call(&self) -> Call {
        let PublishItem { key, ttl, headers, value } = &self.item;
        let mut call = Call::change(Method::POST, self.topic.path("/messages"))
            .query_some("key", key.as_deref())
            .query_some("ttl", *ttl)
            .query_some("expect_last_seq", self.expect_last_seq)
            .fences(&self.fences);
        for (name, value) in headers {
            call = call.meta(name, value);
        }
        call.body(value.bytes.clone(), &value.content_type)
    }
}

impl IntoFuture for Publish {
    type Output = Result<Published, Error>;
    type IntoFuture = Pending<Published>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.topic.client.ask(self.call()).await })
    }
}

/// A stream of messages to be opened: where does it begin?
#[derive(Debug)]
#[must_use = "a stream starts with from_now(), from_first(), from_last(), at() or after()"]
pub struct Subscribe {
    client: Coracle,
    call: Call,
    heartbeat: Duration,
}

impl Subscribe {
    /// How often the server shows that it lives; 5 s if not set. After two and a half of silence the stream goes
    /// elsewhere.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// What is published from now on.
    #[must_use]
    pub fn from_now(self) -> Messages {
        self.start(Begin::From("new".to_owned()))
    }

    /// All that is kept, then what comes: of a table of current values, the values first.
    #[must_use]
    pub fn from_first(self) -> Messages {
        self.start(Begin::From("first".to_owned()))
    }

    /// The newest message, then what comes.
    #[must_use]
    pub fn from_last(self) -> Messages {
        self.start(Begin::From("last".to_owned()))
    }

    /// What was published at a time or later.
    #[must_use]
    pub fn at(self, time: coracle_api::Instant) -> Messages {
        self.start(Begin::From(time.to_string()))
    }

    /// What is behind a position: a seq of a topic, a revision of a pattern.
    #[must_use]
    pub fn after(self, position: u64) -> Messages {
        self.start(Begin::After(position))
    }

    fn start(self, begin: Begin) -> Messages {
        Messages { updates: follow(self.client, self.call, self.heartbeat, Following { begin }) }
    }
}

/// What a stream of messages tells. Every message appears at most once, in order; which are missing is told.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MessageUpdate {
    /// All that one revision published within what is followed.
    Messages { revision: u64, after: u64, messages: Vec<TopicMessage> },
    /// All that was kept is told; what follows happens now.
    Synced { revision: u64, after: u64 },
    /// Nothing else was published up to `revision`.
    Progress { revision: u64, after: u64 },
    /// Retention took the messages behind `from` up to and including `to` before they were read.
    Gap { from: u64, to: u64 },
    /// We read more slowly than retention takes and were cut off; the stream goes on by itself, and tells the gap.
    Lagged,
    /// The node said goodbye; nothing is lost, the stream goes on elsewhere by itself.
    Bye { reason: ByeReason },
    /// The connection failed; nothing is lost, the stream goes on by itself.
    Reconnecting { detail: String },
}

/// A running stream of messages. It ends only with an error, when dropped, or never.
pub struct Messages {
    updates: BoxStream<'static, Result<MessageUpdate, Error>>,
}

impl Stream for Messages {
    type Item = Result<MessageUpdate, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.updates.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Messages")
    }
}

#[derive(Debug)]
enum Begin {
    From(String),
    After(u64),
}

/// Where a stream of messages goes on.
struct Following {
    begin: Begin,
}

impl Frames for Following {
    type Frame = TopicFrame;
    type Update = MessageUpdate;

    fn resume(&self, call: Call) -> Call {
        match &self.begin {
            Begin::From(from) => call.query("from", from),
            Begin::After(position) => call.query("after", position.to_string()),
        }
    }

    fn take(&mut self, frame: TopicFrame) -> Result<Taken<MessageUpdate>, Error> {
        let seen = match self.begin {
            Begin::After(position) => Some(position),
            Begin::From(_) => None,
        };
        // A message seen before would be a fault of the server; it must not become one of ours.
        if let TopicFrame::Change { after, .. } = &frame
            && seen.is_some_and(|seen| *after <= seen)
        {
            return Ok(Taken::Nothing);
        }
        if let Some(after) = frame.resume_after() {
            self.begin = Begin::After(after.max(seen.unwrap_or(0)));
        }
        Ok(Taken::Update(match frame {
            TopicFrame::Change { revision, after, messages } => {
                MessageUpdate::Messages { revision, after, messages }
            }
            TopicFrame::Synced { revision, after } => MessageUpdate::Synced { revision, after },
            TopicFrame::Progress { revision, after } => MessageUpdate::Progress { revision, after },
            TopicFrame::Gap { from, to } => MessageUpdate::Gap { from, to },
            TopicFrame::Lagged { .. } => {
                return Ok(Taken::Last { update: MessageUpdate::Lagged, leave: false });
            }
            TopicFrame::Bye { reason, .. } => {
                let leave = reason != ByeReason::Limit;
                return Ok(Taken::Last { update: MessageUpdate::Bye { reason }, leave });
            }
            TopicFrame::Error { problem } => return Taken::problem(problem, Self::reconnecting),
            TopicFrame::Other { .. } => return Ok(Taken::Nothing),
        }))
    }

    fn reconnecting(detail: String) -> MessageUpdate {
        MessageUpdate::Reconnecting { detail }
    }
}
