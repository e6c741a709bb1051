//! Random operations against a model, and against another write-ahead log as an oracle.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use coracle_raft::files::sim::SimDisk;
use coracle_raft::types::{Entry, EntryPayload, LogId};
use coracle_raft::wal::{Options, Wal};
use futures::StreamExt;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use proptest::prelude::*;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Config, RaftLog};

use super::fixture::{View, append, entries, id, open_with, options, queue, run, view, vote};

#[derive(Debug, Clone)]
enum Step {
    /// Entries of the current term, of this size; awaited or not.
    Append {
        count: u64,
        size: usize,
        awaited: bool,
    },
    Vote,
    /// Cut off so many entries.
    Truncate(u64),
    /// Purge this share of the entries.
    Purge(u64),
    /// Purge beyond the end, as after a snapshot.
    PurgeBeyond(u64),
    Committed,
    Read(u64, u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..8, prop_oneof![8 => 0usize..60, 8 => 500usize..3000, 1 => 10_000usize..40_000], any::<bool>())
            .prop_map(|(count, size, awaited)| Step::Append { count, size, awaited }),
        1 => Just(Step::Vote),
        2 => (0u64..6).prop_map(Step::Truncate),
        2 => (0u64..100).prop_map(Step::Purge),
        1 => (1u64..5).prop_map(Step::PurgeBeyond),
        1 => Just(Step::Committed),
        3 => (0u64..40, 0u64..20).prop_map(|(from, count)| Step::Read(from, count)),
        2 => Just(Step::Reopen),
    ]
}

/// The log beside its model.
struct Pair {
    disk: SimDisk,
    options: Options,
    wal: Wal,
    model: View,
    committed: Option<LogId>,
    term: u64,
}

impl Pair {
    fn new(tail_bytes: usize) -> Self {
        let disk = SimDisk::new(0);
        let options = Options { tail_bytes, ..options() };
        let wal = open_with(&disk, options.clone()).expect("a new log opens").0;
        Self { disk, options, wal, model: View::default(), committed: None, term: 1 }
    }

    fn next(&self) -> u64 {
        self.model.last.map_or(0, |last| last.index + 1)
    }

    /// The entry `back` places before the last, if it is there or was just purged.
    fn back(&self, back: u64) -> Option<LogId> {
        let index = self.model.last?.index.checked_sub(back)?;
        let purged = self.model.purged.filter(|purged| purged.index >= index);
        purged.or_else(|| self.model.entries.get(&index).map(|e| e.log_id))
    }

    async fn take(&mut self, step: &Step) -> io::Result<()> {
        match *step {
            Step::Append { count, size, awaited } => {
                let more = entries(self.term, self.next()..self.next() + count, size);
                for entry in &more {
                    self.model.append(entry.clone());
                }
                let durable = queue(&self.wal, more).await?;
                if awaited {
                    durable.await?;
                }
            }
            Step::Vote => {
                self.term += 1;
                self.model.vote = Some(vote(self.term));
                self.wal.save_vote(&vote(self.term)).await?;
            }
            Step::Truncate(back) => {
                let last = self.back(back);
                self.model.truncate(last);
                self.term += 1;
                self.wal.truncate_after(last).await?;
            }
            Step::Purge(percent) => {
                let held = self.model.entries.len() as u64;
                if let Some(upto) = self.back(held.saturating_sub(held * percent / 100)) {
                    self.purge(upto).await?;
                }
            }
            Step::PurgeBeyond(by) => self.purge(id(self.term, self.next() + by)).await?,
            Step::Committed => {
                self.committed = self.model.last;
                self.wal.save_committed(self.committed).await?;
            }
            Step::Read(from, count) => self.read(from, count).await?,
            Step::Reopen => self.reopen(),
        }
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        if self.model.purged.is_none_or(|purged| purged.index < upto.index) {
            self.model.purge(upto);
        }
        self.wal.purge(upto).await
    }

    async fn read(&mut self, from: u64, count: u64) -> io::Result<()> {
        let from = self.model.purged.map_or(0, |p| p.index) + from;
        let expected: Vec<Entry> =
            self.model.entries.range(from..from + count).map(|(_, e)| e.clone()).collect();
        assert_eq!(self.wal.try_get_log_entries(from..from + count).await?, expected);
        let streamed: Vec<_> = self.wal.entries_stream(from..from + count).await.collect().await;
        assert_eq!(streamed.into_iter().collect::<io::Result<Vec<_>>>()?, expected);
        let limited = self.wal.limited_get_log_entries(from, from + count).await?;
        assert!(expected.starts_with(&limited) && limited.is_empty() == expected.is_empty());
        Ok(())
    }

    fn reopen(&mut self) {
        let elsewhere = SimDisk::new(0);
        let other = open_with(&elsewhere, self.options.clone()).expect("a new log opens").0;
        drop(std::mem::replace(&mut self.wal, other));
        let (wal, recovered) = open_with(&self.disk, self.options.clone()).expect("the log opens again");
        assert_eq!(recovered.stamp.committed, self.committed);
        assert_eq!(recovered.entries, self.model.entries.len() as u64);
        self.wal = wal;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map_of_entries(
        steps in prop::collection::vec(step(), 1..50),
        tail_bytes in prop_oneof![Just(0usize), Just(3000), Just(1 << 20)],
    ) {
        run(async {
            let mut pair = Pair::new(tail_bytes);
            for step in steps.iter().chain([&Step::Reopen]) {
                pair.take(step).await.expect("a healthy disk");
                assert_eq!(view(&pair.wal).await, pair.model, "after {step:?}");
            }
        });
    }
}

/// What the oracle is told: `raft-log`, an independent implementation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct OracleTypes;

impl raft_log::Types for OracleTypes {
    type LogId = (u64, u64);
    type LogPayload = String;
    type Vote = (u64, u64);
    type UserData = String;
    type Callback = SyncSender<io::Result<()>>;

    fn log_index(id: &Self::LogId) -> u64 {
        id.1
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        payload.len() as u64
    }
}

/// Term, index and a rendering of the contents.
fn told(entry: &Entry) -> ((u64, u64), String) {
    let EntryPayload::Normal(payload) = &entry.payload else { panic!("the tests append commands only") };
    ((entry.log_id.leader_id.term, entry.log_id.index), format!("{:?}", payload.command))
}

struct Oracle {
    config: Arc<Config>,
    log: RaftLog<OracleTypes>,
}

impl Oracle {
    fn open(config: Arc<Config>) -> Self {
        Self { log: RaftLog::open(config.clone()).expect("the oracle opens"), config }
    }

    fn flush(&mut self) {
        let (tx, rx) = sync_channel(1);
        self.log.flush(false, Some(tx)).expect("the oracle flushes");
        rx.recv().expect("the oracle answers").expect("the oracle is well");
    }

    fn reopen(mut self) -> Self {
        self.flush();
        let config = self.config.clone();
        drop(self.log);
        Self::open(config)
    }

    fn entries(&self) -> Vec<((u64, u64), String)> {
        self.log.read(0, u64::MAX).collect::<Result<_, _>>().expect("the oracle reads")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_raft_log(steps in prop::collection::vec(step(), 1..30)) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = Config::new(dir.path().to_str().expect("a plain name"));
        config.wal.flush_batch_wait = Some(std::time::Duration::from_micros(1));
        let mut oracle = Oracle::open(Arc::new(config));
        run(async {
            let disk = SimDisk::new(0);
            let mut wal = open_with(&disk, options()).expect("a new log opens").0;
            let (mut term, mut next) = (1, 0);
            for step in &steps {
                match *step {
                    Step::Append { count, size, .. } => {
                        let more = entries(term, next..next + count, size);
                        oracle.log.append(more.iter().map(told)).expect("the oracle appends");
                        append(&wal, more).await.expect("durable");
                    }
                    Step::Vote => {
                        term += 1;
                        oracle.log.save_vote((term, 3)).expect("the oracle votes");
                        wal.save_vote(&vote(term)).await.expect("durable");
                    }
                    Step::Truncate(back) => {
                        let first = wal.stamp().purged.map_or(0, |p| p.index + 1);
                        let from = next.saturating_sub(back).max(first);
                        let keep = oracle.entries().iter().rev().map(|e| e.0).find(|e| e.1 < from);
                        oracle.log.truncate(from).expect("the oracle truncates");
                        let keep = keep.map(|(term, index)| id(term, index)).or(wal.stamp().purged);
                        wal.truncate_after(keep).await.expect("queued");
                        term += 1;
                    }
                    Step::Purge(percent) => {
                        let held = oracle.entries();
                        let at = held.len() as u64 * percent / 100;
                        if let Some(((term, index), _)) = usize::try_from(at).ok().and_then(|at| held.get(at)) {
                            oracle.log.purge((*term, *index)).expect("the oracle purges");
                            wal.purge(id(*term, *index)).await.expect("queued");
                        }
                    }
                    Step::PurgeBeyond(by) => {
                        oracle.log.purge((term, next + by)).expect("the oracle purges");
                        wal.purge(id(term, next + by)).await.expect("queued");
                    }
                    Step::Committed | Step::Read(..) => {}
                    Step::Reopen => {
                        oracle = oracle.reopen();
                        let elsewhere = open_with(&SimDisk::new(0), options()).expect("a new log opens").0;
                        drop(std::mem::replace(&mut wal, elsewhere));
                        wal = open_with(&disk, options()).expect("the log opens again").0;
                    }
                }
                oracle.flush();
                let found = view(&wal).await;
                next = found.last.map_or(0, |last| last.index + 1);
                let state = oracle.log.log_state();
                let pair = |id: LogId| (id.leader_id.term, id.index);
                assert_eq!(found.last.map(pair), state.last().copied(), "after {step:?}");
                assert_eq!(found.purged.map(pair), state.purged().copied(), "after {step:?}");
                assert_eq!(found.vote.map(|v| (v.leader_id.term, v.leader_id.voted_for)), state.vote().copied());
                assert_eq!(found.entries.values().map(told).collect::<Vec<_>>(), oracle.entries(), "after {step:?}");
            }
        });
    }
}
