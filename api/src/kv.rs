//! Bodies of the key-value family.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{Instant, Key, SessionId, Span, Value};

/// A key with its value and history numbers: what a key-value read answers with `format=json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "EntryWire", try_from = "EntryWire")]
pub struct Entry {
    pub key: Key,
    /// Absent with `keys_only`.
    pub value: Option<Value>,
    /// Revision of the change that created the key.
    pub create_revision: u64,
    /// Revision of the last change of the key.
    pub mod_revision: u64,
    /// Number of changes since the key was created, from 1.
    pub version: u64,
    /// The session the key lives with.
    pub session: Option<SessionId>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct EntryWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
}

impl From<Entry> for EntryWire {
    fn from(entry: Entry) -> Self {
        let (key, key_base64) = entry.key.to_members();
        let (value, value_base64, content_type) = optional_members(entry.value.as_ref());
        let Entry { create_revision, mod_revision, version, session, .. } = entry;
        Self {
            key,
            key_base64,
            value,
            value_base64,
            content_type,
            create_revision,
            mod_revision,
            version,
            session,
        }
    }
}

impl TryFrom<EntryWire> for Entry {
    type Error = String;

    fn try_from(wire: EntryWire) -> Result<Self, String> {
        let members = (wire.value, wire.value_base64, wire.content_type);
        Ok(Self {
            key: Key::require(wire.key, wire.key_base64)?,
            value: Value::from_optional_members(members).map_err(|error| error.to_string())?,
            create_revision: wire.create_revision,
            mod_revision: wire.mod_revision,
            version: wire.version,
            session: wire.session,
        })
    }
}

/// A group of keys that share everything up to a delimiter: one folder of a list with `delimiter=/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "PrefixWire", try_from = "PrefixWire")]
pub struct Prefix {
    /// With the delimiter at its end.
    pub prefix: Key,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct PrefixWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<String>,
}

impl From<Prefix> for PrefixWire {
    fn from(prefix: Prefix) -> Self {
        let (prefix, prefix_base64) = prefix.prefix.to_members();
        Self { prefix, prefix_base64 }
    }
}

impl TryFrom<PrefixWire> for Prefix {
    type Error = String;

    fn try_from(wire: PrefixWire) -> Result<Self, String> {
        Ok(Self { prefix: Key::require(wire.prefix, wire.prefix_base64)? })
    }
}

/// One page of keys, in the order asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KvList {
    /// Empty with `count_only`.
    pub items: Vec<Entry>,
    /// Folders, with `delimiter`. They count against `limit` and lie between the items in key order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefix>,
    /// Number of keys in the whole range, with `count_only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Opaque; `null` on the last page. It pins the revision of the first page.
    #[serde(default)]
    pub next_cursor: Option<String>,
    pub revision: u64,
}

/// One kept version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KvVersion {
    /// Revision of the change.
    pub revision: u64,
    pub time: Instant,
    /// The key as the change left it; null for a delete.
    pub entry: Option<Entry>,
}

/// `GET /v1/kv?key=K&history=true`: the versions of one key that are still kept, newest last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KvHistory {
    pub items: Vec<KvVersion>,
    /// Changes up to this revision may be missing.
    #[serde(default)]
    pub compact_revision: u64,
    pub revision: u64,
}

/// Answer of a put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "PutWire", try_from = "PutWire")]
pub struct Put {
    pub key: Key,
    pub revision: u64,
    /// 1 when the put created the key.
    pub version: u64,
    /// The session the key now lives with; with `ttl` a private one made by this put.
    pub session: Option<SessionId>,
    /// How long the private session is good for.
    pub valid_for: Option<Span>,
    /// What was there before, with `return=previous`.
    pub previous: Option<Entry>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct PutWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    revision: u64,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_for: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Entry>,
}

impl From<Put> for PutWire {
    fn from(put: Put) -> Self {
        let (key, key_base64) = put.key.to_members();
        let Put { revision, version, session, valid_for, previous, .. } = put;
        Self { key, key_base64, revision, version, session, valid_for, previous }
    }
}

impl TryFrom<PutWire> for Put {
    type Error = String;

    fn try_from(wire: PutWire) -> Result<Self, String> {
        let PutWire { key, key_base64, revision, version, session, valid_for, previous } = wire;
        let key = Key::require(key, key_base64)?;
        Ok(Self { key, revision, version, session, valid_for, previous })
    }
}

/// Answer of a delete, of one key or of a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Deleted {
    /// How many keys were deleted.
    pub deleted: u64,
    pub revision: u64,
    /// What was there before, with `return=previous` on one key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Entry>,
}
