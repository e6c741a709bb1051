//! Latches: count down, and wait until all have.

use std::time::{Duration, Instant};

use coracle_api as api;
use reqwest::{Method, StatusCode};

use crate::call::Call;
use crate::escape::escape;
use crate::lock::STEP;
use crate::{Coracle, Error, WatchBuilder};

/// A latch. For what can go wrong see [`Error`].
#[derive(Debug, Clone)]
pub struct Latch {
    client: Coracle,
    name: String,
    path: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl Latch {
    pub(crate) fn new(client: Coracle, name: String) -> Self {
        let path = format!("/v1/latches/{}", escape(name.as_bytes()));
        Self { client, name, path }
    }

    /// Make it, to open when so many have counted down. Made already as it is, nothing happens.
    pub async fn create(&self, count: u64) -> Result<api::Latch, Error> {
        self.make(api::LatchConfig { count: Some(count), members: Vec::new() }).await
    }

    /// Make it, to open when all of these have counted down; nobody else can.
    pub async fn create_for<I>(&self, members: I) -> Result<api::Latch, Error>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let members = members.into_iter().map(Into::into).collect();
        self.make(api::LatchConfig { count: None, members }).await
    }

    async fn make(&self, config: api::LatchConfig) -> Result<api::Latch, Error> {
        self.client.ask(Call::change(Method::PUT, &self.path).json(&config)?).await
    }

    /// Count down; the same id counts once.
    pub async fn count_down(&self, id: &str) -> Result<api::CountedDown, Error> {
        let call = Call::change(Method::POST, format!("{}/count_down", self.path)).query("id", id);
        self.client.ask(call).await
    }

    /// Wait until it is open; also for one that is not made yet. [`Duration::MAX`] waits without end.
    ///
    /// # Errors
    /// `latch_closed` or `latch_not_found` when the time is over.
    pub async fn wait(&self, wait: Duration) -> Result<api::Latch, Error> {
        let end = Instant::now().checked_add(wait);
        loop {
            let left = end.map_or(STEP, |end| end.saturating_duration_since(Instant::now()));
            let last = left <= STEP && end.is_some();
            let call = Call::change(Method::POST, format!("{}/await", self.path))
                .waiting(left.min(STEP))
                .flag("keep", !last);
            match self.client.send(call).await {
                Ok(answer) if answer.status == StatusCode::ACCEPTED => {}
                Ok(answer) => return answer.json(),
                Err(error) if !last && error.code() == Some(api::Code::LatchNotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub async fn show(&self) -> Result<api::Latch, Error> {
        self.client.ask(Call::get(&self.path)).await
    }

    pub async fn delete(&self) -> Result<api::Deleted, Error> {
        self.client.ask(Call::change(Method::DELETE, &self.path)).await
    }

    /// Follow it.
    pub fn watch(&self) -> WatchBuilder<api::Latch> {
        WatchBuilder::new(self.client.clone(), Call::get(&self.path))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
