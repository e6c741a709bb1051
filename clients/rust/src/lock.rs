//! Locks: waiting in line for one, as for permits and leadership; and calls about the locks of others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_api::{
    AcquireMany, AcquiredMany, Broken, Lock, LockConfig, Mode, Released, Renewed, SessionId, Value, Waiting,
};
use reqwest::{Method, StatusCode};

use crate::call::Call;
use crate::escape::escape;
use crate::session::all_pages;
use crate::{ClaimGuard, Coracle, Error, Session, WatchBuilder};

/// Longest single request of a wait: a node that died silently costs no more than this, and no place in line.
pub(crate) const STEP: Duration = Duration::from_secs(10);

/// What can be claimed, by the words of its endpoints.
#[derive(Debug)]
pub(crate) struct Family {
    pub name: &'static str,
    pub take: &'static str,
    pub give: &'static str,
}

pub(crate) static LOCKS: Family = Family { name: "locks", take: "acquire", give: "release" };

/// One object that is claimed.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub family: &'static Family,
    pub name: String,
}

impl Claim {
    pub fn on(family: &'static Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }

    /// Where `verb` is done with it; where it is shown, if the verb is empty.
    pub fn path(&self, verb: &str) -> String {
        let slash = if verb.is_empty() { "" } else { "/" };
        format!("/v1/{}/{}{slash}{verb}", self.family.name, escape(self.name.as_bytes()))
    }

    /// Gives it back.
    pub fn release(&self, session: SessionId) -> Call {
        Call::change(Method::POST, self.path(self.family.give)).query("session", session.to_string())
    }
}

impl std::fmt::Display for Claim {
    /// `locks/deploy`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.family.name, self.name)
    }
}

/// What all grants have.
#[derive(serde::Deserialize)]
struct Granted {
    token: u64,
    #[serde(default)]
    mode: Mode,
}

type OnWaiting = Arc<dyn Fn(&Waiting) + Send + Sync>;

/// A lock, permits or leadership to be acquired. Without a session it opens one of its own and closes it with the release.
#[derive(Clone)]
#[must_use = "nothing is claimed before acquire()"]
pub struct Acquire {
    client: Coracle,
    claim: Claim,
    session: Option<Session>,
    ttl: Option<Duration>,
    /// What is asked for beside the place: the mode, the permits, the priority.
    asked: Vec<(&'static str, String)>,
    value: Option<Value>,
    owner: Option<String>,
    wait: Duration,
    on_waiting: Option<OnWaiting>,
}

impl Acquire {
    pub(crate) fn new(client: Coracle, claim: Claim) -> Self {
        Self {
            client,
            claim,
            session: None,
            ttl: None,
            asked: Vec::new(),
            value: None,
            owner: None,
            wait: Duration::ZERO,
            on_waiting: None,
        }
    }

    /// Hold it with this session. A session holds a lock once: acquiring again answers the same hold, and one
    /// release ends it.
    pub fn session(mut self, session: &Session) -> Self {
        self.session = Some(session.clone());
        self
    }

    /// Time to live of the claim's own session, if none is given; the server's default is 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Of a lock: together with other readers.
    pub fn shared(self) -> Self {
        self.ask("mode", Mode::Shared.as_str().to_owned())
    }

    /// Of a semaphore: so many permits, all or none; 1 unless said.
    pub fn permits(self, permits: u64) -> Self {
        self.ask("permits", permits.to_string())
    }

    /// Of a semaphore: its limit, which makes it if it is not there.
    pub fn limit(self, limit: u64) -> Self {
        self.ask("limit", limit.to_string())
    }

    /// Of an election: higher is elected first.
    pub fn priority(self, priority: u8) -> Self {
        self.ask("priority", priority.to_string())
    }

    pub(crate) fn saying(mut self, value: Value) -> Self {
        self.value = Some(value);
        self
    }

    fn ask(mut self, name: &'static str, what: String) -> Self {
        self.asked.retain(|(known, _)| *known != name);
        self.asked.push((name, what));
        self
    }

    /// Who, for people and for the list of blockers.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// How long to wait in line. Zero, the default, tries once. [`Duration::MAX`] waits without end.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Called with the place in line, now and then while waiting.
    pub fn on_waiting(mut self, tell: impl Fn(&Waiting) + Send + Sync + 'static) -> Self {
        self.on_waiting = Some(Arc::new(tell));
        self
    }

    /// Acquire it. Dropping the future gives up the place in line, best effort.
    ///
    /// # Errors
    /// `lock_held` and the like without a wait, [`Error::NotAcquired`] after one, [`Error::SessionLost`] if the session ends
    /// first; see [`Error`].
    pub async fn acquire(self) -> Result<ClaimGuard, Error> {
        let (session, own) = match &self.session {
            Some(session) => (session.clone(), false),
            None => (self.open_session().await?, true),
        };
        let ticket =
            Ticket { client: self.client.clone(), claim: self.claim.clone(), session, own, settled: false };
        let result = tokio::select! {
            biased;
            reason = ticket.session.lost() => Err(Error::SessionLost(reason)),
            result = self.wait_in_line(ticket.session.id()) => result,
        };
        match result {
            Ok(Granted { token, mode }) => {
                let session = ticket.settle();
                Ok(ClaimGuard::new(self.client, self.claim, token, mode, session, own))
            }
            Err(error) => {
                ticket.withdraw().await;
                Err(error)
            }
        }
    }

    async fn open_session(&self) -> Result<Session, Error> {
        let mut open = self.client.session();
        if let Some(ttl) = self.ttl {
            open = open.ttl(ttl);
        }
        let name = self.owner.clone().unwrap_or_else(|| self.claim.to_string());
        open.name(name).open().await
    }

    /// Ask step by step until granted or out of time. The place belongs to the session, so each step may go
    /// to another node, and a repeated step is answered with the hold it already got.
    async fn wait_in_line(&self, session: SessionId) -> Result<Granted, Error> {
        let end = Instant::now().checked_add(self.wait);
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()));
            let mut call = Call::change(Method::POST, self.claim.path(self.claim.family.take))
                .query("session", session.to_string())
                .waiting(left.min(STEP))
                .flag("keep", !self.wait.is_zero())
                .query_some("owner", self.owner.as_deref());
            for (name, what) in &self.asked {
                call = call.query(name, what);
            }
            if let Some(value) = &self.value {
                call = call.body(value.bytes.clone(), &value.content_type);
            }
            let answer = self.client.send(call).await?;
            if answer.status != StatusCode::ACCEPTED {
                return answer.json();
            }
            let waiting: Waiting = answer.json()?;
            if let Some(tell) = &self.on_waiting {
                tell(&waiting);
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Err(Error::NotAcquired { name: self.claim.name.clone(), position: waiting.position });
            }
        }
    }
}

impl std::fmt::Debug for Acquire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Acquire({:?})", self.claim)
    }
}

/// A place in line, given up when dropped without having been settled.
struct Ticket {
    client: Coracle,
    claim: Claim,
    session: Session,
    own: bool,
    settled: bool,
}

impl Ticket {
    fn settle(mut self) -> Session {
        self.settled = true;
        self.session.clone()
    }

    async fn withdraw(mut self) {
        self.settled = true;
        if self.own {
            let _ = self.session.clone().close().await;
        } else {
            let _ = self.client.send(self.claim.release(self.session.id())).await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A session of our own is closed by its own drop, which gives up the place as well.
        if self.settled || self.own {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, call) = (self.client.clone(), self.claim.release(self.session.id()));
            runtime.spawn(async move { client.send(call).await });
        }
    }
}

/// Calls about locks of anybody. All of them: see [`Error`] for what can go wrong.
#[derive(Debug, Clone)]
pub struct Locks {
    client: Coracle,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl Locks {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client }
    }

    /// All locks that somebody holds or waits for, or that are configured.
    pub async fn list(&self) -> Result<Vec<Lock>, Error> {
        all_pages(&self.client, &Call::get("/v1/locks")).await
    }

    /// Holders, then waiters in the order they will be granted.
    pub async fn show(&self, name: &str) -> Result<Lock, Error> {
        self.client.ask(Call::get(lock_path(name))).await
    }

    /// End every hold; the line moves up. The broken tokens are dead at once.
    pub async fn break_holds(&self, name: &str, reason: &str) -> Result<Broken, Error> {
        self.client.ask(Call::change(Method::DELETE, lock_path(name)).query("reason", reason)).await
    }

    /// Hand the hold of one session to another, ahead of the line.
    pub async fn transfer(&self, name: &str, from: SessionId, to: SessionId) -> Result<Renewed, Error> {
        let call = Call::change(Method::POST, lock_path(name) + "/transfer")
            .query("session", from.to_string())
            .query("to", to.to_string());
        self.client.ask(call).await
    }

    /// End the hold of a session, or its place in line.
    pub async fn release(&self, name: &str, session: SessionId) -> Result<Released, Error> {
        self.client.ask(Claim::on(&LOCKS, name).release(session)).await
    }

    pub async fn configure(&self, name: &str, config: &LockConfig) -> Result<Lock, Error> {
        self.client.ask(Call::change(Method::PUT, lock_path(name)).json(config)?).await
    }

    /// Several locks at once: all or none, in one entry, for a session that is kept alive by its owner.
    pub async fn acquire_all(
        &self,
        session: SessionId,
        locks: &AcquireMany,
        wait: Duration,
    ) -> Result<AcquiredMany, Error> {
        let call =
            Call::change(Method::POST, "/v1/locks").query("session", session.to_string()).waiting(wait);
        self.client.ask(call.json(locks)?).await
    }

    /// Follow one lock.
    pub fn watch(&self, name: &str) -> WatchBuilder<Lock> {
        WatchBuilder::new(self.client.clone(), Call::get(lock_path(name)))
    }
}

pub(crate) fn lock_path(name: &str) -> String {
    format!("/v1/locks/{}", escape(name.as_bytes()))
}
