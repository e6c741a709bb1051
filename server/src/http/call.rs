//! ① One request on its way through: who asks, for what, until when.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use coracle_api::{Code, Problem, Span};
use coracle_store::command::Condition;
use coracle_store::{Action, Command, Idempotency, Operation, Principal, Reply, Revision, SessionId, limits};
use http::{HeaderMap, HeaderName, Method, Uri, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::message::Request;
use super::problem::{Answer, Refused, bad_body, bad_query, refused};
use super::query::{self, Query};
use crate::edge::{Admitted, Edge};

/// Waits are at most this long.
pub const WAIT_MAX: Span = match Span::from_secs(600) {
    Some(span) => span,
    None => panic!("ten minutes are a span"),
};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const IF_HELD: HeaderName = HeaderName::from_static("if-held");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a connection knows about its client.
#[derive(Debug, Clone)]
pub struct Peer {
    pub principal: Principal,
    /// Over TLS.
    pub secure: bool,
    /// The host of its first request that was for one of ours.
    pub host: OnceLock<Box<str>>,
}

impl Peer {
    /// A client without a certificate.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { principal: Principal("anonymous".into()), secure: false, host: OnceLock::new() }
    }
}

/// A request with everything a handler needs.
pub struct Call {
    pub edge: Edge,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub query: Query,
    /// Until it is read.
    pub body: Option<Incoming>,
    pub peer: Arc<Peer>,
    /// Until when an answer is owed.
    pub deadline: Instant,
    /// The place among the requests worked on; given up while parked.
    pub admitted: Option<Admitted>,
}

impl Call {
    /// # Errors
    /// A query that is no query.
    pub fn new(edge: Edge, request: Request, peer: Arc<Peer>, admitted: Option<Admitted>) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        let query = Query::parse(&parts.uri)?;
        let deadline = Instant::now() + edge.config.request_timeout.as_duration();
        Ok(Self {
            edge,
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            query,
            body: Some(body),
            peer,
            deadline,
            admitted,
        })
    }

    /// The header's value as text, if it was sent.
    pub fn header(&self, name: &HeaderName) -> Answer<Option<&str>> {
        let Some(value) = self.headers.get(name) else { return Ok(None) };
        let invalid = |_| Problem::invalid("header", name.as_str(), "not visible ASCII").into();
        value.to_str().map(Some).map_err(invalid)
    }

    /// A header and its twin in the query: either, or both saying the same.
    pub fn twin(&mut self, name: &'static str, header: &HeaderName) -> Answer<Option<String>> {
        let query = self.query.text(name)?;
        let header = self.header(header)?;
        match (query, header) {
            (Some(query), Some(header)) if query != header => {
                Err(bad_query(name, "the header says something else"))
            }
            (Some(query), _) => Ok(Some(query)),
            (None, header) => Ok(header.map(str::to_owned)),
        }
    }

    /// How long the caller is ready to wait: `wait=30s` or `Prefer: wait=30`.
    pub fn wait(&mut self) -> Answer<Option<Span>> {
        if let Some(wait) = self.query.span("wait", Span::ZERO..=WAIT_MAX)? {
            return Ok(Some(wait));
        }
        let Some(prefer) = self.header(&PREFER)? else { return Ok(None) };
        let wait = prefer.split([',', ';']).find_map(|part| part.trim().strip_prefix("wait="));
        wait.map(|text| query::span("wait", text, &(Span::ZERO..=WAIT_MAX))).transpose()
    }

    /// The raw path segment at `index` as a name: UTF-8, 1 to 512 bytes, no control characters.
    pub fn name(&self, index: usize) -> Answer<String> {
        let raw = self.uri.path().split('/').nth(index + 1).unwrap_or_default();
        name_of(raw)
    }

    /// `session=ID` where it is required.
    pub fn session(&mut self, name: &'static str) -> Answer<SessionId> {
        self.optional_session(name)?.ok_or_else(|| bad_query(name, "required"))
    }

    pub fn optional_session(&mut self, name: &'static str) -> Answer<Option<SessionId>> {
        let Some(text) = self.query.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|()| bad_query(name, "not a session id of 16 hex digits"))
    }

    /// The guards of `If-Held` headers and `if_held` parameters: `locks/NAME; token=N`.
    pub fn guards(&mut self) -> Answer<Vec<Condition>> {
        let mut guards = Vec::new();
        while let Some(text) = self.query.text("if_held")? {
            guards.push(guard(&text)?);
        }
        for value in self.headers.get_all(&IF_HELD) {
            let text = value
                .to_str()
                .map_err(|_| Refused::from(Problem::invalid("header", "if-held", "not visible ASCII")))?;
            guards.push(guard(text)?);
        }
        if guards.len() > limits::OPERATIONS {
            return Err(Problem::new(
                Code::TooManyOps,
                format!("too many guards max={}", limits::OPERATIONS),
            )
            .into());
        }
        Ok(guards)
    }

    /// The client's name for this call with a hash of what is asked.
    pub fn idempotency(&mut self, body: &[u8]) -> Answer<Option<Idempotency>> {
        let Some(key) = self.twin("idempotency_key", &IDEMPOTENCY_KEY)? else { return Ok(None) };
        if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES {
            let detail = format!("1 to {} bytes", limits::IDEMPOTENCY_KEY_BYTES);
            return Err(Problem::invalid("header", "idempotency-key", detail).into());
        }
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(self.method.as_str().as_bytes());
        part(self.uri.path().as_bytes());
        for (name, value) in self.query.canonical() {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        for name in [header::IF_MATCH, header::IF_NONE_MATCH, IF_HELD, header::CONTENT_TYPE] {
            self.headers.get_all(name).iter().for_each(|value| part(value.as_bytes()));
        }
        part(body);
        Ok(Some(Idempotency { key: key.into(), fingerprint: hasher.digest() }))
    }

    /// The guards and idempotency key of a mutation, and the end of the parameters: nothing is known beyond them.
    pub fn mutation(&mut self, body: &[u8]) -> Answer<Mutation> {
        let guards = self.guards()?;
        let idempotency = self.idempotency(body)?;
        self.query.done()?;
        Ok(Mutation { principal: self.peer.principal.clone(), guards, idempotency })
    }

    /// Put one operation into the log.
    pub async fn propose(&self, mutation: Mutation, operation: Operation) -> Answer<Reply> {
        self.submit(&mutation.command(Action::One(operation))).await
    }

    pub async fn submit(&self, command: &Command) -> Answer<Reply> {
        Ok(self.edge.node.propose(command, self.deadline).await?)
    }

    /// Make sure that this node reflects everything acknowledged before.
    pub async fn barrier(&self) -> Answer<()> {
        Ok(self.edge.node.read_barrier(self.deadline).await?)
    }

    /// Begin to wait: give up the place among the requests worked on, and all that is left of the request. Its text is
    /// a part of the buffer it was read into.
    pub fn park(&mut self) {
        self.admitted = None;
        (self.uri, self.headers, self.query) = (Uri::default(), HeaderMap::new(), Query::default());
        self.body = None;
    }

    /// Time left until an answer is owed, for work that begins after a wait.
    pub fn fresh_deadline(&self) -> Instant {
        Instant::now() + self.edge.config.request_timeout.as_duration()
    }
}

/// What every mutation carries beside its operation.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub principal: Principal,
    pub guards: Vec<Condition>,
    pub idempotency: Option<Idempotency>,
}

impl Mutation {
    pub fn command(self, action: Action) -> Command {
        Command { principal: self.principal, idempotency: self.idempotency, guards: self.guards, action }
    }

    /// The same caller without conditions, for what takes something back.
    pub fn unconditional(&self) -> Self {
        Self { principal: self.principal.clone(), guards: Vec::new(), idempotency: None }
    }

    /// The n-th part of a mutation that takes several entries: the first carries the client's key, the others
    /// keys derived from it.
    pub fn part(&self, n: u64) -> Self {
        let mut part = self.clone();
        if n > 0
            && let Some(idempotency) = &mut part.idempotency
        {
            let hash = xxhash_rust::xxh3::xxh3_128(idempotency.key.as_bytes());
            idempotency.key = format!("{hash:032x}#{n}").into();
        }
        part
    }
}

/// The outcome of a reply, or its refusal as a problem.
pub fn outcome(reply: Reply) -> Answer<(Revision, bool, coracle_store::Outcome)> {
    match reply.result {
        Ok(outcome) => Ok((reply.revision, reply.replayed, outcome)),
        Err(refusal) => Err(refused(&refusal, reply.revision)),
    }
}

/// The log answered something that this operation cannot answer.
pub fn unexpected(outcome: &coracle_store::Outcome) -> Refused {
    tracing::error!(?outcome, "unexpected outcome");
    Problem::new(Code::Internal, "the log answered something unexpected").into()
}

/// A name from a raw path segment.
pub fn name_of(raw: &str) -> Answer<String> {
    let invalid = |detail: String| Refused::from(Problem::invalid("path", "name", detail));
    let name = percent_decode_str(raw).decode_utf8().map_err(|_| invalid("not UTF-8".to_owned()))?;
    check_name(&name).map_err(invalid)?;
    Ok(name.into_owned())
}

/// UTF-8, 1 to 512 bytes, no control characters.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > limits::NAME_BYTES {
        Err(format!("1 to {} bytes actual={}", limits::NAME_BYTES, name.len()))
    } else if !name.bytes().all(|byte| matches!(byte, 0x20..0x7f)) && name.chars().any(char::is_control) {
        Err("control characters are not taken in names".to_owned())
    } else {
        Ok(())
    }
}

/// Names in a body, in their order: `most` of them, each once.
pub fn check_names(what: &str, names: Vec<String>, most: usize) -> Answer<Vec<Box<str>>> {
    let refused = |detail: String| bad_body(format!("{what}: {detail}"));
    if names.len() > most {
        return Err(refused(format!("at most {most} actual={}", names.len())));
    }
    let mut seen = HashSet::with_capacity(names.len());
    for name in &names {
        check_name(name).map_err(refused)?;
        if !seen.insert(name.as_str()) {
            return Err(refused(format!("one is named twice name={name:?}")));
        }
    }
    Ok(names.into_iter().map(Into::into).collect())
}

/// `locks/NAME; token=N`, the name percent-encoded where it has to be.
fn guard(text: &str) -> Answer<Condition> {
    let invalid = |detail: &str| Refused::from(Problem::invalid("header", "if-held", detail));
    let (claim, token) = text.rsplit_once(';').ok_or_else(|| invalid("such as locks/deploy; token=811"))?;
    let token = token.trim().strip_prefix("token=").unwrap_or_default().trim_matches('"');
    let token = query::number(token.as_bytes(), &(1..=u64::MAX))
        .ok_or_else(|| invalid("token must be a whole number"))?;
    let claim = percent_decode_str(claim.trim()).decode_utf8().map_err(|_| invalid("not UTF-8"))?;
    held(&claim, token).map_err(|detail| invalid(&detail))
}

/// The condition that `token` is a current grant of `claim`, such as `locks/deploy`.
pub fn held(claim: &str, token: u64) -> Result<Condition, String> {
    use coracle_recipes::Condition::{Leads, LockHeld, PermitsHeld};
    let (family, name) = claim.split_once('/').unwrap_or_default();
    check_name(name)?;
    let (name, token) = (name.into(), Revision(token));
    Ok(match family {
        "locks" => LockHeld(name, token),
        "semaphores" => PermitsHeld(name, token),
        "elections" => Leads(name, token),
        _ => return Err("a claim is named locks/NAME, semaphores/NAME or elections/NAME".to_owned()),
    }
    .encode())
}

/// A new random session id.
pub fn draw_session() -> SessionId {
    SessionId((rand::random::<u64>() >> 1).max(1))
}

/// The media type without parameters, lower case.
pub fn essence(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// How long a coarse wait for a request body may take.
pub fn body_timeout(edge: &Edge) -> Duration {
    edge.config.body_timeout.as_duration()
}
