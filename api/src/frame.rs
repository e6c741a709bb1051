//! Frames of streams: one JSON object a line (NDJSON) or one server-sent event each.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{Entry, Instant, Key, Mode, Problem, Progress, SessionId, SessionState, Value};

/// Why the server ends a stream. Either way: continue elsewhere, after the last revision seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ByeReason {
    /// The node shuts down.
    Shutdown,
    /// As many frames as `limit` asked for were sent.
    Limit,
    #[serde(other)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Other,
}

/// One frame of a watch. `I` is what the family lists: [`Entry`], [`crate::Lock`], [`crate::Session`].
#[derive(Debug, Clone, PartialEq)]
pub enum Frame<I = Entry> {
    /// The state at `revision`; in chunks, all but the last with `more`.
    Snapshot { revision: u64, items: Vec<I>, more: bool },
    /// All of the past was sent; what follows happens now.
    Synced { revision: u64 },
    /// All that one revision changed within what is watched, never split.
    Change { revision: u64, time: Instant, events: Vec<Event> },
    /// Nothing else happened up to `revision`.
    Progress { revision: u64 },
    /// The changes after `from` up to and including `to` are compacted; a snapshot follows.
    Gap { from: u64, to: u64 },
    /// The reader was too slow and the stream ends: continue after `revision`.
    Lagged { revision: u64 },
    /// The server ends the stream; continue after `revision`.
    Bye { reason: ByeReason, revision: u64 },
    /// The stream ends by a problem.
    Error { problem: Problem },
    /// A frame that this version does not know: ignore it.
    Other { kind: String },
}

impl<I> Frame<I> {
    /// The word in the member `type`, and the name of the server-sent event.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Frame::Snapshot { .. } => "snapshot",
            Frame::Synced { .. } => "synced",
            Frame::Change { .. } => "change",
            Frame::Progress { .. } => "progress",
            Frame::Gap { .. } => "gap",
            Frame::Lagged { .. } => "lagged",
            Frame::Bye { .. } => "bye",
            Frame::Error { .. } => "error",
            Frame::Other { kind } => kind,
        }
    }

    /// After which revision a reader of this frame continues. A snapshot counts only once it is complete.
    #[must_use]
    pub fn resume_after(&self) -> Option<u64> {
        match self {
            Frame::Snapshot { revision, more: false, .. }
            | Frame::Synced { revision }
            | Frame::Change { revision, .. }
            | Frame::Progress { revision }
            | Frame::Lagged { revision }
            | Frame::Bye { revision, .. } => Some(*revision),
            Frame::Snapshot { .. } | Frame::Gap { .. } | Frame::Error { .. } | Frame::Other { .. } => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct FrameWire<I> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    events: Option<Vec<Event>>,
    #[serde(default = "no_items", skip_serializing_if = "Option::is_none")]
    items: Option<Vec<I>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<ByeReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

// `#[serde(default)]` alone would ask for `I: Default`.
fn no_items<I>() -> Option<Vec<I>> {
    None
}

impl<I: Serialize + Clone> Serialize for Frame<I> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut wire = FrameWire {
            kind: self.kind().to_owned(),
            revision: None,
            time: None,
            events: None,
            items: None,
            more: None,
            from: None,
            to: None,
            reason: None,
            problem: None,
        };
        match self.clone() {
            Frame::Snapshot { revision, items, more } => {
                (wire.revision, wire.items, wire.more) = (Some(revision), Some(items), more.then_some(true));
            }
            Frame::Change { revision, time, events } => {
                (wire.revision, wire.time, wire.events) = (Some(revision), Some(time), Some(events));
            }
            Frame::Synced { revision } | Frame::Progress { revision } | Frame::Lagged { revision } => {
                wire.revision = Some(revision);
            }
            Frame::Gap { from, to } => (wire.from, wire.to) = (Some(from), Some(to)),
            Frame::Bye { reason, revision } => (wire.reason, wire.revision) = (Some(reason), Some(revision)),
            Frame::Error { problem } => wire.problem = Some(problem),
            Frame::Other { .. } => {}
        }
        wire.serialize(serializer)
    }
}

impl<'de, I: Deserialize<'de>> Deserialize<'de> for Frame<I> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;

        let wire = FrameWire::<I>::deserialize(deserializer)?;
        let revision = wire.revision.ok_or_else(|| D::Error::missing_field("revision"));
        Ok(match wire.kind.as_str() {
            "snapshot" => Frame::Snapshot {
                revision: revision?,
                items: wire.items.unwrap_or_default(),
                more: wire.more.unwrap_or(false),
            },
            "synced" => Frame::Synced { revision: revision? },
            "change" => Frame::Change {
                revision: revision?,
                time: wire.time.unwrap_or_else(|| Instant::from_unix_ms(0)),
                events: wire.events.ok_or_else(|| D::Error::missing_field("events"))?,
            },
            "progress" => Frame::Progress { revision: revision? },
            "gap" => Frame::Gap {
                from: wire.from.ok_or_else(|| D::Error::missing_field("from"))?,
                to: wire.to.ok_or_else(|| D::Error::missing_field("to"))?,
            },
            "lagged" => Frame::Lagged { revision: revision? },
            "bye" => Frame::Bye { reason: wire.reason.unwrap_or(ByeReason::Other), revision: revision? },
            "error" => {
                Frame::Error { problem: wire.problem.ok_or_else(|| D::Error::missing_field("problem"))? }
            }
            _ => Frame::Other { kind: wire.kind },
        })
    }
}

/// One change of one key or one recipe object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "EventWire", try_from = "EventWire")]
pub struct Event {
    /// `kv`, `sessions`, `locks`
    pub family: String,
    /// `put`, `delete`, or the verb of a recipe.
    pub op: String,
    /// In the family `kv`.
    pub key: Option<Key>,
    /// In all other families.
    pub name: Option<String>,
    /// A part of the object that has a name: a message, an instance, a member.
    pub item: Option<String>,
    pub value: Option<Value>,
    /// Changes of the key since it was created, this one included; 0 after a delete.
    pub version: u64,
    /// Revision of the change before; 0 if the key did not exist.
    pub previous_revision: u64,
    /// The key did not exist before.
    pub create: bool,
    /// Why it happened if nobody asked for it by name, such as `session_expired`.
    pub cause: Option<String>,
    /// The session the key lives with, or the holder or waiter of a recipe.
    pub session: Option<SessionId>,
    /// Fencing token of a grant.
    pub token: Option<u64>,
    pub mode: Option<Mode>,
    pub owner: Option<String>,
    /// Of a session that lives.
    pub state: Option<SessionState>,
    /// How far the work of a session has come, if it says so.
    pub progress: Option<Progress>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct EventWire {
    family: String,
    op: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    item: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    version: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    previous_revision: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    create: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<SessionState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<Event> for EventWire {
    fn from(event: Event) -> Self {
        let (key, key_base64) = event.key.as_ref().map_or((None, None), Key::to_members);
        let (value, value_base64, content_type) = optional_members(event.value.as_ref());
        let Event { family, op, name, item, version, previous_revision, create, cause, session, .. } = event;
        let Event { token, mode, owner, state, progress, .. } = event;
        Self {
            family,
            op,
            key,
            key_base64,
            name,
            item,
            value,
            value_base64,
            content_type,
            version,
            previous_revision,
            create,
            cause,
            session,
            token,
            mode,
            owner,
            state,
            progress,
        }
    }
}

impl TryFrom<EventWire> for Event {
    type Error = String;

    fn try_from(wire: EventWire) -> Result<Self, String> {
        let members = (wire.value, wire.value_base64, wire.content_type);
        Ok(Self {
            family: wire.family,
            op: wire.op,
            key: Key::from_members(wire.key, wire.key_base64)?,
            name: wire.name,
            item: wire.item,
            value: Value::from_optional_members(members).map_err(|error| error.to_string())?,
            version: wire.version,
            previous_revision: wire.previous_revision,
            create: wire.create,
            cause: wire.cause,
            session: wire.session,
            token: wire.token,
            mode: wire.mode,
            owner: wire.owner,
            state: wire.state,
            progress: wire.progress,
        })
    }
}
