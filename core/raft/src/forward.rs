//! What one node's edge asks of the leader's: writes, read barriers, renewals, changes of membership.
//!
//! The body of a forward frame and of its answer. A write is one tag byte and the command's own bytes.

use bytes::Bytes;
use coracle_store::{Millis, Reply, Revision, SessionId};
use minicbor::{Decode, Encode};

use crate::node::{Circumstance, MemberError};
use crate::types::{Member, NodeId};

const WRITE: u8 = 0;
const OTHER: u8 = 1;

/// A question to the leader (or, for hashes, to any peer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Put these bytes of a command into the log.
    Write(Bytes),
    Ask(Ask),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// The log index a read must see applied.
    #[n(0)]
    Barrier,
    #[n(1)]
    Renew(#[n(0)] SessionId),
    #[n(2)]
    Validity(#[n(0)] Vec<SessionId>),
    #[n(3)]
    Admit(#[n(0)] Member),
    #[n(4)]
    Promote(#[n(0)] NodeId),
    #[n(5)]
    Remove(#[n(0)] NodeId),
    #[n(6)]
    Transfer(#[n(0)] NodeId),
    /// State hashes by revision that this node remembers.
    #[n(7)]
    Hashes,
    /// This is how the asking member wants to be known to clients; its name and peer address stay.
    #[n(8)]
    Introduce(#[n(0)] NodeId, #[n(1)] String),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    #[n(0)]
    Reply(#[n(0)] Reply),
    #[n(1)]
    Index(#[n(0)] u64),
    /// Good for this long, counted from the arrival at the asking node.
    #[n(2)]
    Renewed(#[n(0)] Millis),
    #[n(3)]
    SessionExpired,
    #[n(4)]
    Validity(#[n(0)] Vec<Option<Millis>>),
    #[n(5)]
    Member(#[n(0)] NodeId),
    #[n(6)]
    MemberRefused(#[n(0)] MemberRefusal),
    #[n(7)]
    Hashes(#[n(0)] Vec<HashAt>),
    #[n(8)]
    Failed(#[n(0)] Failure),
}

/// State hash at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct HashAt {
    #[n(0)]
    pub revision: Revision,
    #[n(1)]
    pub high: u64,
    #[n(2)]
    pub low: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum MemberRefusal {
    #[n(0)]
    Unknown(#[n(0)] NodeId),
    #[n(1)]
    Exists(#[n(0)] NodeId),
    #[n(2)]
    WouldLoseQuorum,
    #[n(3)]
    NotCaughtUp(#[n(0)] u64, #[n(1)] u64),
    #[n(4)]
    Busy,
}

/// A circumstance of the answering node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Failure {
    /// It does not lead, and has done nothing.
    #[n(0)]
    NotLeader,
    #[n(1)]
    Overloaded,
    #[n(2)]
    Full,
    /// The entry may or may not come to be.
    #[n(3)]
    Unknown,
    #[n(4)]
    Stopping,
}

impl Request {
    /// Append the request to a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Write(command) => {
                out.reserve(command.len() + 1);
                out.push(WRITE);
                out.extend_from_slice(command);
            }
            Self::Ask(ask) => {
                out.push(OTHER);
                minicbor::encode(ask, out).expect("writing to memory cannot fail");
            }
        }
    }

    /// Parse a request; a write shares the frame's memory.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        match *bytes.first()? {
            WRITE => Some(Self::Write(bytes.slice(1..))),
            OTHER => minicbor::decode(&bytes[1..]).ok().map(Self::Ask),
            _ => None,
        }
    }
}

impl Answer {
    /// Append the answer to a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        minicbor::encode(self, out).expect("writing to memory cannot fail");
    }

    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

impl From<&Circumstance> for Failure {
    fn from(circumstance: &Circumstance) -> Self {
        match circumstance {
            Circumstance::NoLeader => Self::NotLeader,
            Circumstance::Overloaded => Self::Overloaded,
            Circumstance::CommitTimeout | Circumstance::Lost => Self::Unknown,
            Circumstance::Full => Self::Full,
            Circumstance::ShuttingDown | Circumstance::Stopped(_) => Self::Stopping,
        }
    }
}

impl From<Failure> for Circumstance {
    fn from(failure: Failure) -> Self {
        match failure {
            // A stopping node has refused before doing anything: another will lead.
            Failure::NotLeader | Failure::Stopping => Self::NoLeader,
            Failure::Overloaded => Self::Overloaded,
            Failure::Full => Self::Full,
            Failure::Unknown => Self::Lost,
        }
    }
}

impl From<MemberError> for Answer {
    fn from(error: MemberError) -> Self {
        let refusal = match error {
            MemberError::Unknown(id) => MemberRefusal::Unknown(id),
            MemberError::Exists(id) => MemberRefusal::Exists(id),
            MemberError::WouldLoseQuorum => MemberRefusal::WouldLoseQuorum,
            MemberError::NotCaughtUp { matched, last } => MemberRefusal::NotCaughtUp(matched, last),
            MemberError::Busy => MemberRefusal::Busy,
            MemberError::Circumstance(circumstance) => return Self::Failed(Failure::from(&circumstance)),
        };
        Self::MemberRefused(refusal)
    }
}

impl From<MemberRefusal> for MemberError {
    fn from(refusal: MemberRefusal) -> Self {
        match refusal {
            MemberRefusal::Unknown(id) => Self::Unknown(id),
            MemberRefusal::Exists(id) => Self::Exists(id),
            MemberRefusal::WouldLoseQuorum => Self::WouldLoseQuorum,
            MemberRefusal::NotCaughtUp(matched, last) => Self::NotCaughtUp { matched, last },
            MemberRefusal::Busy => Self::Busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_read_back() {
        for request in [
            Request::Write(Bytes::from_static(b"command")),
            Request::Ask(Ask::Barrier),
            Request::Ask(Ask::Renew(SessionId(7))),
            Request::Ask(Ask::Admit(Member {
                name: "n4".into(),
                peer: "h:1".into(),
                client: "http://h".into(),
            })),
        ] {
            let mut bytes = Vec::new();
            request.encode(&mut bytes);
            assert_eq!(Request::decode(&bytes.into()), Some(request));
        }
        for answer in [
            Answer::Reply(Reply::default()),
            Answer::Validity(vec![None, Some(Millis(3))]),
            Answer::MemberRefused(MemberRefusal::NotCaughtUp(1, 2)),
            Answer::Failed(Failure::Unknown),
        ] {
            let mut bytes = Vec::new();
            answer.encode(&mut bytes);
            assert_eq!(Answer::decode(&bytes), Some(answer));
        }
        assert_eq!(Request::decode(&Bytes::new()), None);
        assert_eq!(Request::decode(&Bytes::from_static(&[9])), None);
    }
}
