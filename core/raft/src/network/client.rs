//! Dialling: all connections of this node to its peers.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::counters::Traffic;
use super::hello::{Class, Reject};
use super::service::Local;
use super::tls::{PeerTls, TlsError};
use crate::types::{Member, NodeId};

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Certainly never written to the peer: no effect.
    #[error("unreachable reason={0}")]
    Unreachable(Arc<str>),
    /// Too many requests are pending on that connection; never written: no effect.
    #[error("overloaded")]
    Overloaded,
    /// Written, and the connection was lost before the answer: the effect is unknown.
    #[error("connection lost")]
    Lost,
    /// Written, and no answer before the deadline: the effect is unknown.
    #[error("timed out")]
    Timeout,
    /// The peer refused the connection; no effect.
    #[error("refused: {0}")]
    Refused(Reject),
    /// The peer could not answer; the effect is unknown.
    #[error("failed there: {0}")]
    Failed(Arc<str>),
}

impl CallError {
    /// False: the request certainly had no effect.
    #[must_use]
    pub fn effect_unknown(&self) -> bool {
        matches!(self, Self::Lost | Self::Timeout | Self::Failed(_))
    }
}

/// Connections to the other members. Clones share them.
#[derive(Clone)]
pub struct Peers {}

impl Peers {
    /// Nothing is dialled before it is needed; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the certificate files cannot be used.
    pub fn new(local: Arc<dyn Local>, tls: Option<&PeerTls>) -> Result<Self, TlsError> {
        let _ = (local, tls);
        todo!()
    }

    /// Where a member is to be dialled; call for every member at start and on every membership change. An existing
    /// connection to another address is closed.
    pub fn learn(&self, id: NodeId, member: &Member) {
        let _ = (id, member);
        todo!()
    }

    /// Close the connections to a member that is gone.
    pub fn forget(&self, id: NodeId) {
        let _ = id;
        todo!()
    }

    /// Send a request to another node's [`Service::forward`](super::Service::forward). `encode` appends the request to
    /// the out-buffer under a lock (no blocking, no other call into `Peers`); `done` is called exactly once, on a
    /// connection's task or, if nothing can be sent, before this returns.
    pub fn forward(
        &self,
        to: NodeId,
        deadline: Instant,
        encode: impl FnOnce(&mut Vec<u8>),
        done: impl FnOnce(Result<Bytes, CallError>) + Send + 'static,
    ) {
        let _ = (to, deadline, encode, done);
        todo!()
    }

    /// As [`forward`](Self::forward), for callers that wait. Dropping the future does not take the request back.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn ask(
        &self,
        to: NodeId,
        deadline: Instant,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Bytes, CallError> {
        let _ = (to, deadline, encode);
        todo!()
    }

    /// Whether some connection to the peer works; `None` if none has been tried.
    #[must_use]
    pub fn reachable(&self, id: NodeId) -> Option<bool> {
        let _ = id;
        todo!()
    }

    /// What went to and came from each peer, by class of connection.
    #[must_use]
    pub fn traffic(&self) -> Vec<(NodeId, Class, Traffic)> {
        todo!()
    }

    /// Fail everything pending, close every connection; later calls are [`CallError::Unreachable`].
    pub fn close(&self) {
        todo!()
    }
}
