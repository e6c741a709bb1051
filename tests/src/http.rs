//! A client that hides nothing: one request, one reply, no retries.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// Longer than a node may take to answer; beyond it the answer is unknown.
const PATIENCE: Duration = Duration::from_secs(12);

/// Requests to one node.
#[derive(Clone, Debug)]
pub struct Http {
    base: String,
    client: reqwest::Client,
}

impl Http {
    /// `base` is such as `http://127.0.0.1:7070`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self::with(base, |builder| builder)
    }

    /// With certificates and the like.
    ///
    /// # Panics
    /// If the client cannot be made.
    #[must_use]
    pub fn with(
        base: &str,
        configure: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Self {
        crate::certificates::install_crypto();
        let builder = reqwest::Client::builder().no_proxy().tcp_nodelay(true).retry(reqwest::retry::never());
        let client = configure(builder).build().expect("a client");
        Self { base: base.to_owned(), client }
    }

    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    #[must_use]
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    #[must_use]
    pub fn put(&self, path: &str, body: impl Into<Bytes>) -> Call {
        self.call(Method::PUT, path).body(body)
    }

    #[must_use]
    pub fn post(&self, path: &str, body: impl Into<Bytes>) -> Call {
        self.call(Method::POST, path).body(body)
    }

    #[must_use]
    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    #[must_use]
    pub fn call(&self, method: Method, path: &str) -> Call {
        let line = format!("{method} {}{path}", self.base);
        Call {
            request: self.client.request(method, format!("{}{path}", self.base)),
            line,
            patience: PATIENCE,
        }
    }

    /// Opens a stream of lines.
    ///
    /// # Errors
    /// No answer.
    pub async fn stream(&self, method: Method, path: &str) -> Result<Frames> {
        self.stream_of(method, path, "").await
    }

    /// The same with a body.
    ///
    /// # Errors
    /// No answer.
    pub async fn stream_of(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Frames> {
        let line = format!("{method} {}{path}", self.base);
        let sent = self.client.request(method, format!("{}{path}", self.base)).body(body.into()).send();
        let response = tokio::time::timeout(PATIENCE, sent).await.with_context(|| line.clone())??;
        Ok(Frames {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            response,
            buffer: Vec::new(),
            line,
        })
    }

    /// `GET` of a stream that must open with 200.
    ///
    /// # Panics
    /// If it does not.
    pub async fn watch(&self, path: &str) -> Frames {
        let frames = self.stream(Method::GET, path).await.expect("a stream");
        assert_eq!(frames.status, 200, "{path}: {:?}", frames.line);
        frames
    }
}

/// A request before it is sent.
pub struct Call {
    request: reqwest::RequestBuilder,
    line: String,
    patience: Duration,
}

impl Call {
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        self.request = self.request.body(body);
        self
    }

    /// How long to wait for the whole answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// # Errors
    /// No answer: not connected, cut, or out of patience.
    pub async fn send(self) -> Result<Reply> {
        let answer = async {
            let response = self.request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            anyhow::Ok(Reply { status, headers, body: response.bytes().await?, line: self.line.clone() })
        };
        match tokio::time::timeout(self.patience, answer).await {
            Ok(answer) => answer.with_context(|| self.line.clone()),
            Err(_) => Err(anyhow!("no answer within {:?}: {}", self.patience, self.line)),
        }
    }

    /// The reply, which must have this status.
    ///
    /// # Panics
    /// If it has another, or there is none.
    pub async fn expect(self, status: u16) -> Reply {
        let reply = self.send().await.unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(reply.status, status, "{} answered {:?}", reply.line, reply);
        reply
    }

    /// The reply, which must be a problem with this status and code.
    ///
    /// # Panics
    /// If it is not.
    pub async fn refused(self, status: u16, code: &str) -> Reply {
        let reply = self.expect(status).await;
        reply.check_problem();
        assert_eq!(reply.code(), code, "{reply:?}");
        reply
    }
}

/// An answer, read whole.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    line: String,
}

impl Reply {
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body; null if it is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of a problem; empty if there is none.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `Coracle-Revision`; 0 if there is none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.header("coracle-revision").parse().unwrap_or(0)
    }

    /// A member of the body that must be a number.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn number(&self, member: &str) -> u64 {
        self.json()[member].as_u64().unwrap_or_else(|| panic!("no number {member} in {self:?}"))
    }

    /// A member of the body that must be a text.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn member(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_else(|| panic!("no text {member} in {self:?}")).to_owned()
    }

    /// Every problem has all standard members, and they agree with each other.
    ///
    /// # Panics
    /// If not.
    pub fn check_problem(&self) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        let code = problem["code"].as_str().unwrap_or_default();
        assert_eq!(problem["type"], format!("/problems/{code}"), "{self:?}");
        for (member, words) in [
            ("retry", &["never", "same_request", "after_reread", "after_change", "other_node"][..]),
            ("effect", &["none", "unknown"][..]),
        ] {
            assert!(words.contains(&problem[member].as_str().unwrap_or_default()), "{member}: {self:?}");
        }
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{self:?}");
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: String = self.text().chars().take(600).collect();
        write!(f, "{} -> {} {text:?}", self.line, self.status)
    }
}

/// A stream of lines, each a JSON object.
pub struct Frames {
    pub status: u16,
    pub headers: HeaderMap,
    response: reqwest::Response,
    buffer: Vec<u8>,
    line: String,
}

impl Frames {
    /// The next line; `None` at the end, also at a broken one.
    ///
    /// # Panics
    /// If none comes within the time.
    pub async fn line_within(&mut self, patience: Duration) -> Option<String> {
        let next = async {
            loop {
                if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                    let line = self.buffer.drain(..=end).collect::<Vec<u8>>();
                    return Some(String::from_utf8_lossy(&line[..end]).into_owned());
                }
                match self.response.chunk().await {
                    Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                    Ok(None) | Err(_) => return None,
                }
            }
        };
        tokio::time::timeout(patience, next)
            .await
            .unwrap_or_else(|_| panic!("no line within {patience:?} from {}", self.line))
    }

    /// The next frame; `None` at the end.
    ///
    /// # Panics
    /// If none comes within the time, or it is no JSON.
    pub async fn next_within(&mut self, patience: Duration) -> Option<Value> {
        let line = self.line_within(patience).await?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in the frame {line:?}")))
    }

    /// # Panics
    /// If none comes in 10 s.
    pub async fn next(&mut self) -> Option<Value> {
        self.next_within(Duration::from_secs(10)).await
    }

    /// Skips frames until one of this type comes.
    ///
    /// # Panics
    /// If the stream ends before.
    pub async fn until(&mut self, kind: &str, patience: Duration) -> Value {
        let end = std::time::Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let frame = self.next_within(left).await;
            let frame = frame.unwrap_or_else(|| panic!("{} ended before a frame {kind}", self.line));
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}
