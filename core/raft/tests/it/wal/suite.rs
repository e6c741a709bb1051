//! openraft's own suite for log storage, on real files.

use std::io;
use std::sync::{Arc, Mutex};

use coracle_raft::files;
use coracle_raft::types::{EntryPayload, LogId, SnapshotMeta, StoredMembership, Types};
use coracle_raft::wal::{Options, Wal};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, StorageError};
use tempfile::TempDir;

use super::fixture::{IDENTITY, run};

type Snapshot = openraft::type_config::alias::SnapshotOf<Types, ()>;

/// The least a state machine can be: it remembers how far it has come.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl Machine {
    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().expect("no test panics inside"))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(self.change(|state| {
            let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
            state.snapshot = Some(meta.clone());
            Snapshot { meta, snapshot: () }
        }))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.change(|state| (state.applied, state.membership.clone())))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, _)) = entries.try_next().await? {
            self.change(|state| {
                state.applied = Some(entry.log_id);
                if let EntryPayload::Membership(m) = entry.payload {
                    state.membership = StoredMembership::new(Some(entry.log_id), m);
                }
            });
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> Result<(), io::Error> {
        self.change(|state| {
            state.applied = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            state.snapshot = Some(meta.clone());
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.change(|state| state.snapshot.clone()).map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct Builder {
    tail_bytes: usize,
}

impl StoreBuilder<Types, Wal, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Wal, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options =
            Options { segment_bytes: 16 << 10, tail_bytes: self.tail_bytes, ..Options::new(IDENTITY) };
        let (wal, _) = Wal::open(files::native(), &dir.path().join("log"), options).expect("a new log opens");
        Ok((dir, wal, Machine::default()))
    }
}

#[test]
fn passes_with_entries_in_memory() {
    run(Suite::test_all(Builder { tail_bytes: 1 << 20 })).expect("the suite passes");
}

#[test]
fn passes_with_entries_on_disk() {
    run(Suite::test_all(Builder { tail_bytes: 0 })).expect("the suite passes");
}
