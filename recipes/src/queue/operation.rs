//! What can be done with queues, and how they are configured.

use coracle_store::command::Attach;
use coracle_store::{ContentType, Millis, Revision, SessionId, Value};
use minicbor::{Decode, Encode};

use super::barrier::{Barrier, Control};
use super::{MessageId, Terms, Ticket};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Send(#[n(0)] Send),
    #[n(1)]
    Receive(#[n(0)] Receive),
    /// A receiver that waited takes what it was assigned; from now on its visibility runs.
    #[n(2)]
    Collect(#[n(0)] Box<str>, #[n(1)] Ticket),
    /// A receiver gives up waiting; what it was assigned and did not collect returns. Nothing if it is gone already.
    #[n(3)]
    Leave(#[n(0)] Box<str>, #[n(1)] Ticket),
    #[n(4)]
    Ack(#[n(0)] Receipts),
    #[n(5)]
    Nack(#[n(0)] Receipts, #[n(1)] Nack),
    /// The visibility begins anew, with this span or that of the queue.
    #[n(6)]
    Renew(#[n(0)] Receipts, #[n(1)] Option<Millis>),
    /// Take one message out, whatever its state.
    #[n(7)]
    Remove(#[n(0)] Box<str>, #[n(1)] MessageId),
    /// Remove messages, a slice of them: those sent up to this revision, and those in flight only if told so.
    #[n(8)]
    Purge(#[n(0)] Box<str>, #[n(1)] Revision, #[n(2)] bool),
    /// Bring dead letters back to the queues they died in, or to this one; at most so many.
    #[n(9)]
    Redrive(#[n(0)] Box<str>, #[n(1)] Option<Box<str>>, #[n(2)] u32),
    /// Configure, or with `None` be an ordinary queue again.
    #[n(10)]
    Configure(#[n(0)] Box<str>, #[n(1)] Option<Config>),
    /// Deliver nothing, or go on.
    #[n(11)]
    Pause(#[n(0)] Box<str>, #[n(1)] bool),
    /// Hand the part of the one consumer to another living session.
    #[n(12)]
    Transfer(#[n(0)] Box<str>, #[n(1)] SessionId, #[n(2)] SessionId),
    /// Signal, open or break the generation of a barrier queue.
    #[n(13)]
    Control(#[n(0)] Control),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Send {
    #[n(0)]
    pub queue: Box<str>,
    /// 1..=1000, all or none, one behind the other.
    #[n(1)]
    pub messages: Vec<Message>,
    /// The session whose end withdraws the items of a barrier queue before their release; `None` everywhere else.
    #[n(2)]
    pub attach: Attach,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Message {
    #[n(0)]
    pub value: Value,
    #[n(1)]
    pub content_type: ContentType,
    /// 0..=9, the highest first; only in a queue of kind priority.
    #[n(2)]
    pub priority: u8,
    /// At most one message of a group is in flight.
    #[n(3)]
    pub group: Option<Box<str>>,
    #[n(4)]
    pub delay: Millis,
    /// Not delivered later than this after the send.
    #[n(5)]
    pub ttl: Option<Millis>,
    /// Sent again with the same id within the window: the same message.
    #[n(6)]
    pub dedup_id: Option<Box<str>>,
    #[n(7)]
    pub headers: Vec<Header>,
    /// The producer's name of an item of a barrier queue: once a generation.
    #[n(8)]
    pub item: Option<Box<str>>,
}

/// A name and a value that travel with a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    #[n(0)]
    pub name: Box<str>,
    #[n(1)]
    pub value: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Receive {
    #[n(0)]
    pub queue: Box<str>,
    #[n(1)]
    pub terms: Terms,
    /// The session that consumes, or a private one that lives while its receiver waits (or longer, if bound).
    #[n(2)]
    pub attach: Attach,
    /// Join the line if there is nothing.
    #[n(3)]
    pub wait: bool,
    /// Acknowledged in the same entry.
    #[n(4)]
    pub acks: Vec<Receipt>,
}

/// Proof of one delivery of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Receipt {
    #[n(0)]
    pub id: MessageId,
    /// The revision of the entry that assigned it.
    #[n(1)]
    pub delivery: Revision,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Receipts {
    #[n(0)]
    pub queue: Box<str>,
    /// 1..=100.
    #[n(1)]
    pub receipts: Vec<Receipt>,
    /// Refuse everything if one is stale.
    #[n(2)]
    pub all: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// Instead of the queue's back-off.
    #[n(0)]
    pub delay: Option<Millis>,
    /// The delivery does not count: a worker that shuts down.
    #[n(1)]
    pub uncounted: bool,
    /// To the dead letters at once.
    #[n(2)]
    pub fatal: bool,
    /// For people; kept with the message.
    #[n(3)]
    pub reason: Box<str>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    #[default]
    #[n(0)]
    Fifo,
    #[n(1)]
    Priority,
    #[n(2)]
    Barrier,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Overflow {
    #[default]
    #[n(0)]
    Reject,
    /// The oldest ready message of the lowest priority goes to the dead letters.
    #[n(1)]
    DropOldest,
}

/// How a queue behaves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Config {
    #[n(0)]
    pub kind: Kind,
    /// From a delivery until the message is visible again.
    #[n(1)]
    pub visibility: Millis,
    /// Failed deliveries that make a dead letter; 0 is never.
    #[n(2)]
    pub max_deliveries: u32,
    /// `None` is the queue's name with `.dead`.
    #[n(3)]
    pub dead_letter: Option<Box<str>>,
    #[n(4)]
    pub backoff: Option<Backoff>,
    #[n(5)]
    pub retention: Millis,
    /// `None` is as many as the quota allows.
    #[n(6)]
    pub max_length: Option<u64>,
    #[n(7)]
    pub overflow: Overflow,
    #[n(8)]
    pub dedup_window: Millis,
    #[n(9)]
    pub single_active: bool,
    #[n(10)]
    pub paused: bool,
    /// Of a queue of kind barrier, and only there.
    #[n(11)]
    pub barrier: Option<Barrier>,
}

/// The delay after the n-th failed delivery: `min` times `factor` to the n-1, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Backoff {
    #[n(0)]
    pub min: Millis,
    #[n(1)]
    pub max: Millis,
    /// 1..=10.
    #[n(2)]
    pub factor: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Fifo,
            visibility: Millis(30_000),
            max_deliveries: 5,
            dead_letter: None,
            backoff: None,
            retention: Millis(14 * 24 * 3_600_000),
            max_length: None,
            overflow: Overflow::Reject,
            dedup_window: Millis(300_000),
            single_active: false,
            paused: false,
            barrier: None,
        }
    }
}
