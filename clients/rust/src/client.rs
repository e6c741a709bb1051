//! The client itself: endpoints, settings, one method for each family.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use coracle_api::{self as api, Event, Limits, Version};
use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::lock::{Claim, LOCKS};
use crate::semaphore::SEMAPHORES;
use crate::transport::{Answer, Shared, Transport};
use crate::{
    Acquire, All, Barrier, Campaign, ClusterApi, Counter, Elections, Error, FencedResource, Group, Kv, Latch,
    Locks, OpenSession, Queue, Semaphores, Service, Services, Sessions, TlsOptions, Topic, TxnBuilder,
    WatchBuilder,
};

/// A client of one cluster. Cheap to clone; all clones share connections and the endpoint in use.
#[derive(Debug, Clone)]
pub struct Coracle {
    pub(crate) transport: Shared,
    deadline: Duration,
}

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct Builder {
    endpoints: Vec<String>,
    tls: TlsOptions,
    bearer: Option<String>,
    deadline: Duration,
    attempt_timeout: Duration,
    show_only: bool,
}

impl Coracle {
    /// A client of the cluster that these base URLs (`http://host:port`) belong to, once one of them has
    /// answered.
    ///
    /// # Errors
    /// A URL is malformed, or no node answers within 30 s.
    pub async fn connect<I>(endpoints: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let client = Self::builder().endpoints(endpoints).build()?;
        client.version().await?;
        Ok(client)
    }

    /// A client with other settings than the defaults; it does not connect before it is used.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            endpoints: Vec::new(),
            tls: TlsOptions::default(),
            bearer: None,
            deadline: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(6),
            show_only: false,
        }
    }

    /// The same client with another deadline for each call, retries included. Waits come on top.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Base URL of the endpoint in use.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        let current = self.transport.current.load(std::sync::atomic::Ordering::Relaxed);
        &self.transport.endpoints[current]
    }

    /// Keys and values.
    #[must_use]
    pub fn kv(&self) -> Kv {
        Kv::new(self.clone())
    }

    /// A transaction, to be filled and sent.
    pub fn txn(&self) -> TxnBuilder {
        TxnBuilder::new(self.clone())
    }

    /// A session to be opened; it is renewed in the background.
    pub fn session(&self) -> OpenSession {
        OpenSession::new(self.clone())
    }

    /// Sessions of everybody: list, show, close.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// A lock to be acquired.
    pub fn lock(&self, name: impl Into<String>) -> Acquire {
        Acquire::new(self.clone(), Claim::on(&LOCKS, name))
    }

    /// Permits of a semaphore to be acquired.
    pub fn semaphore(&self, name: impl Into<String>) -> Acquire {
        Acquire::new(self.clone(), Claim::on(&SEMAPHORES, name))
    }

    /// Semaphores of everybody.
    #[must_use]
    pub fn semaphores(&self) -> Semaphores {
        Semaphores::new(self.clone())
    }

    /// An election: campaign, observe.
    pub fn election(&self, name: impl Into<String>) -> Campaign {
        Campaign::new(self.clone(), name.into())
    }

    /// Elections of everybody.
    #[must_use]
    pub fn elections(&self) -> Elections {
        Elections::new(self.clone())
    }

    /// Locks of everybody: list, show, break, transfer.
    #[must_use]
    pub fn locks(&self) -> Locks {
        Locks::new(self.clone())
    }

    /// A barrier.
    #[must_use]
    pub fn barrier(&self, name: impl Into<String>) -> Barrier {
        Barrier::new(self.clone(), name.into())
    }

    /// Barriers of everybody.
    #[must_use]
    pub fn barriers(&self) -> All<api::Barrier> {
        All::new(self.clone(), "/v1/barriers")
    }

    /// A latch.
    #[must_use]
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        Latch::new(self.clone(), name.into())
    }

    /// Latches of everybody.
    #[must_use]
    pub fn latches(&self) -> All<api::Latch> {
        All::new(self.clone(), "/v1/latches")
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        Counter::new(self.clone(), name)
    }

    /// Counters of everybody.
    #[must_use]
    pub fn counters(&self) -> All<api::Counter> {
        All::new(self.clone(), "/v1/counters")
    }

    /// A group.
    #[must_use]
    pub fn group(&self, name: &str) -> Group {
        Group::new(self.clone(), name)
    }

    /// Groups of everybody; members only by [`Coracle::group`].
    #[must_use]
    pub fn groups(&self) -> All<api::Group> {
        All::new(self.clone(), "/v1/groups")
    }

    /// A resource of yours that has its tokens checked here.
    #[must_use]
    pub fn fence(&self, resource: &str) -> FencedResource {
        FencedResource::new(self.clone(), resource)
    }

    /// Resources of everybody.
    #[must_use]
    pub fn fences(&self) -> All<api::Fence> {
        All::new(self.clone(), "/v1/fences")
    }

    /// A queue.
    pub fn queue(&self, name: impl Into<String>) -> Queue {
        Queue::new(self.clone(), name.into())
    }

    /// Queues of everybody.
    #[must_use]
    pub fn queues(&self) -> All<api::queue::Queue> {
        All::new(self.clone(), "/v1/queues")
    }

    /// A service: register an instance, pick one, follow them.
    #[must_use]
    pub fn service(&self, name: impl Into<String>) -> Service {
        Service::new(self.clone(), name.into())
    }

    /// Services of everybody.
    #[must_use]
    pub fn services(&self) -> Services {
        Services::new(self.clone())
    }

    /// A topic, or a pattern over topics.
    pub fn topic(&self, name: impl Into<String>) -> Topic {
        Topic::new(self.clone(), name.into())
    }

    /// Topics of everybody, and patterns that have subscriptions.
    #[must_use]
    pub fn topics(&self) -> All<api::Topic> {
        All::new(self.clone(), "/v1/topics")
    }

    /// Changes of all families on one stream. Without a family: of all.
    pub fn events(&self, family: Option<&str>) -> WatchBuilder<serde_json::Value> {
        let call = Call::get("/v1/events").query_some("family", family);
        WatchBuilder::new(self.clone(), call)
    }

    /// The cluster and its members.
    #[must_use]
    pub fn cluster(&self) -> ClusterApi {
        ClusterApi::new(self.clone())
    }

    /// What the server allows.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn limits(&self) -> Result<Limits, Error> {
        self.ask(Call::get("/v1/limits")).await
    }

    /// Version of the answering node.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn version(&self) -> Result<Version, Error> {
        self.ask(Call::get("/version")).await
    }

    /// Whether a node is ready to serve: the lines of its checks.
    ///
    /// # Errors
    /// `not_ready` and the like; see [`Error`].
    pub async fn ready(&self) -> Result<String, Error> {
        let answer = self.send(Call::get("/readyz").query("verbose", "true")).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    pub(crate) async fn send(&self, call: Call) -> Result<Answer, Error> {
        self.transport.send(&call, self.deadline).await
    }

    pub(crate) async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        self.send(call).await?.json()
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }
}

impl Builder {
    /// Add base URLs such as `http://127.0.0.1:7070`; a comma separates several in one text.
    #[must_use]
    pub fn endpoints<I>(mut self, endpoints: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        for endpoint in endpoints {
            let text: String = endpoint.into();
            self.endpoints
                .extend(text.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()));
        }
        self
    }

    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = tls;
        self
    }

    /// Send `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    /// Time for a call with all its retries; 30 s if not set. Waits come on top.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Time for one attempt, after which the next node is tried; 6 s if not set. Waits come on top.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Make no calls: each returns [`Error::Shown`] with the curl command that would do the same.
    #[must_use]
    pub fn show_only(mut self, show_only: bool) -> Self {
        self.show_only = show_only;
        self
    }

    /// # Errors
    /// A URL is malformed, there is none, or the TLS files cannot be used.
    pub fn build(self) -> Result<Coracle, Error> {
        if self.endpoints.is_empty() {
            return Err(Error::Invalid("at least one endpoint is needed".to_owned()));
        }
        let endpoints = self.endpoints.iter().map(|text| base_url(text)).collect::<Result<Vec<_>, _>>()?;
        let https = endpoints.iter().any(|url| url.starts_with("https:"));
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::tls::config(&self.tls, https)?)
            .connect_timeout(self.attempt_timeout.min(Duration::from_secs(3)))
            .redirect(reqwest::redirect::Policy::none())
            // Retrying is ours: only here is it known what is idempotent.
            .retry(reqwest::retry::never())
            // A proxy between a service and its coordination would be one more thing to fail.
            .no_proxy()
            .http2_keep_alive_interval(Duration::from_secs(5))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .user_agent(concat!("coracle-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Tls(error.to_string()))?;
        let transport = Transport {
            http,
            endpoints,
            current: AtomicUsize::new(0),
            attempt_timeout: self.attempt_timeout,
            bearer: self.bearer,
            show_only: self.show_only,
        };
        Ok(Coracle { transport: Arc::new(transport), deadline: self.deadline })
    }
}

/// `http://host:port` without a slash at the end; `host:port` alone means http.
fn base_url(text: &str) -> Result<String, Error> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let invalid = |reason: &dyn std::fmt::Display| Error::Invalid(format!("{reason} url={text:?}"));
    let url = url::Url::parse(&with_scheme).map_err(|error| invalid(&error))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid(&"not a http or https URL"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(invalid(&"only scheme, host, port and path are allowed"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Metadata as the API takes it.
pub(crate) type Meta = BTreeMap<String, String>;

/// Changes as streams tell them.
pub(crate) type Events = Vec<Event>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        assert_eq!(base_url("127.0.0.1:7070").unwrap(), "http://127.0.0.1:7070");
        assert_eq!(base_url("https://h:1/sub/").unwrap(), "https://h:1/sub");
        for bad in ["", "ftp://h", "http://", "http://u@h", "http://h/?q", "not a url"] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        let client = Coracle::builder().endpoints(["a:1, b:2", "c:3"]).build().unwrap();
        assert_eq!(client.transport.endpoints, ["http://a:1", "http://b:2", "http://c:3"]);
        assert!(Coracle::builder().build().is_err());
    }
}
