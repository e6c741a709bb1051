//! What two peers tell each other before anything else, and why one hangs up.

use std::fmt;
use std::io;

use bytes::BufMut;

use super::wire::{Frame, Kind, put_frame};
use crate::codec::{self, Input, Malformed};
use crate::types::{NodeId, Vote};

/// Version of the peer protocol this build speaks. A peer may speak an older one, never a newer one: the newer
/// side of a pair adapts.
pub const PROTOCOL: u16 = 1;

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

impl Hello {
    pub(super) fn new(greeting: Greeting, to: NodeId, class: Class) -> Self {
        let Greeting { cluster, id, last_log, vote } = greeting;
        Self { version: PROTOCOL, cluster, from: id, to, class, last_log, vote }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>| {
            out.put_slice(&MAGIC);
            out.put_u16_le(self.version);
            out.put_u128_le(self.cluster);
            out.put_u64_le(self.from);
            out.put_u64_le(self.to);
            out.put_u8(self.class.code());
            out.put_u64_le(self.last_log);
            codec::put_vote(out, &self.vote);
        };
        put_frame(out, Kind::Hello, 0, put).expect("small");
    }

    /// Magic and version come first for ever; of a version newer than ours nothing else is read.
    fn read(body: &[u8]) -> Result<Result<Self, Reject>, Malformed> {
        let mut input = Input(body);
        if input.bytes(MAGIC.len())? != MAGIC {
            return Err(Malformed("not a peer of this kind"));
        }
        let version = u16::from_le_bytes([input.u8()?, input.u8()?]);
        if version > PROTOCOL {
            return Ok(Err(Reject::NewerProtocol { speaks: PROTOCOL }));
        }
        if version == 0 {
            return Err(Malformed("protocol version"));
        }
        let hello = Self {
            version,
            cluster: input.u128()?,
            from: input.u64()?,
            to: input.u64()?,
            class: Class::from_code(input.u8()?)?,
            last_log: input.u64()?,
            vote: codec::vote(&mut input)?,
        };
        input.end()?;
        Ok(Ok(hello))
    }

    /// All that can be judged without knowing the history of the peer.
    pub(super) fn check(&self, us: &Greeting) -> Result<(), Reject> {
        if self.cluster != us.cluster {
            return Err(Reject::ForeignCluster { theirs: us.cluster });
        }
        if self.to != us.id {
            return Err(Reject::WrongNode { theirs: us.id });
        }
        Ok(())
    }
}

/// The first frame of a peer.
pub(super) enum Opening {
    Hello(Hello),
    /// The peer hangs up on us.
    Rejected(Reject),
    /// We have to hang up on the peer.
    Reject(Reject),
}

impl Opening {
    pub(super) fn read(frame: &Frame) -> io::Result<Self> {
        Ok(match frame.kind {
            Kind::Hello => match Hello::read(&frame.body)? {
                Ok(hello) => Self::Hello(hello),
                Err(reject) => Self::Reject(reject),
            },
            Kind::Reject => Self::Rejected(Reject::read(&frame.body)?),
            _ => return Err(Malformed("no greeting").into()),
        })
    }
}

impl Reject {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>| match self {
            Self::ForeignCluster { theirs } => {
                out.put_u8(1);
                out.put_u128_le(*theirs);
            }
            Self::WrongNode { theirs } => {
                out.put_u8(2);
                out.put_u64_le(*theirs);
            }
            Self::Removed => out.put_u8(3),
            Self::RolledBack { seen } => {
                out.put_u8(4);
                out.put_u64_le(*seen);
            }
            Self::NewerProtocol { speaks } => {
                out.put_u8(5);
                out.put_u16_le(*speaks);
            }
        };
        put_frame(out, Kind::Reject, 0, put).expect("small");
    }

    pub(super) fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(body);
        let reject = match input.u8()? {
            1 => Self::ForeignCluster { theirs: input.u128()? },
            2 => Self::WrongNode { theirs: input.u64()? },
            3 => Self::Removed,
            4 => Self::RolledBack { seen: input.u64()? },
            5 => Self::NewerProtocol { speaks: u16::from_le_bytes([input.u8()?, input.u8()?]) },
            _ => return Err(Malformed("reason to reject")),
        };
        input.end()?;
        Ok(reject)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use openraft::vote::RaftLeaderId;
    use proptest::prelude::*;

    use super::*;

    fn frame(bytes: &[u8]) -> Frame {
        let mut reader = super::super::wire::FrameReader::new(bytes);
        reader.next().now_or_never().expect("a slice is always ready").unwrap().unwrap()
    }

    fn vote() -> impl Strategy<Value = Vote> {
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, node, committed)| Vote {
            leader_id: crate::types::LeaderId::new(term, node),
            committed,
        })
    }

    fn class() -> impl Strategy<Value = Class> {
        prop::sample::select(vec![Class::Append, Class::Control, Class::Forward, Class::Snapshot])
    }

    prop_compose! {
        fn hello()(cluster: u128, from: u64, to: u64, class in class(), last_log: u64, vote in vote()) -> Hello {
            Hello { version: PROTOCOL, cluster, from, to, class, last_log, vote }
        }
    }

    proptest! {
        #[test]
        fn greetings_survive(hello in hello()) {
            let mut out = Vec::new();
            hello.put(&mut out);
            let Opening::Hello(found) = Opening::read(&frame(&out)).unwrap() else { panic!("not a hello") };
            prop_assert_eq!(found, hello);
        }

        #[test]
        fn rejects_survive(n: u128) {
            #[allow(clippy::cast_possible_truncation, reason = "any number will do")]
            for reject in [
                Reject::ForeignCluster { theirs: n },
                Reject::WrongNode { theirs: n as u64 },
                Reject::Removed,
                Reject::RolledBack { seen: n as u64 },
                Reject::NewerProtocol { speaks: n as u16 },
            ] {
                let mut out = Vec::new();
                reject.put(&mut out);
                let Opening::Rejected(found) = Opening::read(&frame(&out)).unwrap() else { panic!("no reject") };
                prop_assert_eq!(found, reject);
            }
        }

        #[test]
        fn random_greetings_never_panic(mut body in prop::collection::vec(any::<u8>(), 0..100), magic: bool) {
            if magic && body.len() > MAGIC.len() {
                body[..MAGIC.len()].copy_from_slice(&MAGIC);
            }
            let _ = Hello::read(&body);
            let _ = Reject::read(&body);
        }
    }

    #[test]
    fn a_newer_version_is_rejected_without_reading_on() {
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&[2, 0, 99]);
        assert_eq!(Hello::read(&body).unwrap(), Err(Reject::NewerProtocol { speaks: PROTOCOL }));
    }
}
