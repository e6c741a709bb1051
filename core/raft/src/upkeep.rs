//! Upkeep of a running node: follow the leader and the membership, sweep late waits, introduce itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};

use crate::forward::Ask;
use crate::inner::Inner;
use crate::peers::LEADER_SILENCE;
use crate::types::NodeId;

/// How often waits are looked through for those that are late.
const SWEEP: Duration = Duration::from_millis(20);
/// How often a node looks whether the cluster knows its client URL.
const INTRODUCTION: Duration = Duration::from_secs(1);

/// Keep the atomics and the address book up to what openraft knows.
pub async fn mirror(node: Arc<Inner>) {
    let mut metrics = node.raft.server_metrics();
    let (mut known, mut addressed) = (None, BTreeSet::new());
    loop {
        let server = metrics.borrow_watched().clone();
        if server.current_leader != known {
            known = server.current_leader;
            node.leader_changes.fetch_add(1, Ordering::Relaxed);
            tracing::info!(leader = known, term = server.vote.leader_id.term, "leader changed");
        }
        node.shared.follow(server.current_leader);
        let membership = server.membership_config.membership();
        let present: BTreeSet<NodeId> =
            membership.nodes().map(|(id, _)| *id).filter(|id| *id != node.id).collect();
        for (id, member) in membership.nodes().filter(|(id, _)| **id != node.id) {
            node.peers.learn(*id, member);
        }
        addressed.difference(&present).for_each(|gone| node.peers.forget(*gone));
        addressed = present;
        if server.state == ServerState::Shutdown {
            return;
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    if !node.shared.stopping() {
        node.shared.fail("consensus has stopped: see the log for the first error");
    }
}

/// Tell the cluster this node's client URL, until it knows it.
pub async fn introduce(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(INTRODUCTION);
    loop {
        tick.tick().await;
        let known = node
            .shared
            .read()
            .membership
            .membership()
            .get_node(&node.id)
            .map(|own| own.client == node.client);
        // Not a member (yet, or any more): nothing to say.
        if known == Some(false) && node.leader().is_some() {
            let ask = Ask::Introduce(node.id, node.client.clone());
            if let Err(error) = node.change_members(ask, Instant::now() + INTRODUCTION).await {
                tracing::debug!(?error, "not introduced yet");
            }
        }
    }
}

/// Give up on late waits; remember what peers have acknowledged; notice that consensus has died.
pub async fn sweep(node: Arc<Inner>) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut leading_since = None;
    for round in 1_u64.. {
        tick.tick().await;
        let now = Instant::now();
        node.shared.index.expire(now);
        node.shared.revision.expire(now);
        let metrics = node.raft.metrics().borrow_watched().clone();
        // At once: a peer may be killed, rolled back and here again before a second has passed.
        let committed = metrics.local_committed.map_or(0, |id| id.index);
        for (id, log) in metrics.replication.iter().flatten().filter(|(id, _)| **id != node.id) {
            node.peers_seen.acknowledged(*id, log.as_ref().map_or(0, |log| log.index).min(committed));
        }
        if round % 10 != 0 {
            continue;
        }
        let led = (metrics.state == ServerState::Leader).then_some(metrics.current_term);
        if leading_since.map(|(term, _)| term) != led {
            leading_since = led.map(|term| (term, now));
        }
        let alone = metrics.membership_config.membership().voter_ids().all(|id| id == node.id);
        let silence = |since: Instant| match &metrics.last_quorum_acked {
            Some(heard) => heard.elapsed().min(since.elapsed()),
            None => since.elapsed(),
        };
        let lost = leading_since.is_some_and(|(_, since)| !alone && silence(since) > LEADER_SILENCE);
        node.majority_lost.store(lost, Ordering::Release);
        if round % 50 != 0 {
            continue;
        }
        if let Err(error) = &metrics.running_state
            && !node.shared.stopping()
        {
            node.shared.fail(&format!("consensus has stopped: {error}"));
        }
        if let Err(error) = node.peers_seen.save() {
            tracing::warn!(%error, "cannot write down what peers have acknowledged");
        }
    }
}
