//! ① Services: register, renew, deregister, drain, report; and their settings.

use std::time::Instant;

use coracle_api::{self as api, Code, Problem, Span};
use coracle_raft::node::RenewError;
use coracle_recipes as recipes;
use coracle_recipes::service::{self, Instance, Named, News, Register, SCALE, SPAN_MS, Status};
use coracle_store::{Attach, Cause, Millis, Revision, SessionId, Store};
use http::{StatusCode, header};

use super::call::Call;
use super::objects::{self, Applied, NAME};
use super::problem::{Answer, Refused, bad_query, session_expired};
use super::service_form::{self, shown, status_word};
use super::{held, hold, kv, respond};

/// Where the id is in `/v1/services/{service}/instances/{id}`.
pub const ID: usize = 4;
/// Time to drain, unless asked otherwise.
const DRAIN: Span = match Span::from_secs(30) {
    Some(span) => span,
    None => panic!("thirty seconds are a span"),
};

/// The instance in the path, of the generation that is asked for.
fn named(call: &mut Call) -> Answer<Named> {
    let (service, id) = (call.name(NAME)?.into(), call.name(ID)?.into());
    let generation = call.query.number("generation", 1..=u64::MAX)?.map(Revision);
    Ok(Named { service, id, generation })
}

/// `PUT /v1/services/{s}/instances/{i}`
pub async fn register(mut call: Call) -> Answer {
    let named = named(&mut call)?;
    put(call, named).await
}

/// `POST /v1/services/{s}/instances`: the server names it.
pub async fn create(call: Call) -> Answer {
    let id = format!("{:016x}", rand::random::<u64>()).into();
    let named = Named { service: call.name(NAME)?.into(), id, generation: None };
    put(call, named).await
}

async fn put(mut call: Call, named: Named) -> Answer {
    let received = Instant::now();
    let ephemeral = kv::ephemeral(&mut call)?;
    let permanent = call.query.flag("permanent")?.unwrap_or(false);
    if permanent && ephemeral.is_some() {
        return Err(bad_query("permanent", "not together with session, ttl or hold"));
    }
    let (registration, bytes) = call.json::<api::Registration>().await?;
    let status = registration.status.map_or(Status::Passing, service_form::status);
    let description = service_form::description(registration)?;
    let (attach, hold) = match ephemeral {
        Some(ephemeral) => (ephemeral.attach, ephemeral.hold),
        None if permanent => (Attach::None, None),
        None => (Attach::Keep, None),
    };
    let opening = hold.map(|hold| hold::opening(&mut call, hold)).transpose()?;
    let register = Register { named: named.clone(), description, status, attach };
    let applied = apply(&mut call, &bytes, service::Operation::Register(register.into())).await?;
    let service::Outcome::Registered(instance, new) = of(&applied)? else {
        return Err(objects::odd(&applied.outcome));
    };
    let revision = instance.generation;
    if let (Some(opening), Some(session)) = (opening, instance.session()) {
        return Ok(held::written(call, opening, session, revision, received));
    }
    let mut body = shown(&named.id, instance);
    body.valid_for = match instance.liveness {
        service::Liveness::Permanent => None,
        // Opened with this registration, unless that was kept or is told again.
        service::Liveness::Ttl(session, ttl) if revision == applied.revision && !applied.replayed => {
            call.edge.renewals.note(session, received, Span::from_millis_saturating(ttl.0).as_duration());
            Some(call.edge.valid_for(session).await)
        }
        service::Liveness::Ttl(session, _) | service::Liveness::Session(session) => {
            Some(call.edge.valid_for(session).await)
        }
    };
    let mut response = applied.answer(if *new { StatusCode::CREATED } else { StatusCode::OK }, &body);
    if *new && call.method == http::Method::POST {
        let path = [&*named.service, &*named.id].map(|part| {
            percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string()
        });
        if let Ok(location) = format!("/v1/services/{}/instances/{}", path[0], path[1]).try_into() {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Ok(response)
}

/// `POST /v1/services/{s}/instances/{i}/renew`: only what is new goes into the log.
pub async fn renew(mut call: Call) -> Answer {
    let received = Instant::now();
    let named = named(&mut call)?;
    let news = News {
        status: call.query.word("status", &status_words())?,
        weight: call.query.number("weight", 0..=SCALE.into())?.and_then(|weight| weight.try_into().ok()),
        load: service_form::ratio(&mut call, "load")?,
    };
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let mut instance = find(&call, &named).await?;
    let mut revision = call.edge.node.read(Store::revision);
    if !mutation.guards.is_empty() || says(&instance, &news) {
        let operation = recipes::Operation::Service(service::Operation::Renew(named.clone(), news));
        let (at, _, outcome) = super::call::outcome(call.propose(mutation, operation.encode()).await?)?;
        match changed(&outcome) {
            Some(changed) => (instance, revision) = (changed, at),
            None => return Err(super::call::unexpected(&outcome)),
        }
    }
    let valid_for = match instance.session() {
        None => None,
        Some(session) => Some(renewed(&call, &named, session, received).await?),
    };
    let body = api::InstanceRenewed {
        valid_for,
        generation: instance.generation.0,
        status: status_word(instance.status()),
        leaves: instance.leaves.map(|at| api::Instant::from_unix_ms(at.0)),
    };
    Ok(respond::json(StatusCode::OK, revision, &body))
}

/// Whether there is anything in it that the log does not know.
fn says(instance: &Instance, news: &News) -> bool {
    news.status.is_some_and(|status| status != instance.told)
        || news.weight.is_some_and(|weight| weight != instance.description.weight)
        || (news.load.is_some() && news.load != instance.load)
}

fn changed(outcome: &coracle_store::Outcome) -> Option<Instance> {
    let coracle_store::Outcome::Program(bytes) = outcome else { return None };
    match recipes::Outcome::decode(bytes) {
        Ok(recipes::Outcome::Service(service::Outcome::Changed(instance))) => Some(*instance),
        _ => None,
    }
}

/// The instance that is meant, alive. What this node does not know, or knows otherwise, may only be news to it.
async fn find(call: &Call, named: &Named) -> Answer<Instance> {
    let look = || call.edge.node.read(|store| (alive(store, named), store.revision()));
    if let (Ok(instance), _) = look() {
        return Ok(instance);
    }
    call.barrier().await?;
    let (found, revision) = look();
    found.map_err(|refusal| {
        let problem = problem(&refusal).at_revision(revision.0);
        match call.edge.node.read(|store| ended(store, named)) {
            Some(how) if refusal == service::Refusal::NotFound => problem.with("ended", how).into(),
            _ => problem.into(),
        }
    })
}

/// How an instance that is gone went, while history remembers: who drained or removed it does not want it back.
fn ended(store: &Store, named: &Named) -> Option<&'static str> {
    let (.., event) = store.key_history(&service::key(&named.service, &named.id)).next()?;
    let (_, was, None) = service::told(event)? else { return None };
    Some(match event.cause {
        _ if was.is_some_and(|was| was.drain.is_some()) => "drained",
        Cause::SessionExpired => "expired",
        Cause::SessionClosed => "session_closed",
        Cause::Command | Cause::Broken => "deregistered",
    })
}

fn alive(store: &Store, named: &Named) -> Result<Instance, service::Refusal> {
    let instance = service::instance(store.view(), &named.service, &named.id);
    let instance = instance.ok_or(service::Refusal::NotFound)?;
    match (named.generation, instance.lost, instance.session()) {
        (Some(generation), ..) if generation != instance.generation => {
            Err(service::Refusal::Replaced(instance.generation))
        }
        (_, Some(_), Some(session)) => Err(service::Refusal::Lost(session)),
        _ => Ok(instance),
    }
}

/// Renew the session of an instance. If it has ended, the instance may have got another one meanwhile, or be gone.
async fn renewed(call: &Call, named: &Named, session: SessionId, received: Instant) -> Answer<Span> {
    match call.edge.node.renew(session, call.deadline).await {
        Ok(valid_for) => {
            call.edge.renewals.note(session, received, valid_for);
            Ok(valid_for.into())
        }
        Err(RenewError::Expired) => {
            call.edge.renewals.forget(session);
            call.barrier().await?;
            let now = call.edge.node.read(|store| alive(store, named));
            match now.map_err(|refusal| Refused::from(problem(&refusal)))?.session() {
                Some(other) if other != session && named.generation.is_none() => {
                    Box::pin(renewed(call, named, other, received)).await
                }
                _ => Err(session_expired(session).into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// `DELETE /v1/services/{s}/instances/{i}`
pub async fn deregister(mut call: Call) -> Answer {
    let named = named(&mut call)?;
    let bytes = call.no_body().await?;
    let applied = apply(&mut call, &bytes, service::Operation::Deregister(named)).await?;
    let body = api::Deleted { deleted: 1, revision: applied.revision.0, previous: None };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// `POST /v1/services/{s}/instances/{i}/drain`
pub async fn drain(mut call: Call) -> Answer {
    let named = named(&mut call)?;
    let most = Span::from_millis_saturating(SPAN_MS);
    let deadline = call.query.span("deadline", Span::ZERO..=most)?.unwrap_or(DRAIN);
    let id = named.id.clone();
    let bytes = call.no_body().await?;
    let drain = service::Operation::Drain(named, Millis(deadline.as_millis()));
    let applied = apply(&mut call, &bytes, drain).await?;
    let (service::Outcome::Changed(instance) | service::Outcome::Deregistered(instance)) = of(&applied)?
    else {
        return Err(objects::odd(&applied.outcome));
    };
    Ok(applied.answer(StatusCode::OK, &shown(&id, instance)))
}

/// `POST /v1/services/{s}/instances/{i}/report`
pub async fn report(mut call: Call) -> Answer {
    let named = named(&mut call)?;
    let Some(well) = call.query.word("result", &[("ok", true), ("error", false)])? else {
        return Err(bad_query("result", "required: ok or error"));
    };
    let id = named.id.clone();
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    if well && mutation.guards.is_empty() {
        // The rule, and it says nothing new: not worth an entry.
        let instance = find(&call, &named).await?;
        let (reported, revision) = call
            .edge
            .node
            .read(|store| (service::is_reported(store.view(), &named.service, &named.id), store.revision()));
        if !reported {
            return Ok(respond::json(StatusCode::OK, revision, &shown(&id, &instance)));
        }
    }
    let operation = recipes::Operation::Service(service::Operation::Report(named, well));
    let (revision, replayed, outcome) =
        super::call::outcome(call.propose(mutation, operation.encode()).await?)?;
    let Some(instance) = changed(&outcome) else { return Err(super::call::unexpected(&outcome)) };
    Ok(respond::replayed(respond::json(StatusCode::OK, revision, &shown(&id, &instance)), replayed))
}

/// `PUT /v1/services/{s}`
pub async fn configure(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (config, bytes) = call.json::<api::ServiceConfig>().await?;
    let settings = service_form::settings(&config)?;
    let configure = service::Operation::Configure(name.as_str().into(), settings);
    let applied = apply(&mut call, &bytes, configure).await?;
    let service::Outcome::Configured(new) = of(&applied)? else { return Err(objects::odd(&applied.outcome)) };
    call.edge.node.wait_revision(applied.revision, call.deadline).await?;
    let body = call.edge.node.read(|store| service_form::summary(store.view(), &name));
    Ok(applied.answer(if *new { StatusCode::CREATED } else { StatusCode::OK }, &body))
}

/// `DELETE /v1/services/{s}`: back to the default settings; its instances stay.
pub async fn reset(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let bytes = call.no_body().await?;
    let applied = apply(&mut call, &bytes, service::Operation::Reset(name.into())).await?;
    let body = api::Deleted { deleted: 1, revision: applied.revision.0, previous: None };
    Ok(applied.answer(StatusCode::OK, &body))
}

fn status_words() -> [(&'static str, Status); 6] {
    api::Status::WORDS.map(|(word, status)| (word, service_form::status(status)))
}

async fn apply(call: &mut Call, body: &[u8], operation: service::Operation) -> Answer<Applied> {
    objects::apply(call, body, recipes::Operation::Service(operation)).await
}

fn of(applied: &Applied) -> Answer<&service::Outcome> {
    match &applied.outcome {
        recipes::Outcome::Service(outcome) => Ok(outcome),
        other => Err(objects::odd(other)),
    }
}

/// What the log refused.
pub fn problem(refusal: &service::Refusal) -> Problem {
    use service::Refusal;
    match refusal {
        Refusal::NotFound => Problem::new(Code::InstanceNotFound, "no such instance"),
        Refusal::Replaced(generation) => {
            let detail = format!("the instance was registered anew generation={generation}");
            Problem::new(Code::InstanceReplaced, detail).with("generation", generation.0)
        }
        Refusal::Lost(session) => {
            let detail = format!(
                "the session of the instance has ended: register it with a new one session={session}"
            );
            Problem::new(Code::SessionExpired, detail).with("session", session.to_string())
        }
        Refusal::TooManyInstances(limit) => {
            let detail = format!("over a limit limit=instances_per_service max={limit}");
            Problem::new(Code::TooLarge, detail).with("limit", "instances_per_service").with("max", limit)
        }
        Refusal::NoSettings => Problem::new(Code::ServiceNotFound, "the service has no settings of its own"),
    }
}
