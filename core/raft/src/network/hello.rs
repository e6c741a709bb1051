//! What two peers tell each other before anything else, and why one hangs up.

use std::fmt;

use crate::codec::{self, Input, Malformed};
use crate::types::{NodeId, Vote};

/// Version of the peer protocol this build speaks. A peer may speak an older one, never a newer one: the newer
/// side of a pair adapts.
pub const PROTOCOL: u16 = 1;

/// Oldest version still understood.
const OLDEST: u16 = 1;

/// First bytes of every connection.
const MAGIC: [u8; 8] = *b"coraclep";

/// What a connection is for; one of each to every peer, as needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Log entries, pipelined.
    Append,
    /// Heartbeats, votes, leadership transfer: never behind bulk.
    Control,
    /// What edges forward to the leader.
    Forward,
    /// One snapshot, then closed.
    Snapshot,
}

impl Class {
    /// The classes that keep a connection open.
    pub(super) const LASTING: [Self; 3] = [Self::Append, Self::Control, Self::Forward];

    fn code(self) -> u8 {
        match self {
            Self::Append => 1,
            Self::Control => 2,
            Self::Forward => 3,
            Self::Snapshot => 4,
        }
    }

    fn from_code(code: u8) -> Result<Self, Malformed> {
        match code {
            1 => Ok(Self::Append),
            2 => Ok(Self::Control),
            3 => Ok(Self::Forward),
            4 => Ok(Self::Snapshot),
            _ => Err(Malformed("connection class")),
        }
    }
}

/// What a node says of itself, at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    pub cluster: u128,
    pub id: NodeId,
    /// Index of the last entry that is durable in its log; 0 if the log is empty.
    pub last_log: u64,
    /// The durable vote.
    pub vote: Vote,
}

/// A greeting on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Version the sender speaks; the connection uses the lower of both.
    pub version: u16,
    pub cluster: u128,
    pub from: NodeId,
    /// Whom the sender believes to reach.
    pub to: NodeId,
    pub class: Class,
    /// Index of the last durable entry of the sender; 0 if its log is empty.
    pub last_log: u64,
    pub vote: Vote,
}

/// Why a peer will not talk to us: final, until somebody changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// The peer belongs to another cluster.
    ForeignCluster { theirs: u128 },
    /// Another node lives at the dialled address.
    WrongNode { theirs: NodeId },
    /// The dialling node was removed from the cluster; its id is never accepted again.
    Removed,
    /// Peers have seen entries, or a vote, from this node that its data directory no longer holds.
    RolledBack { seen: u64 },
    /// The peer speaks no version as new as ours.
    NewerProtocol { speaks: u16 },
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignCluster { theirs } => {
                write!(f, "the peer belongs to another cluster cluster={theirs:032x}")
            }
            Self::WrongNode { theirs } => write!(f, "another node answers at this address node={theirs}"),
            Self::Removed => f.write_str("this node was removed from the cluster; start it with an empty data directory to join as a new one"),
            Self::RolledBack { seen } => write!(
                f,
                "this data directory is older than what peers have seen from it; remove the member and join with an empty one seen_index={seen}"
            ),
            Self::NewerProtocol { speaks } => {
                write!(f, "the peer speaks only an older protocol; upgrade it first speaks={speaks} ours={PROTOCOL}")
            }
        }
    }
}
