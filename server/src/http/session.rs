//! ① Sessions: open, renew, hold, close, look.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use axum::response::Response;
use coracle_api::{self as api, Code, Problem, Span};
use coracle_raft::node::RenewError;
use coracle_recipes::{Turn, lock};
use coracle_store::command::{OnExpire, OpenSession, UpdateSession};
use coracle_store::{
    Cause, Event, Family, Key, Millis, Operation, Outcome, Refusal, Revision, Selection, Session, SessionId,
    Store, View, limits,
};
use http::{StatusCode, header};

use super::call::{Call, check_name, draw_session, outcome, unexpected};
use super::list::Listing;
use super::problem::{Answer, Refused, bad_body, bad_query, refused, session_expired, too_large};
use super::turn::change_at;
use super::{frame, hold, json, kv, respond, watch, wire};

/// Where the id is in `/v1/sessions/{id}`.
const ID: usize = 2;

/// `POST /v1/sessions`
pub async fn open(mut call: Call) -> Answer {
    let received = Instant::now();
    let (body, bytes) = call.json::<api::SessionCreate>().await?;
    let ttl = match (call.query.span("ttl", kv::ttl_range())?, body.ttl) {
        (Some(_), Some(_)) => return Err(bad_query("ttl", "given in the body too")),
        (Some(ttl), None) => ttl,
        (None, ttl) => {
            within("ttl", ttl, kv::ttl_range())?;
            ttl.unwrap_or(kv::TTL_DEFAULT)
        }
    };
    let name = match (call.query.text("name")?, body.name) {
        (Some(_), Some(_)) => return Err(bad_query("name", "given in the body too")),
        (name, None) | (None, name) => name.unwrap_or_default(),
    };
    if !name.is_empty() {
        check_name(&name).map_err(|detail| bad_body(format!("name: {detail}")))?;
    }
    within("stall_after", body.stall_after, kv::ttl_range())?;
    within("lock_delay", body.lock_delay, Span::ZERO..=Span::from_millis_saturating(limits::LOCK_DELAY_MS))?;
    let asked = call.query.flag("hold")?.unwrap_or(false);
    let on_disconnect = call.query.word("on_disconnect", &[("grace", false), ("expire", true)])?;
    if on_disconnect.is_some() && !asked {
        return Err(bad_query("on_disconnect", "only with hold=true"));
    }
    let hold = hold::Hold { ttl, expire_at_once: on_disconnect == Some(true) };
    let opening = if asked { Some(hold::opening(&mut call, hold)?) } else { None };
    let open = OpenSession {
        id: draw_session(),
        ttl: Millis(ttl.as_millis()),
        name: name.into(),
        meta: meta_text(&body.meta)?,
        on_expire: match body.on_expire {
            Some(api::OnExpire::Release) => OnExpire::Release,
            Some(api::OnExpire::Delete) | None => OnExpire::Delete,
        },
        lock_delay: body.lock_delay.filter(|delay| !delay.is_zero()).map(|delay| Millis(delay.as_millis())),
        stall_after: body.stall_after.map(|after| Millis(after.as_millis())),
    };
    let mutation = call.mutation(&bytes)?;
    let (revision, replayed, outcome) = outcome(call.propose(mutation, Operation::OpenSession(open)).await?)?;
    let Outcome::Session(id) = outcome else { return Err(unexpected(&outcome)) };
    call.edge.renewals.note(id, received, ttl.as_duration());
    if let Some(opening) = opening {
        return Ok(hold::stream_of(call, opening, hold::Claim::Session { session: id, revision }, received));
    }
    let body = api::SessionCreated { id: wire::session(id), ttl, valid_for: ttl, revision: revision.0 };
    let mut response = respond::json(StatusCode::CREATED, revision, &body);
    if let Ok(location) = format!("/v1/sessions/{id}").try_into() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(respond::replayed(response, replayed))
}

/// A duration of the body, within its bounds if it is given.
fn within(name: &str, span: Option<Span>, range: RangeInclusive<Span>) -> Answer<()> {
    match span.filter(|span| !range.contains(span)) {
        None => Ok(()),
        Some(span) => {
            let (min, max) = (range.start(), range.end());
            Err(bad_body(format!("{name} out of range min={min} max={max} actual={span}")))
        }
    }
}

fn meta_text(meta: &BTreeMap<String, String>) -> Answer<Box<str>> {
    if meta.is_empty() {
        return Ok("".into());
    }
    let text = serde_json::to_string(meta).map_err(|e| bad_body(e.to_string()))?;
    if text.len() > limits::META_BYTES {
        return Err(too_large("metadata_bytes", limits::META_BYTES as u64, Some(text.len() as u64)));
    }
    Ok(text.into())
}

/// The id in the path; what is no id names no session.
fn id(call: &Call) -> Answer<SessionId> {
    let name = call.name(ID)?;
    name.parse().map_err(|()| not_found(&name))
}

fn not_found(name: &str) -> Refused {
    Problem::new(Code::SessionNotFound, format!("no such session session={name}"))
        .with("session", name)
        .into()
}

/// `POST /v1/sessions/{id}/renew`
pub async fn renew(mut call: Call) -> Answer {
    let received = Instant::now();
    let id = id(&call)?;
    let (body, bytes) = call.json::<api::SessionRenew>().await?;
    if body.progress.as_ref().is_some_and(|p| p.percent > 100) {
        return Err(bad_body("progress.percent: 0 to 100"));
    }
    let note = body.progress.as_ref().and_then(|p| p.note.as_deref());
    if note.is_some_and(|note| note.len() > limits::NAME_BYTES) {
        return Err(bad_body(format!("progress.note: at most {} bytes", limits::NAME_BYTES)));
    }
    let update = UpdateSession {
        id,
        progress: body.progress.as_ref().map(|p| p.percent),
        note: note.map(Into::into),
        meta: body.meta.as_ref().map(meta_text).transpose()?,
    };
    let mutation = call.mutation(&bytes)?;
    // A bare renewal does not go through the log and is idempotent by itself; a guard is judged there.
    if body.progress.is_some() || body.meta.is_some() || !mutation.guards.is_empty() {
        outcome(call.propose(mutation, Operation::UpdateSession(update)).await?)?;
    }
    let valid_for = match call.edge.node.renew(id, call.deadline).await {
        Ok(valid_for) => valid_for,
        Err(RenewError::Expired) => {
            call.edge.renewals.forget(id);
            return Err(session_expired(id).into());
        }
        Err(error) => return Err(error.into()),
    };
    call.edge.renewals.note(id, received, valid_for);
    let (held, revision) = call.edge.node.read(|store| (attached(store.view(), id).holds, store.revision()));
    Ok(renewed(valid_for, &held, revision))
}

fn renewed(valid_for: Duration, holds: &[api::Hold], revision: Revision) -> Response {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(b"{\"valid_for\":");
    json::string(&mut out, &Span::from(valid_for).to_string());
    json::member(&mut out, "holds");
    json::to_json(&mut out, holds);
    out.push(b'}');
    respond::json_bytes(StatusCode::OK, revision, out)
}

/// `POST /v1/sessions/{id}/hold`
pub async fn hold(mut call: Call) -> Answer {
    let received = Instant::now();
    let id = id(&call)?;
    let on_disconnect = call.query.word("on_disconnect", &[("grace", false), ("expire", true)])?;
    let known = call.edge.node.read(|store| store.session(id).map(|session| session.ttl.0));
    let ttl = known.map_or(kv::TTL_DEFAULT, Span::from_millis_saturating);
    let opening = hold::opening(&mut call, hold::Hold { ttl, expire_at_once: on_disconnect == Some(true) })?;
    call.no_body().await?;
    call.query.done()?;
    let valid_for = match call.edge.node.renew(id, call.deadline).await {
        Ok(valid_for) => valid_for,
        Err(RenewError::Expired) => return Err(session_expired(id).into()),
        Err(error) => return Err(error.into()),
    };
    call.edge.renewals.note(id, received, valid_for);
    let revision = call.edge.node.read(Store::revision);
    Ok(hold::stream_of(call, opening, hold::Claim::Session { session: id, revision }, received))
}

/// `DELETE /v1/sessions/{id}`
pub async fn close(mut call: Call) -> Answer {
    let id = id(&call)?;
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let reply = call.propose(mutation, Operation::CloseSession(id)).await?;
    let (revision, replayed, keys) = match reply.result {
        Ok(Outcome::Closed(keys)) => (reply.revision, reply.replayed, keys),
        Ok(other) => return Err(unexpected(&other)),
        Err(Refusal::SessionExpired(_)) => return Err(not_found(&id.to_string())),
        Err(refusal) => return Err(refused(&refusal, reply.revision)),
    };
    call.edge.renewals.forget(id);
    // The names are in the entry's own events; this node may be a moment behind.
    let known = call.edge.node.wait_revision(revision, call.deadline).await.is_ok();
    let change = if known { call.edge.node.read(|store| change_at(store, revision)) } else { None };
    let released = match change {
        Some(change) => {
            change.events.iter().filter(|e| keys.contains(&e.key)).filter_map(released_claim).collect()
        }
        None => keys.iter().filter_map(|key| released_claim(&bare(key))).collect(),
    };
    let body = api::SessionClosed { released, revision: revision.0 };
    Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), replayed))
}

fn bare(key: &Key) -> Event {
    Event { key: key.clone(), record: None, previous: None, cause: Cause::SessionClosed }
}

fn released_claim(event: &Event) -> Option<api::Claim> {
    match event.key.family() {
        Family::SESSION => None,
        Family::KV => {
            Some(api::Claim { family: "kv".to_owned(), name: wire::key_text(&event.key), token: None })
        }
        _ => {
            let it = coracle_recipes::describe(event)?;
            Some(api::Claim { family: it.family.to_owned(), name: it.name, token: it.token.map(|t| t.0) })
        }
    }
}

/// What hangs on a session.
#[derive(Default)]
struct Attached {
    holds: Vec<api::Hold>,
    waits: Vec<api::Wait>,
    keys: Vec<String>,
}

fn attached(view: View<'_>, id: SessionId) -> Attached {
    let mut found = Attached::default();
    for key in view.attached(id) {
        if key.family() == Family::KV {
            found.keys.push(wire::key_text(key));
            continue;
        }
        let event =
            Event { key: key.clone(), record: view.get(key).cloned(), previous: None, cause: Cause::Command };
        let Some(it) = coracle_recipes::describe(&event) else { continue };
        let (family, name) = (it.family.to_owned(), it.name);
        match lock::poll(view, &name, id) {
            Turn::Granted(hold) => found.holds.push(api::Hold {
                family,
                name,
                token: hold.token.0,
                mode: Some(wire::mode(hold.mode)),
            }),
            Turn::Waiting(place) => found.waits.push(api::Wait { family, name, position: place.position }),
            Turn::Gone => {}
        }
    }
    found
}

/// A session as it is shown, without what only the leader knows of it.
fn shown(view: View<'_>, session: &Session) -> api::Session {
    let Attached { holds, waits, keys } = attached(view, session.id);
    let record = view.get(&session_key(session.id));
    api::Session {
        id: wire::session(session.id),
        name: wire::optional(&session.name),
        state: wire::session_state(session),
        ttl: Span::from_millis_saturating(session.ttl.0),
        valid_for: None,
        on_expire: match session.on_expire {
            OnExpire::Delete => api::OnExpire::Delete,
            OnExpire::Release => api::OnExpire::Release,
        },
        lock_delay: session.lock_delay.map(|delay| Span::from_millis_saturating(delay.0)),
        stall_after: session.stall_after.map(|after| Span::from_millis_saturating(after.0)),
        stalled_since: session.stalled.map(|since| api::Instant::from_unix_ms(since.0)),
        meta: serde_json::from_str(&session.meta).unwrap_or_default(),
        progress: session
            .progress
            .map(|percent| api::Progress { percent, note: session.note.as_deref().map(str::to_owned) }),
        created: Some(api::Instant::from_unix_ms(session.opened.0)),
        create_revision: record.map_or(0, |record| record.create_revision.0),
        holds,
        waits,
        keys,
    }
}

/// Add how long the session is good for, as the leader counts it.
fn with_validity(session: &mut api::Session, left: Option<Duration>) {
    session.valid_for = left.map(Span::from);
    match left {
        Some(left) if left < session.ttl.as_duration() / 3 => session.state = api::SessionState::Suspect,
        // The log does not know of the renewal yet.
        Some(_) if session.state == api::SessionState::Suspect => {
            let stalled = session.stalled_since.is_some();
            session.state = if stalled { api::SessionState::Stalled } else { api::SessionState::Active };
        }
        Some(_) | None => {}
    }
}

fn session_key(id: SessionId) -> Key {
    Key::new(Family::SESSION, &id.0.to_be_bytes())
}

fn scope(selection: Selection, one: Option<SessionId>) -> watch::Scope {
    let shown: watch::Snapshot = Box::new(move |store| snapshot(store, one));
    watch::Scope::objects(selection, Some(shown), Box::new(frame::any_event))
}

/// Sessions as JSON, for the snapshot of a watch.
fn snapshot(store: &Store, one: Option<SessionId>) -> Vec<Vec<u8>> {
    let write = |session: &Session| {
        let mut out = Vec::new();
        json::to_json(&mut out, &shown(store.view(), session));
        out
    };
    match one {
        Some(id) => store.session(id).map(|session| write(session)).into_iter().collect(),
        None => store.sessions().map(|session| write(session)).collect(),
    }
}

/// `GET /v1/sessions/{id}`
pub async fn show(mut call: Call) -> Answer {
    let id = id(&call)?;
    let selection = Selection::Key(session_key(id));
    if let Some(watching) = watch::asked(&mut call)? {
        return watch::open(call, watching, scope(selection, Some(id))).await;
    }
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let left = call.edge.validity(&[id]).await.first().copied().flatten();
    let (body, revision, was) = call.edge.node.read(|store| {
        let body = store.session(id).map(|session| shown(store.view(), session));
        let was = body.is_some() || !store.key_history(&session_key(id)).is_empty();
        (body, store.revision(), was)
    });
    match body {
        Some(mut body) => {
            with_validity(&mut body, left);
            Ok(respond::json(StatusCode::OK, revision, &body))
        }
        // History remembers that it was: that is more than "no such".
        None if was => Err(session_expired(id).at_revision(revision.0).into()),
        None => Err(not_found(&id.to_string())),
    }
}

/// `GET /v1/sessions`
pub async fn list(mut call: Call) -> Answer {
    let selection = Selection::Prefix(vec![Family::SESSION.0]);
    if let Some(watching) = watch::asked(&mut call)? {
        return watch::open(call, watching, scope(selection, None)).await;
    }
    let prefix = call.query.text("prefix")?.unwrap_or_default().to_ascii_lowercase();
    let listing = Listing::of(&mut call, &[b"sessions", prefix.as_bytes()])?;
    if let Some(unchanged) = listing.ready(&mut call, selection).await? {
        return Ok(unchanged);
    }
    let mut page = listing.page(
        &call,
        |view, after, limit| ids(view, &prefix, after, limit),
        |view, id| Some(shown(view, &*view.session(id.parse().ok()?)?)),
    )?;
    let ids: Vec<_> = page.items.iter().map(|session| SessionId(session.id.value())).collect();
    let left = call.edge.validity(&ids).await;
    for (session, left) in page.items.iter_mut().zip(left) {
        with_validity(session, left);
    }
    Ok(page.answer())
}

/// Printed ids that start with `prefix`: they sort as the numbers do.
fn ids(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let least = u64::from_str_radix(&format!("{prefix:0<16}"), 16);
    let Some(before) = least.ok().filter(|_| prefix.len() <= 16) else { return Vec::new() };
    let after = after.and_then(|after| after.parse().ok());
    let start = after.max(before.checked_sub(1).map(SessionId));
    let found = view.sessions(start).map(|session| session.id.to_string());
    found.take_while(|id| id.starts_with(prefix)).take(limit).collect()
}
