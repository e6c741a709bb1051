//! A crash at every operation of a workload, and again during the recovery.
//!
//! After each crash the log must be one of the states that were asked for, no older than the last one that was
//! acknowledged, and must stay so through further crashes and writes.

use coracle_raft::files::sim::{Loss, SimDisk};
use coracle_raft::types::{Entry, LogId, Vote};
use coracle_raft::wal::{Options, Wal, WalError};
use openraft::storage::RaftLogStorage;

use super::fixture::{View, append, entries, entry, id, open_with, options, queue, run, view, vote};

#[derive(Debug, Clone)]
enum Step {
    Vote(Vote),
    Append(Vec<Entry>),
    /// Appends queued together, only the last one awaited.
    Burst(Vec<Vec<Entry>>),
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(LogId),
}

/// Elections, appends small and large, a conflict, purges, segments used again.
fn script() -> Vec<Step> {
    let mut steps = vec![Step::Vote(vote(1)), Step::Append(entries(1, 0..3, 40))];
    let mut next = 3;
    for term in 2..6 {
        steps.push(Step::Vote(vote(term)));
        steps.push(Step::Append(entries(term, next..next + 2, 700)));
        steps.push(Step::Burst(
            (0..3).map(|i| entries(term, next + 2 + i * 2..next + 4 + i * 2, 900)).collect(),
        ));
        steps.push(Step::Committed(id(term, next + 1)));
        // A new leader knows better about the last three.
        steps.push(Step::Truncate(Some(id(term, next + 4))));
        steps.push(Step::Append(vec![entry(term + 1, next + 5, 3000)]));
        steps.push(Step::Append(entries(term + 1, next + 6..next + 9, 1500)));
        steps.push(Step::Purge(id(term, next + 3)));
        steps.push(Step::Append(vec![entry(term + 1, next + 9, 5000)]));
        next += 10;
    }
    // A snapshot was installed: everything goes, the log starts beyond.
    steps.push(Step::Purge(id(6, next + 20)));
    steps.push(Step::Append(entries(7, next + 21..next + 24, 600)));
    // Larger than a segment.
    steps.push(Step::Append(vec![entry(7, next + 24, 20_000)]));
    steps.push(Step::Append(entries(7, next + 25..next + 27, 600)));
    steps.push(Step::Vote(vote(9)));
    steps
}

/// What was asked for, state after state, and how much of it is acknowledged.
struct History {
    states: Vec<View>,
    acknowledged: usize,
}

impl History {
    fn from(state: View) -> Self {
        Self { states: vec![state], acknowledged: 0 }
    }

    fn ask(&mut self, change: impl FnOnce(&mut View)) {
        let mut next = self.states[self.states.len() - 1].clone();
        change(&mut next);
        self.states.push(next);
    }

    fn ask_entries(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.ask(|view| view.append(entry.clone()));
        }
    }

    fn all_acknowledged(&mut self) {
        self.acknowledged = self.states.len() - 1;
    }

    fn allows(&self, found: &View) -> bool {
        self.states[self.acknowledged..].contains(found)
    }
}

/// Take steps until one fails; whether all succeeded.
async fn work(wal: &Wal, steps: &[Step], history: &mut History) -> bool {
    let mut wal = wal.clone();
    for step in steps {
        let done = match step {
            Step::Vote(vote) => {
                history.ask(|view| view.vote = Some(*vote));
                wal.save_vote(vote).await
            }
            Step::Append(entries) => {
                history.ask_entries(entries);
                append(&wal, entries.clone()).await
            }
            Step::Burst(bursts) => {
                let mut last = None;
                for entries in bursts {
                    history.ask_entries(entries);
                    last = Some(queue(&wal, entries.clone()).await);
                }
                match last {
                    Some(Ok(durable)) => durable.await,
                    _ => return false,
                }
            }
            Step::Truncate(last) => {
                history.ask(|view| view.truncate(*last));
                if wal.truncate_after(*last).await.is_err() {
                    return false;
                }
                continue;
            }
            Step::Purge(upto) => {
                history.ask(|view| view.purge(*upto));
                if wal.purge(*upto).await.is_err() {
                    return false;
                }
                continue;
            }
            Step::Committed(committed) => {
                if wal.save_committed(Some(*committed)).await.is_err() {
                    return false;
                }
                continue;
            }
        };
        if done.is_err() {
            return false;
        }
        history.all_acknowledged();
    }
    true
}

/// Open; before that, if `crash` says so, crash at that operation of an attempt.
fn reopen(disk: &SimDisk, options: &Options, crash: Option<u64>, loss: Loss) -> Wal {
    disk.restart(loss);
    if let Some(n) = crash {
        disk.crash_after(n);
        match open_with(disk, options.clone()) {
            Ok(_) => {}
            Err(WalError::Io { .. }) if disk.has_crashed() => {}
            Err(e) => panic!("refused to start after a crash: {e}"),
        }
        disk.restart(loss);
    }
    open_with(disk, options.clone()).expect("the log opens after a crash").0
}

/// Do again what the crash interrupted: the truncation, or else an entry that an unfinished batch may have held.
fn go_on(wal: &Wal, found: View, before: &History) -> History {
    let next = found.last.map_or(0, |last| last.index + 1);
    let term = found.last.map_or(1, |last| last.leader_id.term);
    let cut = before.states.windows(2).rev().find(|pair| pair[0] == found && pair[1].last < found.last);
    let step = if let Some(pair) = cut {
        Step::Truncate(pair[1].last)
    } else {
        let lost = before.states.iter().find_map(|state| state.entries.get(&next)).cloned();
        let lost = lost.filter(|entry| entry.log_id.leader_id.term >= term);
        Step::Append(vec![lost.unwrap_or_else(|| entry(term, next, 100))])
    };
    let mut history = History::from(found);
    assert!(run(work(wal, &[step], &mut history)), "the log does not go on");
    history
}

fn crash_everywhere(seed: u64, loss: Loss, options: &Options) {
    let steps = script();
    for n in 0.. {
        let disk = SimDisk::new(seed * 1_000_003 + n);
        disk.crash_after(n);
        let mut history = History::from(View::default());
        let mut finished = false;
        if let Ok((wal, _)) = open_with(&disk, options.clone()) {
            finished = run(work(&wal, &steps, &mut history));
        }
        disk.crash();

        let wal = reopen(&disk, options, (n % 3 != 0).then_some(n % 5), loss);
        let found = run(view(&wal));
        assert!(
            history.allows(&found),
            "seed={seed} loss={loss:?} crash={n}\nfound {found:?}\nacknowledged {:?}",
            history.states[history.acknowledged]
        );
        let mut history = go_on(&wal, found, &history);
        drop(wal);
        let wal = reopen(&disk, options, None, Loss::All);
        let found = run(view(&wal));
        history.all_acknowledged();
        assert!(history.allows(&found), "second crash: seed={seed} loss={loss:?} crash={n} found {found:?}");
        if finished {
            assert!(n > 100, "the workload is too small to prove anything: operations={n}");
            return;
        }
    }
}

#[test]
fn of_the_process() {
    crash_everywhere(1, Loss::Nothing, &options());
}

#[test]
fn of_the_power_with_everything_unsynced_lost() {
    crash_everywhere(2, Loss::All, &options());
}

#[test]
fn of_the_power_with_sectors_lost_at_random() {
    for seed in 3..6 {
        crash_everywhere(seed, Loss::Some, &options());
    }
}

#[test]
fn with_a_lazy_mark_and_no_recycling() {
    let lazy = Options {
        high_water_interval: std::time::Duration::from_hours(1),
        spares: 0,
        fill_bytes: 1 << 20,
        ..options()
    };
    crash_everywhere(6, Loss::Some, &lazy);
}
