//! ⑦ Answers: the headers every one of them has, raw values, JSON.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use coracle_api::{OCTET_STREAM, TEXT};
use coracle_store::{ContentType, Key, Record, Revision};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::json;
use super::message::{Body, Response};
use super::problem::Answer;

pub const REVISION: HeaderName = HeaderName::from_static("coracle-revision");
pub const MEMBER: HeaderName = HeaderName::from_static("coracle-member");
pub const LEADER: HeaderName = HeaderName::from_static("coracle-leader");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("coracle-request-id");
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const CREATE_REVISION: HeaderName = HeaderName::from_static("coracle-create-revision");
const VERSION: HeaderName = HeaderName::from_static("coracle-version");
const SESSION: HeaderName = HeaderName::from_static("coracle-session");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const CSP: HeaderName = HeaderName::from_static("content-security-policy");

/// Values above this are handed to the connection without a copy.
const COPY_BYTES: usize = 4096;

/// An answer that is still to come. Whoever waits long answers with this, so that nothing stays of the request's
/// handling but the wait itself.
pub fn later(answer: impl Future<Output = Answer> + Send + 'static) -> Response {
    let answer: Pending = Box::pin(answer);
    let mut response = Response::default();
    response.extensions_mut().insert(Later(Arc::new(Mutex::new(Some(answer)))));
    response
}

type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Extensions must be `Clone` and `Sync`; the answer is moved out by the front door.
#[derive(Clone)]
struct Later(Arc<Mutex<Option<Pending>>>);

/// The answer to wait for before there is a response.
pub fn pending(response: &mut Response) -> Option<Pending> {
    let Later(answer) = response.extensions_mut().remove()?;
    answer.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A JSON answer from bytes that are JSON.
pub fn json_bytes(status: StatusCode, revision: Revision, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REVISION, number(revision.0));
    response
}

/// A JSON answer.
pub fn json(status: StatusCode, revision: Revision, body: &impl Serialize) -> Response {
    let mut bytes = Vec::with_capacity(256);
    json::to_json(&mut bytes, body);
    json_bytes(status, revision, bytes)
}

/// 304: what the caller knows is still so.
pub fn not_modified(revision: Revision) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(REVISION, number(revision.0));
    response
}

/// Mark an answer as the one of an earlier call.
pub fn replayed(mut response: Response, replayed: bool) -> Response {
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The numbers of an item.
pub fn item_headers(headers: &mut HeaderMap, record: &Record) {
    headers.insert(header::ETAG, etag(record.mod_revision));
    headers.insert(CREATE_REVISION, number(record.create_revision.0));
    headers.insert(VERSION, number(record.version));
    if let Some(session) = record.session
        && let Ok(value) = HeaderValue::try_from(session.to_string())
    {
        headers.insert(SESSION, value);
    }
}

pub fn etag(revision: Revision) -> HeaderValue {
    let mut text = Vec::with_capacity(22);
    text.push(b'"');
    json::number(&mut text, revision.0);
    text.push(b'"');
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A number as the value of a header. The conversion of the `http` crate takes four times as long.
pub fn number(number: u64) -> HeaderValue {
    HeaderValue::from_bytes(json::digits(&mut [0; 20], number)).unwrap_or(HeaderValue::from_static("0"))
}

fn content_type(kind: &ContentType) -> HeaderValue {
    match kind {
        ContentType::Text => HeaderValue::from_static(TEXT),
        ContentType::Json => HeaderValue::from_static("application/json"),
        ContentType::Binary => HeaderValue::from_static(OCTET_STREAM),
        ContentType::Other(name) => {
            HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static(OCTET_STREAM))
        }
    }
}

/// A bare value: stored type, and nothing a browser could be talked into running.
pub fn raw(revision: Revision, record: &Record) -> Response {
    let body = if record.value.len() > COPY_BYTES {
        Bytes::from_owner(record.value.clone())
    } else {
        Bytes::copy_from_slice(&record.value)
    };
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.reserve(12);
    headers.insert(header::CONTENT_TYPE, content_type(&record.content_type));
    harmless(headers);
    headers.insert(REVISION, number(revision.0));
    item_headers(headers, record);
    response
}

/// Nothing that a browser could be talked into running.
pub fn harmless(headers: &mut HeaderMap) {
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    headers.insert(CSP, HeaderValue::from_static("sandbox; default-src 'none'"));
}

/// One item as JSON.
pub fn entry(revision: Revision, key: &Key, record: &Record) -> Response {
    let mut body = Vec::with_capacity(record.value.len() + 160);
    json::entry(&mut body, key, record, true);
    let mut response = json_bytes(StatusCode::OK, revision, body);
    item_headers(response.headers_mut(), record);
    response
}
