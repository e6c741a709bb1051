//! NATS JetStream under load: its text protocol, a connection for each client. A minimal client, as light as the others.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::service;
use crate::workload::{BATCH, Shape, Workload, fill_value};

/// JetStream's streams: a topic that keeps the newest, and queues whose messages go when they are acknowledged.
const TOPIC: &str = "topic";
const CONSUMER: &str = "workers";

pub struct Nats {
    nodes: Vec<String>,
    /// Servers that have each message.
    replicas: usize,
    shape: Shape,
}

pub struct Client {
    link: Link,
    workload: Workload,
    shape: Shape,
    stream: &'static str,
    value: Vec<u8>,
    /// It makes what the other clients take.
    feeds: bool,
    /// Where to acknowledge the messages received last.
    receipts: Vec<String>,
}

impl Nats {
    /// Nodes are `host:port`, of a cluster of so many.
    pub fn new(nodes: &[String], of: usize, shape: Shape) -> Self {
        Self { nodes: nodes.to_vec(), replicas: of.min(3), shape }
    }

    pub const fn does(workload: Workload) -> bool {
        use Workload::{Publish, Queue, QueueBatch, QueueDeep, QueuePairs};
        matches!(workload, Publish | Queue | QueuePairs | QueueDeep | QueueBatch)
    }
}

impl service::Service for Nats {
    type Client = Client;

    fn connections(&self, clients: usize) -> usize {
        clients
    }

    async fn client(&self, workload: Workload, number: usize) -> Result<Client> {
        let link = Link::dial(&self.nodes[number % self.nodes.len()], number).await?;
        let stream = match workload {
            Workload::Queue => "queue",
            Workload::QueuePairs => "pairs",
            Workload::QueueDeep => "deep",
            Workload::QueueBatch => "batch",
            _ => TOPIC,
        };
        let feeds = workload.cast(self.shape.clients).feeds(number);
        let (value, receipts) = (Vec::new(), Vec::new());
        let mut client = Client { link, workload, shape: self.shape, stream, value, feeds, receipts };
        if number == 0 {
            client.make_stream(self.replicas).await?;
        }
        Ok(client)
    }
}

impl service::Client for Client {
    async fn prepare(&mut self, _: u32) -> Result<()> {
        self.publish().await
    }

    async fn step(&mut self, _: Instant) -> Result<()> {
        match self.workload {
            Workload::QueuePairs if self.feeds => self.publish().await,
            Workload::QueuePairs => self.take_next().await,
            Workload::QueueBatch => {
                self.publish_batch().await?;
                self.take_batch().await
            }
            Workload::Queue | Workload::QueueDeep => {
                self.publish().await?;
                self.take().await
            }
            _ => self.publish().await,
        }
    }

    async fn recover(&mut self) -> Result<()> {
        self.receipts.clear();
        self.link = Link::dial(&self.link.host.clone(), self.link.number).await?;
        Ok(())
    }

    async fn leave(mut self) -> Result<()> {
        self.acknowledge().await
    }
}

impl Client {
    /// The same again is no mistake.
    async fn make_stream(&mut self, replicas: usize) -> Result<()> {
        let name = self.stream;
        let (retention, max_bytes) = if name == TOPIC { ("limits", 64 << 20) } else { ("workqueue", -1) };
        let stream = json!({
            "name": name, "subjects": [name], "storage": "file", "num_replicas": replicas,
            "retention": retention, "max_bytes": max_bytes,
        });
        self.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &stream).await?;
        if name == TOPIC {
            return Ok(());
        }
        let config = json!({ "durable_name": CONSUMER, "ack_policy": "explicit", "max_ack_pending": -1 });
        let consumer = json!({ "stream_name": name, "config": config });
        self.ask(&format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.{CONSUMER}"), &consumer).await?;
        if name == "pairs" {
            // What an earlier measurement left in it goes.
            self.ask(&format!("$JS.API.STREAM.PURGE.{name}"), &json!({})).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, subject: &str, body: &Value) -> Result<Value> {
        let answer = self.link.request(subject, &serde_json::to_vec(body)?).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(answer["error"].is_null(), "{subject}: {}", answer["error"]);
        Ok(answer)
    }

    /// Answered once a majority has it, in memory: its servers do not wait for the disk.
    async fn publish(&mut self) -> Result<()> {
        fill_value(&mut self.value, self.stream, self.shape.value_bytes);
        let answer = self.link.request(self.stream, &self.value).await?;
        published(&answer)
    }

    /// As its clients publish many: all at once, each answered for itself.
    async fn publish_batch(&mut self) -> Result<()> {
        fill_value(&mut self.value, self.stream, self.shape.value_bytes);
        for _ in 0..BATCH {
            self.link.publish(self.stream, &self.value);
        }
        self.link.flush().await?;
        for _ in 0..BATCH {
            published(&self.link.receive(self.stream).await?)?;
        }
        Ok(())
    }

    async fn take(&mut self) -> Result<()> {
        self.pull(1).await?;
        self.acknowledge().await
    }

    async fn take_batch(&mut self) -> Result<()> {
        self.pull(BATCH).await?;
        self.acknowledge().await
    }

    /// As a worker asks: what it has done is acknowledged by the request for the next message.
    async fn take_next(&mut self) -> Result<()> {
        let Some(done) = self.receipts.pop() else { return self.pull(1).await };
        self.link.publish(&done, format!("+NXT {}", wanted(1)).as_bytes());
        self.link.flush().await?;
        self.collect(1).await
    }

    async fn pull(&mut self, count: usize) -> Result<()> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{CONSUMER}", self.stream);
        self.link.publish(&subject, wanted(count).as_bytes());
        self.link.flush().await?;
        self.collect(count).await
    }

    async fn collect(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let message = self.link.receive(CONSUMER).await?;
            self.receipts.push(message.reply.context("nothing was received")?);
            ensure!(message.payload.len() == self.shape.value_bytes, "another message was received");
        }
        Ok(())
    }

    /// Whatever was received last. Each has an answer of its own: a consumer of a work queue takes no acks of all so far.
    async fn acknowledge(&mut self) -> Result<()> {
        let receipts = std::mem::take(&mut self.receipts);
        for receipt in &receipts {
            self.link.publish(receipt, b"+ACK");
        }
        self.link.flush().await?;
        for _ in receipts {
            self.link.receive("$JS.ACK").await?;
        }
        Ok(())
    }
}

fn wanted(count: usize) -> String {
    format!(r#"{{"batch":{count},"expires":10000000000}}"#)
}

fn published(answer: &Message) -> Result<()> {
    let taken = answer.payload.windows(6).any(|text| text == b"\"seq\":");
    ensure!(taken, "publish answered {}", String::from_utf8_lossy(&answer.payload));
    Ok(())
}

struct Link {
    stream: TcpStream,
    host: String,
    number: usize,
    incoming: BytesMut,
    outgoing: Vec<u8>,
}

struct Message {
    reply: Option<String>,
    payload: BytesMut,
}

impl Link {
    async fn dial(host: &str, number: usize) -> Result<Self> {
        let stream = TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        let (incoming, outgoing) = (BytesMut::with_capacity(8 * 1024), Vec::new());
        let mut link = Self { stream, host: host.to_owned(), number, incoming, outgoing };
        ensure!(link.line().await?.starts_with("INFO "), "not a NATS server");
        let options =
            r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}"#;
        link.outgoing
            .extend_from_slice(format!("CONNECT {options}\r\nSUB inbox.{number} 1\r\nPING\r\n").as_bytes());
        link.flush().await?;
        loop {
            match link.line().await?.as_str() {
                "PONG" => return Ok(link),
                refused if refused.starts_with("-ERR") => bail!("{refused}"),
                _ => {}
            }
        }
    }

    async fn request(&mut self, subject: &str, payload: &[u8]) -> Result<Message> {
        self.publish(subject, payload);
        self.flush().await?;
        self.receive(subject).await
    }

    /// To be sent with the next flush, and answered to the own inbox.
    fn publish(&mut self, subject: &str, payload: &[u8]) {
        let head = format!("PUB {subject} inbox.{} {}\r\n", self.number, payload.len());
        self.outgoing.extend_from_slice(head.as_bytes());
        self.outgoing.extend_from_slice(payload);
        self.outgoing.extend_from_slice(b"\r\n");
    }

    /// The next message in the own inbox; `subject` is what was asked, to name it in an error.
    async fn receive(&mut self, subject: &str) -> Result<Message> {
        loop {
            let line = self.line().await?;
            let words: Vec<&str> = line.split(' ').collect();
            match &words[..] {
                ["MSG", _, _, reply @ .., length] => {
                    let payload = self.payload(length).await?;
                    return Ok(Message { reply: reply.first().map(|&reply| reply.to_owned()), payload });
                }
                ["HMSG", _, _, .., length] => {
                    let said = self.payload(length).await?;
                    let status = said[..].split(|&byte| byte == b'\r').next().unwrap_or_default();
                    bail!("{subject}: {}", String::from_utf8_lossy(status));
                }
                ["PING"] => {
                    self.outgoing.extend_from_slice(b"PONG\r\n");
                    self.flush().await?;
                }
                ["-ERR", ..] => bail!("{line}"),
                _ => {}
            }
        }
    }

    async fn payload(&mut self, length: &str) -> Result<BytesMut> {
        let length: usize = length.parse()?;
        while self.incoming.len() < length + 2 {
            self.read().await?;
        }
        let payload = self.incoming.split_to(length);
        self.incoming.advance(2);
        Ok(payload)
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.incoming.windows(2).position(|two| two == b"\r\n") {
                let line = self.incoming.split_to(end);
                self.incoming.advance(2);
                return Ok(std::str::from_utf8(&line)?.trim_end().to_owned());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        ensure!(self.stream.read_buf(&mut self.incoming).await? > 0, "connection closed");
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.outgoing).await?;
        self.outgoing.clear();
        Ok(())
    }
}
