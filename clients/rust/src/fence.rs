//! Fences: check a token for a store that cannot do so itself.

use coracle_api as api;
use reqwest::Method;

use crate::call::Call;
use crate::escape::escape;
use crate::{Coracle, Error, WatchBuilder};

/// A resource that remembers the newest token it has seen. For what can go wrong see [`Error`].
#[derive(Debug, Clone)]
pub struct FencedResource {
    client: Coracle,
    path: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl FencedResource {
    pub(crate) fn new(client: Coracle, name: &str) -> Self {
        Self { client, path: format!("/v1/fences/{}", escape(name.as_bytes())) }
    }

    /// Let the token pass unless a newer one was seen: then it is 412 `fence_stale`, and whoever has it must not write.
    pub async fn check(&self, token: u64) -> Result<api::FencePassed, Error> {
        let call =
            Call::change(Method::POST, format!("{}/check", self.path)).query("token", token.to_string());
        self.client.ask(call).await
    }

    /// The newest token it has seen; 0 if it was never checked.
    pub async fn show(&self) -> Result<api::Fence, Error> {
        self.client.ask(Call::get(&self.path)).await
    }

    /// Forget what it has seen.
    pub async fn delete(&self) -> Result<api::Deleted, Error> {
        self.client.ask(Call::change(Method::DELETE, &self.path)).await
    }

    /// Follow it.
    pub fn watch(&self) -> WatchBuilder<api::Fence> {
        WatchBuilder::new(self.client.clone(), Call::get(&self.path))
    }
}
