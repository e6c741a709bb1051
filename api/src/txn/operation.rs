//! What a transaction does: operations of keys and of recipes, each in the words of its own endpoint.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{Key, SessionId, Span, Value};

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "OperationWire", try_from = "OperationWire")]
pub enum Operation {
    /// `{"op":"get","key":"a"}`
    Get { key: Key },
    /// `{"op":"put","key":"a","value":"1"}`; `keep_session` keeps the session the key already lives with.
    Put { key: Key, value: Value, session: Option<SessionId>, keep_session: bool },
    /// `{"op":"delete","key":"a"}`
    Delete { key: Key },
    /// `{"op":"delete","prefix":"a/"}`
    DeletePrefix { prefix: Key },
    /// `{"op":"release","lock":"deploy","session":"7587d8aa00000001"}`: what that session holds, or its place in the line;
    /// with `token` only that grant. Also `"semaphore":"pool"` and `"election":"cron"`.
    Release { holding: Holding, session: SessionId, token: Option<u64> },
    /// `{"op":"add","counter":"sold","delta":1}`, within `min` and `max`.
    Add { counter: String, delta: i64, min: Option<i64>, max: Option<i64> },
    /// `{"op":"send","queue":"ship","value":"order/1"}`
    Send { queue: String, message: Outgoing },
    /// `{"op":"publish","topic":"orders.paid","value":"1"}`; `message_key` says what the message is about.
    Publish { topic: String, value: Value, message_key: Option<String>, ttl: Option<Span> },
    /// `{"op":"ack","queue":"in","receipt":"r1:812-0.830"}`; a stale receipt refuses the transaction.
    Ack { queue: String, receipt: String },
}

/// What a session can hold and give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    Lock(String),
    /// All permits of the session.
    Semaphore(String),
    /// Leadership: it resigns.
    Election(String),
}

/// A message on its way into a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub value: Value,
    pub group: Option<String>,
    /// 0 to 9, the highest first; in queues of kind priority.
    pub priority: Option<u8>,
    pub delay: Option<Span>,
    pub ttl: Option<Span>,
    pub dedup_id: Option<String>,
}

impl From<Value> for Outgoing {
    fn from(value: Value) -> Self {
        Self { value, group: None, priority: None, delay: None, ttl: None, dedup_id: None }
    }
}

/// All members of all operations; which of them an operation takes is in [`MEMBERS`].
#[derive(Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
struct OperationWire {
    op: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    semaphore: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    election: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_session: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedup_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

/// The operations and the members each takes; `key`, `prefix` and `value` stand for their `_base64` as well.
const MEMBERS: &[(&str, &[&str])] = &[
    ("get", &["key"]),
    ("put", &["key", "value", "content_type", "session", "keep_session"]),
    ("delete", &["key", "prefix"]),
    ("release", &["lock", "semaphore", "election", "session", "token"]),
    ("add", &["counter", "delta", "min", "max"]),
    ("send", &["queue", "value", "content_type", "group", "priority", "delay", "ttl", "dedup_id"]),
    ("publish", &["topic", "value", "content_type", "message_key", "ttl"]),
    ("ack", &["queue", "receipt"]),
];

impl Operation {
    /// As in `op`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Put { .. } => "put",
            Self::Delete { .. } | Self::DeletePrefix { .. } => "delete",
            Self::Release { .. } => "release",
            Self::Add { .. } => "add",
            Self::Send { .. } => "send",
            Self::Publish { .. } => "publish",
            Self::Ack { .. } => "ack",
        }
    }
}

impl From<Operation> for OperationWire {
    fn from(operation: Operation) -> Self {
        let mut wire = Self { op: operation.word().to_owned(), ..Self::default() };
        match operation {
            Operation::Get { key } | Operation::Delete { key } => {
                (wire.key, wire.key_base64) = key.to_members();
            }
            Operation::Put { key, value, session, keep_session } => {
                (wire.key, wire.key_base64) = key.to_members();
                wire.carry(&value);
                (wire.session, wire.keep_session) = (session, keep_session.then_some(true));
            }
            Operation::DeletePrefix { prefix } => (wire.prefix, wire.prefix_base64) = prefix.to_members(),
            Operation::Release { holding, session, token } => {
                (wire.session, wire.token) = (Some(session), token);
                match holding {
                    Holding::Lock(name) => wire.lock = Some(name),
                    Holding::Semaphore(name) => wire.semaphore = Some(name),
                    Holding::Election(name) => wire.election = Some(name),
                }
            }
            Operation::Add { counter, delta, min, max } => {
                (wire.counter, wire.delta) = (Some(counter), Some(delta));
                (wire.min, wire.max) = (min, max);
            }
            Operation::Send { queue, message } => {
                wire.queue = Some(queue);
                wire.carry(&message.value);
                let Outgoing { group, priority, delay, ttl, dedup_id, .. } = message;
                (wire.group, wire.priority, wire.delay) = (group, priority, delay);
                (wire.ttl, wire.dedup_id) = (ttl, dedup_id);
            }
            Operation::Publish { topic, value, message_key, ttl } => {
                wire.carry(&value);
                (wire.topic, wire.message_key, wire.ttl) = (Some(topic), message_key, ttl);
            }
            Operation::Ack { queue, receipt } => {
                (wire.queue, wire.receipt) = (Some(queue), Some(receipt));
            }
        }
        wire
    }
}

impl OperationWire {
    fn carry(&mut self, value: &Value) {
        (self.value, self.value_base64, self.content_type) = optional_members(Some(value));
    }

    /// The members that are present, by name, without `op`.
    fn members(&self) -> impl Iterator<Item = &'static str> {
        [
            ("key", self.key.is_some() || self.key_base64.is_some()),
            ("prefix", self.prefix.is_some() || self.prefix_base64.is_some()),
            ("value", self.value.is_some() || self.value_base64.is_some()),
            ("content_type", self.content_type.is_some()),
            ("lock", self.lock.is_some()),
            ("semaphore", self.semaphore.is_some()),
            ("election", self.election.is_some()),
            ("session", self.session.is_some()),
            ("token", self.token.is_some()),
            ("keep_session", self.keep_session.is_some()),
            ("counter", self.counter.is_some()),
            ("delta", self.delta.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("queue", self.queue.is_some()),
            ("group", self.group.is_some()),
            ("priority", self.priority.is_some()),
            ("delay", self.delay.is_some()),
            ("ttl", self.ttl.is_some()),
            ("dedup_id", self.dedup_id.is_some()),
            ("topic", self.topic.is_some()),
            ("message_key", self.message_key.is_some()),
            ("receipt", self.receipt.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, present)| present.then_some(name))
    }
}

impl TryFrom<OperationWire> for Operation {
    type Error = String;

    fn try_from(wire: OperationWire) -> Result<Self, String> {
        if wire.op.is_empty() {
            return Err("op is missing".to_owned());
        }
        let Some((op, allowed)) = MEMBERS.iter().find(|(op, _)| *op == wire.op) else {
            let known: Vec<&str> = MEMBERS.iter().map(|(op, _)| *op).collect();
            return Err(format!("op is not one of {}: op={:?}", known.join(", "), wire.op));
        };
        if let Some(stray) = wire.members().find(|name| !allowed.contains(name)) {
            return Err(format!("{op} does not take {stray}"));
        }
        let needs = |name: &str| format!("{op} needs {name}");
        let key = Key::from_members(wire.key, wire.key_base64)?;
        let prefix = Key::from_members(wire.prefix, wire.prefix_base64)?;
        let members = (wire.value, wire.value_base64, wire.content_type);
        let value = || Value::from_members(members).map_err(|error| error.to_string());
        Ok(match *op {
            "get" => Self::Get { key: key.ok_or_else(|| needs("key"))? },
            "put" => Self::Put {
                key: key.ok_or_else(|| needs("key"))?,
                value: value()?,
                session: wire.session,
                keep_session: wire.keep_session.unwrap_or(false),
            },
            "delete" => match (key, prefix) {
                (Some(key), None) => Self::Delete { key },
                (None, Some(prefix)) => Self::DeletePrefix { prefix },
                _ => return Err("delete needs key or prefix, not both".to_owned()),
            },
            "release" => Self::Release {
                holding: match (wire.lock, wire.semaphore, wire.election) {
                    (Some(name), None, None) => Holding::Lock(name),
                    (None, Some(name), None) => Holding::Semaphore(name),
                    (None, None, Some(name)) => Holding::Election(name),
                    _ => return Err("release needs one of lock, semaphore, election".to_owned()),
                },
                token: wire.token,
                session: wire.session.ok_or_else(|| needs("session"))?,
            },
            "add" => Self::Add {
                counter: wire.counter.ok_or_else(|| needs("counter"))?,
                delta: wire.delta.unwrap_or(1),
                min: wire.min,
                max: wire.max,
            },
            "send" => Self::Send {
                queue: wire.queue.ok_or_else(|| needs("queue"))?,
                message: Outgoing {
                    value: value()?,
                    group: wire.group,
                    priority: wire.priority,
                    delay: wire.delay,
                    ttl: wire.ttl,
                    dedup_id: wire.dedup_id,
                },
            },
            "publish" => Self::Publish {
                topic: wire.topic.ok_or_else(|| needs("topic"))?,
                value: value()?,
                message_key: wire.message_key,
                ttl: wire.ttl,
            },
            _ => Self::Ack {
                queue: wire.queue.ok_or_else(|| needs("queue"))?,
                receipt: wire.receipt.ok_or_else(|| needs("receipt"))?,
            },
        })
    }
}
