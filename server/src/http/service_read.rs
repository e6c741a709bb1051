//! ⑦ Reading services: their instances, filtered; as they change; once enough are well; for Prometheus.

use std::collections::BTreeMap;

use coracle_api::{self as api, Code, Problem, PrometheusGroup};
use coracle_recipes::describe;
use coracle_recipes::service::{self, Filter, INSTANCES, Instance, Row, Settings, protects, told};
use coracle_store::{Event, Revision, Selection, Store, View};
use http::StatusCode;

use super::call::Call;
use super::frame;
use super::list::Listing;
use super::message::Response;
use super::objects::{NAME, Objects};
use super::problem::{Answer, bad_query};
use super::service::ID;
use super::service_form::{config, filter, shown, summary};
use super::{json, respond, watch};

static SERVICES: Objects<api::Service> =
    Objects { family: service::NAME, names: service::names, show: |view, name| Some(summary(view, name)) };

/// `GET /v1/services`
pub async fn list(mut call: Call) -> Answer {
    if !call.query.takes("format", b"prometheus") {
        return SERVICES.list(call).await;
    }
    let prefix = call.query.text("prefix")?.unwrap_or_default();
    let filter = filter(&mut call, true)?;
    if let Some(revision) = call.ready(SERVICES.selection("")?).await? {
        return Ok(respond::not_modified(revision));
    }
    let (services, revision) = call.edge.node.read(|store| {
        let view = store.view();
        let names = service::names(view, &prefix, None, usize::MAX);
        let read =
            |name: String| (service::instances(view, &name, None).collect(), settings(view, &name), name);
        (names.into_iter().map(read).collect::<Vec<(Vec<Row>, Settings, String)>>(), store.revision())
    });
    let groups = services
        .iter()
        .flat_map(|(rows, settings, name)| prometheus(name, &Seen::of(rows, &filter, settings)));
    Ok(respond::json(StatusCode::OK, revision, &groups.collect::<Vec<_>>()))
}

/// `GET /v1/services/{s}`
pub async fn show(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let filter = filter(&mut call, true)?;
    let selection = SERVICES.selection(&name)?;
    if let Some(watching) = watch::asked(&mut call)? {
        return watch::open(call, watching, scope(selection, name, filter)).await;
    }
    let for_prometheus = call.query.takes("format", b"prometheus");
    if let Some(unchanged) = ready(&mut call, &name, &filter, selection).await? {
        return Ok(unchanged);
    }
    let (rows, settings, revision) = call.edge.node.read(|store| {
        let view = store.view();
        let rows: Vec<Row> = service::instances(view, &name, None).collect();
        (rows, service::settings(view, &name), store.revision())
    });
    let seen = Seen::of(&rows, &filter, &settings.clone().unwrap_or_default());
    if for_prometheus {
        // That there are no targets (any more) is an answer: an error would leave the former ones in place.
        return Ok(respond::json(StatusCode::OK, revision, &prometheus(&name, &seen)));
    }
    if rows.is_empty() && settings.is_none() {
        return Err(not_found(&name, revision).into());
    }
    let body = api::ServiceInstances {
        name,
        config: settings.as_ref().map(config),
        healthy: seen.healthy as u64,
        degraded: seen.degraded,
        items: seen.instances.iter().map(|(id, instance)| shown(id, instance)).collect(),
        revision: revision.0,
    };
    Ok(respond::json(StatusCode::OK, revision, &body))
}

/// Wait as the caller asks: for a change, or with `min` until so many are healthy. `Some`: 304, in vain.
async fn ready(
    call: &mut Call,
    name: &str,
    filter: &Filter,
    selection: Selection,
) -> Answer<Option<Response>> {
    let Some(min) = call.query.number("min", 1..=INSTANCES)? else {
        return Ok(call.ready(selection).await?.map(respond::not_modified));
    };
    let wait = call.wait()?.ok_or_else(|| bad_query("min", "only with wait"))?;
    call.format(&[("json", super::read::Format::Json)])?;
    call.query.done()?;
    let enough = |store: &Store| (count_healthy(store.view(), name, filter) >= min).then_some(());
    let (found, revision) = Box::pin(call.until(selection, wait, enough)).await?;
    Ok(if found.is_some() { None } else { Some(respond::not_modified(revision)) })
}

/// Healthy instances that a filter admits. Without a filter that is counted already.
pub fn count_healthy(view: View<'_>, name: &str, filter: &Filter) -> u64 {
    if (Filter { healthy: false, ..filter.clone() }).is_empty() {
        let census = service::census(view, name);
        return census.up - census.ejected;
    }
    let healthy = Filter { healthy: true, ..filter.clone() };
    service::instances(view, name, None).filter(|row| healthy.admits(&row.read().1)).count() as u64
}

/// `GET /v1/services/{s}/instances`
pub async fn instances(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let selection = SERVICES.selection(&name)?;
    if let Some(watching) = watch::asked(&mut call)? {
        return watch::open(call, watching, scope(selection, name, Filter::default())).await;
    }
    let listing = Listing::of(&mut call, &[b"services", name.as_bytes(), b"instances"])?;
    if let Some(unchanged) = listing.ready(&mut call, selection).await? {
        return Ok(unchanged);
    }
    let ids = |view: View<'_>, after: Option<&str>, limit| service::ids(view, &name, after, limit);
    let show = |view: View<'_>, id: &str| Some(shown(id, &service::instance(view, &name, id)?));
    Ok(listing.page(&call, ids, show)?.answer())
}

/// `GET /v1/services/{s}/instances/{i}`
pub async fn instance(mut call: Call) -> Answer {
    let (name, id) = (call.name(NAME)?, call.name(ID)?);
    let selection = Selection::Key(service::key(&name, &id));
    if let Some(watching) = watch::asked(&mut call)? {
        let snapshot = move |store: &Store| {
            let instance = service::instance(store.view(), &name, &id);
            instance.iter().map(|instance| json_of(&id, instance)).collect()
        };
        let told = |out: &mut Vec<u8>, event: &Event| event_of(out, event, &Filter::default());
        let scope = watch::Scope::objects(selection, Some(Box::new(snapshot)), Box::new(told));
        return watch::open(call, watching, scope).await;
    }
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let (found, revision) =
        call.edge.node.read(|store| (service::instance(store.view(), &name, &id), store.revision()));
    let Some(found) = found else {
        let problem =
            Problem::new(Code::InstanceNotFound, format!("no such instance service={name} id={id}"));
        return Err(problem.with("service", name).with("id", id).at_revision(revision.0).into());
    };
    let mut body = shown(&id, &found);
    if let (Some(session), None) = (found.session(), found.lost) {
        body.valid_for = call.edge.validity(&[session]).await.first().copied().flatten().map(Into::into);
    }
    Ok(respond::json(StatusCode::OK, revision, &body))
}

fn not_found(name: &str, revision: Revision) -> Problem {
    Problem::new(Code::ServiceNotFound, format!("no such service service={name}"))
        .with("service", name)
        .at_revision(revision.0)
}

fn settings(view: View<'_>, name: &str) -> Settings {
    service::settings(view, name).unwrap_or_default()
}

/// The instances that a reader asked for.
struct Seen {
    instances: Vec<(String, Instance)>,
    healthy: usize,
    degraded: bool,
}

impl Seen {
    fn of(rows: &[Row], filter: &Filter, settings: &Settings) -> Self {
        let any = Filter { healthy: false, ..filter.clone() };
        let mut instances: Vec<_> =
            rows.iter().map(Row::read).filter(|(_, instance)| any.admits(instance)).collect();
        let count = |of: fn(&Instance) -> bool| instances.iter().filter(|(_, instance)| of(instance)).count();
        let healthy = count(Instance::is_healthy);
        let degraded = protects(settings, healthy, count(Instance::is_wanted));
        if filter.healthy {
            instances.retain(|(_, it)| if degraded { it.is_wanted() } else { it.is_healthy() });
        }
        Self { instances, healthy, degraded }
    }
}

/// The instances of one service, as they are and as they change. An event with a `value` says what is now to be seen; one
/// without, that the instance is out of sight: gone, or no longer what was asked for.
fn scope(selection: Selection, name: String, filter: Filter) -> watch::Scope {
    let (of, admitted) = (name.clone(), filter.clone());
    let ids = move |view: View<'_>, after: Option<&str>, limit| service::ids(view, &of, after, limit);
    let show = move |view: View<'_>, id: &str| {
        let instance = service::instance(view, &name, id)?;
        admitted.admits(&instance).then(|| shown(id, &instance))
    };
    let told = move |out: &mut Vec<u8>, event: &Event| event_of(out, event, &filter);
    watch::Scope::family(selection, ids, show, Box::new(told))
}

fn json_of(id: &str, instance: &Instance) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    json::to_json(&mut out, &shown(id, instance));
    out
}

fn event_of(out: &mut Vec<u8>, event: &Event, filter: &Filter) -> bool {
    let Some((id, was, is)) = told(event) else {
        // The settings are of interest; liveness and counts are told by the instances.
        return describe(event).is_some_and(|it| it.item.is_none()) && frame::any_event(out, event);
    };
    let seen = |instance: &Option<Instance>| instance.as_ref().filter(|it| filter.admits(it)).cloned();
    let (was, is) = (seen(&was), seen(&is));
    if (was.is_none() && is.is_none()) || !frame::any_event(out, event) {
        return false;
    }
    if let Some(is) = is {
        out.pop();
        json::member(out, "value");
        out.extend_from_slice(&json_of(&id, &is));
        json::member(out, "content_type");
        json::string(out, "application/json");
        out.push(b'}');
    }
    true
}

/// One group an instance, with what Coracle knows of it as labels that relabelling can use.
fn prometheus(service: &str, seen: &Seen) -> Vec<PrometheusGroup> {
    let group = |(id, instance): &(String, Instance)| {
        let it = shown(id, instance);
        let mut labels = BTreeMap::new();
        let mut label = |name: &str, value: &str| {
            let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            labels.insert(format!("__meta_coracle_{name}"), value.to_owned());
        };
        label("service", service);
        label("instance", id);
        label("status", it.status.as_str());
        label("zone", it.zone.as_deref().unwrap_or_default());
        label("version", it.version.as_deref().unwrap_or_default());
        // Separators on both sides, so that a tag can be matched as ",tag,".
        let tags = if it.tags.is_empty() { String::new() } else { format!(",{},", it.tags.join(",")) };
        label("tags", &tags);
        for (name, value) in &it.meta {
            label(&format!("meta_{name}"), value);
        }
        if let Some(scheme) = it.scheme.clone().filter(|scheme| scheme == "http" || scheme == "https") {
            labels.insert("__scheme__".to_owned(), scheme);
        }
        PrometheusGroup { targets: vec![it.authority()], labels }
    };
    seen.instances.iter().map(group).collect()
}
