//! This node as its peers meet it: greeting, judging strangers, answering Raft and forwarded requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::disk::{Incoming, SnapshotData};
use crate::forward::{Answer, Ask, Failure, Request};
use crate::inner::{Inner, Raft};
use crate::members::FOUNDERS;
use crate::network::{
    BoxFuture, Greeting, Hello, Local, RaftService, Reject, ReplySender, Service, Unavailable,
};
use crate::node::Circumstance;
use crate::shared::Shared;
use crate::types::{LogId, NodeId, SnapshotMeta, Types, Vote};
use crate::wal::Wal;

/// A leader not heard of for this long is not believed to be one. Above the longest election timeout, so that a
/// healthy cluster never meets it.
pub const LEADER_SILENCE: Duration = Duration::from_secs(2);
/// Time a forwarded question may take here.
const ANSWER: Duration = Duration::from_secs(10);

/// What this node has seen of its peers and of its leader.
pub struct PeersSeen {
    id: NodeId,
    cluster: u128,
    wal: Wal,
    shared: Arc<Shared>,
    file: PathBuf,
    /// Highest *committed* log index each peer has acknowledged. A peer that comes back with less has lost its disk.
    acknowledged: Mutex<BTreeMap<NodeId, u64>>,
    dirty: AtomicBool,
    started: Instant,
    /// When the leader was last heard, in milliseconds since `started`; 0 for never.
    heard: AtomicU64,
    /// Some member of this cluster has talked to us: we are not the stranger here.
    met: AtomicBool,
}

impl PeersSeen {
    #[must_use]
    pub fn new(id: NodeId, cluster: u128, wal: Wal, shared: Arc<Shared>, file: PathBuf) -> Self {
        let acknowledged = std::fs::read_to_string(&file).unwrap_or_default();
        let acknowledged = acknowledged.lines().filter_map(|line| {
            let (id, index) = line.split_once(' ')?;
            Some((id.parse().ok()?, index.parse().ok()?))
        });
        Self {
            id,
            cluster,
            wal,
            file,
            acknowledged: Mutex::new(acknowledged.collect()),
            dirty: AtomicBool::new(false),
            started: Instant::now(),
            heard: AtomicU64::new(0),
            met: AtomicBool::new(false),
            shared,
        }
    }

    /// A leader spoke to us.
    pub fn heard(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now.max(1), Ordering::Release);
    }

    /// Has a leader spoken to us lately?
    #[must_use]
    pub fn leader_audible(&self) -> bool {
        self.silence() < LEADER_SILENCE
    }

    /// Time since this node last knew that it was up to date.
    #[must_use]
    pub fn staleness(&self, leads: bool) -> Duration {
        if leads { Duration::ZERO } else { self.silence() }
    }

    fn silence(&self) -> Duration {
        match self.heard.load(Ordering::Acquire) {
            0 => Duration::MAX,
            heard => self.started.elapsed().saturating_sub(Duration::from_millis(heard)),
        }
    }

    /// A peer has acknowledged this committed index.
    pub fn acknowledged(&self, peer: NodeId, index: u64) {
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let known = acknowledged.entry(peer).or_default();
        if *known < index {
            *known = index;
            self.dirty.store(true, Ordering::Release);
        }
    }

    /// Write down what peers have acknowledged, if it has changed. Not fsynced: it guards against restored disks,
    /// not against power cuts.
    ///
    /// # Errors
    /// As the file system says.
    pub fn save(&self) -> std::io::Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text =
            acknowledged.iter().fold(String::new(), |text, (id, index)| text + &format!("{id} {index}\n"));
        let temporary = self.file.with_extension("new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &self.file)
    }

    /// Admitted once (its id says at which log index), and no longer in a membership of that age or newer. Judged by
    /// what is applied, so committed: a removal that comes to nothing must not stop a node the quorum needs.
    fn removed(&self, peer: NodeId) -> bool {
        let membership = self.shared.read().membership.clone();
        let Some(LogId { index, .. }) = *membership.log_id() else { return false };
        membership.membership().get_node(&peer).is_none() && peer < FOUNDERS + index
    }
}

impl Local for PeersSeen {
    fn greeting(&self) -> Greeting {
        let stamp = self.wal.stamp();
        Greeting {
            cluster: self.cluster,
            id: self.id,
            last_log: stamp.last.map_or(0, |id| id.index),
            vote: stamp.vote.unwrap_or_else(|| Vote::new(0, 0)),
        }
    }

    fn judge(&self, peer: &Hello) -> Result<(), Reject> {
        if self.removed(peer.from) {
            return Err(Reject::Removed);
        }
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        match acknowledged.get(&peer.from) {
            Some(&seen) if seen > peer.last_log => Err(Reject::RolledBack { seen }),
            _ => {
                self.met.store(true, Ordering::Release);
                Ok(())
            }
        }
    }

    fn refused(&self, by: NodeId, reject: &Reject) {
        match reject {
            // Somebody else's node at one peer's address is that peer's trouble, unless nobody knows us at all.
            Reject::ForeignCluster { .. } if self.met.load(Ordering::Acquire) => {
                tracing::warn!(peer = by, %reject, "a stranger answers at this member's address");
            }
            Reject::Removed | Reject::RolledBack { .. } | Reject::ForeignCluster { .. } => {
                self.shared.fail(&format!("refused by member {by}: {reject}"));
            }
            Reject::WrongNode { .. } | Reject::NewerProtocol { .. } => {
                tracing::warn!(peer = by, %reject, "peer refused the connection");
            }
        }
    }
}

/// What peers may ask of a node. Weak, because the node owns the listener.
pub struct Door {
    pub raft: RaftDoor,
    pub node: Weak<Inner>,
}

/// Raft's own RPCs.
pub struct RaftDoor {
    pub raft: Raft,
    pub seen: Arc<PeersSeen>,
}

fn unavailable(error: impl std::fmt::Display) -> Unavailable {
    Unavailable(error.to_string())
}

impl RaftService for RaftDoor {
    type Snapshot = SnapshotData;

    fn append_entries(
        &self,
        request: AppendEntriesRequest<Types>,
    ) -> BoxFuture<Result<AppendEntriesResponse<Types>, Unavailable>> {
        let (raft, seen) = (self.raft.clone(), self.seen.clone());
        Box::pin(async move {
            let answer = raft.append_entries(request).await.map_err(unavailable)?;
            if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                seen.heard();
            }
            Ok(answer)
        })
    }

    fn vote(&self, request: VoteRequest<Types>) -> BoxFuture<Result<VoteResponse<Types>, Unavailable>> {
        let raft = self.raft.clone();
        Box::pin(async move { raft.vote(request).await.map_err(unavailable) })
    }

    fn pre_vote(&self, request: VoteRequest<Types>) -> BoxFuture<Result<VoteResponse<Types>, Unavailable>> {
        let raft = self.raft.clone();
        Box::pin(async move { raft.pre_vote(request).await.map_err(unavailable) })
    }

    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<Types>,
    ) -> BoxFuture<Result<TransferLeaderResponse<Types>, Unavailable>> {
        let raft = self.raft.clone();
        Box::pin(async move { raft.handle_transfer_leader(request).await.map_err(unavailable) })
    }

    fn install_snapshot(
        &self,
        vote: Vote,
        _announced: SnapshotMeta,
        snapshot: SnapshotData,
    ) -> BoxFuture<Result<SnapshotResponse<Types>, Unavailable>> {
        let raft = self.raft.clone();
        Box::pin(async move {
            // A received file knows where it stands; that may be later than what the leader announced, because it
            // spools its checkpoint only when it sends it. Committed entries match whatever the leader appends next.
            let meta = snapshot.meta().map_err(unavailable)?;
            let snapshot = openraft::Snapshot { meta, snapshot };
            raft.install_full_snapshot(vote, snapshot).await.map_err(unavailable)
        })
    }
}

impl Service for Door {
    type Raft = RaftDoor;
    type Incoming = Incoming;

    fn raft(&self) -> &RaftDoor {
        &self.raft
    }

    fn incoming(&self, _meta: &SnapshotMeta, bytes: u64) -> std::io::Result<Incoming> {
        let node = self.node.upgrade().ok_or_else(|| std::io::Error::other("node is gone"))?;
        node.disk.incoming(bytes)
    }

    fn forward(&self, _from: NodeId, request: Bytes, reply: ReplySender) {
        let Some(node) = self.node.upgrade() else { return };
        let failed = |failure, reply: ReplySender| reply.send_with(|out| Answer::Failed(failure).encode(out));
        match Request::decode(&request) {
            None => failed(Failure::Unknown, reply),
            Some(Request::Write(command)) => {
                if node.leads() {
                    node.submit(command, move |result| {
                        let answer = match result {
                            Ok(applied) => Answer::Reply(applied),
                            Err(circumstance) => Answer::Failed(Failure::from(&circumstance)),
                        };
                        reply.send_with(|out| answer.encode(out));
                    });
                } else {
                    failed(Failure::NotLeader, reply);
                }
            }
            Some(Request::Ask(Ask::Barrier)) => {
                if node.leads() {
                    node.barrier.enqueue(move |round: Result<u64, Circumstance>| {
                        let answer = match round {
                            Ok(index) => Answer::Index(index),
                            Err(circumstance) => Answer::Failed(Failure::from(&circumstance)),
                        };
                        reply.send_with(|out| answer.encode(out));
                    });
                } else {
                    failed(Failure::NotLeader, reply);
                }
            }
            Some(Request::Ask(ask)) => {
                tokio::spawn(async move {
                    let answer = node.answer(ask, Instant::now() + ANSWER).await;
                    reply.send_with(|out| answer.encode(out));
                });
            }
        }
    }
}
