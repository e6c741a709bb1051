//! Checkpoints: when to write one, and how much log to keep behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::checkpoint::{self, Position};
use crate::inner::Inner;

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
        let unsaved = node.shared.read().unsaved;
        if unsaved >= node.checkpoint_bytes || (unsaved > 0 && last.elapsed() >= node.checkpoint_interval) {
            if let Err(error) = write(&node).await {
                node.shared.fail(&format!("checkpoint failed: {error}"));
                return;
            }
            last = Instant::now();
            purge(&node).await;
        }
    }
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
