//! One call: what is sent, the same on every attempt.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;

use crate::escape::escape;
use crate::{Error, Fence};

/// A request, independent of the node it goes to.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query, escaped.
    pub(crate) path: String,
    pub(crate) headers: Vec<(Cow<'static, str>, String)>,
    pub(crate) body: Option<Bytes>,
    /// How long the server may take on top of the usual, because it was asked to wait.
    pub(crate) wait: Duration,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: None, wait: Duration::ZERO }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A change: it carries a fresh `Idempotency-Key`, so that any number of attempts has one effect.
    pub(crate) fn change(method: Method, path: impl Into<String>) -> Self {
        Self::new(method, path).header("idempotency-key", uuid::Uuid::now_v7().to_string())
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Something that travels with a message.
    pub(crate) fn meta(mut self, name: &str, value: &str) -> Self {
        self.headers.push((format!("coracle-meta-{name}").into(), value.to_owned()));
        self
    }

    /// Add `name=value` to the query; the value may be any bytes.
    pub(crate) fn query(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        let _ = write!(self.path, "{separator}{name}={}", escape(value.as_ref()));
        self
    }

    pub(crate) fn query_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value.to_string()),
            None => self,
        }
    }

    pub(crate) fn flag(self, name: &str, set: bool) -> Self {
        if set { self.query(name, "true") } else { self }
    }

    /// The mutation happens only while these claims are current.
    pub(crate) fn fences(self, fences: &[Fence]) -> Self {
        fences.iter().fold(self, |call, fence| call.header("if-held", fence.to_string()))
    }

    pub(crate) fn body(mut self, body: Bytes, content_type: &str) -> Self {
        self.body = Some(body);
        self.header("content-type", content_type)
    }

    pub(crate) fn json(self, body: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.body(body.into(), "application/json"))
    }

    /// Ask the server to wait, and be patient for as long.
    pub(crate) fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self.query("wait", coracle_api::Span::from(wait).to_string())
    }

    /// Whether any number of attempts has the effect of one.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.method == Method::GET
            || self.method == Method::HEAD
            || self.headers.iter().any(|(name, _)| *name == "idempotency-key")
    }

    /// The curl command that makes this call at `base`.
    pub(crate) fn as_curl(&self, base: &str) -> String {
        let mut line = String::from("curl");
        if self.method != Method::GET {
            let _ = write!(line, " -X {}", self.method);
        }
        let _ = write!(line, " {}", quote(&format!("{base}{}", self.path)));
        for (name, value) in &self.headers {
            // A fresh key in a command to copy would make the second run a replay of the first.
            if *name != "idempotency-key" {
                let _ = write!(line, " -H {}", quote(&format!("{name}: {value}")));
            }
        }
        match self.body.as_deref().map(std::str::from_utf8) {
            None => {}
            Some(Ok(text)) if !text.contains('\0') && !text.starts_with('@') => {
                let _ = write!(line, " --data-raw {}", quote(text));
            }
            Some(_) => line.push_str(" --data-binary @FILE"),
        }
        line
    }
}

/// One word for a POSIX shell.
fn quote(word: &str) -> String {
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/:%@=,+".contains(&b)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_escaped_and_joined() {
        let call = Call::get("/v1/kv").query("prefix", b"a/\xff&").flag("keys_only", true).flag("x", false);
        assert_eq!(call.path, "/v1/kv?prefix=a%2F%FF%26&keys_only=true");
    }

    #[test]
    fn as_curl_is_a_line_to_paste() {
        let call = Call::change(Method::PUT, "/v1/kv/a%2Fb").body("it's".into(), "text/plain");
        assert_eq!(
            call.as_curl("http://h:1"),
            r"curl -X PUT http://h:1/v1/kv/a%2Fb -H 'content-type: text/plain' --data-raw 'it'\''s'"
        );
        assert!(call.is_repeatable());
        assert!(!Call::new(Method::POST, "/x").is_repeatable());
        let list = Call::get("/v1/kv").query("prefix", "a").flag("keys_only", true);
        assert_eq!(list.as_curl("http://h:1"), "curl 'http://h:1/v1/kv?prefix=a&keys_only=true'");
    }
}
