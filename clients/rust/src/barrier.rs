//! Barriers: gates to wait at, and meetings to enter and leave.

use std::time::{Duration, Instant};

use coracle_api as api;
use coracle_api::SessionId;
use reqwest::{Method, StatusCode};

use crate::call::Call;
use crate::escape::escape;
use crate::lock::STEP;
use crate::{Coracle, Error, Session, WatchBuilder};

/// A barrier. For what can go wrong see [`Error`].
#[derive(Debug, Clone)]
pub struct Barrier {
    client: Coracle,
    name: String,
    path: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl Barrier {
    pub(crate) fn new(client: Coracle, name: String) -> Self {
        let path = format!("/v1/barriers/{}", escape(name.as_bytes()));
        Self { client, name, path }
    }

    /// Make it. Made already as it is, nothing happens.
    pub async fn create(&self, config: &api::BarrierConfig) -> Result<api::Barrier, Error> {
        self.client.ask(Call::change(Method::PUT, &self.path).json(config)?).await
    }

    /// Who is there, and who is missing.
    pub async fn show(&self) -> Result<api::Barrier, Error> {
        self.client.ask(Call::get(&self.path)).await
    }

    pub async fn delete(&self) -> Result<api::Deleted, Error> {
        self.client.ask(Call::change(Method::DELETE, &self.path)).await
    }

    /// Come under this name, and wait for the others. With [`Enter::session`] or [`Enter::ttl`] the arrival lives with
    /// that; without, it stays until its generation is over.
    pub fn enter(&self, id: impl Into<String>) -> Enter {
        let (session, ttl, generation) = (None, None, None);
        Enter { barrier: self.clone(), id: id.into(), session, ttl, wait: Duration::ZERO, generation }
    }

    /// Be out of a double barrier, and wait until all are. `Ok` with [`api::Leaving::inside`] above 0: the time is over and
    /// others are still inside.
    pub async fn leave(&self, id: &str, wait: Duration) -> Result<api::Leaving, Error> {
        let end = Instant::now().checked_add(wait);
        let mut generation = None;
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()));
            let call = self.leave_call(id, None).waiting(left.min(STEP)).query_some("generation", generation);
            let answer = self.client.send(call).await?;
            let leaving: api::Leaving = answer.json()?;
            if answer.status != StatusCode::ACCEPTED || end.is_some_and(|end| Instant::now() >= end) {
                return Ok(leaving);
            }
            generation = leaving.generation;
        }
    }

    /// Open a gate; one that is not there is made.
    pub async fn open(&self) -> Result<api::Gate, Error> {
        self.client.ask(Call::change(Method::POST, format!("{}/open", self.path))).await
    }

    /// Close a gate; one that is not there is made.
    pub async fn close(&self) -> Result<api::Gate, Error> {
        self.client.ask(Call::change(Method::POST, format!("{}/close", self.path))).await
    }

    /// Wait until a gate opens; an opening between two requests is not missed. [`Duration::MAX`] waits without end.
    ///
    /// # Errors
    /// `barrier_waiting` or `barrier_not_found` when the time is over.
    pub async fn wait_open(&self, wait: Duration) -> Result<api::Gate, Error> {
        let end = Instant::now().checked_add(wait);
        let mut after = None;
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()));
            let last = left <= STEP && end.is_some();
            let call = Call::change(Method::POST, format!("{}/await", self.path))
                .waiting(left.min(STEP))
                .flag("keep", !last)
                .query_some("after", after);
            match self.client.send(call).await {
                Ok(answer) if answer.status == StatusCode::ACCEPTED => {
                    after.get_or_insert(answer.json::<api::Gate>()?.revision);
                }
                Ok(answer) => return answer.json(),
                Err(error) if !last && error.code() == Some(api::Code::BarrierNotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Follow it.
    pub fn watch(&self) -> WatchBuilder<api::Barrier> {
        WatchBuilder::new(self.client.clone(), Call::get(&self.path))
    }

    fn leave_call(&self, id: &str, session: Option<SessionId>) -> Call {
        Call::change(Method::POST, format!("{}/leave", self.path))
            .query("id", id)
            .query_some("session", session)
    }
}

/// An arrival to be made.
#[derive(Debug, Clone)]
#[must_use = "one comes by wait_for_all()"]
pub struct Enter {
    barrier: Barrier,
    id: String,
    session: Option<SessionId>,
    ttl: Option<Duration>,
    wait: Duration,
    generation: Option<u64>,
}

impl Enter {
    /// The arrival lives with this session: if it is lost, a cyclic barrier breaks for the others.
    pub fn session(self, session: &Session) -> Self {
        self.session_id(session.id())
    }

    /// The arrival lives with this session.
    pub fn session_id(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// The arrival lives with a session of its own, so long after the last request. Whoever is inside a double barrier is out
    /// after that.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long to wait. Zero, the default, comes only if it is the last one. [`Duration::MAX`] waits without end.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Come, and wait until all have. Dropping the future steps out, best effort; that breaks a cyclic barrier for the
    /// others, as does a wait that runs out.
    ///
    /// # Errors
    /// `barrier_broken` if this time does not come to pass, `barrier_waiting` without a wait, [`Error::NotAcquired`]
    /// after one; see [`Error`].
    pub async fn wait_for_all(mut self) -> Result<api::Entered, Error> {
        let end = Instant::now().checked_add(self.wait);
        let mut step_out = StepOut { enter: self.clone(), armed: !self.wait.is_zero() };
        let result = self.until(end).await;
        step_out.armed = false;
        if let Err(Error::NotAcquired { .. }) = result {
            let call = self.barrier.leave_call(&self.id, self.session);
            // It may have come to pass in the last moment; then there is nothing to step out of.
            let _ = self.barrier.client.send(call).await;
        }
        result
    }

    async fn until(&mut self, end: Option<Instant>) -> Result<api::Entered, Error> {
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()));
            let call = Call::change(Method::POST, format!("{}/enter", self.barrier.path))
                .query("id", &self.id)
                .query_some("session", self.session)
                .query_some("ttl", self.ttl.map(api::Span::from))
                .waiting(left.min(STEP))
                .flag("keep", !self.wait.is_zero())
                .query_some("generation", self.generation);
            let answer = self.barrier.client.send(call).await?;
            if answer.status != StatusCode::ACCEPTED {
                return answer.json();
            }
            let entering: api::Entering = answer.json()?;
            self.generation = entering.generation;
            if end.is_some_and(|end| Instant::now() >= end) {
                let name = self.barrier.name.clone();
                return Err(Error::NotAcquired { name, position: entering.position });
            }
        }
    }
}

/// Steps out when the wait is dropped.
struct StepOut {
    enter: Enter,
    armed: bool,
}

impl Drop for StepOut {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let Enter { barrier, id, session, .. } = self.enter.clone();
            runtime.spawn(async move {
                let call = barrier.leave_call(&id, session);
                barrier.client.send(call).await
            });
        }
    }
}
