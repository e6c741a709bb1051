//! Keys and values: put, get, delete, append.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use coracle_api::{Code, Deleted, Entry, Key, Put as PutResult, SessionId, Span, Value};
use reqwest::Method;
use serde::Serialize;

use crate::call::Call;
use crate::escape::key_path;
use crate::{Coracle, Error, Fence, History, List, Session, WatchBuilder};

pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// Keys and values. Keys are any bytes (1 to the limit of the server), values are any bytes.
#[derive(Debug, Clone)]
pub struct Kv {
    client: Coracle,
}

impl Kv {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client }
    }

    /// Create or replace a key.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Value>) -> Put {
        let call = Call::change(Method::PUT, path_of(key.as_ref()));
        Put { client: self.client.clone(), call, value: value.into(), fences: Vec::new() }
    }

    /// Create or replace a key with a JSON value.
    ///
    /// # Errors
    /// The value cannot be JSON.
    pub fn put_json(&self, key: impl AsRef<[u8]>, value: &impl Serialize) -> Result<Put, Error> {
        let json = serde_json::to_vec(value).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.put(key, Value::new(json, "application/json")))
    }

    /// Create a key whose name the server makes: `directory`, `/`, and a number that rises with each append.
    pub fn append(&self, directory: impl AsRef<[u8]>, value: impl Into<Value>) -> Put {
        let mut key = directory.as_ref().to_vec();
        if !key.ends_with(b"/") {
            key.push(b'/');
        }
        let call = Call::change(Method::POST, path_of(&key));
        Put { client: self.client.clone(), call, value: value.into(), fences: Vec::new() }
    }

    /// Read a key; `None` if it does not exist.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        let key = key.as_ref();
        Get { client: self.client.clone(), call: Call::get(path_of(key)), key: key.into() }
    }

    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete {
        let call = Call::change(Method::DELETE, path_of(key.as_ref()));
        Delete { client: self.client.clone(), call, fences: Vec::new() }
    }

    /// Delete every key that starts with `prefix`; an empty prefix means all keys.
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> DeleteRange {
        let prefix = prefix.as_ref();
        let call =
            Call::change(Method::DELETE, "/v1/kv").query("prefix", prefix).flag("all", prefix.is_empty());
        DeleteRange { client: self.client.clone(), call, fences: Vec::new() }
    }

    /// The keys that start with `prefix`, in key order.
    pub fn list(&self, prefix: impl AsRef<[u8]>) -> List {
        List::new(self.client.clone(), prefix.as_ref())
    }

    /// The kept versions of one key.
    pub fn history(&self, key: impl AsRef<[u8]>) -> History {
        History::new(self.client.clone(), key.as_ref())
    }

    /// Follow one key.
    pub fn watch(&self, key: impl AsRef<[u8]>) -> WatchBuilder<Entry> {
        WatchBuilder::new(self.client.clone(), Call::get(path_of(key.as_ref())))
    }

    /// Follow every key that starts with `prefix`.
    pub fn watch_prefix(&self, prefix: impl AsRef<[u8]>) -> WatchBuilder<Entry> {
        WatchBuilder::new(self.client.clone(), Call::get("/v1/kv").query("prefix", prefix.as_ref()))
    }
}

/// Path of a key; through `?key=` where a path cannot carry it.
pub(crate) fn path_of(key: &[u8]) -> String {
    key_path(key).unwrap_or_else(|| Call::get("/v1/kv").query("key", key).path)
}

/// A put; await it.
#[derive(Debug)]
#[must_use = "a put is sent when it is awaited"]
pub struct Put {
    client: Coracle,
    call: Call,
    value: Value,
    fences: Vec<Fence>,
}

impl Put {
    /// Only if the key was last changed by `revision`; 412 `revision_mismatch` otherwise.
    pub fn if_match(mut self, revision: u64) -> Self {
        self.call = self.call.header("if-match", format!("\"{revision}\""));
        self
    }

    /// Only if the key does not exist; 412 `revision_mismatch` otherwise.
    pub fn if_absent(mut self) -> Self {
        self.call = self.call.header("if-none-match", "*");
        self
    }

    /// Only while the claim is current; 412 `fence_stale` otherwise. May be given several times.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }

    /// The key lives with this session.
    pub fn session(self, session: &Session) -> Self {
        self.session_id(session.id())
    }

    /// The key lives with this session.
    pub fn session_id(mut self, session: SessionId) -> Self {
        self.call = self.call.query("session", session.to_string());
        self
    }

    /// The key lives with a session of its own, which ends after `ttl` unless somebody renews it.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.call = self.call.query("ttl", Span::from(ttl).to_string());
        self
    }

    /// The key goes on living with the session it already has.
    pub fn keep_session(mut self) -> Self {
        self.call = self.call.flag("keep_session", true);
        self
    }

    /// Answer what was there before.
    pub fn return_previous(mut self) -> Self {
        self.call = self.call.query("return", "previous");
        self
    }

    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.value.content_type = content_type.into();
        self
    }
}

impl IntoFuture for Put {
    type Output = Result<PutResult, Error>;
    type IntoFuture = Pending<PutResult>;

    fn into_future(self) -> Self::IntoFuture {
        let Put { client, call, value, fences } = self;
        let call = call.fences(&fences).body(value.bytes, &value.content_type);
        Box::pin(async move { client.ask(call).await })
    }
}

/// A read; await it.
#[derive(Debug)]
#[must_use = "a get is sent when it is awaited"]
pub struct Get {
    client: Coracle,
    call: Call,
    key: Key,
}

impl Get {
    /// As it was at `revision`; 410 `compacted` if that is gone.
    pub fn revision(mut self, revision: u64) -> Self {
        self.call = self.call.query("revision", revision.to_string());
        self
    }

    /// Not older than `revision`, whatever node answers.
    pub fn min_revision(mut self, revision: u64) -> Self {
        self.call = self.call.query("min_revision", revision.to_string());
        self
    }

    /// From the state of the answering node, without asking the others: may be old.
    pub fn stale(mut self) -> Self {
        self.call = self.call.query("consistency", "stale");
        self
    }
}

impl IntoFuture for Get {
    type Output = Result<Option<Entry>, Error>;
    type IntoFuture = Pending<Option<Entry>>;

    fn into_future(self) -> Self::IntoFuture {
        let Get { client, call, key } = self;
        Box::pin(async move {
            let answer = match client.send(call).await {
                Ok(answer) => answer,
                Err(error) if error.code() == Some(Code::KeyNotFound) => return Ok(None),
                Err(error) => return Err(error),
            };
            let number = |name: &str| {
                answer.number(name).ok_or_else(|| Error::Protocol(format!("no number in header={name}")))
            };
            let (mod_revision, create_revision, version) =
                (number("etag")?, number("coracle-create-revision")?, number("coracle-version")?);
            let session = answer.text("coracle-session").and_then(|text| text.parse().ok());
            let content_type = answer.text("content-type").unwrap_or(coracle_api::OCTET_STREAM).to_owned();
            let value = Some(Value::new(answer.body, content_type));
            Ok(Some(Entry { key, value, create_revision, mod_revision, version, session }))
        })
    }
}

/// A delete; await it.
#[derive(Debug)]
#[must_use = "a delete is sent when it is awaited"]
pub struct Delete {
    client: Coracle,
    call: Call,
    fences: Vec<Fence>,
}

impl Delete {
    /// Only if the key was last changed by `revision`; 412 `revision_mismatch` otherwise.
    pub fn if_match(mut self, revision: u64) -> Self {
        self.call = self.call.header("if-match", format!("\"{revision}\""));
        self
    }

    /// Only while the claim is current; 412 `fence_stale` otherwise. May be given several times.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }

    /// Answer what was there before.
    pub fn return_previous(mut self) -> Self {
        self.call = self.call.query("return", "previous");
        self
    }
}

/// A delete of a range; await it.
#[derive(Debug)]
#[must_use = "a delete is sent when it is awaited"]
pub struct DeleteRange {
    client: Coracle,
    call: Call,
    fences: Vec<Fence>,
}

impl DeleteRange {
    /// Only while the claim is current; 412 `fence_stale` otherwise. May be given several times.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }
}

impl IntoFuture for Delete {
    type Output = Result<Deleted, Error>;
    type IntoFuture = Pending<Deleted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.client.ask(self.call.fences(&self.fences)).await })
    }
}

impl IntoFuture for DeleteRange {
    type Output = Result<Deleted, Error>;
    type IntoFuture = Pending<Deleted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.client.ask(self.call.fences(&self.fences)).await })
    }
}
