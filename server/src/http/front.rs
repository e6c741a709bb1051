//! ① ⑦ The front door: what every request passes on its way in, and every answer on its way out.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use coracle_api::{Code, PROBLEM_JSON, Problem};
use coracle_store::Store;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use tower::ServiceExt;

use super::call::{AdmittedSlot, Call, Front, Peer};
use super::problem::{Answer, Carried, Refused, retry_after};
use super::respond::{LEADER, MEMBER, REQUEST_ID, REVISION};
use super::{json, kv, respond};
use crate::edge::{Admitted, Edge};

/// Marks a request whose head gives both a length and a transfer coding.
#[derive(Clone, Copy)]
pub struct Ambiguous;

/// The whole HTTP service of a node; clones are cheap.
#[derive(Clone)]
pub struct Service {
    edge: Edge,
    routes: Router,
}

impl Service {
    #[must_use]
    pub fn new(edge: Edge) -> Self {
        Self { routes: super::routes(edge.clone()), edge }
    }

    /// Answer one request. Never fails, never panics: a panic of a handler is answered with `internal`.
    pub async fn answer(self, request: Request, peer: Arc<Peer>) -> Response {
        let started = Instant::now();
        let edge = self.edge.clone();
        let id = RequestId::next();
        let method = request.method().clone();
        let ambiguous = request.extensions().get::<Ambiguous>().is_some();
        let mut route = "";
        // Boxed: hyper keeps the place of this future for as long as the connection lives, and most of them are idle.
        let handled: Pin<Box<dyn Future<Output = Response> + Send>> = match self.admitted(&request, &peer) {
            Err(refused) => Box::pin(async { refused.into_response() }),
            // The hot path goes around the router; the table there names it all the same.
            Ok(admitted) if is_kv(request.uri().path()) => {
                route = "/v1/kv";
                Box::pin(kv_call(self.edge, request, peer, admitted))
            }
            Ok(admitted) => {
                route = super::route_of(request.uri().path());
                Box::pin(self.routed(request, peer, admitted))
            }
        };
        let mut response = sound(&id, handled).await;
        // What handled the request is gone by now: one that waits keeps only what its answer needs.
        while let Some(pending) = respond::pending(&mut response) {
            let answered = async { pending.await.into_response() };
            response = sound(&id, answered).await;
        }
        if let Some(Carried(problem)) = response.extensions_mut().remove::<Carried>() {
            response = written(&edge, *problem, &id, response);
        }
        let headers = response.headers_mut();
        if ambiguous {
            // Nothing that follows on this connection can be believed to be a request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        headers.insert(MEMBER, edge.member.clone());
        if !headers.contains_key(REVISION) {
            headers.insert(REVISION, HeaderValue::from(edge.node.read(Store::revision).0));
        }
        if let Some(leader) = edge.node.leader() {
            headers.insert(LEADER, HeaderValue::from(leader));
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(id.text())) {
            headers.insert(REQUEST_ID, value);
        }
        edge.metrics.answered(route, &method, response.status(), started.elapsed());
        response
    }

    fn admitted(&self, request: &Request, peer: &Peer) -> Answer<Admitted> {
        check(&self.edge, request, peer)?;
        self.edge.admit(frees(request.method(), request.uri().path()))
    }

    async fn routed(self, mut request: Request, peer: Arc<Peer>, admitted: Admitted) -> Response {
        request.extensions_mut().insert(Front { peer, admitted: AdmittedSlot::new(Some(admitted)) });
        let Ok(response) = self.routes.oneshot(request).await;
        response
    }
}

async fn kv_call(edge: Edge, request: Request, peer: Arc<Peer>, admitted: Admitted) -> Response {
    let answer = match Call::new(edge, request, peer, Some(admitted)) {
        Ok(call) => kv::serve(call).await,
        Err(refused) => Err(refused),
    };
    answer.into_response()
}

/// The response, whatever happens.
async fn sound(id: &RequestId, answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| {
        let message =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        tracing::error!(request = %id, panic = message.unwrap_or("unknown"), "a request handler panicked");
        let detail = "an unexpected error; it is in the log of this node";
        Refused::from(Problem::new(Code::Internal, detail)).into_response()
    })
}

fn is_kv(path: &str) -> bool {
    path.strip_prefix("/v1/kv").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
        && !edge.hosts.allows(host)
    {
        let problem =
            Problem::new(Code::HostNotAllowed, format!("the host is not one of this server host={host:?}"));
        return Err(problem.with("host", host).into());
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
    if let Some(site) = headers.get("sec-fetch-site") {
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
fn written(edge: &Edge, mut problem: Problem, id: &RequestId, carrier: Response) -> Response {
    problem.instance = Some(format!("/requests/{id}"));
    if problem.revision.is_none() {
        problem.revision = Some(edge.node.read(Store::revision).0);
    }
    if problem.status >= 500 {
        tracing::warn!(request = %id, code = problem.code.as_str(), detail = ?problem.detail, "request failed");
    }
    let mut body = Vec::with_capacity(512);
    json::to_json(&mut body, &problem);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    // Such as `Allow`, which the router has found out.
    headers.extend(carrier.into_parts().0.headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(REVISION, HeaderValue::from(problem.revision.unwrap_or_default()));
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

/// Nothing is at this path.
pub async fn no_route(uri: Uri) -> Refused {
    Problem::new(Code::RouteNotFound, format!("there is nothing at this path path={:?}", uri.path())).into()
}

/// The path does not take this method; the router adds `Allow`.
pub async fn no_method(method: Method, path: Option<MatchedPath>) -> Refused {
    let shown = path.as_ref().map_or("", |path| path.as_str());
    Problem::new(
        Code::MethodNotAllowed,
        format!("the path does not take this method method={method} path={shown}"),
    )
    .into()
}

/// Identity of a request: a UUID of version 7, as text only where it is shown.
#[derive(Clone, Copy)]
pub struct RequestId(uuid::Uuid);

impl RequestId {
    fn next() -> Self {
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

    fn text(self) -> Vec<u8> {
        let mut text = vec![0; uuid::fmt::Hyphenated::LENGTH];
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
    fn the_hot_path_is_that_of_keys() {
        assert!(is_kv("/v1/kv") && is_kv("/v1/kv/") && is_kv("/v1/kv//a") && !is_kv("/v1/kvx"));
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
