//! Where everything of a queue is: one subspace a kind of thing, in the order that matters.

use std::fmt;
use std::str::FromStr;

use coracle_store::{Key, Revision};
use minicbor::{Decode, Encode};

use super::FAMILY;
use crate::names;

/// A message, for as long as it is in this queue: the revision of the send, and its number in that entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct MessageId {
    #[n(0)]
    pub revision: Revision,
    #[n(1)]
    pub number: u32,
}

/// A receiver in line: the revision of its arrival, and its number in that entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Ticket {
    #[n(0)]
    pub revision: Revision,
    #[n(1)]
    pub number: u32,
}

/// Where a ready message stands: the generation's slot, then the order of priorities, then the order of sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) struct Place {
    /// Always 0 but in a barrier queue.
    #[n(0)]
    pub slot: u64,
    #[n(1)]
    pub order: u8,
    #[n(2)]
    pub id: MessageId,
}

/// One queue, by what its keys begin with: family byte and name.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Key,
}

/// What a key of a queue is, from the byte after the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Head,
    Config,
    Body(MessageId),
    Ready(Place),
    Blocked(MessageId),
    Occupied,
    Delayed(MessageId),
    Flight(MessageId),
    Waiter,
    Parcel(Ticket),
    Active,
    Dedup,
    /// The bookkeeping of a barrier queue: see `barrier`.
    Generation(u64),
    Barrier,
}

const HEAD: u8 = b'h';
const CONFIG: u8 = b'c';
const BODY: u8 = b'b';
const READY: u8 = b'r';
const BLOCKED: u8 = b'g';
const OCCUPIED: u8 = b'o';
const DELAYED: u8 = b'd';
const FLIGHT: u8 = b'f';
const WAITER: u8 = b'w';
const PARCEL: u8 = b'p';
const ACTIVE: u8 = b'k';
const DEDUP: u8 = b'u';
const GENERATION: u8 = b'n';
const PRESENT: u8 = b'y';
const DECLARED: u8 = b'e';
const FINALIZER: u8 = b'i';
const RELEASED: u8 = b'm';
const HOLES: u8 = b'x';

impl Keys {
    pub fn new(name: &str) -> Self {
        Self { prefix: names::object(FAMILY, name) }
    }

    /// The queue a key belongs to, and what the key is.
    pub fn of(key: &Key) -> Option<(String, Part)> {
        let (name, rest) = names::split(key.name())?;
        let (part, rest) = rest.split_first()?;
        let part = match *part {
            HEAD => Part::Head,
            CONFIG => Part::Config,
            BODY => Part::Body(MessageId::from_bytes(rest)?),
            READY => Part::Ready(Place::from_bytes(rest)?),
            // Behind the name of its group.
            BLOCKED => Part::Blocked(MessageId::from_end(rest)?),
            OCCUPIED => Part::Occupied,
            DELAYED => Part::Delayed(MessageId::from_bytes(rest)?),
            FLIGHT => Part::Flight(MessageId::from_bytes(rest)?),
            WAITER => Part::Waiter,
            PARCEL => Part::Parcel(Ticket::from_bytes(rest)?),
            ACTIVE => Part::Active,
            DEDUP => Part::Dedup,
            GENERATION => Part::Generation(u64::from_be_bytes(*rest.first_chunk()?)),
            PRESENT | DECLARED | FINALIZER | RELEASED | HOLES => Part::Barrier,
            _ => return None,
        };
        Some((name, part))
    }

    /// What all its keys begin with.
    pub fn prefix(&self) -> &Key {
        &self.prefix
    }

    pub fn name(&self) -> String {
        names::split(self.prefix.name()).map(|(name, _)| name).unwrap_or_default()
    }

    pub fn head(&self) -> Key {
        self.key(HEAD, &[], &[])
    }
    pub fn config(&self) -> Key {
        self.key(CONFIG, &[], &[])
    }
    pub fn active(&self) -> Key {
        self.key(ACTIVE, &[], &[])
    }
    pub fn body(&self, id: MessageId) -> Key {
        self.key(BODY, &id.bytes(), &[])
    }
    pub fn bodies(&self) -> Key {
        self.key(BODY, &[], &[])
    }
    pub fn ready(&self, place: Place) -> Key {
        self.key(READY, &place.bytes(), &[])
    }
    pub fn all_ready(&self) -> Key {
        self.key(READY, &[], &[])
    }
    /// Ready messages of one generation.
    pub fn slot(&self, slot: u64) -> Key {
        self.key(READY, &slot.to_be_bytes(), &[])
    }
    /// Ready messages of one priority.
    pub fn order(&self, slot: u64, order: u8) -> Key {
        self.key(READY, &slot.to_be_bytes(), &[order])
    }
    /// A message behind another of its group.
    pub fn blocked(&self, group: &str, place: Place) -> Key {
        self.key(BLOCKED, &names::closed(group), &place.bytes())
    }
    pub fn all_blocked(&self) -> Key {
        self.key(BLOCKED, &[], &[])
    }
    pub fn blocked_of(&self, group: &str) -> Key {
        self.key(BLOCKED, &names::closed(group), &[])
    }
    /// Who stands for a group.
    pub fn occupied(&self, group: &str) -> Key {
        self.key(OCCUPIED, &names::closed(group), &[])
    }
    pub fn delayed(&self, id: MessageId) -> Key {
        self.key(DELAYED, &id.bytes(), &[])
    }
    pub fn all_delayed(&self) -> Key {
        self.key(DELAYED, &[], &[])
    }
    pub fn flight(&self, id: MessageId) -> Key {
        self.key(FLIGHT, &id.bytes(), &[])
    }
    pub fn flights(&self) -> Key {
        self.key(FLIGHT, &[], &[])
    }
    pub fn waiter(&self, ticket: Ticket) -> Key {
        self.key(WAITER, &ticket.bytes(), &[])
    }
    pub fn waiters(&self) -> Key {
        self.key(WAITER, &[], &[])
    }
    pub fn parcel(&self, ticket: Ticket) -> Key {
        self.key(PARCEL, &ticket.bytes(), &[])
    }
    pub fn dedup(&self, id: &str) -> Key {
        self.key(DEDUP, &names::closed(id), &[])
    }
    pub fn generation(&self, slot: u64) -> Key {
        self.key(GENERATION, &slot.to_be_bytes(), &[])
    }
    pub fn generations(&self) -> Key {
        self.key(GENERATION, &[], &[])
    }
    /// An item of a generation, by the id its producer gave it.
    pub fn present(&self, slot: u64, id: &str) -> Key {
        self.key(PRESENT, &slot.to_be_bytes(), &names::closed(id))
    }
    /// An id that `contains` waits for.
    pub fn declared(&self, id: &str) -> Key {
        self.key(DECLARED, &names::closed(id), &[])
    }
    pub fn all_declared(&self) -> Key {
        self.key(DECLARED, &[], &[])
    }
    pub fn releases(&self) -> Key {
        self.key(RELEASED, &[], &[])
    }
    /// Written by the release of a generation, and by nothing before it.
    pub fn released(&self, slot: u64) -> Key {
        self.key(RELEASED, &slot.to_be_bytes(), &[])
    }
    /// What the finalizer says.
    pub fn finalizer(&self) -> Key {
        self.key(FINALIZER, &[], &[])
    }
    /// Holes among 1024 arrivals of a generation.
    pub fn holes(&self, slot: u64, block: u64) -> Key {
        self.key(HOLES, &slot.to_be_bytes(), &block.to_be_bytes())
    }
    pub fn all_holes(&self, slot: u64) -> Key {
        self.key(HOLES, &slot.to_be_bytes(), &[])
    }

    /// Of a thing; of all things of a kind what their keys begin with.
    fn key(&self, part: u8, of: &[u8], rest: &[u8]) -> Key {
        self.prefix.within(&[&[part], of, rest])
    }
}

impl MessageId {
    /// The id at the end of a position in a list.
    #[must_use]
    pub fn from_end(bytes: &[u8]) -> Option<Self> {
        Self::from_bytes(&bytes[bytes.len().checked_sub(12)?..])
    }

    pub(super) fn bytes(self) -> [u8; 12] {
        twelve(self.revision, self.number)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (revision, number) = halves(bytes)?;
        Some(Self { revision, number })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.revision, self.number)
    }
}

impl FromStr for MessageId {
    type Err = ();

    /// Two plain decimal numbers, such as `812-0`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (revision, number) = text.split_once('-').ok_or(())?;
        let id = Self {
            revision: Revision(revision.parse().map_err(|_| ())?),
            number: number.parse().map_err(|_| ())?,
        };
        // One spelling each: no signs, no leading zeros.
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

impl Ticket {
    pub(super) fn bytes(self) -> [u8; 12] {
        twelve(self.revision, self.number)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (revision, number) = halves(bytes)?;
        Some(Self { revision, number })
    }
}

impl Place {
    fn bytes(self) -> [u8; 21] {
        let mut bytes = [0; 21];
        bytes[..8].copy_from_slice(&self.slot.to_be_bytes());
        bytes[8] = self.order;
        bytes[9..].copy_from_slice(&self.id.bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (slot, rest) = bytes.split_first_chunk()?;
        let (order, rest) = rest.split_first()?;
        Some(Self { slot: u64::from_be_bytes(*slot), order: *order, id: MessageId::from_bytes(rest)? })
    }

    /// From the end of a key.
    pub(super) fn last_of(key: &Key) -> Option<Self> {
        let bytes = key.as_bytes();
        Self::from_bytes(&bytes[bytes.len().checked_sub(21)?..])
    }
}

fn twelve(revision: Revision, number: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&revision.0.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn halves(bytes: &[u8]) -> Option<(Revision, u32)> {
    let (revision, rest) = bytes.split_first_chunk()?;
    let number: [u8; 4] = rest.try_into().ok()?;
    Some((Revision(u64::from_be_bytes(*revision)), u32::from_be_bytes(number)))
}
