//! A registration that keeps itself: renewed in time, made again after a loss.
//!
//! Unlike ownership, being registered hurts nobody: so what was lost (a partition, a restore, a node that was down for too
//! long) is registered again as soon as a node answers. It ends for good only where somebody wants that: it is
//! deregistered or drained, or somebody else registers the same id, who is then our successor.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Moment};

use coracle_api::{Code, InstanceRenewed, Liveness, Ratio, Registration as Said, Span, Status};
use futures::Stream;
use reqwest::Method;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::backoff::Backoff;
use crate::call::Call;
use crate::service::instance_path;
use crate::transport::Failure;
use crate::{Coracle, Error};

/// Time to live of an instance that asks for none.
const TTL: Duration = Duration::from_secs(15);

/// What to register: an address, and what callers may want to know.
#[derive(Debug, Clone)]
#[must_use = "an instance is registered by Service::register"]
pub struct Instance {
    id: Option<String>,
    ttl: Duration,
    said: Said,
}

impl Instance {
    pub fn new(address: impl Into<String>, port: u16) -> Self {
        let said = Said { address: address.into(), port: Some(port), ..Said::default() };
        Self { id: None, ttl: TTL, said }
    }

    /// As the API takes it.
    pub fn from_registration(said: Said) -> Self {
        Self { id: None, ttl: TTL, said }
    }

    /// Its name, unique in the service; a random one if not given.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How long it outlives its last renewal; 15 s if not given.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.said.zone = Some(zone.into());
        self
    }

    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.said.version = Some(version.into());
        self
    }

    /// Its share of the traffic, 0 to 1000; 100 if not given.
    pub fn weight(mut self, weight: u16) -> Self {
        self.said.weight = Some(weight);
        self
    }

    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.said.tags.push(tag.into());
        self
    }

    pub fn meta(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.said.meta.insert(name.into(), value.into());
        self
    }

    /// Another port, by name.
    pub fn port(mut self, name: impl Into<String>, port: u16) -> Self {
        self.said.ports.insert(name.into(), port);
        self
    }

    /// How it does to begin with; `passing` if not given.
    pub fn status(mut self, status: Status) -> Self {
        self.said.status = Some(status);
        self
    }
}

/// How a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationState {
    Registered,
    /// Somebody wants it to go: it is picked no more, and will be removed.
    Draining,
    /// The last renewal failed; it counts until its ttl is over, and is made again after that.
    Suspended,
    /// Over, for good.
    Ended(RegistrationEnd),
}

/// Why a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationEnd {
    /// By ourselves, or by an operator.
    Deregistered,
    /// It was drained.
    Drained,
    /// Somebody else has registered this id.
    Replaced,
}

/// A registered instance. Dropping it deregisters, best effort; [`Registration::deregister`] is sure.
#[derive(Debug)]
pub struct Registration {
    shared: Arc<Shared>,
    keeper: AbortHandle,
    done: bool,
}

#[derive(Debug)]
struct Shared {
    client: Coracle,
    service: String,
    id: String,
    ttl: Duration,
    /// What to say when it is registered (again), with what it said since.
    said: Mutex<Said>,
    news: Mutex<News>,
    told: Notify,
    state: watch::Sender<RegistrationState>,
    generation: Mutex<u64>,
}

/// What was not sent yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct News {
    status: Option<Status>,
    weight: Option<u16>,
    load: Option<Ratio>,
}

/// An instance to be registered.
pub(crate) struct Register {
    client: Coracle,
    service: String,
    instance: Instance,
}

impl Register {
    pub fn new(client: Coracle, service: String, instance: Instance) -> Self {
        Self { client, service, instance }
    }

    pub async fn send(self) -> Result<Registration, Error> {
        let Instance { id, ttl, said } = self.instance;
        let shared = Arc::new(Shared {
            client: self.client,
            service: self.service,
            id: id.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()),
            ttl,
            said: Mutex::new(said),
            news: Mutex::new(News::default()),
            told: Notify::new(),
            state: watch::Sender::new(RegistrationState::Registered),
            generation: Mutex::new(0),
        });
        let sent = shared.register().await?;
        let keeper = tokio::spawn(keep(Arc::clone(&shared), sent)).abort_handle();
        Ok(Registration { shared, keeper, done: false })
    }
}

impl Registration {
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Revision of the latest registration.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *lock(&self.shared.generation)
    }

    #[must_use]
    pub fn state(&self) -> RegistrationState {
        *self.shared.state.borrow()
    }

    /// Every state from the present one on; ends after [`RegistrationState::Ended`].
    pub fn states(&self) -> impl Stream<Item = RegistrationState> + Send + use<> {
        let mut receiver = self.shared.state.subscribe();
        receiver.mark_changed();
        futures::stream::unfold((receiver, false), |(mut receiver, over)| async move {
            if over {
                return None;
            }
            receiver.changed().await.ok()?;
            let state = *receiver.borrow_and_update();
            Some((state, (receiver, matches!(state, RegistrationState::Ended(_)))))
        })
    }

    /// Wait until it is over for good.
    pub async fn ended(&self) -> RegistrationEnd {
        let mut receiver = self.shared.state.subscribe();
        let ended = receiver.wait_for(|state| matches!(state, RegistrationState::Ended(_))).await;
        match ended.as_deref() {
            Ok(RegistrationState::Ended(end)) => *end,
            _ => RegistrationEnd::Deregistered,
        }
    }

    /// Tell how it does; sent at once, with a renewal.
    pub fn set_status(&self, status: Status) {
        lock(&self.shared.said).status = Some(status);
        lock(&self.shared.news).status = Some(status);
        self.shared.told.notify_one();
    }

    /// Change its share of the traffic, 0 to 1000.
    pub fn set_weight(&self, weight: u16) {
        lock(&self.shared.said).weight = Some(weight);
        lock(&self.shared.news).weight = Some(weight);
        self.shared.told.notify_one();
    }

    /// Tell how busy it is, 0 to 1; sent with the next renewal, so that it costs no request of its own.
    pub fn set_load(&self, load: f64) {
        lock(&self.shared.news).load = Ratio::from_f64(load.clamp(0.0, 1.0));
    }

    /// Take it out of the service, and be sure of it. A successor of the same id is left alone.
    ///
    /// # Errors
    /// See [`Error`]. One that is gone already is no error.
    pub async fn deregister(mut self) -> Result<(), Error> {
        self.done = true;
        self.keeper.abort();
        let call = self.shared.deregister_call();
        self.shared.end(RegistrationEnd::Deregistered);
        match self.shared.client.send(call).await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(error.code()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.keeper.abort();
        let over = matches!(self.state(), RegistrationState::Ended(_));
        if !self.done
            && !over
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (client, call) = (self.shared.client.clone(), self.shared.deregister_call());
            runtime.spawn(async move { client.send(call).await });
        }
        self.shared.end(RegistrationEnd::Deregistered);
    }
}

impl Shared {
    fn path(&self) -> String {
        instance_path(&self.service, &self.id)
    }

    /// Register it; when that was sent.
    async fn register(&self) -> Result<Moment, Error> {
        let said = lock(&self.said).clone();
        let call = Call::change(Method::PUT, self.path()).json(&said)?;
        let answer = self.client.send(call.query("ttl", Span::from(self.ttl).to_string())).await?;
        let instance: coracle_api::Instance = answer.json()?;
        debug_assert_eq!(instance.liveness, Liveness::Ttl);
        *lock(&self.generation) = instance.generation;
        self.become_state(RegistrationState::Registered);
        Ok(answer.sent)
    }

    fn deregister_call(&self) -> Call {
        let generation = *lock(&self.generation);
        Call::change(Method::DELETE, self.path()).query("generation", generation.to_string())
    }

    fn renew_call(&self, news: News) -> Call {
        let generation = *lock(&self.generation);
        // A renewal that is repeated says the same: it needs no key, and a fresh one each time would fill the memory of keys.
        Call::new(Method::POST, self.path() + "/renew")
            .query("generation", generation.to_string())
            .query_some("status", news.status.map(Status::as_str))
            .query_some("weight", news.weight)
            .query_some("load", news.load)
    }

    fn become_state(&self, state: RegistrationState) {
        self.state.send_if_modified(|known| {
            let changes = *known != state && !matches!(known, RegistrationState::Ended(_));
            if changes {
                *known = state;
            }
            changes
        });
    }

    fn end(&self, end: RegistrationEnd) {
        self.become_state(RegistrationState::Ended(end));
    }
}

fn is_gone(code: Option<Code>) -> bool {
    matches!(code, Some(Code::InstanceNotFound | Code::InstanceReplaced))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Renew every third of the ttl, register again what is lost, until it is over for good.
async fn keep(shared: Arc<Shared>, registered: Moment) {
    let third = shared.ttl / 3;
    let mut due = registered + third;
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = shared.told.notified() => {}
        }
        let news = *lock(&shared.news);
        let timeout = shared.client.transport.attempt_timeout.min(third);
        let sent = Moment::now();
        match renew(&shared, news, timeout).await {
            Ok(renewed) => {
                backoff.reset();
                due = sent + third;
                let mut left = lock(&shared.news);
                if *left == news {
                    *left = News::default();
                }
                let draining = renewed.status == Status::Draining && renewed.leaves.is_some();
                drop(left);
                shared.become_state(if draining {
                    RegistrationState::Draining
                } else {
                    RegistrationState::Registered
                });
            }
            Err(Renewal::Ended(end)) => return shared.end(end),
            Err(Renewal::Gone) => {
                if let Ok(sent) = shared.register().await {
                    backoff.reset();
                    due = sent + third;
                } else {
                    shared.become_state(RegistrationState::Suspended);
                    due = Moment::now() + backoff.next();
                }
            }
            Err(Renewal::Failed) => {
                if *shared.state.borrow() != RegistrationState::Draining {
                    shared.become_state(RegistrationState::Suspended);
                }
                due = Moment::now() + backoff.next().min(third / 2);
            }
        }
    }
}

enum Renewal {
    /// Not there, or not alive, and nobody wanted that.
    Gone,
    /// Somebody wanted it to go.
    Ended(RegistrationEnd),
    Failed,
}

async fn renew(shared: &Shared, news: News, timeout: Duration) -> Result<InstanceRenewed, Renewal> {
    match shared.client.transport.once(&shared.renew_call(news), timeout).await {
        Ok(Ok(answer)) => answer.json().map_err(|_| Renewal::Failed),
        Ok(Err(Failure::Problem { problem, .. })) => Err(match problem.code {
            Code::InstanceReplaced => Renewal::Ended(RegistrationEnd::Replaced),
            Code::InstanceNotFound => match problem.extra.get("ended").and_then(|ended| ended.as_str()) {
                Some("drained") => Renewal::Ended(RegistrationEnd::Drained),
                Some("deregistered") => Renewal::Ended(RegistrationEnd::Deregistered),
                // The server remembers no more than that it is not there.
                _ if *shared.state.borrow() == RegistrationState::Draining => {
                    Renewal::Ended(RegistrationEnd::Drained)
                }
                _ => Renewal::Gone,
            },
            Code::SessionExpired => Renewal::Gone,
            _ => Renewal::Failed,
        }),
        _ => Err(Renewal::Failed),
    }
}
