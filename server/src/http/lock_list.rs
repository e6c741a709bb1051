//! ⑦ Reading locks: who holds each and who waits, in the order of the line.

use coracle_api::{self as api, Code, Problem, Span};
use coracle_recipes as recipes;
use coracle_recipes::lock;
use coracle_store::{Millis, SessionId, Store, View};
use http::StatusCode;

use super::call::Call;
use super::list::Listing;
use super::lock::{NAME, odd};
use super::problem::Answer;
use super::{json, respond, watch, wire};

/// Waiters shown of each lock.
pub const WAITERS_SHOWN: usize = 100;

pub fn holder(hold: &lock::Hold) -> api::Holder {
    api::Holder {
        session: wire::session(hold.session),
        owner: wire::optional(&hold.owner),
        token: hold.token.0,
        mode: wire::mode(hold.terms),
        since: api::Instant::from_unix_ms(hold.since.0),
        valid_for: None,
        count: hold.count,
        ordinal: Some(hold.ordinal),
        overdue: hold.overdue,
    }
}

pub fn shown(name: &str, line: &lock::Shown) -> api::Lock {
    let waiter = |place: &lock::Place| api::Waiter {
        session: wire::session(place.session),
        owner: wire::optional(&place.owner),
        mode: wire::mode(place.terms),
        since: api::Instant::from_unix_ms(place.since.0),
        position: place.position,
    };
    api::Lock {
        name: name.to_owned(),
        holders: line.holders.iter().map(holder).collect(),
        waiters: line.waiters.iter().map(waiter).collect(),
        waiting: wire::rest(line.waiting, line.waiters.len()),
        config: line.config.as_ref().map(config),
        closed_until: line.closed_until.map(|at| api::Instant::from_unix_ms(at.0)),
    }
}

/// What is configured; what is not stays out.
pub fn config(config: &lock::Config) -> api::LockConfig {
    let span = |time: Millis| (time.0 > 0).then(|| Span::from_millis_saturating(time.0));
    api::LockConfig {
        lock_delay: span(config.lock_delay),
        max_hold: span(config.max_hold),
        min_hold: span(config.min_hold),
    }
}

/// Fill in how long the holders' sessions are good for.
async fn with_validity(call: &Call, locks: &mut [api::Lock]) {
    let holders = || locks.iter().flat_map(|lock| lock.holders.iter());
    let sessions: Vec<_> = holders().map(|h| SessionId(h.session.value())).collect();
    let valid = call.edge.validity(&sessions).await;
    for (holder, left) in locks.iter_mut().flat_map(|lock| lock.holders.iter_mut()).zip(valid) {
        holder.valid_for = left.map(Span::from);
    }
}

/// Locks as JSON, for the snapshot of a watch.
pub fn snapshot(store: &Store, name: Option<&str>, prefix: &str) -> Vec<Vec<u8>> {
    let one = |name: &str| {
        let line = lock::line(store.view(), name, WAITERS_SHOWN)?;
        let mut out = Vec::new();
        json::to_json(&mut out, &shown(name, &line));
        Some(out)
    };
    match name {
        Some(name) => one(name).into_iter().collect(),
        None => {
            lock::names(store.view(), prefix, None, usize::MAX).iter().filter_map(|name| one(name)).collect()
        }
    }
}

/// `GET /v1/locks/{n}`
pub async fn show(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let selection = recipes::selection(lock::NAME, &name).ok_or_else(odd)?;
    if let Some(watching) = watch::asked(&mut call)? {
        return watch::open(
            call,
            watching,
            watch::Scope::recipe(selection, Some(name), String::new(), snapshot),
        )
        .await;
    }
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let limit = usize::try_from(lock::WAITERS).unwrap_or(usize::MAX);
    let (line, revision) =
        call.edge.node.read(|store| (lock::line(store.view(), &name, limit), store.revision()));
    let Some(line) = line else {
        let problem =
            Problem::new(Code::LockNotFound, format!("nobody holds or waits for the lock lock={name}"));
        return Err(problem.with("lock", name).at_revision(revision.0).into());
    };
    let mut locks = [shown(&name, &line)];
    with_validity(&call, &mut locks).await;
    Ok(respond::json(StatusCode::OK, revision, &locks[0]))
}

/// `GET /v1/locks`
pub async fn list(mut call: Call) -> Answer {
    let prefix = call.query.text("prefix")?.unwrap_or_default();
    let selection = recipes::selection(lock::NAME, "").ok_or_else(odd)?;
    if let Some(watching) = watch::asked(&mut call)? {
        let told = watch::named(None, prefix.clone());
        let names =
            move |view: View<'_>, after: Option<&str>, limit| lock::names(view, &prefix, after, limit);
        let show = |view: View<'_>, name: &str| Some(shown(name, &lock::line(view, name, WAITERS_SHOWN)?));
        return watch::open(call, watching, watch::Scope::family(selection, names, show, told)).await;
    }
    let listing = Listing::of(&mut call, &[lock::NAME.as_bytes(), prefix.as_bytes()])?;
    if let Some(unchanged) = listing.ready(&mut call, selection).await? {
        return Ok(unchanged);
    }
    let mut page = listing.page(
        &call,
        |view, after, limit| lock::names(view, &prefix, after, limit),
        |view, name| Some(shown(name, &lock::line(view, name, WAITERS_SHOWN)?)),
    )?;
    with_validity(&call, &mut page.items).await;
    Ok(page.answer())
}
