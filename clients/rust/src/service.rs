//! Services: who can be called, and whom to call next.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::time::Duration;

use coracle_api::{
    Deleted, Instance, Picked, Registration as Said, Service as ServiceView, ServiceConfig, ServiceInstances,
    Span,
};
use reqwest::Method;

use crate::call::Call;
use crate::escape::escape;
use crate::kv::Pending;
use crate::registration::{Register, Registration};
use crate::session::all_pages;
use crate::{Coracle, Error, Update, WatchBuilder};

/// One service. All calls: see [`Error`] for what can go wrong.
#[derive(Debug, Clone)]
pub struct Service {
    client: Coracle,
    name: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl Service {
    pub(crate) fn new(client: Coracle, name: String) -> Self {
        Self { client, name }
    }

    /// Register an instance and keep it registered: it is renewed in the background, and registered again after a loss.
    /// [`crate::Instance::new`] says what it is.
    pub async fn register(&self, instance: crate::Instance) -> Result<Registration, Error> {
        Register::new(self.client.clone(), self.name.clone(), instance).send().await
    }

    /// Say what an instance is, once: without a ttl it stays until it is deregistered.
    pub async fn put(&self, id: &str, said: &Said, ttl: Option<Duration>) -> Result<Instance, Error> {
        let call = Call::change(Method::PUT, instance_path(&self.name, id)).json(said)?;
        let call = match ttl {
            Some(ttl) => call.query("ttl", Span::from(ttl).to_string()),
            None => call.flag("permanent", true),
        };
        self.client.ask(call).await
    }

    /// An instance to call: `c.service("web").pick().await?`.
    pub fn pick(&self) -> Pick {
        Pick { client: self.client.clone(), call: Call::get(service_path(&self.name) + "/pick") }
    }

    /// Tell how a call of an instance went: errors in a row eject it, for all callers.
    pub async fn report(&self, id: &str, well: bool) -> Result<Instance, Error> {
        let call = Call::change(Method::POST, instance_path(&self.name, id) + "/report");
        self.client.ask(call.query("result", if well { "ok" } else { "error" })).await
    }

    /// All instances, whatever their status.
    pub async fn show(&self) -> Result<ServiceInstances, Error> {
        self.client.ask(Call::get(service_path(&self.name))).await
    }

    /// The instances to call: healthy, or all that there are if `degraded`.
    pub async fn healthy(&self) -> Result<ServiceInstances, Error> {
        self.client.ask(Call::get(service_path(&self.name)).flag("healthy", true)).await
    }

    /// Wait until `min` instances are healthy; false if they are not in time.
    pub async fn wait_healthy(&self, min: u64, wait: Duration) -> Result<bool, Error> {
        let call = Call::get(service_path(&self.name)).query("min", min.to_string()).waiting(wait);
        Ok(self.client.send(call).await?.status == reqwest::StatusCode::OK)
    }

    pub async fn instance(&self, id: &str) -> Result<Instance, Error> {
        self.client.ask(Call::get(instance_path(&self.name, id))).await
    }

    /// Pick it no more; remove it when the time is over.
    pub async fn drain(&self, id: &str, deadline: Duration) -> Result<Instance, Error> {
        let call = Call::change(Method::POST, instance_path(&self.name, id) + "/drain");
        self.client.ask(call.query("deadline", Span::from(deadline).to_string())).await
    }

    pub async fn deregister(&self, id: &str) -> Result<Deleted, Error> {
        self.client.ask(Call::change(Method::DELETE, instance_path(&self.name, id))).await
    }

    /// Say how the service is run.
    pub async fn configure(&self, config: &ServiceConfig) -> Result<ServiceView, Error> {
        self.client.ask(Call::change(Method::PUT, service_path(&self.name)).json(config)?).await
    }

    /// Back to the default settings.
    pub async fn reset(&self) -> Result<Deleted, Error> {
        self.client.ask(Call::change(Method::DELETE, service_path(&self.name))).await
    }

    /// Follow the instances. [`Seen`] keeps count of them.
    pub fn watch(&self) -> WatchBuilder<Instance> {
        WatchBuilder::new(self.client.clone(), Call::get(service_path(&self.name)))
    }
}

/// Services of everybody.
#[derive(Debug, Clone)]
pub struct Services {
    client: Coracle,
}

impl Services {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client }
    }

    /// All services with their numbers of instances.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self) -> Result<Vec<ServiceView>, Error> {
        all_pages(&self.client, &Call::get("/v1/services")).await
    }
}

/// A choice to be made; `.await` answers one instance, [`Pick::several`] more.
#[derive(Debug, Clone)]
#[must_use = "a pick is made by await, or by several()"]
pub struct Pick {
    client: Coracle,
    call: Call,
}

impl Pick {
    fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.call = self.call.query(name, value);
        self
    }

    pub fn random(self) -> Self {
        self.with("strategy", "random")
    }

    /// In proportion to the weights.
    pub fn weighted(self) -> Self {
        self.with("strategy", "weighted")
    }

    /// The less loaded of two.
    pub fn least(self) -> Self {
        self.with("strategy", "least")
    }

    /// The same instance for the same key.
    pub fn sticky(self, key: &str) -> Self {
        self.with("strategy", "sticky").with("key", key)
    }

    /// From this zone, if there is one.
    pub fn zone(self, zone: &str) -> Self {
        self.with("zone", zone)
    }

    /// Only one with this tag.
    pub fn tag(self, tag: &str) -> Self {
        self.with("tag", tag)
    }

    /// Not this one, which has just failed.
    pub fn exclude(self, id: &str) -> Self {
        self.with("exclude", id)
    }

    /// What the answering node knows, without asking the leader.
    pub fn stale(self) -> Self {
        self.with("consistency", "stale")
    }

    /// Wait for somebody to be there.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.call = self.call.waiting(wait);
        self
    }

    /// Up to `count` different instances.
    ///
    /// # Errors
    /// `no_healthy_instance`; see [`Error`].
    pub async fn several(self, count: u64) -> Result<Picked, Error> {
        self.client.ask(self.call.query("n", count.to_string())).await
    }
}

impl IntoFuture for Pick {
    type Output = Result<Instance, Error>;
    type IntoFuture = Pending<Instance>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let picked: Picked = self.client.ask(self.call).await?;
            picked.items.into_iter().next().ok_or_else(|| Error::Protocol("picked nobody".to_owned()))
        })
    }
}

/// The instances that a watch shows, kept up to date by its updates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    instances: BTreeMap<String, Instance>,
    /// Of a snapshot whose last chunk has not come.
    arriving: Option<BTreeMap<String, Instance>>,
}

impl Seen {
    /// In the order of their ids.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> + use<'_> {
        self.instances.values()
    }

    /// Take in what the watch tells; true if there is something else to be seen now.
    ///
    /// # Errors
    /// [`Error::Protocol`] if an event carries no instance.
    pub fn update(&mut self, update: &Update<Instance>) -> Result<bool, Error> {
        match update {
            Update::Snapshot { items, first, more, .. } => {
                let mut all = self.arriving.take().filter(|_| !first).unwrap_or_default();
                all.extend(items.iter().map(|instance| (instance.id.clone(), instance.clone())));
                if *more {
                    self.arriving = Some(all);
                    return Ok(false);
                }
                let changed = all != self.instances;
                self.instances = all;
                Ok(changed)
            }
            Update::Change { events, .. } => {
                let mut changed = false;
                for event in events {
                    let Some(id) = &event.item else { continue };
                    let now = match &event.value {
                        Some(value) => {
                            let instance: Instance = serde_json::from_slice(&value.bytes)
                                .map_err(|error| Error::Protocol(format!("{error} instance={id}")))?;
                            Some(instance)
                        }
                        None => None,
                    };
                    changed |= match now {
                        Some(instance) => {
                            self.instances.insert(id.clone(), instance.clone()) != Some(instance)
                        }
                        None => self.instances.remove(id).is_some(),
                    };
                }
                Ok(changed)
            }
            Update::Synced { .. }
            | Update::Progress { .. }
            | Update::Gap { .. }
            | Update::Lagged { .. }
            | Update::Bye { .. }
            | Update::Reconnecting { .. } => Ok(false),
        }
    }
}

pub(crate) fn service_path(name: &str) -> String {
    format!("/v1/services/{}", escape(name.as_bytes()))
}

pub(crate) fn instance_path(name: &str, id: &str) -> String {
    format!("{}/instances/{}", service_path(name), escape(id.as_bytes()))
}
