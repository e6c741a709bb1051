//! Barrier queues: items wait until a condition holds, then all of them are worked on, in order.
//!
//! Items gather in a *generation*. The entry that makes the condition true releases the generation: at one revision,
//! with the ordinals 0..n-1 in the order of arrival; whatever comes later belongs to the next one. A generation is
//! filling → released → draining → done, or broken. Released ones are drained one after the other.
//!
//! The items of a generation stand in one *slot* of the ready messages, so that a release moves a mark and touches no
//! item ([`Desk::release`]). An item that withdraws before the release leaves a hole in the count of arrivals; the
//! ordinal of another is the number of arrivals before it without the holes ([`ordinal`]).
//!
//! | key, after the name | value | |
//! |---|---|---|
//! | `n` slot | the [`Generation`] | from the first arrival until it is done |
//! | `m` slot | | written by the release: what those who wait for it watch |
//! | `y` slot, id | the message | an item that its producer named |
//! | `e` id | | an id that `contains` waits for |
//! | `i` | what the finalizer says | if configured |
//! | `x` slot, block | bits | holes among 1024 arrivals |

use coracle_store::{ContentType, Millis, Revision, Timestamp, Value, View};
use minicbor::{Decode, Encode};

use super::Header;
use super::desk::Desk;
use super::keys::Keys;

/// Items of one generation.
pub const ITEMS: u64 = 100_000;
/// Ids that `contains` may wait for.
pub const DECLARED: usize = 1_000;
/// Ids in `absent`, and names in `signals`.
pub const NAMED: usize = 16;
/// Bytes of what a finalizer says.
pub const FINALIZER_BYTES: usize = 64 * 1024;
/// Arrivals whose holes share a key.
const BLOCK: u64 = 1024;

/// When a generation is released, and how it is delivered. Without any condition only `open` and the deadline do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Barrier {
    /// One condition is enough; otherwise all must hold.
    #[n(0)]
    pub any: bool,
    /// So many items.
    #[n(1)]
    pub size: Option<u64>,
    /// All of these ids are there.
    #[n(2)]
    pub contains: Vec<Box<str>>,
    /// None of these ids is there.
    #[n(3)]
    pub absent: Vec<Box<str>>,
    /// Each was signalled in this generation.
    #[n(4)]
    pub signals: Vec<Box<str>>,
    #[n(5)]
    pub deadline: Option<Deadline>,
    #[n(6)]
    pub hand_out: HandOut,
    /// The next item only after the one before is settled.
    #[n(7)]
    pub strict: bool,
    #[n(8)]
    pub finalizer: Option<Finalizer>,
    /// What becomes of the items of a broken generation.
    #[n(9)]
    pub on_break: OnBreak,
    /// Whose holder alone may signal, open and break.
    #[n(10)]
    pub authority: Option<Authority>,
}

/// Counted from the first item of the generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Deadline {
    #[n(0)]
    pub after: Millis,
    /// Break the generation; otherwise release what there is.
    #[n(1)]
    pub breaks: bool,
}

/// Who gets the items of a released generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum HandOut {
    /// Receivers, one message after the other.
    #[default]
    #[n(0)]
    Work,
    /// One receiver, all of them: the message it gets stands for the generation.
    #[n(1)]
    Batch,
    /// Each producer its own, with its ordinal.
    #[n(2)]
    Own,
    /// Everybody who asks, all of them, until the next generation is released.
    #[n(3)]
    Broadcast,
}

/// A message that follows the last item.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Finalizer {
    /// `None` is the counts, as JSON.
    #[n(0)]
    pub value: Option<Value>,
    #[n(1)]
    pub content_type: ContentType,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum OnBreak {
    /// They belong to the next generation.
    #[default]
    #[n(0)]
    CarryOver,
    #[n(1)]
    DeadLetter,
    #[n(2)]
    Drop,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Authority {
    #[n(0)]
    Lock(#[n(0)] Box<str>),
    #[n(1)]
    Election(#[n(0)] Box<str>),
}

/// What a control program does with the generation that fills.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Control {
    #[n(0)]
    pub queue: Box<str>,
    /// Of the authority, where one is configured.
    #[n(1)]
    pub token: Option<Revision>,
    #[n(2)]
    pub act: Act,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Act {
    #[n(0)]
    Signal(#[n(0)] Box<str>),
    /// Release now, whatever the conditions say; nothing if there is no item.
    #[n(1)]
    Open,
    /// Break with a reason; the items as configured, or as said here.
    #[n(2)]
    Break(#[n(0)] Box<str>, #[n(1)] Option<OnBreak>),
}

/// A generation, from its first arrival (or signal) until it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Generation {
    /// 1 is the first.
    #[n(0)]
    pub number: u64,
    #[n(1)]
    pub stage: Stage,
    /// Items that have arrived, also those that withdrew since.
    #[n(2)]
    pub arrivals: u64,
    /// Items that are there and not settled.
    #[n(3)]
    pub live: u64,
    /// Declared ids that are not there.
    #[n(4)]
    pub missing: u64,
    /// Names that were signalled.
    #[n(5)]
    pub signals: Vec<Box<str>>,
    /// Arrival of the first item.
    #[n(6)]
    pub since: Option<Timestamp>,
    /// A timer stands there.
    #[n(7)]
    pub deadline: Option<Timestamp>,
    /// When it was released.
    #[n(8)]
    pub released: Option<Released>,
    #[n(9)]
    pub acked: u64,
    #[n(10)]
    pub dead: u64,
    /// Deleted, expired, or lost with their producer after the release.
    #[n(11)]
    pub dropped: u64,
    /// The finalizer is on its way.
    #[n(12)]
    pub finalizing: bool,
    /// Why the generation before, which carried over into this one, was broken.
    #[n(13)]
    pub broken: Option<Box<str>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub enum Stage {
    #[default]
    #[n(0)]
    Filling,
    #[n(1)]
    Released,
    /// Its items are taken out, a slice an entry.
    #[n(2)]
    Sweeping(#[n(0)] Sweep),
}

/// What is said of items that are swept out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Sweep {
    /// Acknowledged together.
    #[n(0)]
    Acked,
    /// To the dead letters, for this reason.
    #[n(1)]
    Dead(#[n(0)] Box<str>),
    #[n(2)]
    Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Released {
    #[n(0)]
    pub revision: Revision,
    #[n(1)]
    pub at: Timestamp,
    /// Items: the ordinals are below it.
    #[n(2)]
    pub size: u64,
    /// `condition`, `open` or `deadline`.
    #[n(3)]
    pub cause: Box<str>,
}

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Acked,
    Dead,
    Dropped,
}

impl Barrier {
    /// What the configuration's key holds: the long parts have keys of their own.
    pub(super) fn short(&self) -> Self {
        Self { contains: Vec::new(), finalizer: None, ..self.clone() }
    }
}

/// Which of 0..n-1 an item is: the arrivals before it without the holes. Costs a look-up for 1024 arrivals.
pub(super) fn ordinal(view: View<'_>, keys: &Keys, slot: u64, arrival: u64) -> u64 {
    let (block, bit) = (arrival / BLOCK, arrival % BLOCK);
    let mut holes = 0;
    for (key, record) in view.under(keys.all_holes(slot)) {
        let bytes = key.as_bytes();
        let number = bytes.last_chunk().map_or(u64::MAX, |number| u64::from_be_bytes(*number));
        if number > block {
            break;
        }
        let upto = if number < block { BLOCK } else { bit };
        holes += ones(&record.value, upto);
    }
    arrival - holes
}

/// Bits that are set below `upto`.
fn ones(bits: &[u8], upto: u64) -> u64 {
    let upto = usize::try_from(upto).unwrap_or(0);
    let whole: u32 = bits[..upto / 8].iter().map(|byte| byte.count_ones()).sum();
    let rest = bits.get(upto / 8).map_or(0, |byte| (byte & ((1u8 << (upto % 8)) - 1)).count_ones());
    u64::from(whole + rest)
}

impl Desk<'_, '_> {
    /// An item left before the release.
    pub fn dig(&mut self, slot: u64, arrival: u64) {
        let key = self.keys.holes(slot, arrival / BLOCK);
        let bytes = usize::try_from(BLOCK / 8).unwrap_or(0);
        let mut bits = self.txn.get(&key).map_or_else(|| vec![0; bytes], |record| record.value.to_vec());
        let bit = usize::try_from(arrival % BLOCK).unwrap_or(0);
        bits[bit / 8] |= 1 << (bit % 8);
        self.put(key, bits.into());
    }

    /// Forget a slot's holes.
    pub fn fill_holes(&mut self, slot: u64) {
        let view = self.txn.view();
        let keys: Vec<_> = view.under(self.keys.all_holes(slot)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.delete(&key);
        }
    }
}

/// The counts of a generation, for its finalizer.
pub(super) fn counts(generation: &Generation) -> ([Header; 5], String) {
    let size = generation.released.as_ref().map_or(0, |released| released.size);
    let numbers = [
        ("generation", generation.number),
        ("size", size),
        ("acked", generation.acked),
        ("dead", generation.dead),
        ("dropped", generation.dropped),
    ];
    let json: Vec<String> = numbers.iter().map(|(name, number)| format!("\"{name}\":{number}")).collect();
    let header = |(name, number): (&str, u64)| Header { name: name.into(), value: number.to_string().into() };
    (numbers.map(header), format!("{{{}}}", json.join(",")))
}
