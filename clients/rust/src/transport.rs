//! The path of a call to some node and back: endpoints, attempts, retries, deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_api::{Effect, Problem, Retry};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;

use crate::Error;
use crate::backoff::Backoff;
use crate::call::Call;

/// Connections to all nodes; shared by all clones of a client.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) http: reqwest::Client,
    /// Base URLs without a slash at the end; at least one.
    pub(crate) endpoints: Vec<String>,
    /// Index of the endpoint in use: everybody stays with it until it fails.
    pub(crate) current: AtomicUsize,
    /// Time for one attempt, not counting a wait the server was asked for.
    pub(crate) attempt_timeout: Duration,
    pub(crate) bearer: Option<String>,
    /// Show calls as curl commands instead of making them.
    pub(crate) show_only: bool,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When the attempt that got this answer was sent. Validity is counted from here.
    pub(crate) sent: Instant,
}

/// One failed attempt.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The node answered with a problem, perhaps with `Retry-After`.
    Problem { problem: Box<Problem>, retry_after: Option<Duration> },
    /// No whole answer.
    Broken { detail: String, effect: Effect },
    /// The node's certificate is not trusted: the same every time.
    Untrusted { detail: String },
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let start: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
            Error::Protocol(format!("{error} status={} body={start:?}", self.status))
        })
    }

    /// A header that is a number; quotes around it are ignored.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim_matches('"').parse().ok()
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Failure {
    /// Whether another attempt makes sense, and whether it should go to another node.
    fn retry(&self) -> (bool, bool) {
        match self {
            Failure::Broken { .. } | Failure::Untrusted { .. } => (true, true),
            Failure::Problem { problem, .. } => match problem.retry {
                Retry::SameRequest => (true, false),
                Retry::OtherNode => (true, true),
                Retry::Never | Retry::AfterReread | Retry::AfterChange => (false, false),
            },
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Failure::Problem { problem, .. } => problem.effect,
            Failure::Broken { effect, .. } => *effect,
            Failure::Untrusted { .. } => Effect::None,
        }
    }

    /// As the end of a call. `effect` covers all its attempts.
    pub(crate) fn into_error(self, effect: Effect) -> Error {
        match self {
            Failure::Problem { mut problem, .. } => {
                problem.effect = effect;
                Error::Problem(problem)
            }
            Failure::Broken { detail, .. } => Error::Unreachable { detail, effect },
            Failure::Untrusted { detail } => Error::Tls(detail),
        }
    }
}

impl Transport {
    /// Make a call, again and elsewhere as often as it takes, until `deadline` has passed.
    pub(crate) async fn send(&self, call: &Call, deadline: Duration) -> Result<Answer, Error> {
        let end = Instant::now() + deadline + call.wait;
        let mut backoff = Backoff::default();
        let mut unknown = false;
        let mut untrusted = 0;
        loop {
            let endpoint = self.current.load(Ordering::Relaxed);
            let left = end.saturating_duration_since(Instant::now());
            let timeout = (self.attempt_timeout + call.wait).min(left);
            let failure = match self.attempt(endpoint, call, timeout).await? {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            unknown |= failure.effect() == Effect::Unknown;
            untrusted = if matches!(failure, Failure::Untrusted { .. }) { untrusted + 1 } else { 0 };
            let (again, elsewhere) = failure.retry();
            if !again {
                // A refusal of a repeatable call is the answer to all its attempts.
                return Err(match failure {
                    Failure::Problem { problem, .. } => Error::Problem(problem),
                    other => other.into_error(Effect::Unknown),
                });
            }
            if elsewhere {
                self.leave(endpoint);
            }
            let pause = match &failure {
                Failure::Problem { retry_after: Some(retry_after), .. } => (*retry_after).max(backoff.next()),
                _ => backoff.next(),
            };
            let hopeless = Instant::now() + pause >= end || untrusted >= self.endpoints.len();
            if hopeless || (unknown && !call.is_repeatable()) {
                return Err(failure.into_error(if unknown { Effect::Unknown } else { Effect::None }));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Make a call once, at the endpoint in use, which is left if it fails.
    pub(crate) async fn once(
        &self,
        call: &Call,
        timeout: Duration,
    ) -> Result<Result<Answer, Failure>, Error> {
        let endpoint = self.current.load(Ordering::Relaxed);
        let result = self.attempt(endpoint, call, timeout).await?;
        if let Err(failure) = &result
            && failure.retry().1
        {
            self.leave(endpoint);
        }
        Ok(result)
    }

    /// Open a stream at the endpoint in use, which is left if it fails.
    pub(crate) async fn open(
        &self,
        call: &Call,
        timeout: Duration,
    ) -> Result<Result<reqwest::Response, Failure>, Error> {
        let endpoint = self.current.load(Ordering::Relaxed);
        let sending = self.request(endpoint, call)?.send();
        let result = match tokio::time::timeout(timeout, sending).await {
            Err(_) => Err(timed_out(&self.endpoints[endpoint], timeout)),
            Ok(Err(error)) => Err(broken(&error)),
            Ok(Ok(response)) if response.status().is_success() => Ok(response),
            Ok(Ok(response)) => match tokio::time::timeout(timeout, receive(response)).await {
                Ok(Err(failure)) => Err(failure),
                _ => Err(timed_out(&self.endpoints[endpoint], timeout)),
            },
        };
        if let Err(failure) = &result
            && failure.retry().1
        {
            self.leave(endpoint);
        }
        Ok(result)
    }

    /// Go on with the next endpoint, unless somebody already left this one.
    pub(crate) fn leave(&self, endpoint: usize) {
        let next = (endpoint + 1) % self.endpoints.len();
        let _ = self.current.compare_exchange(endpoint, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Go on with the next endpoint.
    pub(crate) fn leave_current(&self) {
        self.leave(self.current.load(Ordering::Relaxed));
    }

    async fn attempt(
        &self,
        endpoint: usize,
        call: &Call,
        timeout: Duration,
    ) -> Result<Result<Answer, Failure>, Error> {
        let request = self.request(endpoint, call)?;
        let sent = Instant::now();
        let exchange = async {
            let response = request.send().await.map_err(|error| broken(&error))?;
            receive(response).await
        };
        Ok(match tokio::time::timeout(timeout, exchange).await {
            Err(_) => Err(timed_out(&self.endpoints[endpoint], timeout)),
            Ok(Err(failure)) => Err(failure),
            Ok(Ok((status, headers, body))) => Ok(Answer { status, headers, body, sent }),
        })
    }

    fn request(&self, endpoint: usize, call: &Call) -> Result<reqwest::RequestBuilder, Error> {
        let base = &self.endpoints[endpoint];
        if self.show_only {
            return Err(Error::Shown(call.as_curl(base)));
        }
        let mut request = self.http.request(call.method.clone(), format!("{base}{}", call.path));
        for (name, value) in &call.headers {
            request = request.header(&**name, value);
        }
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        Ok(request)
    }
}

/// The whole answer; an error status becomes its problem.
async fn receive(response: reqwest::Response) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(|error| broken(&error))?;
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok((status, headers, body));
    }
    let problem = Box::new(Problem::parse(status.as_u16(), &body));
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Err(Failure::Problem { problem, retry_after: seconds.map(Duration::from_secs) })
}

fn broken(error: &reqwest::Error) -> Failure {
    // Only while connecting is it sure that nothing was sent.
    let effect = if error.is_connect() || error.is_builder() { Effect::None } else { Effect::Unknown };
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        if is_untrusted(cause) {
            return Failure::Untrusted { detail };
        }
        source = cause.source();
    }
    Failure::Broken { detail, effect }
}

/// Whether TLS refused the other's certificate. Errors of IO hide what they wrap from `source`.
fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return matches!(tls, rustls::Error::InvalidCertificate(_));
    }
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wrapped.is_some_and(|inner| is_untrusted(inner))
}

fn timed_out(endpoint: &str, timeout: Duration) -> Failure {
    let after = coracle_api::Span::from(timeout);
    Failure::Broken {
        detail: format!("no answer after={after} endpoint={endpoint}"),
        effect: Effect::Unknown,
    }
}

pub(crate) type Shared = Arc<Transport>;
