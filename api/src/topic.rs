//! Topics: settings, messages, streams of messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{ByeReason, Instant, Overflow, Problem, SessionId, Settled, Span, Value};

/// Body of `PUT /v1/topics/{topic}`. What is absent is the default; 0 is no bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TopicConfig {
    /// 24 h, or no bound if there is `max_per_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// 64 MiB. A message counts its body, key and headers, and 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_messages: Option<u64>,
    /// Newest messages kept of each key, at most 100. 1 makes the topic a table of current values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_key: Option<u64>,
    /// Of `max_bytes` and `max_messages`: `drop_oldest` unless configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
}

/// A topic as it is, or a pattern that has subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Topic {
    pub name: String,
    /// Messages kept.
    pub messages: u64,
    pub bytes: u64,
    /// Of the newest message ever published, kept or not; 0 if there never was one.
    pub last_seq: u64,
    /// Of the oldest message kept, and when it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_time: Option<Instant>,
    pub subscriptions: u64,
    /// The bounds in force; absent for a pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<TopicConfig>,
    /// Whether they were set, or are the default ones.
    pub configured: bool,
}

/// What a publish answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Published {
    /// Of a batch, the seq of its first message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seq: Option<u64>,
    /// Of a batch, the seq of its last message.
    pub seq: u64,
    pub revision: u64,
}

/// What the delete of a topic answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopicDeleted {
    pub messages: u64,
    pub subscriptions: u64,
    pub revision: u64,
}

/// Body of a publish with `batch=true`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PublishBatch {
    pub items: Vec<PublishItem>,
}

/// One message of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "PublishWire", try_from = "PublishWire")]
pub struct PublishItem {
    pub key: Option<String>,
    pub ttl: Option<Span>,
    pub headers: BTreeMap<String, String>,
    pub value: Value,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct PublishWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<Span>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

impl From<PublishItem> for PublishWire {
    fn from(item: PublishItem) -> Self {
        let PublishItem { key, ttl, headers, value } = item;
        let (value, value_base64, content_type) = optional_members(Some(&value));
        Self { key, ttl, headers, value, value_base64, content_type }
    }
}

impl TryFrom<PublishWire> for PublishItem {
    type Error = String;

    fn try_from(wire: PublishWire) -> Result<Self, String> {
        let PublishWire { key, ttl, headers, value, value_base64, content_type } = wire;
        let value =
            Value::from_members((value, value_base64, content_type)).map_err(|error| error.to_string())?;
        Ok(Self { key, ttl, headers, value })
    }
}

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "MessageWire", try_from = "MessageWire")]
pub struct TopicMessage {
    pub topic: String,
    pub seq: u64,
    pub revision: u64,
    /// When it was published.
    pub time: Instant,
    pub key: Option<String>,
    pub value: Value,
    pub headers: BTreeMap<String, String>,
    pub expires: Option<Instant>,
    /// How it came here, if a subscription gave it up.
    pub dead: Option<DeadLetter>,
}

/// Which subscription gave a message up, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetter {
    /// Where it was published first.
    pub topic: String,
    pub seq: u64,
    /// What the subscription is of: a topic or a pattern.
    pub subject: String,
    pub subscription: String,
    pub deliveries: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A message in the hands of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "MessageWire", try_from = "MessageWire")]
pub struct TopicDelivery {
    /// For `ack`, `nack` and `renew`.
    pub receipt: String,
    /// 1 the first time.
    pub deliveries: u64,
    /// When it comes back if nothing is said. Absent if that is the end of the session.
    pub until: Option<Instant>,
    pub message: TopicMessage,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct MessageWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Instant>,
    topic: String,
    seq: u64,
    revision: u64,
    time: Instant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead: Option<DeadLetter>,
}

impl From<TopicMessage> for MessageWire {
    fn from(message: TopicMessage) -> Self {
        let TopicMessage { topic, seq, revision, time, key, value, headers, expires, dead } = message;
        let (value, value_base64, content_type) = optional_members(Some(&value));
        Self {
            receipt: None,
            deliveries: None,
            until: None,
            topic,
            seq,
            revision,
            time,
            key,
            value,
            value_base64,
            content_type,
            headers,
            expires,
            dead,
        }
    }
}

impl TryFrom<MessageWire> for TopicMessage {
    type Error = String;

    fn try_from(wire: MessageWire) -> Result<Self, String> {
        let MessageWire { topic, seq, revision, time, key, headers, expires, dead, .. } = wire;
        let members = (wire.value, wire.value_base64, wire.content_type);
        let value = Value::from_members(members).map_err(|error| error.to_string())?;
        Ok(Self { topic, seq, revision, time, key, value, headers, expires, dead })
    }
}

impl From<TopicDelivery> for MessageWire {
    fn from(delivery: TopicDelivery) -> Self {
        let TopicDelivery { receipt, deliveries, until, message } = delivery;
        Self { receipt: Some(receipt), deliveries: Some(deliveries), until, ..message.into() }
    }
}

impl TryFrom<MessageWire> for TopicDelivery {
    type Error = String;

    fn try_from(mut wire: MessageWire) -> Result<Self, String> {
        let receipt = wire.receipt.take().ok_or("receipt is missing")?;
        let deliveries = wire.deliveries.ok_or("deliveries is missing")?;
        Ok(Self { receipt, deliveries, until: wire.until, message: wire.try_into()? })
    }
}

/// Messages that retention took before they were read: behind `from`, up to and including `to`. Positions are seqs of a
/// topic, and revisions of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    pub from: u64,
    pub to: u64,
}

/// A page of `GET /v1/topics/{topic}/messages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopicMessages {
    pub items: Vec<TopicMessage>,
    /// Where the next page begins: give it as `after`. A seq of a topic, or a revision of a pattern.
    pub after: u64,
    /// There is more behind it already.
    pub more: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    pub revision: u64,
}

/// One frame of a stream of messages.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TopicFrame {
    /// All that one revision published within what is followed, never split.
    Change {
        revision: u64,
        /// Where a reader of this frame continues: a seq of a topic, a revision of a pattern.
        after: u64,
        #[serde(rename = "events")]
        messages: Vec<TopicMessage>,
    },
    /// All that was kept has been sent; what follows happens now.
    Synced { revision: u64, after: u64 },
    /// Nothing else was published up to `revision`.
    Progress { revision: u64, after: u64 },
    /// Retention took the messages behind `from` up to and including `to` before they were read; the oldest kept
    /// follows.
    Gap { from: u64, to: u64 },
    /// The reader was slower than retention, and the stream ends: continue after `after`.
    Lagged { after: u64 },
    /// The server ends the stream; continue after `after`.
    Bye { reason: ByeReason, after: u64 },
    /// The stream ends by a problem.
    Error { problem: Problem },
    /// A frame that this version does not know: ignore it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    Other { kind: String },
}

impl TopicFrame {
    /// After which position a reader of this frame continues.
    #[must_use]
    pub fn resume_after(&self) -> Option<u64> {
        match self {
            Self::Change { after, .. }
            | Self::Synced { after, .. }
            | Self::Progress { after, .. }
            | Self::Lagged { after }
            | Self::Bye { after, .. } => Some(*after),
            Self::Gap { .. } | Self::Error { .. } | Self::Other { .. } => None,
        }
    }
}

#[derive(Deserialize)]
struct FrameWire {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    events: Vec<TopicMessage>,
    #[serde(default)]
    from: Option<u64>,
    #[serde(default)]
    to: Option<u64>,
    #[serde(default)]
    reason: Option<ByeReason>,
    #[serde(default)]
    problem: Option<Problem>,
}

impl<'de> Deserialize<'de> for TopicFrame {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;

        let FrameWire { kind, revision, after, events: messages, from, to, reason, problem } =
            FrameWire::deserialize(deserializer)?;
        let position = after.ok_or_else(|| D::Error::missing_field("after"));
        Ok(match kind.as_str() {
            "change" => Self::Change { revision, after: position?, messages },
            "synced" => Self::Synced { revision, after: position? },
            "progress" => Self::Progress { revision, after: position? },
            "lagged" => Self::Lagged { after: position? },
            "bye" => Self::Bye { reason: reason.unwrap_or(ByeReason::Other), after: position? },
            "gap" => Self::Gap {
                from: from.ok_or_else(|| D::Error::missing_field("from"))?,
                to: to.ok_or_else(|| D::Error::missing_field("to"))?,
            },
            "error" => Self::Error { problem: problem.ok_or_else(|| D::Error::missing_field("problem"))? },
            _ => Self::Other { kind },
        })
    }
}

/// How a subscription divides its messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionMode {
    /// Among all that receive.
    #[default]
    Shared,
    /// One session receives; when it ends, the next that asks.
    Exclusive,
}

/// Body of `PUT /v1/topics/{topic}/subscriptions/{name}`. What is absent is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SubscriptionConfig {
    /// Where a new subscription begins: `new` (the default), `first`, `last`, a seq, or a time. One that exists stays
    /// where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<SubscriptionMode>,
    /// Only messages whose key this covers: a pattern like those of topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// How long a delivery may stay unsettled: 1 s to 12 h, 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Span>,
    /// So many deliveries, then the message is dead: 5; 0 is any number, at most 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_deliveries: Option<u64>,
    /// Topic that the dead are published to: `{topic}.dead`, or `{subscription}.dead` of a pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
}

/// A durable subscription as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscription {
    pub name: String,
    /// The topic or pattern it is of.
    pub topic: String,
    pub mode: SubscriptionMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    pub visibility: Span,
    pub max_deliveries: u64,
    pub dead_letter: String,
    /// All up to here was handed out once, or passed over: a seq of a topic, a revision of a pattern.
    pub after: u64,
    /// Messages ahead, counted up to 10 000.
    pub lag: u64,
    /// There are more than `lag` says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lag_is_more: bool,
    /// When the first of them was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Instant>,
    /// Handed out or delayed, not settled.
    pub in_flight: u64,
    /// Waiting to be handed out again.
    pub returned: u64,
    /// Deliveries, acknowledged ones, and messages given up, so far.
    pub delivered: u64,
    pub acked: u64,
    pub dead: u64,
    /// How often retention took what it had not yet seen.
    pub gaps: u64,
    /// Of an exclusive one, the session that receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<SessionId>,
    pub created: Instant,
}

/// What a receive answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopicReceived {
    /// Empty if there was nothing in time.
    pub items: Vec<TopicDelivery>,
    /// What became of `acks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acks: Vec<Settled>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// The session that the deliveries live with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<Span>,
    pub revision: u64,
}
