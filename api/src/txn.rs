//! Transactions: compares, operations, results.
//!
//! The JSON of a compare or an operation is one flat object; which members it may have depends on what it
//! names. Unknown, missing and misplaced members are errors.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{Entry, Key, SessionId, Value};

/// `{"if":[..],"then":[..],"else":[..]}`: if all compares hold, `then` happens, otherwise `else`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Txn {
    #[serde(rename = "if", default)]
    pub compares: Vec<Compare>,
    #[serde(rename = "then", default)]
    pub then: Vec<Operation>,
    #[serde(rename = "else", default)]
    pub otherwise: Vec<Operation>,
}

/// One condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "CompareWire", try_from = "CompareWire")]
pub enum Compare {
    /// `{"key":"stock/7","value":"3"}`
    Key { key: Key, condition: Condition },
    /// `{"held":"locks/deploy","token":811}`: the grant with this token is current.
    Held { claim: String, token: u64 },
    /// `{"session":"7587d8aa00000001"}`: the session lives.
    Session { session: SessionId },
}

/// What a compare asks of a key. A key that does not exist has revisions and version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Exists(bool),
    CreateRevision(u64),
    ModRevision(u64),
    Version(u64),
    /// The bytes are equal; content types are not compared.
    Value(Bytes),
    /// A number or the bytes compared otherwise: `{"key":"a","version":3,"is":"greater"}` asks for a version above 3.
    /// Not for [`Condition::Exists`].
    Is(Comparison, Box<Condition>),
}

/// How what is stored shall stand to what is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    #[default]
    Equal,
    NotEqual,
    Less,
    Greater,
}

#[derive(Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
struct CompareWire {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exists: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is: Option<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
}

impl From<Compare> for CompareWire {
    fn from(compare: Compare) -> Self {
        let mut wire = Self::default();
        match compare {
            Compare::Held { claim, token } => (wire.held, wire.token) = (Some(claim), Some(token)),
            Compare::Session { session } => wire.session = Some(session),
            Compare::Key { key, condition } => {
                (wire.key, wire.key_base64) = key.to_members();
                let mut condition = condition;
                while let Condition::Is(is, of) = condition {
                    (wire.is, condition) = (Some(is), *of);
                }
                match condition {
                    Condition::Is(..) => {}
                    Condition::Exists(exists) => wire.exists = Some(exists),
                    Condition::CreateRevision(revision) => wire.create_revision = Some(revision),
                    Condition::ModRevision(revision) => wire.mod_revision = Some(revision),
                    Condition::Version(version) => wire.version = Some(version),
                    Condition::Value(bytes) => {
                        (wire.value, wire.value_base64, _) = Value::untyped(bytes).to_members();
                    }
                }
            }
        }
        wire
    }
}

impl TryFrom<CompareWire> for Compare {
    type Error = String;

    fn try_from(wire: CompareWire) -> Result<Self, String> {
        let CompareWire { key, key_base64, held, token, session, .. } = wire;
        let has_stray = wire.content_type.is_some() || wire.is.is_some();
        let bytes = Value::from_optional_members((wire.value, wire.value_base64, wire.content_type))
            .map_err(|error| error.to_string())?
            .map(|value| value.bytes);
        let mut conditions: Vec<Condition> = [
            wire.exists.map(Condition::Exists),
            wire.create_revision.map(Condition::CreateRevision),
            wire.mod_revision.map(Condition::ModRevision),
            wire.version.map(Condition::Version),
            bytes.map(Condition::Value),
        ]
        .into_iter()
        .flatten()
        .collect();
        match (Key::from_members(key, key_base64)?, held, token, session, conditions.pop()) {
            (Some(key), None, None, None, Some(condition)) if conditions.is_empty() => {
                let condition = match (wire.is, condition) {
                    (None, condition) => condition,
                    (Some(_), Condition::Exists(_)) => return Err("exists does not take is".to_owned()),
                    (Some(is), condition) => Condition::Is(is, Box::new(condition)),
                };
                Ok(Self::Key { key, condition })
            }
            (Some(_), None, None, None, _) => Err("a compare of a key takes exactly one of exists, \
                                                   create_revision, mod_revision, version, value"
                .to_owned()),
            (None, Some(claim), Some(token), None, None) if !has_stray => Ok(Self::Held { claim, token }),
            (None, None, None, Some(session), None) if !has_stray => Ok(Self::Session { session }),
            _ => Err("a compare is {key and one condition}, {held, token} or {session}".to_owned()),
        }
    }
}

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
    /// `{"op":"release","lock":"deploy","session":"7587d8aa00000001"}`
    Release { lock: String, session: SessionId },
}

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
    session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_session: Option<bool>,
}

impl From<Operation> for OperationWire {
    fn from(operation: Operation) -> Self {
        let mut wire = Self::default();
        let op = match operation {
            Operation::Get { key } => {
                (wire.key, wire.key_base64) = key.to_members();
                "get"
            }
            Operation::Put { key, value, session, keep_session } => {
                (wire.key, wire.key_base64) = key.to_members();
                (wire.value, wire.value_base64, wire.content_type) = optional_members(Some(&value));
                (wire.session, wire.keep_session) = (session, keep_session.then_some(true));
                "put"
            }
            Operation::Delete { key } => {
                (wire.key, wire.key_base64) = key.to_members();
                "delete"
            }
            Operation::DeletePrefix { prefix } => {
                (wire.prefix, wire.prefix_base64) = prefix.to_members();
                "delete"
            }
            Operation::Release { lock, session } => {
                (wire.lock, wire.session) = (Some(lock), Some(session));
                "release"
            }
        };
        op.clone_into(&mut wire.op);
        wire
    }
}

impl OperationWire {
    /// The members that are present, by name, without `op`.
    fn members(&self) -> Vec<&'static str> {
        [
            ("key", self.key.is_some() || self.key_base64.is_some()),
            ("prefix", self.prefix.is_some() || self.prefix_base64.is_some()),
            ("value", self.value.is_some() || self.value_base64.is_some()),
            ("content_type", self.content_type.is_some()),
            ("lock", self.lock.is_some()),
            ("session", self.session.is_some()),
            ("keep_session", self.keep_session.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, present)| present.then_some(name))
        .collect()
    }
}

impl TryFrom<OperationWire> for Operation {
    type Error = String;

    fn try_from(wire: OperationWire) -> Result<Self, String> {
        let op = wire.op.as_str();
        let allowed: &[&str] = match op {
            "get" => &["key"],
            "put" => &["key", "value", "content_type", "session", "keep_session"],
            "delete" => &["key", "prefix"],
            "release" => &["lock", "session"],
            "" => return Err("op is missing".to_owned()),
            _ => return Err(format!("op is not one of get, put, delete, release: op={op:?}")),
        };
        if let Some(stray) = wire.members().into_iter().find(|name| !allowed.contains(name)) {
            return Err(format!("{op} does not take {stray}"));
        }
        let key = Key::from_members(wire.key, wire.key_base64)?;
        let prefix = Key::from_members(wire.prefix, wire.prefix_base64)?;
        let missing = |name: &str| format!("{op} needs {name}");
        match op {
            "get" => Ok(Self::Get { key: key.ok_or_else(|| missing("key"))? }),
            "put" => Ok(Self::Put {
                key: key.ok_or_else(|| missing("key"))?,
                value: Value::from_members((wire.value, wire.value_base64, wire.content_type))
                    .map_err(|error| error.to_string())?,
                session: wire.session,
                keep_session: wire.keep_session.unwrap_or(false),
            }),
            "release" => Ok(Self::Release {
                lock: wire.lock.ok_or_else(|| missing("lock"))?,
                session: wire.session.ok_or_else(|| missing("session"))?,
            }),
            _ => match (key, prefix) {
                (Some(key), None) => Ok(Self::Delete { key }),
                (None, Some(prefix)) => Ok(Self::DeletePrefix { prefix }),
                _ => Err("delete needs key or prefix, not both".to_owned()),
            },
        }
    }
}

/// Answer of a transaction. A compare that does not hold is no error: `succeeded` is false and `results`
/// are those of `else`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TxnResult {
    pub succeeded: bool,
    pub revision: u64,
    /// One for each operation that happened, in order.
    pub results: Vec<OperationResult>,
}

/// Result of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "ResultWire", try_from = "ResultWire")]
pub enum OperationResult {
    /// `{"op":"get","entry":{..}}`; `entry` is null if the key does not exist.
    Get { entry: Option<Entry> },
    /// `{"op":"put","version":2}`
    Put { version: u64 },
    /// `{"op":"delete","deleted":1}`
    Delete { deleted: u64 },
    /// `{"op":"release"}`
    Release,
    /// Of an operation that this version does not know.
    Other { op: String },
}

#[derive(Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
#[allow(clippy::option_option, reason = "`entry` is absent, null or an entry")]
struct ResultWire {
    op: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("x-null" = true)))]
    entry: Option<Option<Entry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
}

impl From<OperationResult> for ResultWire {
    fn from(result: OperationResult) -> Self {
        let mut wire = Self::default();
        wire.op = match result {
            OperationResult::Get { entry } => {
                wire.entry = Some(entry);
                "get".to_owned()
            }
            OperationResult::Put { version } => {
                wire.version = Some(version);
                "put".to_owned()
            }
            OperationResult::Delete { deleted } => {
                wire.deleted = Some(deleted);
                "delete".to_owned()
            }
            OperationResult::Release => "release".to_owned(),
            OperationResult::Other { op } => op,
        };
        wire
    }
}

impl TryFrom<ResultWire> for OperationResult {
    type Error = String;

    fn try_from(wire: ResultWire) -> Result<Self, String> {
        Ok(match wire.op.as_str() {
            "get" => Self::Get { entry: wire.entry.flatten() },
            "put" => Self::Put { version: wire.version.ok_or("version is missing")? },
            "delete" => Self::Delete { deleted: wire.deleted.ok_or("deleted is missing")? },
            "release" => Self::Release,
            _ => Self::Other { op: wire.op },
        })
    }
}
