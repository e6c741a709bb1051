//! ① ⑦ The front door: what every request passes on its way in, and every answer on its way out.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use coracle_api::{Code, PROBLEM_JSON, Problem};
use coracle_store::Store;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body::Body as _;

use super::call::{Call, Peer};
use super::message::{Body, Request, Response};
use super::problem::{Answer, Carried, Refused, retry_after};
use super::respond::{LEADER, MEMBER, REQUEST_ID, REVISION};
use super::router::{self, Handled};
use super::{body, json, respond};
use crate::edge::{Admitted, Edge};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Marks a request whose head gives both a length and a transfer coding.
#[derive(Clone, Copy)]
pub struct Ambiguous;

/// The whole HTTP service of a node; clones are cheap.
#[derive(Clone)]
pub struct Service(Edge);

impl Service {
    #[must_use]
    pub fn new(edge: Edge) -> Self {
        Self(edge)
    }

    /// Answer one request. Never fails, never panics: a panic of a handler is answered with `internal`.
    pub async fn answer(self, request: Request, peer: Arc<Peer>) -> Response {
        let started = Instant::now();
        let Self(edge) = self;
        let id = RequestId::next();
        let method = request.method().clone();
        let ambiguous = request.extensions().get::<Ambiguous>().is_some();
        let admitted = edge.admit(|| frees(&method, request.uri().path()));
        let (route, mut response) = if let Some(admitted) = admitted {
            let (route, handled) = handled(&edge, request, peer, admitted);
            (route, answered(&edge, &id, handled).await)
        } else {
            // Before anything is looked at: when there is too much to do, this is what there is most of. In a box,
            // because hyper keeps the place of what answers for as long as a connection lives.
            Box::pin(body::forget(request)).await;
            ("", edge.overload.answer(&id, edge.node.read(Store::revision).0))
        };
        if method == Method::HEAD {
            response = without_body(response);
        }
        let headers = response.headers_mut();
        if ambiguous {
            // Nothing that follows on this connection can be believed to be a request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        headers.insert(MEMBER, edge.member.clone());
        if !headers.contains_key(REVISION) {
            headers.insert(REVISION, respond::number(edge.node.read(Store::revision).0));
        }
        if let Some(leader) = edge.node.leader() {
            headers.insert(LEADER, respond::number(leader));
        }
        if let Ok(value) = HeaderValue::from_bytes(&id.text()) {
            headers.insert(REQUEST_ID, value);
        }
        edge.metrics.answered(route, &method, response.status(), started.elapsed());
        response
    }
}

/// The answer under way, and the route it is counted under.
fn handled(edge: &Edge, request: Request, peer: Arc<Peer>, admitted: Admitted) -> (&'static str, Handled) {
    if let Err(refused) = check(edge, &request, &peer) {
        return ("", Box::pin(std::future::ready(Err(refused))));
    }
    let (route, found) = router::lead(request.method(), request.uri().path());
    let handled = found.and_then(|handler| {
        let call = Call::new(edge.clone(), request, peer, Some(admitted))?;
        Ok(handler(call))
    });
    (route, handled.unwrap_or_else(|refused| Box::pin(std::future::ready(Err(refused)))))
}

async fn answered(edge: &Edge, id: &RequestId, handled: Handled) -> Response {
    let mut response = sound(id, handled).await;
    // What handled the request is gone by now: one that waits keeps only what its answer needs.
    while let Some(pending) = respond::pending(&mut response) {
        response = sound(id, pending).await;
    }
    match response.extensions_mut().remove::<Carried>() {
        Some(Carried(problem)) => written(edge, *problem, id),
        None => response,
    }
}

/// The response, whatever happens.
async fn sound(id: &RequestId, answer: Handled) -> Response {
    let answered = AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| {
        let message =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        tracing::error!(request = %id, panic = message.unwrap_or("unknown"), "a request handler panicked");
        let detail = "an unexpected error; it is in the log of this node";
        Err(Problem::new(Code::Internal, detail).into())
    });
    answered.unwrap_or_else(Refused::into_response)
}

/// The answer to HEAD: as to GET, with the length of what is not sent.
fn without_body(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Response::from_parts(head, Body::Empty)
}

/// What gives resources back is taken even at overload, and so is what operators look at.
fn frees(method: &Method, path: &str) -> bool {
    *method == Method::DELETE
        || path.ends_with("/renew")
        || path.ends_with("/release")
        || path.ends_with("/ack")
        || path.ends_with("/nack")
        || matches!(path, "/livez" | "/readyz" | "/metrics" | "/version" | "/v1/cluster")
}

/// Requests that no handler shall see: for hosts that are not ours, from other sites, ambiguous in their framing.
fn check(edge: &Edge, request: &Request, peer: &Peer) -> Answer<()> {
    let headers = request.headers();
    let host = authority(request.uri(), headers)?;
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Problem::invalid("header", "host", "required").into());
    }
    if request.extensions().get::<Ambiguous>().is_some() {
        let detail = "not together with transfer-encoding: where would the body end?";
        return Err(Problem::invalid("header", "content-length", detail).into());
    }
    if let Some(host) = host
        && peer.host.get().is_none_or(|known| **known != *host)
    {
        if !edge.hosts.allows(host) {
            let problem = Problem::new(
                Code::HostNotAllowed,
                format!("the host is not one of this server host={host:?}"),
            );
            return Err(problem.with("host", host).into());
        }
        let _ = peer.host.set(host.into());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        same_origin(headers, host, peer)?;
    }
    Ok(())
}

fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Answer<Option<&'a str>> {
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let invalid = |detail: &str| Refused::from(Problem::invalid("header", "host", detail));
    let host =
        hosts.next().map(|host| host.to_str().map_err(|_| invalid("not visible ASCII"))).transpose()?;
    if hosts.next().is_some() {
        return Err(invalid("given twice"));
    }
    Ok(host)
}

/// The rule of Go 1.25's `CrossOriginProtection`: a browser says where a request comes from; others say nothing.
fn same_origin(headers: &HeaderMap, host: Option<&str>, peer: &Peer) -> Answer<()> {
    let denied = |name: &str, value: &HeaderValue| {
        let shown = String::from_utf8_lossy(value.as_bytes());
        let problem =
            Problem::new(Code::CrossOriginDenied, format!("another site sent this {name}={shown:?}"));
        Refused::from(problem.with(name, shown))
    };
    if let Some(site) = headers.get(&SEC_FETCH_SITE) {
        return if matches!(site.as_bytes(), b"same-origin" | b"none") {
            Ok(())
        } else {
            Err(denied("sec-fetch-site", site))
        };
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let scheme = if peer.secure { "https://" } else { "http://" };
    let ours = origin
        .to_str()
        .ok()
        .and_then(|o| o.strip_prefix(scheme))
        .zip(host)
        .is_some_and(|(o, h)| o.eq_ignore_ascii_case(h));
    if ours { Ok(()) } else { Err(denied("origin", origin)) }
}

/// A problem as a response, with what only the front door knows.
fn written(edge: &Edge, mut problem: Problem, id: &RequestId) -> Response {
    problem.instance = Some(format!("/requests/{id}"));
    if problem.revision.is_none() {
        problem.revision = Some(edge.node.read(Store::revision).0);
    }
    // Refusals for overload are counted and not told one by one: that would be work, when there is too much of it.
    if problem.status >= 500 && problem.code != Code::Overloaded {
        tracing::warn!(request = %id, code = problem.code.as_str(), detail = ?problem.detail, "request failed");
    }
    let mut body = Vec::with_capacity(512);
    json::to_json(&mut body, &problem);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(REVISION, respond::number(problem.revision.unwrap_or_default()));
    if let Some(after) = retry_after(problem.code) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    if let Some(allowed) = problem.extra.get("allowed").and_then(|a| a.as_str())
        && let Ok(allowed) = HeaderValue::from_str(allowed)
    {
        headers.insert(header::ALLOW, allowed);
    }
    response
}

/// Identity of a request: a UUID of version 7, as text only where it is shown.
#[derive(Clone, Copy)]
pub struct RequestId(uuid::Uuid);

impl RequestId {
    pub fn next() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        static PROCESS: std::sync::OnceLock<[u8; 10]> = std::sync::OnceLock::new();
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        // Random by process, counted within it: unique without drawing for each request.
        let mut random = *PROCESS.get_or_init(rand::random);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        random[4..].iter_mut().zip(&count[2..]).for_each(|(byte, count)| *byte ^= count);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    pub fn text(self) -> [u8; uuid::fmt::Hyphenated::LENGTH] {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        self.0.hyphenated().encode_lower(&mut text);
        text
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_ids_of_their_own() {
        let ids: std::collections::HashSet<String> =
            (0..1000).map(|_| RequestId::next().to_string()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.as_bytes()[14] == b'7' && id.len() == 36));
    }

    #[test]
    fn only_our_own_pages_change_anything() {
        let check = |site: Option<&str>, origin: Option<&str>, secure: bool| {
            let mut headers = HeaderMap::new();
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            let peer = Peer { secure, ..Peer::anonymous() };
            same_origin(&headers, Some("localhost:7070"), &peer).is_ok()
        };
        assert!(check(None, None, false));
        assert!(check(Some("same-origin"), Some("http://localhost:7070"), false));
        assert!(check(Some("none"), None, false));
        assert!(check(None, Some("http://localhost:7070"), false));
        assert!(check(None, Some("https://LOCALHOST:7070"), true));
        for site in ["cross-site", "same-site", "anything"] {
            assert!(!check(Some(site), None, false), "{site}");
        }
        for origin in ["null", "http://localhost:7071", "https://localhost:7070", "http://evil.example", ""] {
            assert!(!check(None, Some(origin), false), "{origin}");
        }
    }
}
