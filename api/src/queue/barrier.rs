//! Barrier queues: what a generation waits for, and how far it is.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::value::optional_members;
use crate::{Instant, Span, Value};

/// When a generation is released, and how it is delivered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueBarrier"))]
#[serde(deny_unknown_fields, default)]
pub struct Barrier {
    /// Whether all the conditions must hold or one is enough.
    pub when: BarrierMode,
    /// So many items: 1 to 100 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Items of all these ids are there; at most 1000.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub contains: Names,
    /// No item of any of these ids is there; at most 16.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub absent: Names,
    /// Each of these was signalled: `open?signal=NAME`; at most 16.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub signals: Names,
    /// Counted from the first item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_deadline: Option<OnDeadline>,
    pub delivery: Delivery,
    /// The next item only after the one before is settled.
    pub strict: bool,
    /// A message that follows the last item: `{}` says the counts, or what it shall say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finalizer: Option<Finalizer>,
    /// What becomes of the items of a broken generation.
    pub on_break: OnBreak,
    /// Whose holder alone may signal, open and break: `locks/NAME` or `elections/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BarrierMode {
    #[default]
    All,
    Any,
}

/// Who gets the items of a released generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueDelivery"))]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Receivers, one message after the other.
    #[default]
    Work,
    /// One receiver, all of them with one receipt.
    Batch,
    /// Each producer its own, with its ordinal.
    #[serde(rename = "self")]
    Own,
    /// Everybody who asks, all of them, until the next generation is released.
    Broadcast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueOnDeadline"))]
#[serde(rename_all = "snake_case")]
pub enum OnDeadline {
    Release,
    Break,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueOnBreak"))]
#[serde(rename_all = "snake_case")]
pub enum OnBreak {
    /// They belong to the next generation.
    #[default]
    CarryOver,
    DeadLetter,
    Drop,
}

/// One name or several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueNames"))]
#[serde(from = "NamesWire")]
pub struct Names(pub Vec<String>);

#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum NamesWire {
    One(String),
    Many(Vec<String>),
}

impl From<NamesWire> for Names {
    fn from(wire: NamesWire) -> Self {
        match wire {
            NamesWire::One(name) => Self(vec![name]),
            NamesWire::Many(names) => Self(names),
        }
    }
}

impl Names {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A message that follows the last item of a generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueFinalizer"))]
#[serde(into = "FinalizerWire", try_from = "FinalizerWire")]
pub struct Finalizer {
    /// `None` is the counts, as JSON.
    pub value: Option<Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
struct FinalizerWire {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
}

impl From<Finalizer> for FinalizerWire {
    fn from(finalizer: Finalizer) -> Self {
        let (value, value_base64, content_type) = optional_members(finalizer.value.as_ref());
        Self { value, value_base64, content_type }
    }
}

impl TryFrom<FinalizerWire> for Finalizer {
    type Error = String;

    fn try_from(wire: FinalizerWire) -> Result<Self, String> {
        let FinalizerWire { value, value_base64, content_type } = wire;
        let value = Value::from_optional_members((value, value_base64, content_type));
        Ok(Self { value: value.map_err(|error| error.to_string())? })
    }
}

/// A generation that fills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueFilling"))]
pub struct Filling {
    /// 1 is the first.
    pub generation: u64,
    pub items: u64,
    /// `7/10`, where a size is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Ids of `contains` that are not there, the first 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Vec<String>>,
    /// Names of `signals` that have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signalled: Option<Vec<String>>,
    /// Since the first item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Instant>,
    /// Why the generation before was broken whose items these were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// A generation that is released and delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "QueueDraining"))]
pub struct Draining {
    pub generation: u64,
    /// Items when it was released.
    pub size: u64,
    /// Items that are not settled.
    pub left: u64,
    pub acked: u64,
    pub dead: u64,
    /// Deleted, expired, or lost with their producers.
    pub dropped: u64,
    /// `condition`, `open` or `deadline`.
    pub cause: String,
    pub released: Instant,
    /// The revision that released it.
    pub revision: u64,
    /// All items are settled, the finalizer is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finalizing: bool,
}
