//! Expiry: the leader watches the clock of every session and puts the end of those that ran out into the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use coracle_store::{
    Action, Command, Event, Family, Outcome, Principal, Revision, Selection, Session, limits,
};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::deadlines::{Deadlines, Due};
use crate::inner::Inner;
use crate::types::{CommittedLeaderId, Payload, Respond, WriteResult};

/// How often the clock is looked at: the δ of "expires at latest ttl + δ".
const TICK: Duration = Duration::from_millis(100);
/// Entries under way at once: the next is written and replicated while one is applied, and others' entries find room.
const UNDER_WAY: usize = 4;
/// An expiry that is not decided by then is proposed again.
const DECISION: Duration = Duration::from_secs(5);

/// Lead, lose the lead, lead again.
pub async fn run(node: Arc<Inner>) {
    let mut changes = node.shared.leader_changes();
    loop {
        let leading = node.raft.as_leader().ok().map(|leader| leader.to_committed_leader_id());
        if let Some(term) = leading
            && node.leads()
        {
            reign(&node, term).await;
            *node.deadlines() = None;
        } else if timeout(TICK, changes.changed()).await.is_ok_and(|changed| changed.is_err()) {
            return;
        }
    }
}

/// One term: every session gets its full time, then the clock runs until the lead is lost.
async fn reign(node: &Arc<Inner>, term: CommittedLeaderId) {
    let mut watch = node.shared.hub.watch(Selection::Prefix(vec![Family::SESSION.0]));
    let mut seen = {
        let applied = node.shared.read();
        let (mut table, now) = (Deadlines::default(), Instant::now());
        applied.store.sessions().for_each(|session| table.arm(session, now));
        *node.deadlines() = Some(table);
        applied.store.revision()
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut under_way = FuturesUnordered::new();
    while node.leads() && node.raft.as_leader().is_ok_and(|leader| leader.to_committed_leader_id() == term) {
        tokio::select! {
            biased;
            _ = watch.changed() => seen = follow(node, seen),
            Some(()) = under_way.next() => seen = follow(node, seen),
            _ = tick.tick(), if under_way.len() < UNDER_WAY => {
                let due = node.deadlines().as_mut().map(|table| table.due(Instant::now(), limits::EXPIRE_SLICE));
                let Some(Due { expired, suspect, renewed }) = due else { continue };
                if [expired.len(), suspect.len(), renewed.len()].contains(&limits::EXPIRE_SLICE) {
                    tick.reset_immediately();
                }
                if !suspect.is_empty() || !renewed.is_empty() {
                    under_way.push(decide(node, term, Action::Doubt(suspect, renewed)));
                }
                if !expired.is_empty() {
                    under_way.push(decide(node, term, Action::Expire(expired)));
                }
            }
        }
    }
}

/// Bring the table up to what has been applied.
fn follow(node: &Inner, seen: Revision) -> Revision {
    let applied = node.shared.read();
    let mut guard = node.deadlines();
    let Some(table) = guard.as_mut() else { return seen };
    let now = Instant::now();
    match applied.store.changes_after(seen) {
        Ok(changes) => {
            for event in changes.flat_map(|change| change.events.iter()) {
                note(table, event, now);
            }
        }
        // So far behind that history is gone: the living ones are all that matters.
        Err(_) => applied.store.sessions().for_each(|session| table.arm(session, now)),
    }
    applied.store.revision()
}

fn note(table: &mut Deadlines, event: &Event, now: Instant) {
    if event.key.family() != Family::SESSION {
        return;
    }
    let of = |record: &coracle_store::Record| minicbor::decode::<Session>(record.value.as_bytes()).ok();
    match (&event.record, &event.previous) {
        (Some(record), _) => {
            if let Some(session) = of(record) {
                table.arm(&session, now);
            }
        }
        (None, Some(previous)) => {
            if let Some(session) = of(previous) {
                table.remove(session.id);
            }
        }
        (None, None) => {}
    }
}

/// Propose an action, in this term or not at all, and wait for the decision: then its sessions can be looked at again.
async fn decide(node: &Inner, term: CommittedLeaderId, action: Action) {
    let outcome = propose(node, term, action.clone()).await;
    let Action::Expire(due) = action else { return };
    if let Some(Outcome::Expired(count)) = outcome {
        node.sessions_expired.fetch_add(count, Ordering::Relaxed);
        tracing::debug!(count, "sessions expired");
    }
    let applied = node.shared.read();
    if let Some(table) = node.deadlines().as_mut() {
        table.decided(&due, Instant::now());
        // Ended in history that this task never saw: do not propose them for ever.
        for expiry in due.iter().filter(|expiry| applied.store.session(expiry.session).is_none()) {
            table.remove(expiry.session);
        }
    }
}

/// Put an action into the log, in this term or not at all; its outcome, if it is decided in time.
async fn propose(node: &Inner, term: CommittedLeaderId, action: Action) -> Option<Outcome> {
    let principal = Principal("cluster".into());
    let command = Command { principal, idempotency: None, guards: Vec::new(), action };
    let payload = Payload { time: node.shared.clock.stamp(), command: command.encode().into() };
    let (done, decided) = oneshot::channel();
    let respond = Respond::new(move |result: WriteResult| {
        let _ = done.send(result);
    });
    node.raft.write(payload).with_leader(term).responder(respond).await.ok()?;
    timeout(DECISION, decided).await.ok()?.ok()?.ok()?.data.result.ok()
}
