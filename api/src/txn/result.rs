//! What came of each operation of a transaction.

use serde::{Deserialize, Serialize};

use crate::Entry;

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
    /// `{"op":"add","value":12,"previous":11}`
    Add { value: i64, previous: i64 },
    /// `{"op":"send","id":"812-0"}`
    Send { id: String },
    /// `{"op":"publish","seq":7}`
    Publish { seq: u64 },
    /// `{"op":"ack"}`
    Ack,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
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
            OperationResult::Add { value, previous } => {
                (wire.value, wire.previous) = (Some(value), Some(previous));
                "add".to_owned()
            }
            OperationResult::Send { id } => {
                wire.id = Some(id);
                "send".to_owned()
            }
            OperationResult::Publish { seq } => {
                wire.seq = Some(seq);
                "publish".to_owned()
            }
            OperationResult::Ack => "ack".to_owned(),
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
            "add" => Self::Add {
                value: wire.value.ok_or("value is missing")?,
                previous: wire.previous.ok_or("previous is missing")?,
            },
            "send" => Self::Send { id: wire.id.ok_or("id is missing")? },
            "publish" => Self::Publish { seq: wire.seq.ok_or("seq is missing")? },
            "ack" => Self::Ack,
            _ => Self::Other { op: wire.op },
        })
    }
}
