//! Checkpoints: when to write one, and how much log to keep behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::checkpoint::{self, Position};
use crate::inner::Inner;
use crate::types::NodeId;

const TICK: Duration = Duration::from_millis(100);

/// Counters of checkpoints since the start.
#[derive(Debug, Default)]
pub struct CheckpointFigures {
    pub written: AtomicU64,
    /// Total time from taking the delta to being durable, in microseconds.
    pub micros: AtomicU64,
}

pub async fn run(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tick.tick().await;
        if node.shared.stopping() {
            return;
        }
        let log = {
            let applied = node.shared.read();
            let index = applied.position.map_or(0, |id| id.index);
            let saved = node.shared.checkpointed.load(Ordering::Acquire);
            let (voters, rank) = rank(node.id, applied.membership.voter_ids());
            Log { unsaved: applied.unsaved, entries: index.saturating_sub(saved), index, voters, rank }
        };
        if log.due(node.checkpoint_bytes) || (log.unsaved > 0 && last.elapsed() >= node.checkpoint_interval) {
            if let Err(error) = write(&node).await {
                node.shared.fail(&format!("checkpoint failed: {error}"));
                return;
            }
            last = Instant::now();
            purge(&node).await;
        }
    }
}

/// The log behind the last checkpoint, as far as it is applied, and whose turn it is.
#[derive(Clone, Copy)]
struct Log {
    /// Its bytes and its entries.
    unsaved: u64,
    entries: u64,
    /// Index of its last entry.
    index: u64,
    voters: u64,
    /// Place of this node among the voters. Whoever does not vote has none.
    rank: Option<u64>,
}

impl Log {
    /// Whether it is time for a checkpoint of about so many bytes.
    ///
    /// All nodes apply the same log, so they would all write at the same moment, and a put waits for a majority. So they
    /// take turns by what they have in common, the index: of every 2ᵏ entries, about as many as make a checkpoint, each
    /// voter has its part.
    fn due(&self, bytes: u64) -> bool {
        let Some(rank) = self.rank.filter(|_| self.voters > 1) else { return self.unsaved >= bytes };
        if self.unsaved < bytes / 2 {
            return false;
        }
        // Two thirds to four thirds of the bytes. Shorter cycles end where longer ones do: nodes that count
        // differently (one restarted, and has other entries behind it) still mostly keep apart.
        let entries = u128::from(self.entries) * u128::from(bytes) / u128::from(self.unsaved.max(1));
        let cycle = (entries * 4 / 3).max(1).ilog2();
        let turn = ((u128::from(self.index) % (1 << cycle)) * u128::from(self.voters)) >> cycle;
        turn == u128::from(rank) || self.unsaved >= bytes + bytes / 2
    }
}

/// How many voters there are, and the place of this one among them.
fn rank(id: NodeId, voters: impl Iterator<Item = NodeId>) -> (u64, Option<u64>) {
    let (mut count, mut before, mut found) = (0, 0, false);
    for voter in voters {
        count += 1;
        before += u64::from(voter < id);
        found |= voter == id;
    }
    (count, found.then_some(before))
}

/// Write one checkpoint now.
///
/// # Errors
/// As the checkpoint thread says; nothing later may be written after that.
pub async fn write(node: &Inner) -> Result<(), checkpoint::Error> {
    let started = Instant::now();
    let (delta, position) = {
        let mut applied = node.shared.write();
        applied.unsaved = 0;
        let position = Position {
            cluster: node.cluster,
            applied: applied.position,
            membership: applied.membership.clone(),
        };
        (applied.store.take_delta(), position)
    };
    let reached = match node.disk.write(delta, position).await {
        Ok(reached) => reached,
        // A snapshot was installed meanwhile: it holds all of this and more.
        Err(checkpoint::Error::Backwards { durable, .. }) => durable,
        Err(error) => return Err(error),
    };
    node.shared.checkpointed.fetch_max(reached.map_or(0, |id| id.index), Ordering::AcqRel);
    node.checkpoint_figures.written.fetch_add(1, Ordering::Relaxed);
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    node.checkpoint_figures.micros.fetch_add(micros, Ordering::Relaxed);
    Ok(())
}

/// Let openraft know of the checkpoint and forget the log that nobody should need any more.
async fn purge(node: &Inner) {
    let stamp = node.wal.stamp();
    let (first, last) = (stamp.purged.map_or(0, |id| id.index), stamp.last.map_or(0, |id| id.index));
    let (entries, bytes) = (last.saturating_sub(first), node.wal.log_bytes());
    // Not at every checkpoint: a purge frees whole segments, so it waits until there is something to free.
    if bytes < 2 * node.keep_bytes && entries < 2 * node.keep_entries {
        return;
    }
    let average = (bytes / entries.max(1)).max(1);
    let keep = node.keep_entries.min(node.keep_bytes / average);
    let upto = node.shared.checkpointed.load(Ordering::Acquire).min(last.saturating_sub(keep));
    if upto > first && node.raft.trigger().snapshot().await.is_ok() {
        let _ = node.raft.trigger().purge_log(upto).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 64 << 20;

    /// At which indexes each of three nodes writes, if an entry has so many bytes.
    fn written(entry: u64, until: u64) -> [Vec<u64>; 3] {
        std::array::from_fn(|rank| {
            let mut written = vec![0];
            // A tick is some entries long.
            for index in (0..until).step_by(700) {
                let entries = index - written[written.len() - 1];
                let rank = Some(rank as u64);
                let log = Log { unsaved: entries * entry, entries, index, voters: 3, rank };
                if log.due(BYTES) {
                    written.push(index);
                }
            }
            written
        })
    }

    #[test]
    fn nodes_of_one_log_write_their_checkpoints_one_after_the_other() {
        for entry in [40, 100, 290, 300, 333, 410, 500, 1_100, 60_000] {
            let about = BYTES / entry;
            let written = written(entry, 40 * about + 50_000);
            for node in &written {
                for (last, next) in node.iter().zip(&node[1..]) {
                    let took = next - last;
                    assert!(
                        (about / 2..about * 3 / 2 + 700).contains(&took),
                        "entry={entry} {took} of {about}"
                    );
                }
            }
            if about < 10_000 {
                continue;
            }
            // Once each has had its turn, a fifth of a checkpoint's log lies between any two.
            let mut all: Vec<u64> =
                written.iter().flatten().copied().filter(|index| *index > 2 * about).collect();
            all.sort_unstable();
            let closest = all.iter().zip(&all[1..]).map(|(one, next)| next - one).min().unwrap();
            assert!(closest >= about / 5, "entry={entry} {closest} of {about} entries apart");
        }
    }

    #[test]
    fn whoever_is_alone_or_has_no_vote_writes_after_so_many_bytes() {
        for (voters, rank) in [(1, Some(0)), (3, None)] {
            let log = |unsaved| Log { unsaved, entries: 1_000, index: 1_000, voters, rank };
            assert!(!log(BYTES - 1).due(BYTES) && log(BYTES).due(BYTES), "{voters} {rank:?}");
        }
    }

    #[test]
    fn the_place_is_that_among_the_voters() {
        let voters = || [2, 5, 9].into_iter();
        assert_eq!(rank(5, voters()), (3, Some(1)));
        assert_eq!(rank(6, voters()), (3, None));
    }
}
