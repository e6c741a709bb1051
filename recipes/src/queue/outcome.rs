//! What queues answer.

use coracle_store::{ContentType, Millis, Revision, SessionId, Timestamp, Value};
use minicbor::{Decode, Encode};

use super::{Header, Kind, MessageId, Receipt, Role, Ticket};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    #[n(0)]
    Sent(#[n(0)] Vec<Sent>),
    #[n(1)]
    Delivered(#[n(0)] Delivered),
    /// In line. The place belongs to the session; follow it with [`turn`], then collect.
    #[n(2)]
    Waiting(#[n(0)] Ticket, #[n(1)] SessionId, #[n(2)] Vec<bool>),
    /// Which receipts were current, in the order asked; those deliveries are settled, or renewed for so long.
    #[n(3)]
    Settled(#[n(0)] Vec<bool>, #[n(1)] Option<Millis>),
    /// So many messages were removed or moved, and whether there may be more.
    #[n(4)]
    Moved(#[n(0)] u64, #[n(1)] bool),
    /// Whether the queue was not configured before.
    #[n(5)]
    Configured(#[n(0)] bool),
    #[n(6)]
    Done,
    /// The generation that was signalled, opened or broken; whether it is released by that; its items.
    #[n(7)]
    Controlled(#[n(0)] u64, #[n(1)] bool, #[n(2)] u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Sent {
    #[n(0)]
    pub id: MessageId,
    /// It had been sent before: this is the first one's id.
    #[n(1)]
    pub duplicate: bool,
    /// The generation it belongs to, in a barrier queue.
    #[n(2)]
    pub generation: Option<u64>,
    /// What the item of a barrier queue lives with until its generation is released.
    #[n(3)]
    pub session: Option<SessionId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Delivered {
    #[n(0)]
    pub messages: Vec<Delivery>,
    /// Which of the receive's `acks` were current.
    #[n(1)]
    pub acked: Vec<bool>,
    /// The session the deliveries depend on.
    #[n(2)]
    pub session: Option<SessionId>,
}

/// A message on its way to its consumer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Delivery {
    #[n(0)]
    pub id: MessageId,
    /// Of the receipt.
    #[n(1)]
    pub delivery: Revision,
    /// This one included.
    #[n(2)]
    pub deliveries: u32,
    #[n(3)]
    pub sent: Timestamp,
    #[n(4)]
    pub priority: u8,
    #[n(5)]
    pub group: Option<Box<str>>,
    #[n(6)]
    pub headers: Vec<Header>,
    #[n(7)]
    pub value: Value,
    #[n(8)]
    pub content_type: ContentType,
    /// Visible again then, if the session does not end before; `None` if only the session decides, or it is gone.
    #[n(9)]
    pub until: Option<Timestamp>,
    #[n(10)]
    pub death: Option<Death>,
    /// Its place in a barrier queue.
    #[n(11)]
    pub place: Option<Ordinal>,
    /// In flight since then; `None` if it is gone.
    #[n(12)]
    pub since: Option<Timestamp>,
}

/// What a delivered message of a barrier queue is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ordinal {
    #[n(0)]
    pub role: Role,
    #[n(1)]
    pub generation: u64,
    /// Of an item: 0..size, in the order of arrival.
    #[n(2)]
    pub ordinal: Option<u64>,
    /// Items of the generation when it was released.
    #[n(3)]
    pub size: u64,
    /// As its producer named it.
    #[n(4)]
    pub id: Option<Box<str>>,
}

/// How a message came to be a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Death {
    #[n(0)]
    pub queue: Box<str>,
    #[n(1)]
    pub id: MessageId,
    #[n(2)]
    pub deliveries: u32,
    /// `max_deliveries`, `overflow`, or what a fatal nack said.
    #[n(3)]
    pub reason: Box<str>,
    /// When it was sent to that queue.
    #[n(4)]
    pub sent: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// Messages in the queue, and how many it takes.
    #[n(0)]
    Full(#[n(0)] u64, #[n(1)] u64),
    /// Settled, timed out or never given.
    #[n(1)]
    ReceiptStale(#[n(0)] Receipt),
    #[n(2)]
    MessageNotFound(#[n(0)] MessageId),
    /// The queue is of this kind, and what was asked is not for that.
    #[n(3)]
    WrongKind(#[n(0)] Kind, #[n(1)] Box<str>),
    /// A queue with `single_active` knows its consumers by their sessions.
    #[n(4)]
    SessionRequired,
    #[n(5)]
    TooManyWaiters(#[n(0)] u64),
    /// The kind changes only while the queue is empty: messages in it.
    #[n(6)]
    NotEmpty(#[n(0)] u64),
    /// Neither in line nor assigned anything.
    #[n(7)]
    TicketGone,
    /// The session is not the queue's one consumer.
    #[n(8)]
    NotActive(#[n(0)] Option<SessionId>),
    /// Nothing of that name.
    #[n(9)]
    NotFound,
    /// The queue is not configured to wait for a signal of that name.
    #[n(10)]
    SignalUnknown(#[n(0)] Box<str>),
    /// Only the current holder of this claim controls the queue.
    #[n(11)]
    NotInCharge(#[n(0)] Box<str>),
}
