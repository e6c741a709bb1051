//! The parts of a running node and how they are put together.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coracle_store::{Millis, Program, SessionId, Settings};
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::InitializeError;
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::{Config, ServerState, SnapshotPolicy};
use tokio::task::JoinHandle;

use crate::disk::{Disk, SnapshotData};
use crate::files::Native;
use crate::forward::{Answer, Ask, Failure, Request};
use crate::identity::Identity;
use crate::leader::deadlines::Deadlines;
use crate::leader::{self, CheckpointFigures, Renewals};
use crate::machine::Machine;
use crate::members::FOUNDERS;
use crate::network::{Dialer, Limits, Peers, Server};
use crate::node::{Circumstance, Figures, Options, Start, StartError, Status};
use crate::peers::{Door, LEADER_SILENCE, PeersSeen, RaftDoor};
use crate::read_barrier::ReadBarrier;
use crate::shared::{Applied, Shared};
use crate::types::{Member, NodeId, Types};
use crate::wal::{self, Wal};

pub type Raft = openraft::Raft<Types, Machine>;

/// How long one read-index round may take before it has failed.
const ROUND: Duration = Duration::from_millis(500);
/// How often waits are looked through for those that are late.
const SWEEP: Duration = Duration::from_millis(20);
/// How often a node looks whether the cluster knows its client URL.
const INTRODUCTION: Duration = Duration::from_secs(1);
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
    client: String,
    pub barrier: Arc<ReadBarrier<Circumstance>>,
    pub renewals: Renewals,
    /// The clock of sessions, while this node leads.
    deadlines: Mutex<Option<Deadlines>>,
    pub settings: Settings,
    pub checkpoint_bytes: u64,
    pub checkpoint_interval: Duration,
    pub keep_entries: u64,
    pub keep_bytes: u64,
    pub pending: Arc<AtomicUsize>,
    pub proposed: AtomicU64,
    pub failed: AtomicU64,
    pub leader_changes: AtomicU64,
    /// This node leads and has not heard a majority for longer than any hiccup.
    majority_lost: AtomicBool,
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
        let identity = identify(&options)?;
        let opened = {
            let (data, identity, segment_bytes) =
                (options.data.clone(), identity.clone(), options.segment_bytes);
            tokio::task::spawn_blocking(move || open(&data, &identity, segment_bytes, program))
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
            deadlines: Mutex::default(),
            settings: options.settings,
            checkpoint_bytes: options.checkpoint_bytes,
            checkpoint_interval: options.checkpoint_interval,
            keep_entries: options.keep_entries,
            keep_bytes: options.keep_bytes,
            pending: Arc::default(),
            proposed: AtomicU64::default(),
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
        tasks.push(tokio::spawn(mirror(self.clone())));
        tasks.push(tokio::spawn(sweep(self.clone())));
        tasks.push(tokio::spawn(introduce(self.clone())));
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
            leader: self.leader(),
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
            proposed: self.proposed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            pending: self.pending.load(Ordering::Relaxed) as u64,
            leader_changes: self.leader_changes.load(Ordering::Relaxed),
            sessions_expired: self.sessions_expired.load(Ordering::Relaxed),
            watchers: self.shared.hub.watchers(),
            traffic: self.peers.traffic(),
        }
    }

    pub async fn shutdown(&self) {
        if self.leads() && self.shared.failure().is_none() {
            let heirs = self.members().into_iter();
            let heir = heirs
                .filter(|member| member.voter && member.id != self.id && member.reachable == Some(true))
                .max_by_key(|member| member.matched);
            if let Some(heir) = heir {
                let _ = self.transfer_here(heir.id, Instant::now() + HANDOVER).await;
            }
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
        if self.shared.failure().is_none() {
            if let Err(error) = leader::checkpoint_now(self).await {
                tracing::warn!(%error, "no last checkpoint; the log will be replayed");
            }
        }
        let disk = self.disk.clone();
        let _ = tokio::task::spawn_blocking(move || disk.close()).await;
        let _ = self.peers_seen.save();
    }
}

/// Keep the atomics and the address book up to what openraft knows.
async fn mirror(node: Arc<Inner>) {
    let mut metrics = node.raft.server_metrics();
    let (mut known, mut addressed) = (None, BTreeSet::new());
    loop {
        let server = metrics.borrow_watched().clone();
        if server.current_leader != known {
            known = server.current_leader;
            node.leader_changes.fetch_add(1, Ordering::Relaxed);
            tracing::info!(leader = known, term = server.vote.leader_id.term, "leader changed");
        }
        node.shared.follow(server.current_leader);
        let membership = server.membership_config.membership();
        let present: BTreeSet<NodeId> =
            membership.nodes().map(|(id, _)| *id).filter(|id| *id != node.id).collect();
        for (id, member) in membership.nodes().filter(|(id, _)| **id != node.id) {
            node.peers.learn(*id, member);
        }
        addressed.difference(&present).for_each(|gone| node.peers.forget(*gone));
        addressed = present;
        if server.state == ServerState::Shutdown {
            return;
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    if !node.shared.stopping() {
        node.shared.fail("consensus has stopped: see the log for the first error");
    }
}

/// Tell the cluster this node's client URL, until it knows it.
async fn introduce(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(INTRODUCTION);
    loop {
        tick.tick().await;
        let known = node
            .shared
            .read()
            .membership
            .membership()
            .get_node(&node.id)
            .map(|own| own.client == node.client);
        // Not a member (yet, or any more): nothing to say.
        if known == Some(false) && node.leader().is_some() {
            let ask = Ask::Introduce(node.id, node.client.clone());
            if let Err(error) = node.change_members(ask, Instant::now() + INTRODUCTION).await {
                tracing::debug!(?error, "not introduced yet");
            }
        }
    }
}

/// Give up on late waits; remember what peers have acknowledged; notice that consensus has died.
async fn sweep(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut leading_since = None;
    for round in 1_u64.. {
        tick.tick().await;
        let now = Instant::now();
        node.shared.index.expire(now);
        node.shared.revision.expire(now);
        if round % 10 != 0 {
            continue;
        }
        let metrics = node.raft.metrics().borrow_watched().clone();
        let led = (metrics.state == ServerState::Leader).then_some(metrics.current_term);
        if leading_since.map(|(term, _)| term) != led {
            leading_since = led.map(|term| (term, now));
        }
        let alone = metrics.membership_config.membership().voter_ids().all(|id| id == node.id);
        let silence = |since: Instant| match &metrics.last_quorum_acked {
            Some(heard) => heard.elapsed().min(since.elapsed()),
            None => since.elapsed(),
        };
        let lost = leading_since.is_some_and(|(_, since)| !alone && silence(since) > LEADER_SILENCE);
        node.majority_lost.store(lost, Ordering::Release);
        if round % 50 != 0 {
            continue;
        }
        if let Err(error) = &metrics.running_state
            && !node.shared.stopping()
        {
            node.shared.fail(&format!("consensus has stopped: {error}"));
        }
        let committed = metrics.local_committed.map_or(0, |id| id.index);
        for (id, log) in metrics.replication.iter().flatten().filter(|(id, _)| **id != node.id) {
            node.peers_seen.acknowledged(*id, log.as_ref().map_or(0, |log| log.index).min(committed));
        }
        if let Err(error) = node.peers_seen.save() {
            tracing::warn!(%error, "cannot write down what peers have acknowledged");
        }
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

/// Whose data directory this is; a new one becomes what the options say.
fn identify(options: &Options) -> Result<Identity, StartError> {
    let data = &options.data;
    create_private(data)
        .map_err(|error| StartError::Data(format!("cannot create {}: {error}", data.display())))?;
    if let Some(identity) = Identity::read(data).map_err(StartError::Data)? {
        check_same(&identity, options)?;
        return Ok(identity);
    }
    let foreign =
        |entry: &std::fs::DirEntry| entry.file_name() != "LOCK" && entry.file_name() != "IDENTITY.new";
    let entries = std::fs::read_dir(data).map_err(|error| StartError::Data(error.to_string()))?;
    if let Some(entry) = entries.flatten().find(foreign) {
        return Err(StartError::Data(format!(
            "{} holds {} and no IDENTITY: not a Coracle data directory. Choose an empty one with --data.",
            data.display(),
            entry.file_name().display()
        )));
    }
    let identity = match &options.start {
        Start::Found { members, token } => found(members, token, &options.member)?,
        Start::Join { id, cluster, members } => {
            Identity { cluster: *cluster, node: *id, members: members.clone(), founder: false }
        }
    };
    identity
        .write(data)
        .map_err(|error| StartError::Data(format!("cannot write to {}: {error}", data.display())))?;
    Ok(identity)
}

/// A directory that belongs to this cluster and name, whatever else the options say, is used as it is; one that
/// belongs to another is refused.
fn check_same(identity: &Identity, options: &Options) -> Result<(), StartError> {
    let own = identity.members.iter().find(|(id, _)| *id == identity.node);
    if let Some((_, member)) = own
        && member.name != options.member.name
    {
        return Err(StartError::Data(format!(
            "{} belongs to node {:?}, this one is called {:?}: choose another directory with --data, or the name with --name.",
            options.data.display(),
            member.name,
            options.member.name
        )));
    }
    if let Start::Found { members, token } = &options.start
        && members.len() > 1
        && identity.founder
    {
        let wanted = found(members, token, &options.member)?;
        if wanted.cluster != identity.cluster {
            return Err(StartError::Data(format!(
                "{} belongs to another cluster ({:032x}) than the one described by --initial-cluster and --cluster-token ({:032x}).",
                options.data.display(),
                identity.cluster,
                wanted.cluster
            )));
        }
    }
    Ok(())
}

/// The identity of a founder: ids in the order of names, cluster id from what all founders were told.
fn found(members: &[Member], token: &str, own: &Member) -> Result<Identity, StartError> {
    let mut members = members.to_vec();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let alone = members.len() <= 1;
    if alone {
        members = vec![own.clone()];
    }
    let twice = members.windows(2).any(|pair| pair[0].name == pair[1].name);
    if twice || members.len() as u64 > FOUNDERS {
        return Err(StartError::Refused(
            "--initial-cluster names a member twice, or more than 100 members.".into(),
        ));
    }
    let Some(place) = members.iter().position(|member| member.name == own.name) else {
        return Err(StartError::Refused(format!(
            "--initial-cluster does not name this node ({:?}): set --name to one of its names.",
            own.name
        )));
    };
    let cluster = if alone {
        rand::random::<u128>().max(1)
    } else {
        let text: String =
            members.iter().map(|member| format!("{}={}\n", member.name, member.peer)).collect();
        xxhash_rust::xxh3::xxh3_128(format!("{token}\n{text}").as_bytes()).max(1)
    };
    if !alone {
        // The first log entry is made of this, by each founder for itself: it must be the same everywhere. Where each
        // serves clients is told later (see `introduce`).
        members.iter_mut().for_each(|member| member.client.clear());
    }
    let members = (1..).zip(members).collect();
    Ok(Identity { cluster, node: place as NodeId + 1, members, founder: true })
}

fn create_private(data: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data)
}

/// Open log and state, and check that they are of one piece.
fn open(
    data: &Path,
    identity: &Identity,
    segment_bytes: u64,
    program: fn() -> Box<dyn Program>,
) -> Result<(Wal, Arc<Disk>, Applied), StartError> {
    let broken = |reason: String| StartError::Data(reason);
    let whose = wal::Identity { cluster: identity.cluster, node: identity.node };
    let mut options = wal::Options::new(whose);
    options.segment_bytes =
        u32::try_from(segment_bytes).map_err(|_| broken("segments are at most 4 GiB".into()))?;
    options.high_water = Some(data.join("HIGH-WATER"));
    let log = data.join("log");
    let (wal, recovered) =
        Wal::open(Arc::new(Native), &log, options).map_err(|error| broken(error.to_string()))?;
    let (disk, store, position) = Disk::open(data, program).map_err(broken)?;
    if position.applied.is_some() && position.cluster != identity.cluster {
        return Err(broken(format!(
            "the checkpoint in {} belongs to cluster {:032x}, this directory to {:032x}: restore the right one.",
            data.display(),
            position.cluster,
            identity.cluster
        )));
    }
    if recovered.stamp.purged > position.applied {
        return Err(broken(format!(
            "the log in {} begins after the checkpoint ends: the checkpoint was lost or is older. Remove the member and join with an empty directory.",
            data.display()
        )));
    }
    tracing::info!(
        revision = store.revision().0,
        applied = position.applied.map(|id| id.index),
        entries = recovered.entries,
        torn = recovered.torn,
        "data directory opened"
    );
    let applied = Applied { store, position: position.applied, membership: position.membership, unsaved: 0 };
    Ok((wal, disk, applied))
}
