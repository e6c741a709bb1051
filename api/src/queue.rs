//! Bodies of the queues family: how a queue is configured and stands, and what its verbs answer.

mod barrier;
mod message;

use serde::{Deserialize, Serialize};

pub use barrier::{Barrier, BarrierMode, Delivery, Draining, Filling, Finalizer, Names, OnBreak, OnDeadline};
pub use message::{DeadLetter, Message, MessageRole, MessageState, Send, SendMany};

use crate::{Instant, Overflow, SessionId, Settled, Span};

/// In which order messages are delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum QueueKind {
    /// In the order of the sends.
    #[default]
    Fifo,
    /// The highest priority first.
    Priority,
    /// Items gather until a condition holds.
    Barrier,
}

/// The delay after the n-th failed delivery: `min` times `factor` to the n-1, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct QueueBackoff {
    pub min: Span,
    pub max: Span,
    /// 1 to 10.
    #[serde(default = "two")]
    pub factor: u32,
}

fn two() -> u32 {
    2
}

/// Configuration of a queue: `PUT /v1/queues/{name}`. What is left out is as in a queue that nobody configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    pub kind: QueueKind,
    /// From a delivery until the message is visible again: 1 s to 366 d, default 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Span>,
    /// Failed deliveries that make a dead letter: 0 (never) to 1000, default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deliveries: Option<u32>,
    /// The queue of the dead letters; default the queue's name with `.dead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
    /// None unless configured: a failed message is ready at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<QueueBackoff>,
    /// Messages older than this are dropped, default 14 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// Messages in all, those in flight included; as many as the quota allows unless configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// Of `max_length`: `reject` unless configured.
    pub overflow: Overflow,
    /// How long a `dedup_id` is known, default 5 m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup_window: Option<Span>,
    /// One consumer session at a time.
    pub single_active: bool,
    pub paused: bool,
    /// Of a queue of kind `barrier`, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barrier: Option<Barrier>,
}

/// A queue: `GET /v1/queues/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Queue {
    pub name: String,
    /// In force, whole.
    pub config: QueueConfig,
    /// Somebody configured it, so it stays when it is empty.
    pub configured: bool,
    /// Messages in all.
    pub length: u64,
    /// Messages that the next receiver may have.
    pub ready: u64,
    /// Behind another of their group.
    pub blocked: u64,
    pub delayed: u64,
    pub in_flight: u64,
    /// Items of a barrier queue that are not for receivers, or not yet.
    #[serde(default)]
    pub held: u64,
    /// Dead letters, in `dead_letter`.
    pub dead: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
    /// Of the messages' values.
    pub bytes: u64,
    /// Receivers in line.
    pub waiting: u64,
    /// When the oldest message that is still there was sent, and how long ago that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_age: Option<Span>,
    /// The one consumer of a queue with `single_active`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<SessionId>,
    /// The line of receivers, the first 100; absent in lists of queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumers: Option<Vec<Consumer>>,
    /// The generation of a barrier queue that fills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filling: Option<Filling>,
    /// The generation of a barrier queue that is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Draining>,
    /// Released generations that wait for their turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generations_waiting: Option<u64>,
}

/// A receiver in line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueConsumer"))]
pub struct Consumer {
    pub session: SessionId,
    pub since: Instant,
    pub max: u32,
}

/// Answer of a send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueSent"))]
pub struct Sent {
    pub id: String,
    pub revision: u64,
    /// It had been sent before: this is the first one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// The generation it belongs to, in a barrier queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// With `wait`, once the generation is released: which of 0..size it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// With `wait` and `delivery=self`: what the producer acknowledges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Of an item of a barrier queue: it goes with this session, unless its generation is released before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
}

/// Answer of a send of several messages, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueSentMany"))]
pub struct SentMany {
    pub items: Vec<SentItem>,
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueSentItem"))]
pub struct SentItem {
    pub id: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// Answer of a send: of one message, or of several (`batch=true`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueSentOneOrMany"))]
#[serde(untagged)]
pub enum SentOneOrMany {
    One(Sent),
    Many(SentMany),
}

/// Answer of a receive. Nothing to be had is an empty list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueReceived"))]
pub struct Received {
    pub items: Vec<Message>,
    /// What became of the `acks` of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acks: Vec<Settled>,
    /// The session the deliveries depend on, if there is one, and how long it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
    /// The generation that the items are, in a barrier queue with `delivery=broadcast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The generation has more: `GET /v1/queues/{name}/messages?generation=N`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    pub revision: u64,
}

/// Answer of purge and redrive: how many messages it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueCount"))]
pub struct Count {
    pub count: u64,
    pub revision: u64,
}

/// Answer of open, close and break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueControlled"))]
pub struct Controlled {
    pub paused: bool,
    /// The generation that was signalled, opened or broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// It is released by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<bool>,
    /// Its items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    pub revision: u64,
}

/// Answer of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueConsuming"))]
pub struct Consuming {
    /// The one consumer now.
    pub consumer: SessionId,
    pub valid_for: Span,
    pub revision: u64,
}
