//! Dialling: all connections of this node to its peers.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::counters::{Counters, Traffic};
use super::dial::{Dial, DialError};
use super::hello::{Class, Reject};
use super::link::Link;
use super::link_state::Done;
use super::service::Local;
use super::stream::Stream;
use super::tls::{Connector, PeerTls, TlsError};
use super::wire::{FrameReader, Kind};
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
pub struct Peers(Arc<Inner>);

struct Inner {
    runtime: Handle,
    dial: Arc<Dial>,
    known: RwLock<Known>,
}

struct Known {
    members: BTreeMap<NodeId, Peer>,
    closed: bool,
}

struct Peer {
    address: Arc<str>,
    links: [Arc<Link>; Class::LASTING.len()],
    snapshots: Arc<Counters>,
}

impl Peers {
    /// Nothing is dialled before it is needed; must be called inside a tokio runtime, where all tasks will run.
    ///
    /// # Errors
    /// If the certificate files cannot be used.
    pub fn new(local: Arc<dyn Local>, tls: Option<&PeerTls>) -> Result<Self, TlsError> {
        let connector = tls.map_or(Ok(Connector::plain()), |tls| tls.client().map(Connector::tls))?;
        Ok(Self(Arc::new(Inner {
            runtime: Handle::current(),
            dial: Arc::new(Dial { local, connector }),
            known: RwLock::new(Known { members: BTreeMap::new(), closed: false }),
        })))
    }

    /// Where a member is to be dialled; call for every member at start and on every membership change. An existing
    /// connection to another address is closed.
    pub fn learn(&self, id: NodeId, member: &Member) {
        let mut known = write(&self.0.known);
        if known.closed {
            return;
        }
        let address: Arc<str> = member.peer.as_str().into();
        if let Some(peer) = known.members.get_mut(&id) {
            for link in &peer.links {
                link.redirect(&address);
            }
            peer.address = address;
        } else {
            let links = Class::LASTING.map(|class| Link::new(id, class, address.clone()));
            known.members.insert(id, Peer { address, links, snapshots: Arc::default() });
        }
    }

    /// Whether this node is the only member that it knows of.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        read(&self.0.known).members.is_empty()
    }

    /// Close the connections to a member that is gone.
    pub fn forget(&self, id: NodeId) {
        if let Some(peer) = write(&self.0.known).members.remove(&id) {
            peer.links.iter().for_each(|link| link.close());
        }
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
        self.call(to, Class::Forward, Kind::Forward, deadline.into(), encode, Box::new(done));
    }

    /// As [`forward`](Self::forward), for callers that wait. The request is queued by the call itself, not by the
    /// first poll; dropping the future does not take it back.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn ask(&self, to: NodeId, deadline: Instant, encode: impl FnOnce(&mut Vec<u8>)) -> Answer {
        self.request(to, Class::Forward, Kind::Forward, deadline.into(), encode)
    }

    pub(super) fn request(
        &self,
        to: NodeId,
        class: Class,
        kind: Kind,
        deadline: tokio::time::Instant,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Answer {
        let (sender, receiver) = oneshot::channel();
        // Who dropped the future does not want the answer.
        let done = Box::new(move |answer| drop(sender.send(answer)));
        self.call(to, class, kind, deadline, encode, done);
        Answer(receiver)
    }

    /// Say something that wants no answer. False: there is no open connection to say it on. True promises nothing.
    pub(super) fn tell(
        &self,
        to: NodeId,
        class: Class,
        kind: Kind,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let link = read(&self.0.known).members.get(&to).map(|peer| peer.link(class).clone());
        link.is_some_and(|link| link.tell(kind, encode))
    }

    fn call(
        &self,
        to: NodeId,
        class: Class,
        kind: Kind,
        deadline: tokio::time::Instant,
        encode: impl FnOnce(&mut Vec<u8>),
        done: Done,
    ) {
        let link = read(&self.0.known).members.get(&to).map(|peer| peer.link(class).clone());
        match link {
            Some(link) => link.call((&self.0.runtime, &self.0.dial), kind, deadline, encode, done),
            None => done(Err(CallError::Unreachable("not a known member".into()))),
        }
    }

    /// A connection of its own, for a snapshot.
    pub(super) async fn dial_snapshot(
        &self,
        to: NodeId,
    ) -> Result<(FrameReader<Stream>, Arc<Counters>), DialError> {
        let peer = read(&self.0.known).members.get(&to).map(|p| (p.address.clone(), p.snapshots.clone()));
        let unknown = || std::io::Error::new(std::io::ErrorKind::NotFound, "not a known member");
        let (address, counters) = peer.ok_or_else(unknown)?;
        let stream = self.0.dial.dial(&address, to, Class::Snapshot).await?;
        counters.connected();
        Ok((stream, counters))
    }

    pub(super) fn id(&self) -> NodeId {
        self.0.dial.local.greeting().id
    }

    /// Whether some connection to the peer works; `None` if none has been tried.
    #[must_use]
    pub fn reachable(&self, id: NodeId) -> Option<bool> {
        let known = read(&self.0.known);
        let tried = known.members.get(&id)?.links.iter().filter_map(|link| link.works());
        tried.reduce(|some, works| some || works)
    }

    /// What went to and came from each peer, by class of connection.
    #[must_use]
    pub fn traffic(&self) -> Vec<(NodeId, Class, Traffic)> {
        let known = read(&self.0.known);
        let of_peer = |(id, peer): (&NodeId, &Peer)| {
            let lasting = Class::LASTING.map(|class| (*id, class, peer.link(class).counters.traffic()));
            lasting.into_iter().chain([(*id, Class::Snapshot, peer.snapshots.traffic())])
        };
        known.members.iter().flat_map(of_peer).collect()
    }

    /// Fail everything pending, close every connection; later calls are [`CallError::Unreachable`].
    pub fn close(&self) {
        let mut known = write(&self.0.known);
        known.closed = true;
        for peer in std::mem::take(&mut known.members).into_values() {
            peer.links.iter().for_each(|link| link.close());
        }
    }
}

impl Peer {
    fn link(&self, class: Class) -> &Arc<Link> {
        match class {
            Class::Append => &self.links[0],
            Class::Control => &self.links[1],
            Class::Forward | Class::Snapshot => &self.links[2],
        }
    }
}

/// A future of the answer to a request that is already queued.
#[must_use]
pub struct Answer(oneshot::Receiver<Result<Bytes, CallError>>);

impl Future for Answer {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The runtime is gone if nobody will answer.
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(CallError::Lost)))
    }
}

fn read(known: &RwLock<Known>) -> RwLockReadGuard<'_, Known> {
    known.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(known: &RwLock<Known>) -> RwLockWriteGuard<'_, Known> {
    known.write().unwrap_or_else(PoisonError::into_inner)
}
