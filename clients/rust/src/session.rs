//! Sessions: opening one to keep, and calls about those of others.

use std::time::Duration;

use coracle_api::{
    OnExpire, Page, Progress, Session as SessionView, SessionClosed, SessionCreate, SessionCreated,
    SessionId, SessionRenew, SessionRenewed, Span,
};
use reqwest::Method;

use crate::call::Call;
use crate::client::Meta;
use crate::keeper::close_call;
use crate::{Coracle, Error, Session, WatchBuilder};

/// A session to be opened.
#[derive(Debug, Clone)]
#[must_use = "a session is opened by open()"]
pub struct OpenSession {
    client: Coracle,
    create: SessionCreate,
}

impl OpenSession {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client, create: SessionCreate::default() }
    }

    /// How long it outlives its last renewal; the server's default is 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.create.ttl = Some(ttl.into());
        self
    }

    /// Who, for people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.create.name = Some(name.into());
        self
    }

    pub fn meta(mut self, meta: Meta) -> Self {
        self.create.meta = meta;
        self
    }

    /// What its end does to the keys that live with it.
    pub fn on_expire(mut self, on_expire: OnExpire) -> Self {
        self.create.on_expire = Some(on_expire);
        self
    }

    /// How long a lock stays closed after this session expired while holding it.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.create.lock_delay = Some(delay.into());
        self
    }

    /// It counts as stalled if its progress ([`Session::report`]) does not move for so long.
    pub fn stall_after(mut self, patience: Duration) -> Self {
        self.create.stall_after = Some(patience.into());
        self
    }

    /// Open it and keep it renewed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(self) -> Result<Session, Error> {
        let call = Call::change(Method::POST, "/v1/sessions").json(&self.create)?;
        let answer = self.client.send(call).await?;
        let created: SessionCreated = answer.json()?;
        let (ttl, valid_for) = (created.ttl.as_duration(), created.valid_for.as_duration());
        Ok(Session::keep(self.client, created.id, ttl, valid_for, answer.sent))
    }
}

/// Calls about sessions of anybody. All of them: see [`Error`] for what can go wrong.
#[derive(Debug, Clone)]
pub struct Sessions {
    client: Coracle,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl Sessions {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client }
    }

    /// All sessions.
    pub async fn list(&self) -> Result<Vec<SessionView>, Error> {
        all_pages(&self.client, &Call::get("/v1/sessions")).await
    }

    pub async fn show(&self, id: SessionId) -> Result<SessionView, Error> {
        self.client.ask(Call::get(format!("/v1/sessions/{id}"))).await
    }

    /// Close a session: everything it holds is released.
    pub async fn close(&self, id: SessionId) -> Result<SessionClosed, Error> {
        self.client.ask(close_call(id)).await
    }

    /// Renew a session once.
    pub async fn renew(&self, id: SessionId) -> Result<SessionRenewed, Error> {
        self.client.ask(Call::new(Method::POST, format!("/v1/sessions/{id}/renew"))).await
    }

    /// Renew a session once and say how far its work has come.
    pub async fn report(&self, id: SessionId, progress: Progress) -> Result<SessionRenewed, Error> {
        let body = SessionRenew { progress: Some(progress), meta: None };
        self.client.ask(Call::change(Method::POST, format!("/v1/sessions/{id}/renew")).json(&body)?).await
    }

    /// Create a session that nobody renews until somebody does.
    pub async fn create(&self, create: &SessionCreate) -> Result<SessionCreated, Error> {
        self.client.ask(Call::change(Method::POST, "/v1/sessions").json(create)?).await
    }

    /// Take over a living session and keep it renewed.
    pub async fn attach(&self, id: SessionId) -> Result<Session, Error> {
        let ttl: Span = self.show(id).await?.ttl;
        let answer = self.client.send(Call::new(Method::POST, format!("/v1/sessions/{id}/renew"))).await?;
        let renewed: SessionRenewed = answer.json()?;
        let valid_for = renewed.valid_for.as_duration();
        Ok(Session::keep(self.client.clone(), id, ttl.as_duration(), valid_for, answer.sent))
    }

    /// Follow one session, and what comes to hang on it and leaves it.
    pub fn watch_one(&self, id: SessionId) -> WatchBuilder<SessionView> {
        WatchBuilder::new(self.client.clone(), Call::get(format!("/v1/sessions/{id}")))
    }

    /// Follow all sessions.
    pub fn watch(&self) -> WatchBuilder<SessionView> {
        WatchBuilder::new(self.client.clone(), Call::get("/v1/sessions"))
    }
}

/// The items of all pages of a list.
pub(crate) async fn all_pages<T: serde::de::DeserializeOwned>(
    client: &Coracle,
    call: &Call,
) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let page: Page<T> = client.ask(call.clone().query_some("cursor", cursor)).await?;
        items.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}
