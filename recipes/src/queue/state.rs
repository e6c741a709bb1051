//! What the keys of a queue hold.

use coracle_store::{Millis, Revision, SessionId, Timestamp};
use minicbor::{Decode, Encode};

use super::keys::{MessageId, Place};
use super::{Death, Header};

/// What is counted over a queue. There while it has a message or a waiter; a barrier queue keeps it while configured,
/// because it numbers the generations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Head {
    /// Messages that the next receiver may have.
    #[n(0)]
    pub ready: u64,
    /// Messages behind another of their group.
    #[n(1)]
    pub blocked: u64,
    #[n(2)]
    pub delayed: u64,
    #[n(3)]
    pub in_flight: u64,
    /// Receivers in line.
    #[n(4)]
    pub waiting: u64,
    /// Somebody has configured it. Where nobody has, as for most, no configuration is looked for.
    #[n(5)]
    pub configured: bool,
    /// When the oldest message is to be looked at: a timer stands there.
    #[n(6)]
    pub retention: Option<Timestamp>,
    /// The generation that is delivered, if it is not the one that fills.
    #[n(7)]
    pub front: u64,
    /// The generation that fills.
    #[n(8)]
    pub filling: u64,
    /// Items of generations that are not at the front.
    #[n(9)]
    pub held: u64,
    /// Bytes of the messages' values.
    #[n(10)]
    pub bytes: u64,
    /// The newest generation's number. It is not its slot: a broken generation that carries over ends, its slot goes on.
    #[n(11)]
    pub generation: u64,
    /// Ids that `contains` waits for.
    #[n(12)]
    pub declared: u64,
}

/// A message as it was sent; never rewritten, so that a delivery does not copy it. Its content type is the record's.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Body<'b> {
    #[n(0)]
    pub sent: Timestamp,
    #[n(1)]
    pub priority: u8,
    #[b(2)]
    pub group: Option<&'b str>,
    /// End of its ttl.
    #[n(3)]
    pub expires: Option<Timestamp>,
    #[n(4)]
    pub headers: Vec<Header>,
    #[cbor(b(5), with = "minicbor::bytes")]
    pub value: &'b [u8],
    /// How it came to be a dead letter.
    #[n(6)]
    pub death: Option<Death>,
    /// Its place in a generation.
    #[b(7)]
    pub item: Option<Arrival<'b>>,
}

/// An item of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Arrival<'b> {
    #[n(0)]
    pub slot: u64,
    /// Counted from 0 within the generation, those that withdrew included. What stands for a generation, or follows it,
    /// has its slot here.
    #[n(1)]
    pub number: u64,
    /// As its producer named it.
    #[b(2)]
    pub id: Option<&'b str>,
    #[n(3)]
    pub role: Role,
}

/// What a message of a barrier queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    #[n(0)]
    Item,
    /// Stands for all items of its generation.
    #[n(1)]
    Batch,
    /// Follows the last item of its generation.
    #[n(2)]
    Finalizer,
}

/// What is remembered of a message's deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Tally {
    /// Deliveries that count.
    #[n(0)]
    pub deliveries: u32,
    /// Why the last one failed, in the consumer's words.
    #[n(1)]
    pub reason: Option<Box<str>>,
}

/// A message that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Delayed {
    #[n(0)]
    pub tally: Tally,
    #[n(1)]
    pub until: Timestamp,
    /// It was delivered before and still stands for its group.
    #[n(2)]
    pub retry: bool,
}

/// A delivery that is not settled.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Flight {
    #[n(0)]
    pub tally: Tally,
    /// Revision of the entry that assigned it: the receipt.
    #[n(1)]
    pub delivery: Revision,
    #[n(2)]
    pub since: Timestamp,
    /// End of the visibility; a timer stands there. None: the session alone decides.
    #[n(3)]
    pub until: Option<Timestamp>,
    /// The key is attached to it.
    #[n(4)]
    pub session: Option<SessionId>,
    /// Assigned to a receiver that waited and has not collected it yet.
    #[n(5)]
    pub ticket: Option<super::Ticket>,
    #[n(6)]
    pub place: Place,
}

/// A receiver in line, or one that was assigned something and has yet to collect it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Waiter {
    #[n(0)]
    pub session: SessionId,
    /// What it asked for.
    #[n(1)]
    pub terms: Terms,
    #[n(2)]
    pub since: Timestamp,
}

/// How a receiver takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Terms {
    /// 1..=100 messages.
    #[n(0)]
    pub max: u32,
    /// Until they are visible again; `None` is the queue's own with no session, and the session's life with one.
    #[n(1)]
    pub visibility: Option<Millis>,
    /// Messages are visible again when the session ends.
    #[n(2)]
    pub bound: bool,
    /// Delivered messages are gone: at most once.
    #[n(3)]
    pub at_most_once: bool,
}

/// What a receiver in line was assigned.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Parcel {
    #[n(0)]
    pub waiter: Waiter,
    #[n(1)]
    pub messages: Vec<MessageId>,
    /// Collected until then, or given back; a timer stands there.
    #[n(2)]
    pub until: Timestamp,
}

/// A send within its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Duplicate {
    #[n(0)]
    pub id: MessageId,
    #[n(1)]
    pub until: Timestamp,
}

/// Who stands for a group: the message that is ready, or none: one is in flight or about to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Occupant {
    #[n(0)]
    pub ready: Option<Place>,
}

impl Head {
    /// Messages in all.
    pub fn length(&self) -> u64 {
        self.ready + self.blocked + self.delayed + self.in_flight + self.held
    }
}
