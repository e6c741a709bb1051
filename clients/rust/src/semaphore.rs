//! Semaphores: calls about those of everybody. Permits are acquired as locks are.

use coracle_api::{PermitsBroken, Renewed, Semaphore, SemaphoreConfig, SessionId};
use reqwest::Method;

use crate::call::Call;
use crate::lock::{Claim, Family};
use crate::session::all_pages;
use crate::{Coracle, Error, WatchBuilder};

pub(crate) static SEMAPHORES: Family = Family { name: "semaphores", take: "acquire", give: "release" };

/// Calls about semaphores of anybody. All of them: see [`Error`] for what can go wrong.
#[derive(Debug, Clone)]
pub struct Semaphores {
    client: Coracle,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl Semaphores {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client }
    }

    pub async fn list(&self) -> Result<Vec<Semaphore>, Error> {
        all_pages(&self.client, &Call::get("/v1/semaphores")).await
    }

    /// The limit, who holds permits, and who waits, in order.
    pub async fn show(&self, name: &str) -> Result<Semaphore, Error> {
        self.client.ask(Call::get(path(name, ""))).await
    }

    /// Set the limit. A lower one takes nothing away: nothing is granted until those who hold fit under it.
    pub async fn set_limit(&self, name: &str, limit: u64) -> Result<Semaphore, Error> {
        self.client.ask(Call::change(Method::PUT, path(name, "")).json(&SemaphoreConfig { limit })?).await
    }

    /// End every hold; the tokens are dead at once.
    pub async fn break_holds(&self, name: &str, reason: &str) -> Result<PermitsBroken, Error> {
        self.client.ask(Call::change(Method::DELETE, path(name, "")).query("reason", reason)).await
    }

    /// Hand the permits of one session to another.
    pub async fn transfer(&self, name: &str, from: SessionId, to: SessionId) -> Result<Renewed, Error> {
        let call = Call::change(Method::POST, path(name, "transfer"));
        self.client.ask(call.query("session", from.to_string()).query("to", to.to_string())).await
    }

    /// Follow one semaphore.
    pub fn watch(&self, name: &str) -> WatchBuilder<Semaphore> {
        WatchBuilder::new(self.client.clone(), Call::get(path(name, "")))
    }
}

fn path(name: &str, verb: &str) -> String {
    Claim::on(&SEMAPHORES, name).path(verb)
}
