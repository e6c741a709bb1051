//! What the transport asks of the node it works for.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::hello::{Greeting, Hello, Reject};
use super::out::ReplySender;
use super::snapshot::Incoming;
use crate::types::{NodeId, SnapshotMeta, Types, Vote};

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// This node as its peers meet it: used by both ends of every connection. Needs no Raft.
pub trait Local: Send + Sync + 'static {
    /// Called for each connection; cheap.
    fn greeting(&self) -> Greeting;

    /// Judge a peer that dialled us or answered our dial. Cluster, addressee and protocol are already checked;
    /// left to judge: is it removed, is its data older than what we have seen from it? The greeting may be older
    /// than what the peer has acknowledged since; the transport sees to that: it takes [`Reject::RolledBack`] for
    /// final only if a greeting asked for afterwards still has a `last_log` below `seen`.
    ///
    /// [`Reject::Removed`] has to be judged by *committed* membership: a node that stops for a removal that is then
    /// undone may be missing from the quorum. It is judged again when the peer asks for a vote.
    ///
    /// # Errors
    /// The reason is sent to the peer and the connection closed.
    fn judge(&self, peer: &Hello) -> Result<(), Reject>;

    /// A peer hung up on us and said why. [`Reject::Removed`] and [`Reject::RolledBack`] mean that this node has to
    /// stop. [`Reject::ForeignCluster`] alone does not: perhaps it is the peer's address that a stranger has taken, and
    /// then every member hears the same; believe it if no peer has ever accepted us. The transport itself only
    /// retries slowly.
    fn refused(&self, by: NodeId, reject: &Reject);
}

/// The node has no Raft to answer with (it stops, or has stopped).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// The RPCs of Raft, as the listener calls them; thin around `openraft::Raft`, whose futures enqueue when first polled.
pub trait RaftService: Send + Sync + 'static {
    /// What the state machine installs.
    type Snapshot: Send + 'static;

    fn append_entries(
        &self,
        request: AppendEntriesRequest<Types>,
    ) -> BoxFuture<Result<AppendEntriesResponse<Types>, Unavailable>>;
    fn vote(&self, request: VoteRequest<Types>) -> BoxFuture<Result<VoteResponse<Types>, Unavailable>>;
    fn pre_vote(&self, request: VoteRequest<Types>) -> BoxFuture<Result<VoteResponse<Types>, Unavailable>>;
    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<Types>,
    ) -> BoxFuture<Result<TransferLeaderResponse<Types>, Unavailable>>;
    fn install_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        snapshot: Self::Snapshot,
    ) -> BoxFuture<Result<SnapshotResponse<Types>, Unavailable>>;
}

/// Who answers what peers ask; implemented by the node.
pub trait Service: Send + Sync + 'static {
    type Raft: RaftService;
    type Incoming: Incoming<Snapshot = <Self::Raft as RaftService>::Snapshot>;

    fn raft(&self) -> &Self::Raft;

    /// Begin to receive a snapshot of so many bytes. Called on a thread that may block.
    ///
    /// # Errors
    /// The transfer is refused and retried later.
    fn incoming(&self, meta: &SnapshotMeta, bytes: u64) -> std::io::Result<Self::Incoming>;

    /// A request forwarded by another node: opaque to the transport. Called on the connection's task in the order
    /// of arrival, so it must not block; `reply` may be called from anywhere, at any time.
    fn forward(&self, from: NodeId, request: Bytes, reply: ReplySender);
}
