//! The parts of a running node and how they are put together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coracle_store::{Millis, Program, SessionId, Settings};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::InitializeError;
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::{Config, SnapshotPolicy};
use tokio::task::JoinHandle;

use crate::disk::{Disk, SnapshotData};
use crate::forward::{Answer, Ask, Failure, Request};
use crate::gather::Gather;
use crate::leader::deadlines::Deadlines;
use crate::leader::{self, CheckpointFigures, Renewals};
use crate::machine::Machine;
use crate::network::{Dialer, Limits, Peers, Server};
use crate::node::{Circumstance, Figures, Options, StartError, Status};
use crate::opening;
use crate::peers::{Door, PeersSeen, RaftDoor};
use crate::propose::{Answered, Proposal};
use crate::read_barrier::ReadBarrier;
use crate::shared::Shared;
use crate::types::{Member, NodeId, Types};
use crate::upkeep;
use crate::wal::Wal;

pub type Raft = openraft::Raft<Types, Machine>;

/// How long one read-index round may take before it has failed.
const ROUND: Duration = Duration::from_millis(500);
/// How long a stopping leader waits for another to take over.
const HANDOVER: Duration = Duration::from_secs(2);

/// A running node.
pub struct Inner {
    pub id: NodeId,
    pub cluster: u128,
    pub raft: Raft,
    pub shared: Arc<Shared>,
    pub wal: Wal,
    pub disk: Arc<Disk>,
    pub peers: Peers,
    pub peers_seen: Arc<PeersSeen>,
    /// The URL by which clients reach this node.
    pub client: String,
    pub barrier: Arc<ReadBarrier<Circumstance>>,
    pub renewals: Renewals,
    pub proposals: Gather<Proposal>,
    /// The clock of sessions, while this node leads.
    deadlines: Mutex<Option<Deadlines>>,
    pub settings: Settings,
    pub checkpoint_bytes: u64,
    pub checkpoint_interval: Duration,
    pub keep_entries: u64,
    pub keep_bytes: u64,
    pub proposed: AtomicU64,
    pub answered: Arc<Answered>,
    pub failed: AtomicU64,
    pub leader_changes: AtomicU64,
    /// This node leads and has not heard a majority for longer than any hiccup.
    pub majority_lost: AtomicBool,
    pub sessions_expired: AtomicU64,
    pub checkpoint_figures: Arc<CheckpointFigures>,
    server: Mutex<Option<Server>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Inner {
    pub async fn start(options: Options, program: fn() -> Box<dyn Program>) -> Result<Arc<Self>, StartError> {
        let listener = tokio::net::TcpListener::bind(options.peer_listen)
            .await
            .map_err(|reason| StartError::Listen { address: options.peer_listen, reason })?;
        let identity = opening::identify(&options)?;
        let opened = {
            let (data, identity, segment_bytes) =
                (options.data.clone(), identity.clone(), options.segment_bytes);
            tokio::task::spawn_blocking(move || opening::open(&data, &identity, segment_bytes, program))
                .await
                .map_err(|error| StartError::Data(error.to_string()))??
        };
        let (wal, disk, applied) = opened;
        let shared = Arc::new(Shared::new(applied));
        let seen = options.data.join("PEERS");
        let seen =
            Arc::new(PeersSeen::new(identity.node, identity.cluster, wal.clone(), shared.clone(), seen));
        let peers = Peers::new(seen.clone(), options.peer_tls.as_ref())
            .map_err(|error| StartError::Refused(error.to_string()))?;
        for (id, member) in identity.members.iter().filter(|(id, _)| *id != identity.node) {
            peers.learn(*id, member);
        }
        let raft = Raft::new(
            identity.node,
            Arc::new(config(&options)),
            Dialer::<SnapshotData>::new(peers.clone()),
            wal.clone(),
            Machine::new(shared.clone(), disk.clone()),
        )
        .await
        .map_err(|error| {
            StartError::Data(format!("cannot start from {}: {error}", options.data.display()))
        })?;
        let node = Arc::new(Self {
            id: identity.node,
            cluster: identity.cluster,
            raft,
            shared,
            wal,
            disk,
            peers,
            peers_seen: seen,
            client: options.member.client,
            barrier: ReadBarrier::new(),
            renewals: Renewals::default(),
            proposals: Gather::default(),
            deadlines: Mutex::default(),
            settings: options.settings,
            checkpoint_bytes: options.checkpoint_bytes,
            checkpoint_interval: options.checkpoint_interval,
            keep_entries: options.keep_entries,
            keep_bytes: options.keep_bytes,
            proposed: AtomicU64::default(),
            answered: Arc::default(),
            failed: AtomicU64::default(),
            leader_changes: AtomicU64::default(),
            majority_lost: AtomicBool::default(),
            sessions_expired: AtomicU64::default(),
            checkpoint_figures: Arc::default(),
            server: Mutex::default(),
            tasks: Mutex::default(),
        });
        let door = Door {
            raft: RaftDoor { raft: node.raft.clone(), seen: node.peers_seen.clone() },
            node: Arc::downgrade(&node),
        };
        let server = Server::start(
            listener,
            options.peer_tls.as_ref(),
            Limits::default(),
            node.peers_seen.clone(),
            Arc::new(door),
        )
        .map_err(|error| StartError::Refused(error.to_string()))?;
        *node.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        node.spawn_tasks();
        if identity.founder && !node.raft.is_initialized().await.unwrap_or(true) {
            let members: std::collections::BTreeMap<NodeId, Member> = identity.members.into_iter().collect();
            match node.raft.initialize(members).await {
                Ok(()) => {}
                // Another founder was faster, and its vote or its log got here first: the same cluster.
                Err(error) if matches!(error.api_error(), Some(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(StartError::Refused(format!("cannot found the cluster: {error}"))),
            }
        }
        Ok(node)
    }

    fn spawn_tasks(self: &Arc<Self>) {
        let mut tasks: Vec<JoinHandle<()>> = leader::duties(self).into_iter().map(tokio::spawn).collect();
        tasks.push(tokio::spawn(upkeep::mirror(self.clone())));
        tasks.push(tokio::spawn(upkeep::sweep(self.clone())));
        tasks.push(tokio::spawn(upkeep::introduce(self.clone())));
        tasks.push(tokio::spawn({
            let node = self.clone();
            async move { node.hand_over().await }
        }));
        tasks.push(tokio::spawn({
            let node = self.clone();
            async move { node.barrier.serve(|| node.round()).await }
        }));
        tasks.push(tokio::spawn({
            let (wal, shared) = (self.wal.clone(), self.shared.clone());
            async move { shared.fail(&wal.failed().await) }
        }));
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }

    /// One read-index round, for everybody who waits.
    async fn round(&self) -> Result<u64, Circumstance> {
        let leader = self.leader().ok_or(Circumstance::NoLeader)?;
        if leader == self.id {
            let policy = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(ROUND);
            let linearizer =
                self.raft.get_read_linearizer(policy).await.map_err(|_| Circumstance::NoLeader)?;
            return Ok(linearizer.read_log_id().index());
        }
        match self.ask(leader, &Request::Ask(Ask::Barrier), Instant::now() + ROUND).await {
            Ok(Answer::Index(index)) => Ok(index),
            Ok(Answer::Failed(failure)) => Err(match failure.into() {
                Circumstance::Overloaded => Circumstance::Overloaded,
                _ => Circumstance::NoLeader,
            }),
            // A read has no effect that could be unknown.
            _ => Err(Circumstance::NoLeader),
        }
    }

    /// Answer a question here, as the leader. `Failed(NotLeader)` if this node is not.
    pub async fn answer(&self, ask: Ask, deadline: Instant) -> Answer {
        if let Ask::Hashes = ask {
            return Answer::Hashes(self.shared.hashes());
        }
        if !self.leads() {
            return Answer::Failed(Failure::NotLeader);
        }
        match ask {
            Ask::Barrier => match self.barrier.join().await {
                Some(Ok(index)) => Answer::Index(index),
                Some(Err(circumstance)) => Answer::Failed(Failure::from(&circumstance)),
                None => Answer::Failed(Failure::Stopping),
            },
            Ask::Renew(session) => {
                let (done, answer) = tokio::sync::oneshot::channel();
                self.renewals.enqueue(session, deadline, move |answer| {
                    let _ = done.send(answer);
                });
                answer.await.unwrap_or(Answer::Failed(Failure::Stopping))
            }
            Ask::Validity(sessions) => Answer::Validity(self.remaining(&sessions)),
            Ask::Admit(_) | Ask::Promote(_) | Ask::Remove(_) | Ask::Transfer(_) | Ask::Introduce(..) => {
                self.change_members_here(&ask, deadline).await
            }
            Ask::Hashes => Answer::Hashes(self.shared.hashes()),
        }
    }

    fn remaining(&self, sessions: &[SessionId]) -> Vec<Option<Millis>> {
        let (deadlines, now) = (self.deadlines(), Instant::now());
        let left = |id: &SessionId| deadlines.as_ref().and_then(|table| table.remaining(*id, now));
        sessions
            .iter()
            .map(|id| left(id).map(|left| Millis(u64::try_from(left.as_millis()).unwrap_or(0))))
            .collect()
    }

    pub fn deadlines(&self) -> MutexGuard<'_, Option<Deadlines>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leader to be asked now. A leader without a majority is none, though it may call itself so for ever.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let alone = || self.majority_lost.load(Ordering::Acquire);
        self.shared
            .leader()
            .filter(|leader| if *leader == self.id { !alone() } else { self.peers_seen.leader_audible() })
    }

    #[must_use]
    pub fn leads(&self) -> bool {
        self.shared.leader() == Some(self.id)
    }

    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let applied = self.shared.read();
        let store = &applied.store;
        Status {
            id: self.id,
            cluster: self.cluster,
            term: metrics.current_term,
            // The mirror may lag behind: a leader of another term is none of this one.
            leader: self.leader().filter(|leader| metrics.current_leader == Some(*leader)),
            last_log: metrics.last_log_index.unwrap_or(0),
            committed: metrics.local_committed.map_or(0, |id| id.index),
            applied: applied.position.map_or(0, |id| id.index),
            checkpointed: self.shared.checkpointed.load(Ordering::Acquire),
            purged: self.wal.stamp().purged.map_or(0, |id| id.index),
            revision: store.revision(),
            compact_revision: store.compact_revision(),
            epoch: store.epoch(),
            hash: store.hash(),
            live_bytes: store.live_bytes(),
            settings: store.settings().clone(),
            diverged: self.shared.diverged.load(Ordering::Acquire),
            full: self.wal.is_full(),
            stopped: self.shared.failure(),
        }
    }

    pub fn figures(&self) -> Figures {
        Figures {
            wal: self.wal.stats(),
            checkpoint: self.checkpoint_figures.clone(),
            snapshots: self.disk.figures.clone(),
            proposed: self.proposed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            pending: self.pending(),
            leader_changes: self.leader_changes.load(Ordering::Relaxed),
            sessions_expired: self.sessions_expired.load(Ordering::Relaxed),
            watchers: self.shared.hub.watchers(),
            traffic: self.peers.traffic(),
        }
    }

    /// The voter that should lead if this node should not.
    #[must_use]
    pub fn heir(&self) -> Option<NodeId> {
        let members = self.members();
        let others = members.iter().filter(|m| m.voter && m.id != self.id && m.reachable == Some(true));
        others.max_by_key(|member| member.matched).map(|member| member.id)
    }

    pub async fn shutdown(&self) {
        if self.leads()
            && self.shared.failure().is_none()
            && let Some(heir) = self.heir()
        {
            let _ = self.transfer_here(heir, Instant::now() + HANDOVER).await;
        }
        self.shared.stop();
        let _ = self.raft.shutdown().await;
        if let Some(server) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            server.close();
        }
        self.peers.close();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(JoinHandle::abort);
        futures::future::join_all(tasks).await;
        // Raft never saw these; who proposed them is told so.
        drop(self.proposals.take());
        if self.shared.failure().is_none()
            && let Err(error) = leader::checkpoint_now(self).await
        {
            tracing::warn!(%error, "no last checkpoint; the log will be replayed");
        }
        let disk = self.disk.clone();
        let _ = tokio::task::spawn_blocking(move || disk.close()).await;
        let _ = self.peers_seen.save();
    }
}

/// The settings of RAFT §1: see docs/adr/0001.
fn config(options: &Options) -> Config {
    Config {
        cluster_name: "coracle".into(),
        heartbeat_interval: 100,
        election_timeout_min: 500,
        election_timeout_max: 800,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(2000),
        max_payload_entries: 1024,
        max_append_entries: Some(4096),
        api_batch_capacity: 4096,
        api_channel_size: Some(8192),
        snapshot_policy: SnapshotPolicy::Never,
        install_snapshot_timeout: 600_000,
        max_in_snapshot_log_to_keep: options.keep_entries,
        purge_batch_size: 4096,
        allow_log_reversion: Some(false),
        ..Config::default()
    }
}
