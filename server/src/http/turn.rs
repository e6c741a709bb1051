//! ⑥ Waiting for one's turn: a parked claim is a watch on its own key, not a thread and not a poll.

use std::time::{Duration, Instant};

use coracle_raft::node::{RenewError, Watch};
use coracle_recipes::lock::{self, Turn};
use coracle_store::{Cause, HistoryError, Key, Operation, Revision, Selection, SessionId, Store};

use super::call::Mutation;
use super::problem::Answer;
use crate::edge::Edge;

/// A session's claim on a lock, as the edge follows it.
pub struct Following {
    pub edge: Edge,
    pub lock: String,
    pub session: SessionId,
    watch: Watch,
    /// The key the watch is on: the place in line, or the hold.
    key: Option<Key>,
    renewal: Option<Renewal>,
}

/// A session kept alive by the edge as long as the connection lives.
pub struct Renewal {
    pub session: SessionId,
    pub ttl: Duration,
    pub next: Instant,
    /// Until when the session is certainly alive.
    pub until: Instant,
}

/// The reason of a hold that ended because the leader says that its session has.
const SESSION_EXPIRED: &str = "session_expired";

/// What a try to renew has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    Good,
    /// Not now: nobody could be asked.
    Later,
    /// The session has ended, or may have by now.
    Lost(&'static str),
}

impl Renewal {
    /// A session that was opened (or renewed) by a request received at `since`.
    pub fn new(session: SessionId, ttl: Duration, since: Instant) -> Self {
        Self { session, ttl, next: since + ttl / 3, until: since + ttl }
    }

    /// Renew now.
    pub async fn renew(&mut self, edge: &Edge) -> Renewed {
        let received = Instant::now();
        match edge.node.renew(self.session, edge.deadline().min(received + self.ttl)).await {
            Ok(valid_for) => {
                edge.renewals.note(self.session, received, valid_for);
                self.next = received + self.ttl / 3;
                self.until = received + valid_for;
                Renewed::Good
            }
            Err(RenewError::Expired) => Renewed::Lost(SESSION_EXPIRED),
            Err(RenewError::Circumstance(_)) if Instant::now() >= self.until => Renewed::Lost("not_renewed"),
            Err(RenewError::Circumstance(_)) => {
                self.next = Instant::now() + (self.ttl / 12).max(Duration::from_millis(100));
                Renewed::Later
            }
        }
    }

    pub fn valid_for(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Why waiting paused.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It is now so.
    Turn(Turn),
    /// The time given ran out; the claim stands.
    Time,
    /// The session was renewed.
    Renewed,
    /// The session has ended.
    Lost(&'static str),
    /// The node shuts down.
    Draining,
}

impl Following {
    /// Follow a claim that this node knows at `revision`.
    ///
    /// # Errors
    /// A circumstance, if the node does not get there in time.
    pub async fn new(
        edge: Edge,
        lock: String,
        session: SessionId,
        revision: Revision,
        renewal: Option<Renewal>,
        deadline: Instant,
    ) -> Answer<Self> {
        edge.node.wait_revision(revision, deadline).await?;
        let (key, watch) = watch_claim(&edge, &lock, session);
        Ok(Self { edge, lock, session, watch, key, renewal })
    }

    /// The turn as this node knows it.
    pub fn turn(&self) -> Turn {
        self.edge.node.read(|store| lock::poll(store.view(), &self.lock, self.session))
    }

    /// Wait until the claim changes, at most until `end`.
    pub async fn step(&mut self, end: Option<Instant>) -> Step {
        let renewal = self.renewal.as_ref().map(|r| r.next);
        let alarm = [end, renewal].into_iter().flatten().min();
        let sleep = async {
            match alarm {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.edge.drained() => return Step::Draining,
            _ = self.watch.changed() => {
                // The key this was about is gone or new: follow the next one, then look.
                (self.key, self.watch) = watch_claim(&self.edge, &self.lock, self.session);
                return Step::Turn(self.turn());
            }
            () = sleep => {}
        }
        if let Some(renewal) = &mut self.renewal
            && Instant::now() >= renewal.next
        {
            match renewal.renew(&self.edge).await {
                Renewed::Good => return Step::Renewed,
                Renewed::Lost(reason) => return self.ended(reason).await,
                Renewed::Later => {}
            }
        }
        if end.is_some_and(|end| Instant::now() >= end) { Step::Time } else { Step::Renewed }
    }

    /// The leader knew of the end before this node did: catch up, so that history tells how it came.
    async fn ended(&self, reason: &'static str) -> Step {
        if reason == SESSION_EXPIRED
            && self.edge.node.read_barrier(self.edge.deadline()).await.is_ok()
            && self.turn() == Turn::Gone
        {
            return Step::Turn(Turn::Gone);
        }
        Step::Lost(reason)
    }

    pub fn renewal(&mut self) -> Option<&mut Renewal> {
        self.renewal.as_mut()
    }

    /// Why the hold ended, if history tells.
    pub fn reason(&self, key: Option<&Key>) -> &'static str {
        let cause = key.and_then(|key| {
            self.edge.node.read(|store| store.key_history(key).last().map(|(_, _, event)| event.cause))
        });
        match cause {
            Some(Cause::Broken) => "broken",
            Some(Cause::SessionExpired) => SESSION_EXPIRED,
            Some(Cause::SessionClosed) => "session_closed",
            Some(Cause::Command) => "released",
            None => "lost",
        }
    }

    pub fn key(&self) -> Option<Key> {
        self.key.clone()
    }
}

/// The key of a session's claim on a lock, and a watch on it; a watch on the whole lock if there is no claim.
fn watch_claim(edge: &Edge, lock: &str, session: SessionId) -> (Option<Key>, Watch) {
    let whole = coracle_recipes::selection(lock::NAME, lock).expect("locks are a family");
    let find = |store: &Store| match &whole {
        Selection::Prefix(prefix) => store.view().attached_under(session, prefix).next().cloned(),
        Selection::All | Selection::Key(_) | Selection::Range(..) => None,
    };
    loop {
        let key = edge.node.read(find);
        let watch = edge.node.watch(key.clone().map_or_else(|| whole.clone(), Selection::Key));
        // It may have moved between the look and the registration.
        if edge.node.read(find) == key {
            return (key, watch);
        }
    }
}

/// Takes the claim back when the caller is gone before it was answered.
pub struct Withdrawal {
    edge: Edge,
    operation: Option<Operation>,
    mutation: Mutation,
}

impl Withdrawal {
    pub fn new(edge: &Edge, mutation: Mutation, operation: Operation) -> Self {
        Self { edge: edge.clone(), operation: Some(operation), mutation }
    }

    /// The caller is answered: the claim is its own business now.
    pub fn settle(&mut self) {
        self.operation = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let edge = self.edge.clone();
            let command = self.mutation.clone().command(coracle_store::Action::One(operation));
            runtime.spawn(async move {
                // Withdrawing and closing are idempotent: once more after a lost answer does no harm.
                for _ in 0..3 {
                    if edge.node.propose(&command, edge.deadline()).await.is_ok() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                tracing::warn!(
                    "a claim of a caller that went away could not be withdrawn; it ends with its session"
                );
            });
        }
    }
}

/// Items of the changes of one revision, where history still has it.
pub fn change_at(store: &Store, revision: Revision) -> Option<std::sync::Arc<coracle_store::Change>> {
    let before = Revision(revision.0.checked_sub(1)?);
    let mut changes = store.changes_after(before).map_err(|_: HistoryError| ()).ok()?;
    changes.next().filter(|change| change.revision == revision).cloned()
}
