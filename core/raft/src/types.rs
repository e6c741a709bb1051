//! The types Raft is configured with: one cluster member, one log payload, one responder.
//!
//! Everything else in the crate speaks in these aliases, so that an openraft upgrade is felt here first.
//! Nothing in this file is written to disk or to a peer by openraft's own serialisation: see `codec`.

use std::fmt;

use bytes::Bytes;
use coracle_store::{Reply, Timestamp};
use openraft::raft::ClientWriteResult;
use openraft::{OptionalSend, RaftTypeConfig};

/// Identity of a node. 1–100 for the members a cluster was born with, afterwards the log index of the
/// entry that admitted the node plus 100. Never reused, not even after removal.
pub type NodeId = u64;

/// Where a member of the cluster can be reached. Part of the membership entries of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
pub struct Member {
    /// Name chosen by the operator; unique in the cluster.
    #[n(0)]
    pub name: String,
    /// `host:port` that peers dial.
    #[n(1)]
    pub peer: String,
    /// Base URL that clients use, such as `http://127.0.0.1:7070`.
    #[n(2)]
    pub client: String,
}

/// What a client write puts into the log: an encoded [`coracle_store::Command`] and the time the leader
/// stamped it with. The bytes are opaque to consensus and shared, never copied, on the way to log and peers.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// Wall clock of the leader when it proposed the entry.
    pub time: Timestamp,
    /// The encoded command.
    pub command: Bytes,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload(time={} bytes={})", self.time.0, self.command.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The Raft configuration of Coracle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types;

impl RaftTypeConfig for Types {
    type D = Payload;
    type R = Reply;
    type NodeId = NodeId;
    type Node = Member;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Payload, NodeId, Member>;
    type Entry =
        openraft::impls::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = Respond<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

/// A completion callback: whoever proposed a write says here what to do with its result, so that a forwarded
/// write can be answered straight into the out-buffer of the peer's connection, without a task or a channel.
pub struct Respond<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Respond<T> {
    /// Run `f` with the result, on the task that applies the log: `f` must be short and must not block.
    pub fn new(f: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(f))
    }
}

impl<T: Send + 'static> openraft::raft::responder::Responder<Types, T> for Respond<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

pub type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub type Entry = openraft::type_config::alias::EntryOf<Types>;
pub type EntryPayload = openraft::EntryPayload<Payload, NodeId, Member>;
pub type Vote = openraft::type_config::alias::VoteOf<Types>;
pub type LeaderId = openraft::type_config::alias::LeaderIdOf<Types>;
pub type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<Types>;
pub type Membership = openraft::Membership<NodeId, Member>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
/// What a write responder receives.
pub type WriteResult = ClientWriteResult<Types>;
