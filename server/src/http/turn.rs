//! ⑥ Waiting for one's turn: a parked claim is a watch on its own key, not a thread and not a poll.

use std::time::{Duration, Instant};

use coracle_raft::node::{RenewError, Watch};
use coracle_recipes::{self as recipes, Turn};
use coracle_store::{Cause, HistoryError, Key, Operation, Revision, Selection, SessionId, Store};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::call::Mutation;
use super::claim::Kind;
use super::problem::Answer;
use crate::edge::Edge;

/// A session's claim, as the edge follows it.
pub struct Following<K> {
    pub edge: Edge,
    pub kind: K,
    pub session: SessionId,
    /// One for each prefix of the kind.
    followed: Vec<Followed>,
    renewal: Option<Renewal>,
}

/// The key a claim is, and a watch on it; on all that its prefix selects while there is no such key.
struct Followed {
    prefix: Vec<u8>,
    key: Option<Key>,
    /// The key, or the last one there was.
    last: Option<Key>,
    watch: Watch,
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
pub const SESSION_EXPIRED: &str = "session_expired";

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

    /// One that an earlier request opened: nobody knows when it was renewed last, so the next time is now.
    #[must_use]
    pub fn found_again(self, found: bool) -> Self {
        if found { Self { next: Instant::now(), ..self } } else { self }
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
pub enum Step<T> {
    /// It is now so.
    Turn(T),
    /// The time given ran out; the claim stands.
    Time,
    /// The session was renewed.
    Renewed,
    /// The session has ended.
    Lost(&'static str),
    /// The node shuts down.
    Draining,
}

/// The turn of a kind of claim.
pub type TurnOf<K> = Turn<<K as Kind>::Grant, <K as Kind>::Place>;

impl<K: Kind> Following<K> {
    /// Follow a claim that this node knows at `revision`.
    ///
    /// # Errors
    /// A circumstance, if the node does not get there in time.
    pub async fn new(
        edge: Edge,
        kind: K,
        session: SessionId,
        revision: Revision,
        renewal: Option<Renewal>,
        deadline: Instant,
    ) -> Answer<Self> {
        let mut following = Self { edge, kind, session, followed: Vec::new(), renewal };
        following.resume(session, revision, deadline).await?;
        Ok(following)
    }

    /// Follow the claim that was made anew.
    ///
    /// # Errors
    /// A circumstance, if the node does not get there in time.
    pub async fn resume(&mut self, session: SessionId, revision: Revision, deadline: Instant) -> Answer<()> {
        self.edge.node.wait_revision(revision, deadline).await?;
        self.session = session;
        if let Some(renewal) = &mut self.renewal {
            renewal.session = session;
        }
        let (edge, prefixes) = (&self.edge, self.kind.prefixes());
        self.followed = prefixes.into_iter().map(|prefix| Followed::new(edge, prefix, session)).collect();
        Ok(())
    }

    /// The turn as this node knows it.
    pub fn turn(&self) -> TurnOf<K> {
        let last = self.followed.first().and_then(|followed| followed.last.as_ref());
        self.edge.node.read(|store| self.kind.poll(store, self.session, last))
    }

    /// Wait until the claim changes, at most until `end`.
    pub async fn step(&mut self, end: Option<Instant>) -> Step<TurnOf<K>> {
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
            () = changed(&mut self.followed) => {
                self.follow_on();
                return Step::Turn(self.turn());
            }
            () = sleep => {}
        }
        if let Some(renewal) = &mut self.renewal
            && Instant::now() >= renewal.next
        {
            // Boxed: what happens once in a while shall not make every wait larger.
            match Box::pin(renewal.renew(&self.edge)).await {
                Renewed::Good => return Step::Renewed,
                Renewed::Lost(reason) => return Step::Lost(reason),
                Renewed::Later => {}
            }
        }
        if end.is_some_and(|end| Instant::now() >= end) { Step::Time } else { Step::Renewed }
    }

    /// Until the claim changes.
    pub async fn changed(&mut self) {
        changed(&mut self.followed).await;
        self.follow_on();
    }

    /// The key this was about may be gone or new: follow the next one.
    fn follow_on(&mut self) {
        let (edge, session) = (&self.edge, self.session);
        self.followed.iter_mut().for_each(|followed| followed.follow(edge, session));
    }

    pub fn renewal(&mut self) -> Option<&mut Renewal> {
        self.renewal.as_mut()
    }

    /// The keys the claim consists of.
    pub fn keys(&self) -> Vec<Key> {
        self.followed.iter().filter_map(|followed| followed.key.clone()).collect()
    }

    /// Why the claim ended that consisted of these keys, if history tells, and what was said to it.
    pub fn reason(&self, keys: &[Key]) -> (&'static str, Option<String>) {
        let end = self.edge.node.read(|store| {
            let mut ended = keys.iter().filter(|key| store.get(key).is_none());
            ended.find_map(|key| {
                let (revision, _, event) = store.key_history(key).next()?;
                let change = (event.cause == Cause::Broken).then(|| change_at(store, revision)).flatten();
                Some((event.cause, change.and_then(|change| coracle_recipes::reason_of_break(&change, key))))
            })
        });
        match end {
            Some((Cause::Broken, said)) => ("broken", said),
            Some((Cause::SessionExpired, _)) => (SESSION_EXPIRED, None),
            Some((Cause::SessionClosed, _)) => ("session_closed", None),
            Some((Cause::Command, _)) => ("released", None),
            None => ("lost", None),
        }
    }
}

impl Followed {
    fn new(edge: &Edge, prefix: Vec<u8>, session: SessionId) -> Self {
        let (key, watch) = watch_claim(edge, &prefix, session);
        Self { prefix, last: key.clone(), key, watch }
    }

    fn follow(&mut self, edge: &Edge, session: SessionId) {
        (self.key, self.watch) = watch_claim(edge, &self.prefix, session);
        if self.key.is_some() {
            self.last.clone_from(&self.key);
        }
    }
}

/// Something happened to one of the keys.
async fn changed(followed: &mut [Followed]) {
    match followed {
        [one] => drop(one.watch.changed().await),
        many => {
            let changes = many.iter_mut().map(|one| Box::pin(one.watch.changed()));
            drop(futures::future::select_all(changes).await);
        }
    }
}

/// Watches on keys; see [`any_changed`].
pub fn watches(edge: &Edge, keys: &[Key]) -> Vec<Watch> {
    keys.iter().map(|key| edge.node.watch(Selection::Key(key.clone()))).collect()
}

/// Until one of them has something new.
pub async fn any_changed(watches: Vec<Watch>) {
    let mut changes: FuturesUnordered<_> = watches
        .into_iter()
        .map(|mut watch| async move {
            watch.changed().await;
        })
        .collect();
    changes.next().await;
}

/// The key of a session's claim under a prefix, and a watch on it; a watch on the whole prefix if there is none.
fn watch_claim(edge: &Edge, prefix: &[u8], session: SessionId) -> (Option<Key>, Watch) {
    let find = |store: &Store| store.view().attached_under(session, prefix).next().cloned();
    loop {
        let key = edge.node.read(find);
        let selection = key.clone().map_or_else(|| Selection::Prefix(prefix.to_vec()), Selection::Key);
        let watch = edge.node.watch(selection);
        // It may have moved between the look and the registration.
        if edge.node.read(find) == key {
            return (key, watch);
        }
    }
}

/// Takes the claim back when the caller is gone before it was answered.
pub struct Withdrawal {
    edge: Edge,
    undo: Option<Undo>,
    mutation: Mutation,
}

/// What takes something back. Encoded when it is needed, which is hardly ever.
pub enum Undo {
    Close(SessionId),
    Program(Box<recipes::Operation>),
}

impl Withdrawal {
    pub fn new(edge: &Edge, mutation: Mutation, undo: Undo) -> Self {
        Self { edge: edge.clone(), undo: Some(undo), mutation }
    }

    /// The caller is answered: the claim is its own business now.
    pub fn settle(&mut self) {
        self.undo = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let edge = self.edge.clone();
            let operation = match undo {
                Undo::Close(session) => Operation::CloseSession(session),
                Undo::Program(operation) => operation.encode(),
            };
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
