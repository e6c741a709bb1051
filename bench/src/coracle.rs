//! Coracle under load: plain HTTP/1.1, one kept-alive connection for each client.

use std::fmt;

use anyhow::{Context, Result, anyhow, ensure};

use crate::http1::{Connection, Request, Response};
use crate::service;
use crate::workload::{KeyChoice, SESSION_TTL, Shape, Workload, fill_value, is_value_of, key_name};

pub struct Coracle {
    nodes: Vec<String>,
    shape: Shape,
}

pub struct Client {
    connection: Connection,
    workload: Workload,
    shape: Shape,
    choice: KeyChoice,
    key: String,
    value: Vec<u8>,
    lock: String,
    session: String,
    /// Of the client's own key, in compare-and-set.
    revision: u64,
    /// Of the message received last.
    receipt: String,
}

const QUEUE: &str = "bench";

impl Coracle {
    /// Nodes are `host:port`.
    pub fn new(nodes: &[String], shape: Shape) -> Self {
        Self { nodes: nodes.to_vec(), shape }
    }
}

impl service::Service for Coracle {
    type Client = Client;

    fn connections(&self) -> usize {
        self.shape.clients
    }

    async fn client(&self, workload: Workload, number: usize) -> Result<Client> {
        let mut client = Client {
            connection: Connection::dial(&self.nodes[number % self.nodes.len()]).await?,
            workload,
            shape: self.shape,
            choice: KeyChoice::new(number, self.shape.keys),
            key: String::new(),
            value: Vec::new(),
            lock: match workload {
                Workload::LockContended => "bench-contended".to_owned(),
                _ => format!("bench-{number}"),
            },
            session: String::new(),
            revision: 0,
            receipt: String::new(),
        };
        if workload.needs_session() {
            client.open_session().await?;
        }
        if workload == Workload::StaleGet {
            // A linearizable read first: after it this node has all the keys, so that a missing one is an error.
            client.read("").await?;
        }
        if workload == Workload::Cas {
            client.key = format!("bench/cas/{number:04}");
            fill_value(&mut client.value, &client.key, client.shape.value_bytes);
            client.revision = client.put(format_args!("")).await?;
        }
        Ok(client)
    }
}

impl service::Client for Client {
    async fn write_key(&mut self, key: u32) -> Result<()> {
        key_name(&mut self.key, key);
        fill_value(&mut self.value, &self.key, self.shape.value_bytes);
        self.put(format_args!("")).await.map(drop)
    }

    async fn step(&mut self) -> Result<()> {
        match self.workload {
            Workload::Put => {
                let key = self.choice.choose();
                self.write_key(key).await
            }
            Workload::Get => self.read("").await,
            Workload::StaleGet => self.read("?consistency=stale").await,
            Workload::Cas => {
                let seen = self.revision;
                self.revision = self.put(format_args!("if-match: \"{seen}\"\r\n")).await?;
                Ok(())
            }
            Workload::Lock | Workload::LockContended => {
                self.acquire().await?;
                self.release().await
            }
            Workload::Renew => {
                let path = format_args!("/v1/sessions/{}/renew", self.session);
                post(&mut self.connection, path, b"").await.map(drop)
            }
            Workload::Queue => {
                self.send().await?;
                self.receive().await?;
                let path = format_args!("/v1/queues/{QUEUE}/ack?receipt={}", self.receipt);
                post(&mut self.connection, path, b"").await.map(drop)
            }
        }
    }

    async fn recover(&mut self) -> Result<()> {
        self.connection.redial().await?;
        match self.workload {
            Workload::Cas => self.revision = self.put(format_args!("")).await?,
            // Held, waited for, or neither: not known after a lost answer. A refusal is fine, a new failure shows in the next step.
            Workload::Lock | Workload::LockContended => drop(self.release().await),
            _ => {}
        }
        Ok(())
    }

    async fn leave(mut self) -> Result<()> {
        if !self.session.is_empty() {
            let path = format_args!("/v1/sessions/{}", self.session);
            let request = Request { method: "DELETE", path, headers: format_args!(""), body: b"" };
            succeeded(&self.connection.call(request).await?, "DELETE", path)?;
        }
        Ok(())
    }
}

impl Client {
    /// Writes `value` to `key` and returns the new revision.
    async fn put(&mut self, headers: fmt::Arguments<'_>) -> Result<u64> {
        let path = format_args!("/v1/kv/{}", self.key);
        let request = Request { method: "PUT", path, headers, body: &self.value };
        let body = succeeded(&self.connection.call(request).await?, "PUT", path)?;
        number_member(body, "revision").ok_or_else(|| anyhow!("PUT answered without a revision"))
    }

    async fn read(&mut self, query: &str) -> Result<()> {
        key_name(&mut self.key, self.choice.choose());
        let path = format_args!("/v1/kv/{}{query}", self.key);
        let request = Request { method: "GET", path, headers: format_args!(""), body: b"" };
        let body = succeeded(&self.connection.call(request).await?, "GET", path)?;
        ensure!(is_value_of(body, &self.key, self.shape.value_bytes), "GET answered another value");
        Ok(())
    }

    async fn open_session(&mut self) -> Result<()> {
        let body = format!("{{\"ttl\":\"{}s\"}}", SESSION_TTL.as_secs());
        let answer = post(&mut self.connection, format_args!("/v1/sessions"), body.as_bytes()).await?;
        let answer: serde_json::Value = serde_json::from_slice(answer)?;
        answer["id"].as_str().context("a session without an id")?.clone_into(&mut self.session);
        Ok(())
    }

    async fn acquire(&mut self) -> Result<()> {
        let wait = if self.workload == Workload::LockContended { "&wait=60s" } else { "" };
        let path = format_args!("/v1/locks/{}/acquire?session={}{wait}", self.lock, self.session);
        let body = post(&mut self.connection, path, b"").await?;
        ensure!(number_member(body, "token").is_some(), "acquire answered without a token");
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        fill_value(&mut self.value, QUEUE, self.shape.value_bytes);
        let path = format_args!("/v1/queues/{QUEUE}/messages");
        let request = Request { method: "POST", path, headers: format_args!(""), body: &self.value };
        succeeded(&self.connection.call(request).await?, "POST", path).map(drop)
    }

    async fn receive(&mut self) -> Result<()> {
        let body =
            post(&mut self.connection, format_args!("/v1/queues/{QUEUE}/receive?wait=10s"), b"").await?;
        text_member(body, "receipt").context("nothing was received")?.clone_into(&mut self.receipt);
        Ok(())
    }

    async fn release(&mut self) -> Result<()> {
        let path = format_args!("/v1/locks/{}/release?session={}", self.lock, self.session);
        post(&mut self.connection, path, b"").await.map(drop)
    }
}

async fn post<'a>(connection: &'a mut Connection, path: fmt::Arguments<'_>, body: &[u8]) -> Result<&'a [u8]> {
    let headers =
        if body.is_empty() { format_args!("") } else { format_args!("content-type: application/json\r\n") };
    let request = Request { method: "POST", path, headers, body };
    succeeded(&connection.call(request).await?, "POST", path)
}

/// 202 is a place in a line, not a success.
fn succeeded<'a>(response: &Response<'a>, method: &str, path: fmt::Arguments<'_>) -> Result<&'a [u8]> {
    if matches!(response.status, 200 | 201 | 204) {
        return Ok(response.body);
    }
    let route: String = path.to_string().split('/').take(4).collect::<Vec<_>>().join("/");
    let problem: serde_json::Value = serde_json::from_slice(response.body).unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or("no code");
    Err(anyhow!("{method} {route}: {} {code}", response.status))
}

/// The first text called `name` in a JSON object, which must be one without escapes.
pub fn text_member<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(json).ok()?;
    let quoted = format!("\"{name}\":\"");
    let start = text.find(&quoted)? + quoted.len();
    text[start..].split('"').next()
}

/// The first unsigned number called `name` in a JSON object, without parsing the rest of it.
pub fn number_member(json: &[u8], name: &str) -> Option<u64> {
    let text = std::str::from_utf8(json).ok()?;
    let after = text.match_indices(name).find_map(|(at, _)| {
        let quoted = text[..at].ends_with('"');
        let rest = text[at + name.len()..].strip_prefix('"')?;
        // Without the colon it is a text value, not a name.
        rest.trim_start().strip_prefix(':').filter(|_| quoted)
    })?;
    let digits = after.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}
