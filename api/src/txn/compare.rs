//! What has to hold for a transaction to do the one thing and not the other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Key, SessionId, Value};

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
    /// `{"counter":"sold","value":3,"is":"less"}`: a counter that was never written is 0.
    Counter { counter: String, is: Comparison, value: i64 },
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
    #[serde(skip_serializing_if = "Option::is_none")]
    counter: Option<String>,
}

impl From<Compare> for CompareWire {
    fn from(compare: Compare) -> Self {
        let mut wire = Self::default();
        match compare {
            Compare::Held { claim, token } => (wire.held, wire.token) = (Some(claim), Some(token)),
            Compare::Session { session } => wire.session = Some(session),
            Compare::Counter { counter, is, value } => {
                (wire.counter, wire.is) = (Some(counter), (is != Comparison::Equal).then_some(is));
                wire.value = RawValue::from_string(value.to_string()).ok();
            }
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

impl CompareWire {
    fn of_counter(self) -> Result<Compare, String> {
        let Self { counter: Some(counter), value: Some(value), is, .. } = self else {
            return Err("a compare of a counter needs value".to_owned());
        };
        let strays = [
            self.key.is_some() || self.key_base64.is_some(),
            self.exists.is_some() || self.version.is_some(),
            self.create_revision.is_some() || self.mod_revision.is_some(),
            self.value_base64.is_some() || self.content_type.is_some(),
            self.held.is_some() || self.token.is_some() || self.session.is_some(),
        ];
        if strays.contains(&true) {
            return Err("a compare of a counter takes counter, value and is".to_owned());
        }
        let value = value.get();
        let value = value.parse().map_err(|_| format!("value is a whole number here: value={value}"))?;
        Ok(Compare::Counter { counter, is: is.unwrap_or_default(), value })
    }
}

impl TryFrom<CompareWire> for Compare {
    type Error = String;

    fn try_from(wire: CompareWire) -> Result<Self, String> {
        if wire.counter.is_some() {
            return wire.of_counter();
        }
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
            _ => Err("a compare is {key and one condition}, {held, token}, {session} or {counter, value}"
                .to_owned()),
        }
    }
}
