//! ③ One node of the cluster: all that the edge may ask of replication.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_store::{Command, Program, Reply, Revision, Selection, SessionId, Settings, Store};

use crate::forward::{Answer, Ask};
use crate::inner::Inner;
use crate::network::tls::PeerTls;
use crate::types::{Member, NodeId};
pub use crate::wake::Watch;

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the log, the checkpoints and the identity; created if absent.
    pub data: PathBuf,
    /// This node as others shall know it. `member.peer` may name port 0 only in tests.
    pub member: Member,
    /// Where peers connect.
    pub peer_listen: SocketAddr,
    /// Certificates between peers; `None` is plain TCP.
    pub peer_tls: Option<PeerTls>,
    /// How the cluster is found if the data directory is empty; ignored otherwise.
    pub start: Start,
    /// Replicated settings this node proposes when it leads and they differ.
    pub settings: Settings,
    /// Checkpoint after about so many bytes of log (the nodes take turns), or `checkpoint_interval` if anything changed.
    pub checkpoint_bytes: u64,
    pub checkpoint_interval: Duration,
    /// Size of a log segment file in bytes.
    pub segment_bytes: u64,
    /// Log kept behind the checkpoint for members that lag, in entries and in bytes, whichever is less: a member that
    /// was away for longer gets a snapshot.
    pub keep_entries: u64,
    pub keep_bytes: u64,
}

impl Options {
    /// Defaults for everything that is not asked for.
    #[must_use]
    pub fn new(data: PathBuf, member: Member, peer_listen: SocketAddr, start: Start) -> Self {
        Self {
            data,
            member,
            peer_listen,
            peer_tls: None,
            start,
            settings: Settings::default(),
            checkpoint_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(30),
            segment_bytes: 64 << 20,
            keep_entries: 100_000,
            keep_bytes: 128 << 20,
        }
    }
}

/// How an empty data directory becomes a member.
#[derive(Debug, Clone)]
pub enum Start {
    /// Founding member of a new cluster. All founders are given the same list and token, and the cluster's id is
    /// derived from them. A cluster of one lists only itself and draws a random id.
    Found { members: Vec<Member>, token: String },
    /// Admitted by a running cluster (`POST /v1/members` answered these).
    Join { id: NodeId, cluster: u128, members: Vec<(NodeId, Member)> },
}

/// Why a node cannot start. `Display` says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Data(String),
    #[error("cannot listen for peers on {address}: {reason}")]
    Listen { address: SocketAddr, reason: std::io::Error },
    #[error("{0}")]
    Refused(String),
}

/// A local no: not part of history, another node or a later try may say yes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Circumstance {
    /// No leader is known or reachable before the deadline; nothing was proposed.
    #[error("no leader")]
    NoLeader,
    /// Too much is queued already; nothing was proposed.
    #[error("overloaded")]
    Overloaded,
    /// Proposed, but the answer did not come before the deadline: it may still happen.
    #[error("commit timeout")]
    CommitTimeout,
    /// Forwarded, and the connection or leadership was lost: it may have happened.
    #[error("outcome lost")]
    Lost,
    /// No space for the log; only what frees space is taken.
    #[error("log full")]
    Full,
    /// The node is stopping.
    #[error("shutting down")]
    ShuttingDown,
    /// The node has stopped after a broken invariant or a failing disk.
    #[error("stopped reason={0}")]
    Stopped(Arc<str>),
}

impl Circumstance {
    /// False: certainly not applied. True: it may have been.
    #[must_use]
    pub fn effect_unknown(&self) -> bool {
        matches!(self, Self::CommitTimeout | Self::Lost)
    }
}

/// Why a renewal was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewError {
    /// The session has ended, or never was.
    Expired,
    Circumstance(Circumstance),
}

/// Why a membership change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberError {
    Unknown(NodeId),
    /// A member with that name or peer address exists.
    Exists(NodeId),
    /// The voters that answer would no longer be a majority.
    WouldLoseQuorum,
    /// The learner lags too far behind: its last log index, and the leader's.
    NotCaughtUp {
        matched: u64,
        last: u64,
    },
    /// Another change is under way.
    Busy,
    Circumstance(Circumstance),
}

/// A node's view of itself and its cluster; cheap.
#[derive(Debug, Clone)]
pub struct Status {
    pub id: NodeId,
    pub cluster: u128,
    pub term: u64,
    pub leader: Option<NodeId>,
    pub last_log: u64,
    pub committed: u64,
    pub applied: u64,
    /// Log index up to which the checkpoint is durable.
    pub checkpointed: u64,
    /// Log index up to which the log has been forgotten.
    pub purged: u64,
    pub revision: Revision,
    pub compact_revision: Revision,
    pub epoch: u64,
    /// State hash at `revision`.
    pub hash: u128,
    pub live_bytes: u64,
    pub settings: Settings,
    /// A replica has reported another hash for the same revision.
    pub diverged: bool,
    /// The log has no space.
    pub full: bool,
    /// Set when the node has stopped by itself.
    pub stopped: Option<Arc<str>>,
}

/// One member, as this node knows it. Replication figures are known on the leader only.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    pub id: NodeId,
    pub member: Member,
    pub voter: bool,
    pub leader: bool,
    /// Last log index known to be stored there.
    pub matched: Option<u64>,
    /// A connection to it works.
    pub reachable: Option<bool>,
}

/// Handle to a running node; clones are cheap and share it.
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Inner>);

impl Node {
    /// Open the data directory, replay, listen for peers, take part.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(options: Options, program: fn() -> Box<dyn Program>) -> Result<Self, StartError> {
        Inner::start(options, program).await.map(Self)
    }

    /// Put a command into the log (forwarding it to the leader if that is another node) and answer what applying it
    /// answered. Dropping the future does not take the command back.
    ///
    /// # Errors
    /// A circumstance; see [`Circumstance::effect_unknown`].
    pub async fn propose(&self, command: &Command, deadline: Instant) -> Result<Reply, Circumstance> {
        self.0.propose(command.encode().into(), deadline).await
    }

    /// Wait until this node's state reflects everything acknowledged anywhere before the call (read index, shared
    /// with all other waiting reads).
    ///
    /// # Errors
    /// A circumstance, before the deadline.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<(), Circumstance> {
        self.0.read_barrier(deadline).await
    }

    /// Look at the state as this node has it. Short, never across an await.
    pub fn read<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.0.shared.read().store)
    }

    /// Wait until this node has applied a revision.
    ///
    /// # Errors
    /// [`Circumstance::NoLeader`] if it has not by the deadline.
    pub async fn wait_revision(&self, revision: Revision, deadline: Instant) -> Result<(), Circumstance> {
        self.0.shared.revision.wait(revision.0, deadline).await.map_err(|_| Circumstance::NoLeader)
    }

    /// Time since this node last knew that it was up to date (for `max_stale`).
    #[must_use]
    pub fn staleness(&self) -> Duration {
        self.0.peers_seen.staleness(self.0.leads())
    }

    /// Renew a session: answers the time it is good for, counted from when the renewal arrived here.
    ///
    /// # Errors
    /// [`RenewError::Expired`] for good; a circumstance if nobody could be asked.
    pub async fn renew(&self, session: SessionId, deadline: Instant) -> Result<Duration, RenewError> {
        match self.0.ask_leader(Ask::Renew(session), deadline).await {
            Ok(Answer::Renewed(ttl)) => Ok(Duration::from_millis(ttl.0)),
            Ok(Answer::SessionExpired) => Err(RenewError::Expired),
            Ok(_) => Err(RenewError::Circumstance(Circumstance::NoLeader)),
            Err(circumstance) => Err(RenewError::Circumstance(circumstance)),
        }
    }

    /// Remaining validity of sessions as the leader counts it; `None` for those unknown to it or if no leader can be
    /// asked. For people, not for decisions.
    pub async fn validity(&self, sessions: &[SessionId], deadline: Instant) -> Vec<Option<Duration>> {
        match self.0.ask_leader(Ask::Validity(sessions.to_vec()), deadline).await {
            Ok(Answer::Validity(left)) if left.len() == sessions.len() => {
                left.into_iter().map(|left| left.map(|left| Duration::from_millis(left.0))).collect()
            }
            _ => vec![None; sessions.len()],
        }
    }

    /// Be woken by changes of a selection. Register first, then read, then wait: nothing is missed.
    #[must_use]
    pub fn watch(&self, selection: Selection) -> Watch {
        self.0.shared.hub.watch(selection)
    }

    #[must_use]
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// The leader this node follows, read from an atomic; `None` if it has not been heard of for a while.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.0.leader()
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status()
    }

    #[must_use]
    pub fn members(&self) -> Vec<MemberStatus> {
        self.0.members()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }

    /// Admit a member as a learner (any node may be asked): its new id.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn admit(&self, member: Member, deadline: Instant) -> Result<NodeId, MemberError> {
        self.0.change_members(Ask::Admit(member), deadline).await
    }

    /// Make a learner a voter.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn promote(&self, id: NodeId, deadline: Instant) -> Result<(), MemberError> {
        self.0.change_members(Ask::Promote(id), deadline).await.map(drop)
    }

    /// Remove a member for good; its id and data are never accepted again.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn remove(&self, id: NodeId, deadline: Instant) -> Result<(), MemberError> {
        self.0.change_members(Ask::Remove(id), deadline).await.map(drop)
    }

    /// Make a voter the leader.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub async fn transfer(&self, id: NodeId, deadline: Instant) -> Result<(), MemberError> {
        self.0.change_members(Ask::Transfer(id), deadline).await.map(drop)
    }

    /// Resolves with the reason when the node has stopped by itself (failing disk, broken invariant, removed).
    pub async fn stopped(&self) -> Arc<str> {
        self.0.shared.failed().await
    }

    /// Hand over leadership, stop taking part, write a last checkpoint, close. The data directory can be opened again
    /// when the last handle is dropped.
    pub async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

/// Counters and histograms of a node since its start.
#[derive(Clone)]
pub struct Figures {
    pub wal: Arc<crate::wal::WalStats>,
    pub checkpoint: Arc<crate::leader::CheckpointFigures>,
    pub snapshots: Arc<crate::disk::SnapshotFigures>,
    /// Proposals taken, refused or failed, and waiting now.
    pub proposed: u64,
    pub failed: u64,
    pub pending: u64,
    pub leader_changes: u64,
    pub sessions_expired: u64,
    pub watchers: u64,
    pub traffic: Vec<(NodeId, crate::network::Class, crate::network::Traffic)>,
}
