//! Groups: be a member, see who else is, and whose share of the work is what.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle_api as api;
use coracle_api::Value;
use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::backoff::Backoff;
use crate::call::Call;
use crate::escape::escape;
use crate::lock::STEP;
use crate::{Coracle, Error, Session, WatchBuilder};

/// A group. For what can go wrong see [`Error`].
#[derive(Debug, Clone)]
pub struct Group {
    client: Coracle,
    name: String,
    path: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl Group {
    pub(crate) fn new(client: Coracle, name: &str) -> Self {
        let path = format!("/v1/groups/{}", escape(name.as_bytes()));
        Self { client, name: name.to_owned(), path }
    }

    /// Be in the group under this name.
    pub fn join(&self, id: impl Into<String>) -> Join {
        let said = Said { payload: Value::untyped(""), progress: None };
        Join { group: self.clone(), id: id.into(), ttl: None, said }
    }

    /// Who is there.
    pub async fn show(&self) -> Result<api::Group, Error> {
        self.client.ask(Call::get(&self.path)).await
    }

    /// Who is there, and whose each of so many slots is. The `view` of the answer tells this division from any other.
    pub async fn shares(&self, slots: u64) -> Result<api::Group, Error> {
        self.client.ask(Call::get(&self.path).query("slots", slots.to_string())).await
    }

    /// Wait until so many are there; `None` if they are not in time. [`Duration::MAX`] waits without end.
    pub async fn wait_for(&self, min: u64, wait: Duration) -> Result<Option<api::Group>, Error> {
        let end = Instant::now().checked_add(wait);
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()));
            let call = Call::get(&self.path).query("min", min.to_string()).waiting(left.min(STEP));
            let answer = self.client.send(call).await?;
            if answer.status != StatusCode::NOT_MODIFIED {
                return answer.json().map(Some);
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(None);
            }
        }
    }

    /// Take a member out, whoever it belongs to.
    pub async fn remove(&self, id: &str) -> Result<api::Left, Error> {
        self.client.ask(Call::change(Method::DELETE, self.member(id))).await
    }

    /// Follow comings and goings.
    pub fn watch(&self) -> WatchBuilder<api::Group> {
        WatchBuilder::new(self.client.clone(), Call::get(&self.path))
    }

    fn member(&self, id: &str) -> String {
        format!("{}/members/{}", self.path, escape(id.as_bytes()))
    }
}

/// What a member says of itself.
#[derive(Debug, Clone)]
struct Said {
    payload: Value,
    progress: Option<u8>,
}

/// A member to be.
#[derive(Debug, Clone)]
#[must_use = "one is in the group by awaiting start()"]
pub struct Join {
    group: Group,
    id: String,
    ttl: Option<Duration>,
    said: Said,
}

impl Join {
    /// What it says of itself, at most 4 KiB.
    pub fn payload(mut self, payload: impl Into<Value>) -> Self {
        self.said.payload = payload.into();
        self
    }

    /// How long it stays when this process is gone; the server's default is 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Join, with a session of its own. From then on it stays a member whatever happens to that session, until the
    /// [`Membership`] is dropped: a membership heals. Only who is taken out by somebody, or replaced by another of the
    /// same name, stays out.
    ///
    /// # Errors
    /// If it cannot join now; see [`Error`].
    pub async fn start(self) -> Result<Membership, Error> {
        let session = self.session().await?;
        let joined = self.put(&session, &self.said).await?;
        let shared = Arc::new(Shared {
            said: Mutex::new(self.said.clone()),
            changed: Notify::new(),
            joined: watch::Sender::new(Some(joined)),
            session: Mutex::new(session.clone()),
            removed: watch::Sender::new(false),
        });
        let keeper = tokio::spawn(keep(self, Arc::clone(&shared), session)).abort_handle();
        Ok(Membership { shared, keeper })
    }

    async fn session(&self) -> Result<Session, Error> {
        let mut open = self.group.client.session().name(format!("member {}", self.id));
        if let Some(ttl) = self.ttl {
            open = open.ttl(ttl);
        }
        open.open().await
    }

    async fn put(&self, session: &Session, said: &Said) -> Result<api::Joined, Error> {
        let call = Call::change(Method::PUT, self.group.member(&self.id))
            .query("session", session.id().to_string())
            .query_some("progress", said.progress)
            .body(said.payload.bytes.clone(), &said.payload.content_type);
        self.group.client.ask(call).await
    }
}

/// A member that stays one until this is dropped (best effort; [`Membership::leave`] is sure).
#[derive(Debug)]
pub struct Membership {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    said: Mutex<Said>,
    changed: Notify,
    /// The last answer to joining; `None` while it is no member.
    joined: watch::Sender<Option<api::Joined>>,
    session: Mutex<Session>,
    /// It was taken out.
    removed: watch::Sender<bool>,
}

impl Membership {
    /// Say something new of itself.
    pub fn say(&self, payload: impl Into<Value>) {
        self.update(|said| said.payload = payload.into());
    }

    /// Say how far the work has come, 0 to 100.
    pub fn report(&self, percent: u8) {
        self.update(|said| said.progress = Some(percent.min(100)));
    }

    fn update(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.shared.said.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_one();
    }

    /// How it joined last; `None` while it is out: on its way back, or for good.
    #[must_use]
    pub fn joined(&self) -> Option<api::Joined> {
        self.shared.joined.borrow().clone()
    }

    /// Every time it is out (`None`) or in again, from now on; see [`Membership::removed`] for when it stays out.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Option<api::Joined>> {
        self.shared.joined.subscribe()
    }

    /// Wait until it is out for good: somebody took the member out, or another has joined under its name.
    pub async fn removed(&self) {
        let mut removed = self.shared.removed.subscribe();
        // The sender is ours.
        let _ = removed.wait_for(|removed| *removed).await;
    }

    /// Leave, and be sure of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn leave(self) -> Result<(), Error> {
        self.keeper.abort();
        let session = self.shared.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        session.close().await
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // With the keeper goes the last of its session, which closes it.
        self.keeper.abort();
    }
}

/// Say what is new, and come back whenever the session is lost.
async fn keep(join: Join, shared: Arc<Shared>, mut session: Session) {
    loop {
        tokio::select! {
            biased;
            () = taken_out(&join, &session) => {
                shared.joined.send_replace(None);
                shared.removed.send_replace(true);
                return;
            }
            _ = session.lost() => {
                shared.joined.send_replace(None);
                session = again(&join, &shared).await;
            }
            () = shared.changed.notified() => {
                let said = shared.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Ok(joined) = join.put(&session, &said).await {
                    shared.joined.send_replace(Some(joined));
                } else {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    shared.changed.notify_one();
                }
            }
        }
    }
}

/// Wait until somebody takes the member of this session out.
async fn taken_out(join: &Join, session: &Session) {
    let mut losses = Box::pin(session.losses());
    while let Some(lost) = losses.next().await {
        if lost.family == "groups" && lost.name == join.group.name && lost.item.as_deref() == Some(&*join.id)
        {
            return;
        }
    }
    // That is the loss of the session.
    std::future::pending::<()>().await;
}

/// A new session, and a member again, however long it takes.
async fn again(join: &Join, shared: &Shared) -> Session {
    let mut backoff = Backoff::default();
    loop {
        let said = shared.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Ok(session) = join.session().await
            && let Ok(joined) = join.put(&session, &said).await
        {
            *shared.session.lock().unwrap_or_else(PoisonError::into_inner) = session.clone();
            shared.joined.send_replace(Some(joined));
            return session;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}
