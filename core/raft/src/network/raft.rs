//! openraft's view of the network.

use std::marker::PhantomData;

use super::client::Peers;
use super::hello::Class;
use super::snapshot::Outgoing;
use crate::types::NodeId;

/// Makes openraft's clients; `S` is the snapshot the state machine builds.
pub struct Dialer<S> {
    peers: Peers,
    _snapshot: PhantomData<fn() -> S>,
}

impl<S: Outgoing> Dialer<S> {
    #[must_use]
    pub fn new(peers: Peers) -> Self {
        Self { peers, _snapshot: PhantomData }
    }
}

/// openraft's client for one target and purpose.
pub struct Connection<S> {
    peers: Peers,
    target: NodeId,
    class: Class,
    _snapshot: PhantomData<fn() -> S>,
}
