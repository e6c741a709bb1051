//! ① The key-value family: one key.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{Code, Problem, Span};
use coracle_store::command::{Append, Attach, Delete, OpenSession, Precondition, Put};
use coracle_store::{
    Family, Key, Millis, Operation, Outcome, Record, Revision, Selection, SessionId, Value, limits,
};
use http::{HeaderName, Method, StatusCode, header};
use percent_encoding::percent_decode_str;

use super::call::{Call, draw_session, outcome, unexpected};
use super::message::Response;
use super::problem::{Answer, Refused, bad_query};
use super::read::Format;
use super::{body, held, hold, json, kv_list, query, respond, watch};
use crate::edge::Edge;

/// Length of the path before a key: `/v1/kv/`.
const BEFORE_KEY: usize = "/v1/kv/".len();

/// Every request for `/v1/kv` and `/v1/kv/{*key}`.
pub async fn serve(mut call: Call) -> Answer {
    let exact = if call.uri.path().len() > BEFORE_KEY { None } else { call.query.bytes("key") };
    let Some(key) = key_of(&call, exact)? else {
        // Boxed, so that the futures of the hot calls stay small; likewise below.
        return Box::pin(kv_list::serve(call)).await;
    };
    match call.method {
        Method::GET | Method::HEAD => read(call, key).await,
        Method::PUT => put(call, key).await,
        Method::DELETE => delete(call, key).await,
        Method::POST => Box::pin(append(call, key)).await,
        _ => Err(method_not_allowed("GET, HEAD, PUT, DELETE, POST")),
    }
}

pub fn method_not_allowed(allowed: &'static str) -> Refused {
    Problem::new(Code::MethodNotAllowed, format!("the path takes {allowed}")).with("allowed", allowed).into()
}

/// The key named by the path or by `key=`; `None` for the whole family.
fn key_of(call: &Call, exact: Option<Vec<u8>>) -> Answer<Option<Key>> {
    let path = call.uri.path();
    let name = match exact {
        Some(name) => name,
        None if path.len() <= BEFORE_KEY => return Ok(None),
        None => percent_decode_str(&path[BEFORE_KEY..]).collect(),
    };
    check_key(&name)?;
    Ok(Some(Key::new(Family::KV, &name)))
}

pub fn check_key(name: &[u8]) -> Answer<()> {
    if name.is_empty() || name.len() > limits::KEY_BYTES {
        let detail = format!("1 to {} bytes actual={}", limits::KEY_BYTES, name.len());
        return Err(Problem::invalid("path", "key", detail).into());
    }
    Ok(())
}

async fn read(mut call: Call, key: Key) -> Answer {
    if let Some(watching) = watch::asked(&mut call)? {
        let scope = watch::Scope::kv(Selection::Key(key));
        return Box::pin(watch::open(call, watching, scope)).await;
    }
    if call.query.flag("history")?.unwrap_or(false) {
        return Box::pin(kv_list::history(call, key)).await;
    }
    let reading = call.reading()?;
    let at = call.query.number("revision", 0..=u64::MAX)?.map(Revision);
    let poll = call.long_poll()?;
    let format = call.format(&[("raw", Format::Raw), ("json", Format::Json)])?;
    let if_none_match = tags_of(&mut call, "if_none_match", &header::IF_NONE_MATCH)?;
    let if_match = tags_of(&mut call, "if_match", &header::IF_MATCH)?;
    call.query.done()?;
    let wanted = Wanted { key, at, format, if_match, if_none_match };
    match poll {
        Some(_) if at.is_some() => Err(bad_query("wait", "not with revision: the past does not change")),
        Some(poll) => {
            let selection = Selection::Key(wanted.key.clone());
            let answer = move |edge: &Edge, quiet: Option<Revision>| match quiet {
                Some(revision) => Ok(respond::not_modified(revision)),
                None => wanted.answer(edge),
            };
            Box::pin(call.answer_when_changed(poll, selection, reading, answer)).await
        }
        None => {
            call.settle(reading).await?;
            wanted.answer(&call.edge)
        }
    }
}

/// A read of one key, once this node is where it may look.
struct Wanted {
    key: Key,
    at: Option<Revision>,
    format: Option<Format>,
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

impl Wanted {
    fn answer(&self, edge: &Edge) -> Answer {
        let key = &self.key;
        let (found, revision) = edge.node.read(|store| match self.at {
            None => Ok((store.get(key).cloned(), store.revision())),
            Some(at) => store.get_at(key, at).map(|record| (record, at)),
        })?;
        let Some(record) = found else { return Err(key_not_found(key, revision)) };
        let (if_match, if_none_match) = (self.if_match.as_ref(), self.if_none_match.as_ref());
        conditional(key, &record, revision, if_match, if_none_match, |record| {
            if self.format == Some(Format::Json) {
                respond::entry(revision, key, record)
            } else {
                respond::raw(revision, record)
            }
        })
    }
}

/// RFC 9110 conditions of a read.
fn conditional(
    key: &Key,
    record: &Arc<Record>,
    revision: Revision,
    if_match: Option<&Tags>,
    if_none_match: Option<&Tags>,
    answer: impl FnOnce(&Record) -> Response,
) -> Answer {
    if if_match.is_some_and(|tags| !tags.matches(record.mod_revision)) {
        let refusal = coracle_store::Refusal::RevisionMismatch(key.clone(), record.mod_revision);
        return Err(super::problem::refused(&refusal, revision));
    }
    if if_none_match.is_some_and(|tags| tags.matches(record.mod_revision)) {
        let mut response = respond::not_modified(revision);
        respond::item_headers(response.headers_mut(), record);
        return Ok(response);
    }
    Ok(answer(record))
}

fn key_not_found(key: &Key, revision: Revision) -> Refused {
    Problem::new(Code::KeyNotFound, format!("no such key key={}", key.name().escape_ascii()))
        .with("key", super::wire::key_text(key))
        .at_revision(revision.0)
        .into()
}

/// Entity tags: any, or a list of revisions.
enum Tags {
    Any,
    List(Vec<u64>),
}

impl Tags {
    fn matches(&self, revision: Revision) -> bool {
        match self {
            Self::Any => true,
            Self::List(list) => list.contains(&revision.0),
        }
    }
}

fn tags_of(call: &mut Call, name: &'static str, header: &HeaderName) -> Answer<Option<Tags>> {
    call.twin(name, header)?.map(|text| tags(name, &text)).transpose()
}

/// `*`, `41`, `"41"`, `W/"41"`, and lists of these.
fn tags(name: &str, text: &str) -> Answer<Tags> {
    if text.trim() == "*" {
        return Ok(Tags::Any);
    }
    let one = |tag: &str| {
        let tag = tag.trim();
        let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        query::number(tag.as_bytes(), &(0..=u64::MAX))
            .ok_or_else(|| bad_query(name, "a revision, quoted or not, or *"))
    };
    text.split(',').map(one).collect::<Answer<Vec<_>>>().map(Tags::List)
}

/// What `If-Match` and `If-None-Match` ask of a write.
pub fn precondition(call: &mut Call) -> Answer<Precondition> {
    let if_match = call.twin("if_match", &header::IF_MATCH)?;
    let if_none_match = call.twin("if_none_match", &header::IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::None),
        (Some(_), Some(_)) => Err(bad_query("if_match", "not together with if_none_match")),
        (Some(text), None) => match tags("if_match", &text)? {
            Tags::Any => Ok(Precondition::Present),
            Tags::List(list) => match list.as_slice() {
                [0] => Ok(Precondition::Absent),
                [revision] => Ok(Precondition::Matches(Revision(*revision))),
                _ => Err(bad_query("if_match", "one revision on writes")),
            },
        },
        (None, Some(text)) if text.trim() == "*" => Ok(Precondition::Absent),
        (None, Some(_)) => Err(bad_query("if_none_match", "only * on writes")),
    }
}

/// `session=ID`, `ttl=30s` or `hold=true`: what the written key shall live with.
pub struct Ephemeral {
    pub attach: Attach,
    /// The private session and its ttl, if one is opened.
    pub private: Option<(SessionId, Span)>,
    pub hold: Option<hold::Hold>,
}

impl Ephemeral {
    /// A private session, opened with what it is for.
    pub fn private(ttl: Span, hold: Option<hold::Hold>) -> Self {
        let id = draw_session();
        let open = OpenSession::new(id, Millis(ttl.as_millis()));
        Self { attach: Attach::Private(open), private: Some((id, ttl)), hold }
    }
}

/// Session lifetimes, shortest and longest.
pub fn ttl_range() -> std::ops::RangeInclusive<Span> {
    Span::from_millis_saturating(*limits::TTL_MS.start())
        ..=Span::from_millis_saturating(*limits::TTL_MS.end())
}

/// Lifetime of a session that asks for none.
pub const TTL_DEFAULT: Span = match Span::from_secs(15) {
    Some(span) => span,
    None => panic!("fifteen seconds are a span"),
};

/// The E of the endpoint table; `None` if the request has nothing of it.
pub fn ephemeral(call: &mut Call) -> Answer<Option<Ephemeral>> {
    let session = call.optional_session("session")?;
    let ttl = call.query.span("ttl", ttl_range())?;
    let hold = call.query.flag("hold")?.unwrap_or(false);
    let at_once = call.query.word("on_disconnect", &[("grace", false), ("expire", true)])?;
    if at_once.is_some() && !hold {
        return Err(bad_query("on_disconnect", "only with hold=true"));
    }
    match (session, ttl, hold) {
        (None, None, false) => Ok(None),
        (Some(session), None, false) => {
            Ok(Some(Ephemeral { attach: Attach::Session(session), private: None, hold: None }))
        }
        (None, ttl, hold) => {
            let ttl = ttl.unwrap_or(TTL_DEFAULT);
            let hold = hold.then_some(hold::Hold { ttl, expire_at_once: at_once == Some(true) });
            Ok(Some(Ephemeral::private(ttl, hold)))
        }
        (Some(_), ..) => Err(bad_query("session", "not together with ttl or hold")),
    }
}

async fn put(mut call: Call, key: Key) -> Answer {
    let precondition = precondition(&mut call)?;
    let ephemeral = ephemeral(&mut call)?;
    let keep = call.query.flag("keep_session")?.unwrap_or(false);
    let return_previous = call.query.word("return", &[("previous", true), ("none", false)])?.unwrap_or(false);
    if keep && ephemeral.is_some() {
        return Err(bad_query("keep_session", "not together with session, ttl or hold"));
    }
    let bytes = call.value().await?;
    let content_type = body::content_type(&call.headers, &bytes)?;
    let (attach, private, hold) = match ephemeral {
        Some(Ephemeral { attach, private, hold }) => (attach, private, hold),
        None if keep => (Attach::Keep, None, None),
        None => (Attach::None, None, None),
    };
    let opening = hold.map(|hold| hold::opening(&mut call, hold)).transpose()?;
    let mutation = call.mutation(&bytes)?;
    let put = Put { key, value: Value::from(&*bytes), content_type, attach, precondition, return_previous };
    let received = std::time::Instant::now();
    let reply = call.propose(mutation, Operation::Put(put)).await?;
    let (revision, replayed, outcome) = outcome(reply)?;
    let Outcome::Put(put) = outcome else { return Err(unexpected(&outcome)) };
    if let (Some(opening), Some(session)) = (opening, put.session) {
        return Ok(held::written(call, opening, session, revision, received));
    }
    let status = if put.version == 1 { StatusCode::CREATED } else { StatusCode::OK };
    let mut out = Vec::with_capacity(96 + put.key.name().len());
    out.push(b'{');
    json::bytes_member(&mut out, "key", put.key.name());
    json::number_member(&mut out, "revision", revision.0);
    json::number_member(&mut out, "version", put.version);
    json::session_member(&mut out, put.session);
    own_validity(&mut out, &call, private, put.session, received).await;
    if let Some(previous) = &put.previous {
        json::member(&mut out, "previous");
        json::entry(&mut out, &put.key, previous, true);
    }
    out.push(b'}');
    Ok(respond::replayed(respond::json_bytes(status, revision, out), replayed))
}

async fn delete(mut call: Call, key: Key) -> Answer {
    let precondition = precondition(&mut call)?;
    let return_previous = call.query.word("return", &[("previous", true), ("none", false)])?.unwrap_or(false);
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let operation = Operation::Delete(Delete { key: key.clone(), precondition, return_previous });
    let (revision, replayed, outcome) = outcome(call.propose(mutation, operation).await?)?;
    let Outcome::Deleted(deleted) = outcome else { return Err(unexpected(&outcome)) };
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(b"{\"deleted\":");
    json::number(&mut out, deleted.deleted);
    json::number_member(&mut out, "revision", revision.0);
    if let Some(previous) = &deleted.previous {
        json::member(&mut out, "previous");
        json::entry(&mut out, &key, previous, true);
    }
    out.push(b'}');
    Ok(respond::replayed(respond::json_bytes(StatusCode::OK, revision, out), replayed))
}

/// `POST /v1/kv/{dir}/`: the server names the key, in order.
async fn append(mut call: Call, key: Key) -> Answer {
    let Some((b'/', directory)) = key.name().split_last() else {
        let problem = Problem::new(Code::MethodNotAllowed, "POST needs a path that ends with a slash");
        return Err(problem.with("allowed", "GET, HEAD, PUT, DELETE").into());
    };
    // A slash and twenty digits follow.
    if directory.is_empty() || directory.len() + 21 > limits::KEY_BYTES {
        let detail = format!(
            "1 to {} bytes before the closing slash actual={}",
            limits::KEY_BYTES - 21,
            directory.len()
        );
        return Err(Problem::invalid("path", "key", detail).into());
    }
    let directory = Key::new(Family::KV, directory);
    let ephemeral = ephemeral(&mut call)?;
    let bytes: Bytes = call.value().await?;
    let content_type = body::content_type(&call.headers, &bytes)?;
    let (attach, private, hold) =
        ephemeral.map_or((Attach::None, None, None), |e| (e.attach, e.private, e.hold));
    let opening = hold.map(|hold| hold::opening(&mut call, hold)).transpose()?;
    let mutation = call.mutation(&bytes)?;
    let operation =
        Operation::Append(Append { directory, value: Value::from(&*bytes), content_type, attach });
    let received = std::time::Instant::now();
    let (revision, replayed, outcome) = outcome(call.propose(mutation, operation).await?)?;
    let Outcome::Put(put) = outcome else { return Err(unexpected(&outcome)) };
    if let (Some(opening), Some(session)) = (opening, put.session) {
        return Ok(held::written(call, opening, session, revision, received));
    }
    let mut out = Vec::with_capacity(96 + put.key.name().len());
    out.push(b'{');
    json::bytes_member(&mut out, "key", put.key.name());
    json::number_member(&mut out, "revision", revision.0);
    json::number_member(&mut out, "version", put.version);
    json::session_member(&mut out, put.session);
    own_validity(&mut out, &call, private, put.session, received).await;
    out.push(b'}');
    let mut response = respond::json_bytes(StatusCode::CREATED, revision, out);
    let location = format!("/v1/kv/{}", escape_key(put.key.name()));
    if let Ok(location) = location.try_into() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(respond::replayed(response, replayed))
}

/// How long the session is good for that was opened for it; who named one knows.
async fn own_validity(
    out: &mut Vec<u8>,
    call: &Call,
    private: Option<(SessionId, Span)>,
    session: Option<SessionId>,
    received: std::time::Instant,
) {
    if let (Some(_), Some(session)) = (private, session) {
        let valid_for = super::claim::first_validity(&call.edge, private, session, received).await;
        json::member(out, "valid_for");
        json::string(out, &valid_for.to_string());
    }
}

/// A key as it can stand in a path: slashes stay, all else that is special is escaped.
pub fn escape_key(name: &[u8]) -> String {
    const SPECIAL: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'~');
    percent_encoding::percent_encode(name, SPECIAL).to_string()
}
