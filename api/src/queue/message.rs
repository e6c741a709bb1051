//! Messages, on their way in and out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{Instant, SessionId, Span, Value};

/// One message of a batch: `POST /v1/queues/{name}/messages?batch=true`. A single one is the body itself, and the rest
/// are parameters of the same names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueSend"))]
#[serde(into = "SendWire", try_from = "SendWire")]
pub struct Send {
    pub value: Value,
    /// At most one message of a group is in flight.
    pub group: Option<String>,
    /// 0 to 9, the highest first; in queues of kind `priority`.
    pub priority: Option<u8>,
    pub delay: Option<Span>,
    /// Not delivered later than this.
    pub ttl: Option<Span>,
    /// Within the queue's window the same id is the same message.
    pub dedup_id: Option<String>,
    /// The producer's name of an item of a barrier queue: once a generation.
    pub id: Option<String>,
    pub headers: BTreeMap<String, String>,
}

/// `{"items":[..]}`: all of them or none, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueSendMany"))]
#[serde(deny_unknown_fields, default)]
pub struct SendMany {
    pub items: Vec<Send>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct SendWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dedup_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
}

impl From<Value> for Send {
    fn from(value: Value) -> Self {
        Self {
            value,
            group: None,
            priority: None,
            delay: None,
            ttl: None,
            dedup_id: None,
            id: None,
            headers: BTreeMap::new(),
        }
    }
}

impl From<Send> for SendWire {
    fn from(send: Send) -> Self {
        let Send { value, group, priority, delay, ttl, dedup_id, id, headers } = send;
        let (value, value_base64, content_type) = optional_members(Some(&value));
        Self { value, value_base64, content_type, group, priority, delay, ttl, dedup_id, id, headers }
    }
}

impl TryFrom<SendWire> for Send {
    type Error = String;

    fn try_from(wire: SendWire) -> Result<Self, String> {
        let SendWire {
            value,
            value_base64,
            content_type,
            group,
            priority,
            delay,
            ttl,
            dedup_id,
            id,
            headers,
        } = wire;
        let value = Value::from_members((value, value_base64, content_type)).map_err(|e| e.to_string())?;
        Ok(Self { value, group, priority, delay, ttl, dedup_id, id, headers })
    }
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueMessageState"))]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    Ready,
    /// Behind another of its group.
    Blocked,
    Delayed,
    InFlight,
    /// An item of a barrier queue that is not for receivers, or not yet.
    Held,
}

/// What a message of a barrier queue is, if it is not an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueMessageRole"))]
#[serde(rename_all = "snake_case")]
pub enum MessageRole {
    /// Stands for all items of its generation; so does its receipt.
    Batch,
    /// Follows the last item of its generation.
    Finalizer,
}

/// A message as it is received or looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueMessage"))]
#[serde(into = "MessageWire", try_from = "MessageWire")]
pub struct Message {
    pub id: String,
    /// Proof of this delivery; only who receives the message has it.
    pub receipt: Option<String>,
    /// Only where messages are looked at.
    pub state: Option<MessageState>,
    pub value: Value,
    /// Deliveries that count, this one included.
    pub deliveries: u32,
    pub sent: Instant,
    /// 0 to 9.
    pub priority: u8,
    pub group: Option<String>,
    pub headers: BTreeMap<String, String>,
    /// Not delivered after this.
    pub expires: Option<Instant>,
    /// Visible again then, or ready then; absent if only a session decides.
    pub until: Option<Instant>,
    /// In flight since then.
    pub since: Option<Instant>,
    /// The session that the delivery depends on.
    pub session: Option<SessionId>,
    /// Why the last delivery failed, in the consumer's words.
    pub reason: Option<String>,
    /// How it came to be a dead letter.
    pub dead: Option<DeadLetter>,
    /// As its producer named it.
    pub name: Option<String>,
    pub role: Option<MessageRole>,
    /// Of a released item of a barrier queue, and of what stands for a generation.
    pub generation: Option<u64>,
    /// Which of 0..size it is.
    pub ordinal: Option<u64>,
    pub size: Option<u64>,
    /// What the message stands for, with the role `batch`: the first items, in their order.
    pub items: Option<Vec<Message>>,
}

/// How a message came to be a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetter {
    pub queue: String,
    /// Its id there.
    pub id: String,
    pub deliveries: u32,
    /// `max_deliveries`, `fatal`, `overflow`, or what the consumer said.
    pub reason: String,
    pub sent: Instant,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct MessageWire {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<MessageState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default)]
    deliveries: u32,
    sent: Instant,
    #[serde(default, skip_serializing_if = "is_zero")]
    priority: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dead: Option<DeadLetter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<MessageRole>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ordinal: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    items: Option<Vec<Message>>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(priority: &u8) -> bool {
    *priority == 0
}

impl From<Message> for MessageWire {
    fn from(message: Message) -> Self {
        let (value, value_base64, content_type) = optional_members(Some(&message.value));
        let Message { id, receipt, state, value: _, deliveries, sent, priority, group, headers, .. } =
            message;
        let Message { expires, until, since, session, reason, dead, .. } = message;
        let Message { name, role, generation, ordinal, size, items, .. } = message;
        Self {
            id,
            receipt,
            state,
            value,
            value_base64,
            content_type,
            deliveries,
            sent,
            priority,
            group,
            headers,
            expires,
            until,
            since,
            session,
            reason,
            dead,
            name,
            role,
            generation,
            ordinal,
            size,
            items,
        }
    }
}

impl TryFrom<MessageWire> for Message {
    type Error = String;

    fn try_from(wire: MessageWire) -> Result<Self, String> {
        let value = Value::from_members((wire.value, wire.value_base64, wire.content_type));
        Ok(Self {
            id: wire.id,
            receipt: wire.receipt,
            state: wire.state,
            value: value.map_err(|error| error.to_string())?,
            deliveries: wire.deliveries,
            sent: wire.sent,
            priority: wire.priority,
            group: wire.group,
            headers: wire.headers,
            expires: wire.expires,
            until: wire.until,
            since: wire.since,
            session: wire.session,
            reason: wire.reason,
            dead: wire.dead,
            name: wire.name,
            role: wire.role,
            generation: wire.generation,
            ordinal: wire.ordinal,
            size: wire.size,
            items: wire.items,
        })
    }
}
