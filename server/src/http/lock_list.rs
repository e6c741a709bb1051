//! ⑦ Reading locks: who holds each and who waits, in the order of the line.

use coracle_api::{self as api, Code, Problem, Span};
use coracle_recipes as recipes;
use coracle_recipes::lock;
use coracle_store::{SessionId, Store};
use http::StatusCode;

use super::call::Call;
use super::cursor::{self, Cursor};
use super::kv_list::{ITEMS_DEFAULT, ITEMS_MAX};
use super::lock::{NAME, odd};
use super::problem::{Answer, bad_query, blocker};
use super::{json, respond, watch, wire};

/// Waiters shown of each lock.
const WAITERS_SHOWN: usize = 100;

pub fn holder(hold: &lock::Hold) -> api::Holder {
    let seen = blocker(hold);
    api::Holder {
        session: seen.session,
        owner: seen.owner,
        token: seen.token,
        mode: seen.mode,
        since: seen.since,
        valid_for: None,
        count: 1,
        ordinal: None,
    }
}

fn shown(name: &str, line: &lock::Line) -> api::Lock {
    let waiter = |place: &lock::Place| api::Waiter {
        session: wire::session(place.session),
        owner: wire::optional(&place.owner),
        mode: wire::mode(place.mode),
        since: api::Instant::from_unix_ms(place.since.0),
        position: place.position,
    };
    api::Lock {
        name: name.to_owned(),
        holders: line.holders.iter().map(holder).collect(),
        waiters: line.waiters.iter().map(waiter).collect(),
        config: None,
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
        return watch::open(call, watching, watch::Scope::recipe(selection, None, prefix, snapshot)).await;
    }
    let limit = call.query.number("limit", 1..=ITEMS_MAX)?.unwrap_or(ITEMS_DEFAULT);
    let hash = cursor::list_hash(&[b"locks", prefix.as_bytes()]);
    let cursor = call.query.text("cursor")?.map(|text| Cursor::decode(&text, hash)).transpose()?;
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let after = cursor
        .map(|c| String::from_utf8(c.last))
        .transpose()
        .map_err(|_| bad_query("cursor", "not a cursor of this list"))?;
    let take = usize::try_from(limit).unwrap_or(1) + 1;
    let (mut locks, revision) = call.edge.node.read(|store| {
        let names = lock::names(store.view(), &prefix, after.as_deref(), take);
        let lines = names
            .iter()
            .filter_map(|name| Some(shown(name, &lock::line(store.view(), name, WAITERS_SHOWN)?)));
        (lines.collect::<Vec<_>>(), store.revision())
    });
    let more = locks.len() == take;
    locks.truncate(take - 1);
    with_validity(&call, &mut locks).await;
    let last = locks.last().map(|lock| lock.name.clone().into_bytes());
    let next_cursor = last.filter(|_| more).map(|last| Cursor { revision, list: hash, last }.encode());
    Ok(respond::json(
        StatusCode::OK,
        revision,
        &api::Page { items: locks, next_cursor, revision: revision.0 },
    ))
}
