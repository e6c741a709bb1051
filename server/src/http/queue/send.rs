//! ① Sending: one message as the body, or several as JSON.

use std::collections::BTreeMap;
use std::time::Instant;

use coracle_api::Span;
use coracle_api::queue as wire;
use coracle_recipes::queue::barrier::HandOut;
use coracle_recipes::queue::{self, BATCH, HEADERS, Header, Message, Operation, Outcome};
use coracle_store::{Attach, Millis, SessionId, Value, limits};
use http::{HeaderMap, StatusCode};

use super::super::call::{Call, check_name};
use super::super::claim::first_validity;
use super::super::hold::{self, Claimed};
use super::super::kv::{self, Ephemeral};
use super::super::objects::NAME;
use super::super::problem::{Answer, Refused, bad_body, bad_query, too_large};
use super::super::{body, wire as ids};
use super::item::HeldItem;
use super::{apply, odd, own, spans};
use crate::http::message::Response;

/// Headers of a message, among those of a request.
pub const META: &str = "coracle-meta-";

/// `POST /v1/queues/{q}/messages`
pub async fn send(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    if call.query.flag("batch")?.unwrap_or(false) {
        return Box::pin(send_many(call, name)).await;
    }
    let priority = call.query.number("priority", 0..=9)?.and_then(|priority| u8::try_from(priority).ok());
    let named = |call: &mut Call, what: &'static str| match call.query.text(what)? {
        Some(text) => {
            check_name(&text).map_err(|detail| bad_query(what, detail))?;
            Ok::<_, Refused>(Some(text.into()))
        }
        None => Ok(None),
    };
    let (group, dedup_id, item) =
        (named(&mut call, "group")?, named(&mut call, "dedup_id")?, named(&mut call, "id")?);
    let delay = call.query.span("delay", spans(Millis(0)))?.unwrap_or_default();
    let lives = lives_with(&mut call, &name)?;
    let Lives { ttl, ephemeral: Ephemeral { attach, private, hold } } = lives;
    let opening = hold.map(|hold| hold::opening(&mut call, hold)).transpose()?;
    let wait = call.wait()?.filter(|wait| !wait.is_zero());
    if wait.is_some() && opening.is_some() {
        return Err(bad_query("wait", "not together with hold: the stream tells of the release"));
    }
    if wait.is_some() && !hands_out_own(&call, &name) {
        let kind = call.edge.node.read(|store| queue::config(store.view(), &name).kind);
        let what = "wait (only with barrier.delivery=self)";
        return Err(super::problem(&queue::Refusal::WrongKind(kind, what.into())).into());
    }
    let bytes = call.value().await?;
    let message = Message {
        content_type: body::content_type(&call.headers, &bytes)?,
        value: Value::from(&*bytes),
        priority: priority.unwrap_or(0),
        group,
        delay: Millis(delay.as_millis()),
        ttl: ttl.map(|ttl| Millis(ttl.as_millis())),
        dedup_id,
        headers: meta(&call.headers)?,
        item,
    };
    let wanted = queue::Send { queue: name.as_str().into(), messages: vec![message], attach };
    let (applied, outcome) = apply(&mut call, &bytes, Operation::Send(wanted)).await?;
    let Outcome::Sent(sent) = outcome else { return Err(odd(outcome)) };
    let Some(sent) = sent.first().copied() else { return Err(odd(Outcome::Sent(sent))) };
    if let (Some(opening), Some(session)) = (opening, sent.session) {
        let revision = applied.revision;
        let item = HeldItem::new(call.edge.clone(), name, sent.id, session, revision);
        return Ok(hold::stream(call, opening, Claimed { session, revision, received, until: None }, item));
    }
    if let Some(wait) = wait {
        return own::wait(call, name, sent, applied, wait).await;
    }
    let status = if sent.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let mut body = answer(sent, applied.revision.0);
    if let Some(session) = sent.session {
        body.valid_for = Some(first_validity(&call.edge, private, session, received).await);
    }
    Ok(located(applied.answer(status, &body), &name, &sent.id.to_string()))
}

/// What a send answers.
pub fn answer(sent: queue::Sent, revision: u64) -> wire::Sent {
    let queue::Sent { id, duplicate, generation, session } = sent;
    wire::Sent {
        id: id.to_string(),
        revision,
        duplicate,
        generation,
        ordinal: None,
        size: None,
        receipt: None,
        session: session.map(ids::session),
        valid_for: None,
    }
}

/// The answer with the place where the message can be looked at.
fn located(mut response: Response, queue: &str, id: &str) -> Response {
    let queue = super::super::kv::escape_key(queue.as_bytes()).replace('/', "%2F");
    if let Ok(location) = format!("/v1/queues/{queue}/messages/{id}").try_into() {
        response.headers_mut().insert(http::header::LOCATION, location);
    }
    response
}

async fn send_many(mut call: Call, name: String) -> Answer {
    let attach = session(&mut call)?;
    let (many, bytes) = call.json::<wire::SendMany>().await?;
    if many.items.is_empty() {
        return Err(bad_body("items: at least one"));
    }
    if many.items.len() > BATCH {
        return Err(too_large("send_messages", BATCH as u64, Some(many.items.len() as u64)));
    }
    let most = call.edge.config.max_value.0;
    let messages = many.items.into_iter().map(|item| one(item, most)).collect::<Answer<Vec<_>>>()?;
    let wanted = queue::Send { queue: name.as_str().into(), messages, attach };
    let (applied, outcome) = apply(&mut call, &bytes, Operation::Send(wanted)).await?;
    let Outcome::Sent(sent) = outcome else { return Err(odd(outcome)) };
    let item = |sent: &queue::Sent| wire::SentItem {
        id: sent.id.to_string(),
        duplicate: sent.duplicate,
        generation: sent.generation,
    };
    let body = wire::SentMany { items: sent.iter().map(item).collect(), revision: applied.revision.0 };
    Ok(applied.answer(StatusCode::CREATED, &body))
}

fn one(item: wire::Send, most: u64) -> Answer<Message> {
    let wire::Send { value, group, priority, delay, ttl, dedup_id, id, headers } = item;
    if value.bytes.len() as u64 > most {
        return Err(too_large("value_bytes", most, Some(value.bytes.len() as u64)));
    }
    for (what, name) in [("group", &group), ("dedup_id", &dedup_id), ("id", &id)] {
        if let Some(name) = name {
            check_name(name).map_err(|detail| bad_body(format!("{what}: {detail}")))?;
        }
    }
    let within = |what: &str, span: Option<Span>, least: u64| match span {
        Some(span) if !spans(Millis(least)).contains(&span) => {
            let range = spans(Millis(least));
            Err(bad_body(format!("{what}: a duration min={} max={}", range.start(), range.end())))
        }
        span => Ok(span.map(|span| Millis(span.as_millis()))),
    };
    if priority.is_some_and(|priority| priority > 9) {
        return Err(bad_body("priority: a whole number min=0 max=9"));
    }
    Ok(Message {
        content_type: body::named(&value.content_type, &value.bytes),
        value: Value::from(&*value.bytes),
        priority: priority.unwrap_or(0),
        group: group.map(Into::into),
        delay: within("delay", delay, 0)?.unwrap_or(Millis(0)),
        ttl: within("ttl", ttl, 1)?,
        dedup_id: dedup_id.map(Into::into),
        headers: checked(headers)?,
        item: id.map(Into::into),
    })
}

/// What a message lives with.
struct Lives {
    /// Of the message, but in a barrier queue, where it is that of its private session: the log knows which it is.
    ttl: Option<Span>,
    ephemeral: Ephemeral,
}

/// `session=ID`, `ttl=1h` or `hold=true`.
fn lives_with(call: &mut Call, queue: &str) -> Answer<Lives> {
    let none = || Ephemeral { attach: Attach::None, private: None, hold: None };
    if call.query.has(&["session", "hold", "on_disconnect"]) {
        return Ok(Lives { ttl: None, ephemeral: kv::ephemeral(call)?.unwrap_or_else(none) });
    }
    // Where this node is behind, the log says that it is out of bounds.
    let kind = call.edge.node.read(|store| queue::config(store.view(), queue).kind);
    let range = if kind == queue::Kind::Barrier { kv::ttl_range() } else { spans(Millis(1)) };
    let ttl = call.query.span("ttl", range)?;
    let private = ttl.map(|ttl| Ephemeral::private(ttl, None));
    Ok(Lives { ttl, ephemeral: private.unwrap_or_else(none) })
}

/// The session whose end withdraws an item of a barrier queue.
fn session(call: &mut Call) -> Answer<Attach> {
    let session: Option<SessionId> = call.optional_session("session")?;
    Ok(session.map_or(Attach::None, Attach::Session))
}

fn hands_out_own(call: &Call, name: &str) -> bool {
    let config = call.edge.node.read(|store| queue::config(store.view(), name));
    config.barrier.is_some_and(|barrier| barrier.hand_out == HandOut::Own)
}

/// `Coracle-Meta-*` headers, their names in lower case.
fn meta(headers: &HeaderMap) -> Answer<Vec<Header>> {
    let mut found = BTreeMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(META) else { continue };
        let value = value
            .to_str()
            .map_err(|_| Refused::from(coracle_api::Problem::invalid("header", name, "not visible ASCII")))?;
        found.insert(name.to_owned(), value.to_owned());
    }
    checked(found)
}

fn checked(headers: BTreeMap<String, String>) -> Answer<Vec<Header>> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HEADERS {
        return Err(too_large("message_headers", HEADERS as u64, Some(headers.len() as u64)));
    }
    if bytes > limits::META_BYTES {
        return Err(too_large("metadata_bytes", limits::META_BYTES as u64, Some(bytes as u64)));
    }
    Ok(headers.into_iter().map(|(name, value)| Header { name: name.into(), value: value.into() }).collect())
}
