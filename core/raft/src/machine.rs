//! ⑤ Apply: openraft's state machine over the store.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use coracle_store::{Change, Reply};
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::checkpoint::Position;
use crate::disk::{Disk, SnapshotData};
use crate::shared::{Applied, Shared};
use crate::types::{CommittedLeaderId, Entry, LogId, Member, NodeId, SnapshotMeta, StoredMembership, Types};

/// A snapshot as openraft hands it around.
pub type Snapshot = openraft::Snapshot<CommittedLeaderId, NodeId, Member, SnapshotData>;

/// The state machine of one node. Applying touches memory only; the checkpoint follows behind.
pub struct Machine {
    shared: Arc<Shared>,
    disk: Arc<Disk>,
}

impl Machine {
    #[must_use]
    pub fn new(shared: Arc<Shared>, disk: Arc<Disk>) -> Self {
        Self { shared, disk }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.shared.read();
        Ok((applied.position, applied.membership.clone()))
    }

    /// The whole batch under one lock, then the wakers, then the answers: whoever is answered or woken sees the state
    /// that answered or woke him.
    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        while let Some(item) = entries.next().await {
            batch.push(item?);
        }
        let (replies, changes) = {
            let mut applied = self.shared.write();
            let before = applied.store.revision();
            let mut replies = Vec::with_capacity(batch.len());
            for (entry, responder) in batch {
                // A panic is a broken invariant: nothing more may be applied to, or served from, this state.
                let apply = AssertUnwindSafe(|| apply_entry(&self.shared, &mut applied, &entry));
                let reply = std::panic::catch_unwind(apply).map_err(|_| {
                    let reason =
                        format!("applying log entry {} panicked: see the log above", entry.log_id.index);
                    self.shared.fail(&reason);
                    io::Error::other(reason)
                })?;
                if let Some(responder) = responder {
                    replies.push((responder, reply));
                }
            }
            let changes: Option<Vec<Arc<Change>>> = match self.shared.hub.watchers() {
                0 => Some(Vec::new()),
                _ => applied.store.changes_after(before).ok().map(|changes| changes.cloned().collect()),
            };
            (replies, changes)
        };
        self.announce(changes.as_deref());
        for (responder, reply) in replies {
            responder.send(reply);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { disk: self.disk.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let (store, position) = self.disk.install(snapshot).await?;
        if position.snapshot_meta() != *meta {
            return Err(io::Error::other("the snapshot stands elsewhere than announced"));
        }
        let Position { applied, membership, .. } = position;
        *self.shared.write() = Applied { store, position: applied, membership, unsaved: 0 };
        tracing::info!(index = meta.last_log_id.map(|id| id.index), "snapshot installed");
        self.announce(None);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.disk.snapshot().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl Machine {
    /// Wake those whom the changes concern; `None` if they cannot be told apart any more: everybody.
    fn announce(&self, changes: Option<&[Arc<Change>]>) {
        let (index, revision) = {
            let applied = self.shared.read();
            (applied.position.map_or(0, |id| id.index), applied.store.revision())
        };
        match changes {
            Some(changes) => self.shared.hub.publish(changes.iter()),
            None => self.shared.hub.publish_all(revision),
        }
        self.shared.revision.advance(revision.0);
        self.shared.index.advance(index);
    }
}

fn apply_entry(shared: &Shared, applied: &mut Applied, entry: &Entry) -> Reply {
    applied.position = Some(entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => Reply { revision: applied.store.revision(), ..Reply::default() },
        EntryPayload::Membership(membership) => {
            applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            // Counted, so that a checkpoint follows and carries the new membership.
            applied.unsaved += 1;
            Reply { revision: applied.store.revision(), ..Reply::default() }
        }
        EntryPayload::Normal(payload) => {
            let before = applied.store.revision();
            shared.clock.saw(payload.time);
            let reply = applied.store.apply(payload.time, &payload.command);
            applied.unsaved += payload.command.len() as u64;
            shared.sample_hash(&applied.store, before);
            reply
        }
    }
}

/// Tells openraft how far the durable checkpoint reaches. It builds nothing: the checkpoint *is* the snapshot, and is
/// spooled to a file only when a peer needs one.
pub struct Builder {
    disk: Arc<Disk>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (meta, snapshot) =
            self.disk.snapshot().ok_or_else(|| io::Error::other("no checkpoint has been written yet"))?;
        Ok(Snapshot { meta, snapshot })
    }
}
