//! The state of this node that the log machine, the edge and the duties share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use coracle_store::{Revision, Store};
use tokio::sync::watch;

use crate::clock::LogClock;
use crate::forward::HashAt;
use crate::progress::Progress;
use crate::types::{LogId, NodeId, StoredMembership};
use crate::wake::Hub;

/// How many hashes of the past a node remembers, and at which revisions it takes them.
const HASHES: usize = 64;
const HASH_EVERY: u64 = 1024;

/// The replicated state with its position in the log.
pub struct Applied {
    pub store: Store,
    pub position: Option<LogId>,
    pub membership: StoredMembership,
    /// Bytes of log applied since the last checkpoint was taken.
    pub unsaved: u64,
}

/// Shared by the parts of one node.
pub struct Shared {
    applied: RwLock<Applied>,
    /// Log index applied here.
    pub index: Progress,
    /// Revision reached here.
    pub revision: Progress,
    pub hub: Arc<Hub>,
    /// What log entries are stamped with.
    pub clock: LogClock,
    hashes: Mutex<VecDeque<HashAt>>,
    /// The leader this node follows; 0 for none. Mirrored from openraft, whose metrics must not be touched per request.
    leader: AtomicU64,
    leader_changed: watch::Sender<Option<NodeId>>,
    /// Log index up to which the checkpoint is durable.
    pub checkpointed: AtomicU64,
    /// A replica has reported another hash for the same revision.
    pub diverged: AtomicBool,
    stopping: AtomicBool,
    stopped: watch::Sender<Option<Arc<str>>>,
}

impl Shared {
    #[must_use]
    pub fn new(applied: Applied) -> Self {
        let index = applied.position.map_or(0, |id| id.index);
        let (revision, now) = (applied.store.revision().0, applied.store.now());
        Self {
            applied: RwLock::new(applied),
            index: Progress::starting_at(index),
            revision: Progress::starting_at(revision),
            hub: Arc::default(),
            clock: LogClock::new(now),
            hashes: Mutex::default(),
            leader: AtomicU64::new(0),
            leader_changed: watch::Sender::new(None),
            checkpointed: AtomicU64::new(index),
            diverged: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: watch::Sender::new(None),
        }
    }

    /// Look at the state. A panic while it was being written has stopped the node before anybody can look again.
    pub fn read(&self) -> RwLockReadGuard<'_, Applied> {
        self.applied.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Applied> {
        self.applied.write().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match self.leader.load(Ordering::Acquire) {
            0 => None,
            id => Some(id),
        }
    }

    pub fn follow(&self, leader: Option<NodeId>) {
        self.leader.store(leader.unwrap_or(0), Ordering::Release);
        self.leader_changed.send_if_modified(|known| std::mem::replace(known, leader) != leader);
    }

    /// Changes of the followed leader.
    #[must_use]
    pub fn leader_changes(&self) -> watch::Receiver<Option<NodeId>> {
        self.leader_changed.subscribe()
    }

    /// Remember the state's hash if this revision is one that nodes compare.
    pub fn sample_hash(&self, store: &Store, before: Revision) {
        let now = store.revision();
        if now != before && now.0.is_multiple_of(HASH_EVERY) {
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            if hashes.len() == HASHES {
                hashes.pop_front();
            }
            hashes.push_back(hash_at(store));
        }
    }

    /// Hashes this node can compare: the remembered ones and the current one.
    #[must_use]
    pub fn hashes(&self) -> Vec<HashAt> {
        let current = hash_at(&self.read().store);
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.iter().copied().chain([current]).collect()
    }

    /// The node is being stopped on purpose: nothing new is taken.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The node stops by itself. The first reason is kept.
    pub fn fail(&self, reason: &str) {
        let first = self.stopped.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(reason.into());
            }
            first
        });
        if first {
            tracing::error!(reason, "node stopped");
        }
    }

    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.stopped.borrow().clone()
    }

    /// Resolves when the node has stopped by itself.
    pub async fn failed(&self) -> Arc<str> {
        let mut stopped = self.stopped.subscribe();
        loop {
            if let Some(reason) = stopped.borrow_and_update().clone() {
                return reason;
            }
            if stopped.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn hash_at(store: &Store) -> HashAt {
    let hash = store.hash();
    #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
    HashAt { revision: store.revision(), high: (hash >> 64) as u64, low: hash as u64 }
}
