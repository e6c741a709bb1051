//! ① Sessions: open, renew, hold, close.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use coracle_api::{self as api, Code, Problem, Span};
use coracle_raft::node::RenewError;
use coracle_store::command::{OnExpire, OpenSession, UpdateSession};
use coracle_store::{
    Cause, Event, Key, Millis, Operation, Outcome, Refusal, Revision, SessionId, Store, limits,
};
use http::{StatusCode, header};

use super::attached::{self, Lost};
use super::call::{Call, check_name, draw_session, outcome, unexpected};
use super::message::Response;
use super::problem::{Answer, Refused, bad_body, bad_query, refused, session_expired, too_large};
use super::turn::change_at;
use super::{held, hold, json, kv, respond, wire};

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
        return Ok(held::session(call, opening, id, revision, received));
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
pub fn id(call: &Call) -> Answer<SessionId> {
    let name = call.name(ID)?;
    name.parse().map_err(|()| not_found(&name))
}

pub fn not_found(name: &str) -> Refused {
    Problem::new(Code::SessionNotFound, format!("no such session session={name}"))
        .with("session", name)
        .into()
}

/// `POST /v1/sessions/{id}/renew`
pub async fn renew(mut call: Call) -> Answer {
    let received = Instant::now();
    let id = id(&call)?;
    let (body, bytes) = call.json::<api::SessionRenew>().await?;
    let after = call.query.number("after", 0..=u64::MAX)?.map(Revision);
    let (update, says) = said(id, &body)?;
    let mutation = call.mutation(&bytes)?;
    // A bare renewal does not go through the log and is idempotent by itself; a guard is judged there, before it counts.
    let guarded = !mutation.guards.is_empty();
    let mut update = (says || guarded).then_some((mutation, Operation::UpdateSession(update)));
    if guarded && let Some((mutation, update)) = update.take() {
        outcome(call.propose(mutation, update).await?)?;
    }
    // Otherwise life first: what it has to say may be refused where the log is full or slow.
    let valid_for = match call.edge.node.renew(id, call.deadline).await {
        Ok(valid_for) => valid_for,
        Err(RenewError::Expired) => {
            call.edge.renewals.forget(id);
            return Err(session_expired(id).into());
        }
        Err(error) => return Err(error.into()),
    };
    if let Some((mutation, update)) = update {
        let (revision, ..) = outcome(call.propose(mutation, update).await?)?;
        call.edge.node.wait_revision(revision, call.deadline).await?;
    }
    call.edge.renewals.note(id, received, valid_for);
    let (holds, lost, stalled) = call.edge.node.read(|store| {
        let stalled = store.session(id).is_some_and(|session| session.stalled.is_some());
        (attached::holds(store.view(), id), attached::lost(store, id, after.unwrap_or_default()), stalled)
    });
    Ok(renewed(valid_for, &holds, stalled, &lost))
}

/// What a renewal says beside that the session lives, and whether it is anything.
fn said(id: SessionId, body: &api::SessionRenew) -> Answer<(UpdateSession, bool)> {
    if body.progress.as_ref().is_some_and(|p| p.percent > 100) {
        return Err(bad_body("progress.percent: 0 to 100"));
    }
    let note = body.progress.as_ref().and_then(|p| p.note.as_deref());
    if note.is_some_and(|note| note.len() > limits::NAME_BYTES) {
        return Err(bad_body(format!("progress.note: at most {} bytes", limits::NAME_BYTES)));
    }
    let (progress, note) = (body.progress.as_ref().map(|p| p.percent), note.map(Into::into));
    let meta = body.meta.as_ref().map(meta_text).transpose()?;
    Ok((UpdateSession { id, progress, note, meta }, body.progress.is_some() || body.meta.is_some()))
}

fn renewed(valid_for: Duration, holds: &[api::Hold], stalled: bool, lost: &Lost) -> Response {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(b"{\"valid_for\":");
    json::string(&mut out, &Span::from(valid_for).to_string());
    json::member(&mut out, "holds");
    json::to_json(&mut out, holds);
    if stalled {
        out.extend_from_slice(b",\"stalled\":true");
    }
    json::member(&mut out, "lost");
    json::to_json(&mut out, &lost.items);
    json::number_member(&mut out, "lost_after", lost.after.0);
    json::number_member(&mut out, "revision", lost.revision.0);
    out.push(b'}');
    debug_assert!(serde_json::from_slice::<api::SessionRenewed>(&out).is_ok());
    respond::json_bytes(StatusCode::OK, lost.revision, out)
}

/// `POST /v1/sessions/{id}/hold`
pub async fn hold(mut call: Call) -> Answer {
    let received = Instant::now();
    let id = id(&call)?;
    let on_disconnect = call.query.word("on_disconnect", &[("grace", false), ("expire", true)])?;
    let after = call.query.number("after", 0..=u64::MAX)?.map(Revision);
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
    // The session may have been opened through another node a moment ago.
    call.barrier().await?;
    let now = call.edge.node.read(Store::revision);
    let revision = after.map_or(now, |after| after.min(now));
    Ok(held::session(call, opening, id, revision, received))
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
            change.events.iter().filter(|e| keys.contains(&e.key)).filter_map(attached::released).collect()
        }
        None => keys.iter().filter_map(|key| attached::released(&bare(key))).collect(),
    };
    let body = api::SessionClosed { released, revision: revision.0 };
    Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), replayed))
}

fn bare(key: &Key) -> Event {
    Event { key: key.clone(), record: None, previous: None, cause: Cause::SessionClosed }
}
