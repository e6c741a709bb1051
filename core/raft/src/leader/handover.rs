//! A leader whose disk is full stops the writes of everybody: it lets another lead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inner::Inner;

const TICK: Duration = Duration::from_millis(500);
/// Time the other may take to lead.
const PATIENCE: Duration = Duration::from_secs(2);
/// Not again before: if all disks are full, leadership shall not go round.
const PAUSE: Duration = Duration::from_secs(10);

pub async fn run(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        if node.shared.stopping() {
            return;
        }
        if !node.wal.is_full() || !node.leads() {
            continue;
        }
        let Some(heir) = node.heir() else { continue };
        tracing::warn!(to = heir, "no space for the log: letting another lead");
        if let Err(error) = node.transfer_here(heir, Instant::now() + PATIENCE).await {
            tracing::warn!(?error, to = heir, "leadership could not be handed over");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
