//! ⑦ Reading sessions: how each is, and what hangs on it.

use std::time::Duration;

use coracle_api::{self as api, Span};
use coracle_store::command::OnExpire;
use coracle_store::{Family, Selection, Session, SessionId, View, session};
use http::StatusCode;

use super::attached::{Attached, attached};
use super::call::Call;
use super::list::Listing;
use super::problem::{Answer, session_expired};
use super::session::{id, not_found};
use super::{frame, respond, watch, wire};

/// A session as it is shown, without what only the leader knows of it.
fn shown(view: View<'_>, session: &Session) -> api::Session {
    let Attached { holds, waits, items, keys } = attached(view, session.id);
    let record = view.get(&session::key(session.id));
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
        progress: wire::progress(session),
        created: Some(api::Instant::from_unix_ms(session.opened.0)),
        create_revision: record.map_or(0, |record| record.create_revision.0),
        holds,
        waits,
        items,
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

/// `GET /v1/sessions/{id}`
pub async fn show(mut call: Call) -> Answer {
    let id = id(&call)?;
    // What comes and goes of what hangs on it is news of the session, too.
    let selection = Selection::Session(id);
    if let Some(watching) = watch::asked(&mut call)? {
        let name = move |_: View<'_>, after: Option<&str>, _| {
            after.is_none().then(|| id.to_string()).into_iter().collect()
        };
        let scope = watch::Scope::family(selection, name, by_id, Box::new(frame::any_event));
        return watch::open(call, watching, scope).await;
    }
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let left = call.edge.validity(&[id]).await.first().copied().flatten();
    let (body, revision, was) = call.edge.node.read(|store| {
        let body = store.session(id).map(|session| shown(store.view(), session));
        let was = body.is_some() || store.key_history(&session::key(id)).next().is_some();
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
    let prefix = call.query.text("prefix")?.unwrap_or_default().to_ascii_lowercase();
    let selection = Selection::Prefix(vec![Family::SESSION.0]);
    if let Some(watching) = watch::asked(&mut call)? {
        let start = prefix.clone();
        let names = move |view: View<'_>, after: Option<&str>, limit| ids(view, &start, after, limit);
        let told: watch::Told = Box::new(move |out, event| {
            let id = session::id_of(&event.key);
            id.is_some_and(|id| id.to_string().starts_with(&prefix)) && frame::any_event(out, event)
        });
        return watch::open(call, watching, watch::Scope::family(selection, names, by_id, told)).await;
    }
    let listing = Listing::of(&mut call, &[b"sessions", prefix.as_bytes()])?;
    if let Some(unchanged) = listing.ready(&mut call, selection).await? {
        return Ok(unchanged);
    }
    let mut page = listing.page(&call, |view, after, limit| ids(view, &prefix, after, limit), by_id)?;
    let ids: Vec<_> = page.items.iter().map(|session| SessionId(session.id.value())).collect();
    let left = call.edge.validity(&ids).await;
    for (session, left) in page.items.iter_mut().zip(left) {
        with_validity(session, left);
    }
    Ok(page.answer())
}

fn by_id(view: View<'_>, id: &str) -> Option<api::Session> {
    Some(shown(view, &*view.session(id.parse().ok()?)?))
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
