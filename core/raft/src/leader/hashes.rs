//! Comparison of replicas: in the background, always on (the lesson of etcd 3.5.0–3.5.2).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::forward::{Answer, Ask, Request};
use crate::inner::Inner;

const TICK: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);

pub async fn run(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if node.shared.stopping() {
            return;
        }
        for peer in node.members().into_iter().filter(|member| member.id != node.id) {
            let request = Request::Ask(Ask::Hashes);
            if let Ok(Answer::Hashes(theirs)) = node.ask(peer.id, &request, Instant::now() + PATIENCE).await {
                let ours: BTreeMap<_, _> =
                    node.shared.hashes().iter().map(|at| (at.revision, (at.high, at.low))).collect();
                for at in theirs {
                    if ours.get(&at.revision).is_some_and(|hash| *hash != (at.high, at.low)) {
                        let first = !node.shared.diverged.swap(true, Ordering::AcqRel);
                        if first {
                            tracing::error!(
                                peer = peer.id,
                                revision = at.revision.0,
                                "replicas differ: replace one"
                            );
                        }
                    }
                }
            }
        }
    }
}
