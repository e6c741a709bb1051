//! Timers: the leader looks at what the program waits for, and puts the passing of time into the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_store::{Action, Command, Principal};

use crate::inner::Inner;

/// How often the clock is looked at: so much later than due something happens at most, beside the entry's own time.
const TICK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if node.shared.stopping() {
            return;
        }
        // An entry takes a slice: as long as more is due the next one follows at once.
        while node.leads() && is_due(&node) {
            let command = Command {
                principal: Principal("cluster".into()),
                idempotency: None,
                guards: Vec::new(),
                action: Action::Advance,
            };
            let before = node.shared.read().store.revision();
            match node.propose(command.encode().into(), Instant::now() + PATIENCE).await {
                Ok(reply) if reply.revision > before => {}
                // Decided already, or it cannot be done: not in a circle.
                Ok(_) | Err(_) => break,
            }
        }
    }
}

fn is_due(node: &Inner) -> bool {
    let due = node.shared.read().store.due();
    due.is_some_and(|at| at <= node.shared.clock.stamp())
}
