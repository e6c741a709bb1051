//! Duties: what nodes do by themselves. Expiry, timers, compaction, settings while leading, and giving way; checkpoints and the
//! comparison of hashes always.

mod checkpoints;
pub mod deadlines;
mod expiry;
mod handover;
mod hashes;
mod history;
mod renewals;
mod timers;

pub use checkpoints::{CheckpointFigures, write as checkpoint_now};
pub use renewals::Renewals;

use std::sync::Arc;

use crate::inner::Inner;

/// The duties of a node, as futures to be run side by side until the node stops.
pub fn duties(node: &Arc<Inner>) -> Vec<futures::future::BoxFuture<'static, ()>> {
    vec![
        Box::pin(expiry::run(node.clone())),
        Box::pin(renewals::run(node.clone())),
        Box::pin(history::run(node.clone())),
        Box::pin(timers::run(node.clone())),
        Box::pin(checkpoints::run(node.clone())),
        Box::pin(hashes::run(node.clone())),
        Box::pin(handover::run(node.clone())),
    ]
}
