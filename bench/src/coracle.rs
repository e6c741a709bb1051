//! Coracle under load: plain HTTP/1.1, one kept-alive connection for each client.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::time::Instant;

use crate::delivery::{Deliveries, Mark};
use crate::http1::{Connection, Lines, Request, Response};
use crate::service;
use crate::workload::{
    BATCH, KeyChoice, RENEWED_TTL, SESSION_TTL, Shape, Workload, fill_value, is_value_of, key_name, share,
    told,
};

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
    /// Those of a client that renews very many, in the order in which they are due.
    sessions: VecDeque<String>,
    /// It makes what the other clients take.
    feeds: bool,
    /// Of the client's own key, in compare-and-set.
    revision: u64,
    queue: &'static str,
    /// Of the messages received last.
    receipts: Vec<String>,
    number: usize,
    /// Writes to what is watched.
    turn: u64,
    stream: Option<Lines>,
    deliveries: Deliveries,
}

/// Also the name of the topic, and of the service.
const QUEUE: &str = "bench";

impl Coracle {
    /// Nodes are `host:port`.
    pub fn new(nodes: &[String], shape: Shape) -> Self {
        Self { nodes: nodes.to_vec(), shape }
    }
}

impl service::Service for Coracle {
    type Client = Client;

    fn connections(&self, clients: usize) -> usize {
        clients
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
            sessions: VecDeque::new(),
            feeds: workload.cast(self.shape.clients).feeds(number),
            revision: 0,
            queue: match workload {
                Workload::QueuePairs => "bench-pairs",
                Workload::QueueDeep => "bench-deep",
                Workload::QueueBatch => "bench-batch",
                _ => QUEUE,
            },
            receipts: Vec::new(),
            number,
            turn: 0,
            stream: None,
            deliveries: Deliveries::default(),
        };
        if workload.needs_session() {
            client.open_session(SESSION_TTL).await?;
        }
        if workload == Workload::StaleGet {
            // A linearizable read first: after it this node has all the keys, so that a missing one is an error.
            client.read("").await?;
        }
        if workload == Workload::Watch || workload == Workload::WatchRate && !client.feeds {
            client.follow().await?;
        }
        if workload == Workload::QueuePairs && number == 0 {
            client.empty_queue().await?;
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
    async fn prepare(&mut self, number: u32) -> Result<()> {
        match self.workload {
            Workload::QueueDeep => self.send().await,
            Workload::Pick => self.register(number).await,
            _ => self.write(number).await,
        }
    }

    async fn settle(&mut self) -> Result<()> {
        if self.workload == Workload::RenewMany {
            for _ in share(self.number, self.shape) {
                self.open_session(RENEWED_TTL).await?;
                self.sessions.push_back(std::mem::take(&mut self.session));
            }
        }
        Ok(())
    }

    async fn step(&mut self, due: Instant) -> Result<()> {
        match self.workload {
            Workload::Put => {
                let key = self.choice.choose();
                self.write(key).await
            }
            Workload::Mixed => match self.choice.choose() {
                key if key % 10 == 0 => self.write(key).await,
                _ => self.read("").await,
            },
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
            Workload::Renew => self.renew().await,
            Workload::RenewMany => {
                self.session = self.sessions.pop_front().context("no session")?;
                let renewed = self.renew().await;
                self.sessions.push_back(std::mem::take(&mut self.session));
                renewed
            }
            Workload::Session => {
                self.open_session(SESSION_TTL).await?;
                self.close_session().await
            }
            Workload::Watch => self.write_and_be_told().await,
            Workload::WatchRate if self.feeds => self.write_mark(due).await,
            Workload::WatchRate => self.be_told().await,
            Workload::QueuePairs if self.feeds => self.send().await,
            Workload::QueuePairs => self.receive_next().await,
            Workload::Queue | Workload::QueueDeep => {
                self.send().await?;
                self.receive(1).await?;
                self.acknowledge().await
            }
            Workload::QueueBatch => {
                self.send_batch().await?;
                self.receive(BATCH).await?;
                self.acknowledge().await
            }
            Workload::Pick => self.pick().await,
            Workload::Publish => {
                fill_value(&mut self.value, QUEUE, self.shape.value_bytes);
                let path = format_args!("/v1/topics/{QUEUE}/messages");
                let request = Request { method: "POST", path, headers: format_args!(""), body: &self.value };
                let body = succeeded(&self.connection.call(request).await?, "POST", path)?;
                ensure!(number_member(body, "seq").is_some(), "publish answered without a number");
                Ok(())
            }
        }
    }

    fn made(&self) -> Option<Instant> {
        self.deliveries.due
    }

    async fn recover(&mut self) -> Result<()> {
        self.connection.redial().await?;
        match self.workload {
            Workload::Cas => self.revision = self.put(format_args!("")).await?,
            // Held, waited for, or neither: not known after a lost answer. A refusal is fine, a new failure shows in the next step.
            Workload::Lock | Workload::LockContended => drop(self.release().await),
            Workload::Watch => self.follow().await?,
            Workload::WatchRate if !self.feeds => self.follow().await?,
            // Acknowledged or not: not known after a lost answer.
            Workload::QueuePairs => self.receipts.clear(),
            _ => {}
        }
        Ok(())
    }

    async fn leave(mut self) -> Result<()> {
        if !self.receipts.is_empty() && self.workload == Workload::QueuePairs {
            self.acknowledge().await?;
        }
        loop {
            if !self.session.is_empty() {
                self.close_session().await?;
            }
            let Some(next) = self.sessions.pop_front() else { return Ok(()) };
            self.session = next;
        }
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

    async fn write(&mut self, key: u32) -> Result<()> {
        key_name(&mut self.key, key);
        fill_value(&mut self.value, &self.key, self.shape.value_bytes);
        self.put(format_args!("")).await.map(drop)
    }

    async fn read(&mut self, query: &str) -> Result<()> {
        key_name(&mut self.key, self.choice.choose());
        let path = format_args!("/v1/kv/{}{query}", self.key);
        let request = Request { method: "GET", path, headers: format_args!(""), body: b"" };
        let body = succeeded(&self.connection.call(request).await?, "GET", path)?;
        ensure!(is_value_of(body, &self.key, self.shape.value_bytes), "GET answered another value");
        Ok(())
    }

    async fn open_session(&mut self, ttl: Duration) -> Result<()> {
        let body = format!("{{\"ttl\":\"{}s\"}}", ttl.as_secs());
        let answer = post(&mut self.connection, format_args!("/v1/sessions"), body.as_bytes()).await?;
        let answer: serde_json::Value = serde_json::from_slice(answer)?;
        answer["id"].as_str().context("a session without an id")?.clone_into(&mut self.session);
        Ok(())
    }

    async fn close_session(&mut self) -> Result<()> {
        let path = format_args!("/v1/sessions/{}", self.session);
        let request = Request { method: "DELETE", path, headers: format_args!(""), body: b"" };
        succeeded(&self.connection.call(request).await?, "DELETE", path)?;
        self.session.clear();
        Ok(())
    }

    async fn renew(&mut self) -> Result<()> {
        let path = format_args!("/v1/sessions/{}/renew", self.session);
        post(&mut self.connection, path, b"").await.map(drop)
    }

    /// Open the own stream; it is there once it has said so.
    async fn follow(&mut self) -> Result<()> {
        self.deliveries = Deliveries::default();
        let path = format_args!("/v1/kv?prefix=watch/&watch=true");
        let mut stream = self.connection.stream(path).await?;
        while !stream.next().await?.windows(8).any(|text| text == b"\"synced\"") {}
        self.stream = Some(stream);
        Ok(())
    }

    async fn write_and_be_told(&mut self) -> Result<()> {
        self.turn += 1;
        let mark = told(self.number, self.turn);
        self.key = format!("watch/{:04}", self.number);
        fill_value(&mut self.value, &mark, self.shape.value_bytes);
        self.put(format_args!("")).await?;
        let stream = self.stream.as_mut().context("no stream")?;
        while !stream.next().await?.windows(mark.len()).any(|text| text == mark.as_bytes()) {}
        Ok(())
    }

    async fn write_mark(&mut self, due: Instant) -> Result<()> {
        let mark = Mark { writer: self.number, turn: self.turn + 1, due };
        self.key = format!("watch/{:04}", self.number);
        fill_value(&mut self.value, &mark.text(), self.shape.value_bytes);
        self.put(format_args!("")).await?;
        self.turn += 1;
        Ok(())
    }

    async fn be_told(&mut self) -> Result<()> {
        let stream = self.stream.as_mut().context("no stream")?;
        while !self.deliveries.take()? {
            let line = stream.next().await?;
            for value in text_members(&line, "value") {
                self.deliveries.add(value)?;
            }
        }
        Ok(())
    }

    async fn register(&mut self, number: u32) -> Result<()> {
        let [_, a, b, c] = number.to_be_bytes();
        let body = format!("{{\"address\":\"10.{a}.{b}.{c}\",\"port\":80}}");
        let path = format_args!("/v1/services/{QUEUE}/instances/{number:06}");
        let headers = format_args!("content-type: application/json\r\n");
        let request = Request { method: "PUT", path, headers, body: body.as_bytes() };
        succeeded(&self.connection.call(request).await?, "PUT", path).map(drop)
    }

    async fn pick(&mut self) -> Result<()> {
        let path = format_args!("/v1/services/{QUEUE}/pick");
        let request = Request { method: "GET", path, headers: format_args!(""), body: b"" };
        let body = succeeded(&self.connection.call(request).await?, "GET", path)?;
        text_member(body, "address").map(drop).context("nothing was picked")
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
        let path = format_args!("/v1/queues/{}/messages", self.queue);
        let request = Request { method: "POST", path, headers: format_args!(""), body: &self.value };
        succeeded(&self.connection.call(request).await?, "POST", path).map(drop)
    }

    async fn send_batch(&mut self) -> Result<()> {
        fill_value(&mut self.value, QUEUE, self.shape.value_bytes);
        let item = format!("{{\"value\":\"{}\"}}", std::str::from_utf8(&self.value)?);
        let body = format!("{{\"items\":[{}]}}", vec![item; BATCH].join(","));
        let path = format_args!("/v1/queues/{}/messages?batch=true", self.queue);
        post(&mut self.connection, path, body.as_bytes()).await.map(drop)
    }

    /// So many, in as many calls as it takes: others receive from the queue, too.
    async fn receive(&mut self, count: usize) -> Result<()> {
        self.receipts.clear();
        while self.receipts.len() < count {
            let max = count - self.receipts.len();
            let path = format_args!("/v1/queues/{}/receive?wait=10s&max={max}", self.queue);
            let body = post(&mut self.connection, path, b"").await?;
            let before = self.receipts.len();
            self.receipts.extend(text_members(body, "receipt").map(str::to_owned));
            ensure!(self.receipts.len() > before, "nothing was received");
        }
        Ok(())
    }

    /// As a worker asks: what it has done is acknowledged by the call that receives the next message.
    async fn receive_next(&mut self) -> Result<()> {
        let acks = self.receipts.first().map(|receipt| format!("&acks={receipt}")).unwrap_or_default();
        let path = format_args!("/v1/queues/{}/receive?wait=10s&max=1{acks}", self.queue);
        let body = post(&mut self.connection, path, b"").await?;
        let refused = b"\"ok\":false";
        ensure!(!body.windows(refused.len()).any(|text| text == refused), "an ack was refused");
        // Items come before what became of the acks.
        let items = body.windows(8).position(|text| text == b"\"acks\":[").map_or(body, |acks| &body[..acks]);
        let receipt = text_member(items, "receipt").context("nothing was received")?.to_owned();
        self.receipts = vec![receipt];
        Ok(())
    }

    /// What an earlier measurement left in it goes.
    async fn empty_queue(&mut self) -> Result<()> {
        let path = format_args!("/v1/queues/{}", self.queue);
        let request = Request { method: "DELETE", path, headers: format_args!(""), body: b"" };
        let response = self.connection.call(request).await?;
        if response.status == 404 {
            return Ok(());
        }
        succeeded(&response, "DELETE", path).map(drop)
    }

    async fn acknowledge(&mut self) -> Result<()> {
        if let [receipt] = &self.receipts[..] {
            let path = format_args!("/v1/queues/{}/ack?receipt={receipt}", self.queue);
            return post(&mut self.connection, path, b"").await.map(drop);
        }
        let body = serde_json::to_vec(&serde_json::json!({ "receipts": self.receipts }))?;
        let path = format_args!("/v1/queues/{}/ack", self.queue);
        post(&mut self.connection, path, &body).await.map(drop)
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
    text_members(json, name).next()
}

/// All texts called `name`, likewise.
fn text_members<'a>(json: &'a [u8], name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let quoted = format!("\"{name}\":\"");
    let mut rest = std::str::from_utf8(json).unwrap_or_default();
    std::iter::from_fn(move || {
        rest = &rest[rest.find(&quoted)? + quoted.len()..];
        rest.split('"').next()
    })
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
