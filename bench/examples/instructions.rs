//! One request after the other to a server in this process, for `bench/instructions/run` to count their instructions:
//! `cargo run --release -p coracle-bench --example instructions put 1000`.
//!
//! One node, one connection, one thread beside those of the log and the checkpoints: what is counted is parsing, routing,
//! the log, applying and answering, and a client that does nearly nothing.

#![allow(clippy::disallowed_methods, reason = "it ends with its work")]

use coracle_server::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The requests of the n-th operation.
type Requests = fn(usize) -> Vec<String>;

/// What is asked over and over.
const PATHS: &[(&str, Requests)] = &[
    ("get", |n| vec![request("GET", &format!("/v1/kv/{}", key(n)), "")]),
    ("stale get", |n| vec![request("GET", &format!("/v1/kv/{}?consistency=stale", key(n)), "")]),
    ("put", |n| vec![request("PUT", &format!("/v1/kv/{}", key(n)), &"x".repeat(256))]),
    ("lock + release", |n| {
        let lock = format!("/v1/locks/{}", key(n));
        vec![
            request("POST", &format!("{lock}/acquire?session={SESSION}"), ""),
            request("POST", &format!("{lock}/release?session={SESSION}"), ""),
        ]
    }),
    ("renew", |_| vec![request("POST", &format!("/v1/sessions/{SESSION}/renew"), "")]),
    ("send + receive + ack", |n| {
        vec![
            request("POST", "/v1/queues/mail/messages", &format!("message {n:06}")),
            request("POST", "/v1/queues/mail/receive", ""),
            request("POST", &format!("/v1/queues/mail/ack?receipt={RECEIPT}"), ""),
        ]
    }),
    ("publish", |n| vec![request("POST", "/v1/topics/news/messages", &format!("message {n:06}"))]),
    ("pick", |_| vec![request("GET", "/v1/services/web/pick", "")]),
];

const SESSION: &str = "{session}";
const RECEIPT: &str = "{receipt}";

fn key(n: usize) -> String {
    format!("key-{:03}", n % 100)
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (wanted, count) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let found = PATHS.iter().find(|(name, _)| *name == wanted).zip(count.parse().ok());
    let Some(((_, requests), count)) = found else {
        let known: Vec<_> = PATHS.iter().map(|(name, _)| format!("'{name}'")).collect();
        eprintln!("usage: instructions PATH COUNT; the paths are {}", known.join(", "));
        std::process::exit(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work(*requests, count));
}

async fn work(requests: Requests, count: usize) {
    let data = tempfile::tempdir().expect("a directory");
    let mut config = Config::default();
    config.data = data.path().join("data");
    config.listen = "127.0.0.1:0".parse().expect("an address");
    config.peer_listen = config.listen;
    let server = Server::start(config).await.expect("a server");
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    server.node().read_barrier(deadline).await.expect("a leader");

    let mut client = Client(TcpStream::connect(server.address()).await.expect("a connection"), vec![0; 4096]);
    let session = member(&client.ask(&request("POST", "/v1/sessions?ttl=1h", "")).await, "id");
    let instance = request("PUT", "/v1/services/web/instances/a", r#"{"address":"10.0.0.1","port":80}"#);
    client.ask(&instance).await;
    for n in 0..100 {
        client.ask(&request("PUT", &format!("/v1/kv/{}", key(n)), &"x".repeat(256))).await;
    }
    for n in 0..count {
        let mut before = String::new();
        for request in requests(n) {
            let request = request.replace(SESSION, &session);
            before = client.ask(&request.replace(RECEIPT, &member(&before, "receipt"))).await;
        }
    }
    server.stop().await;
}

/// The first text of that name in an answer.
fn member(answer: &str, name: &str) -> String {
    let value = answer.split(&format!("\"{name}\":\"")).nth(1).and_then(|rest| rest.split('"').next());
    value.unwrap_or_default().to_owned()
}

/// A connection that believes everything.
struct Client(TcpStream, Vec<u8>);

impl Client {
    async fn ask(&mut self, request: &str) -> String {
        let Self(stream, buffer) = self;
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut read = 0;
        loop {
            read += stream.read(&mut buffer[read..]).await.expect("an answer");
            let text = String::from_utf8_lossy(&buffer[..read]);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                assert!(head.starts_with("HTTP/1.1 20"), "{request}\n{text}");
                return text.into_owned();
            }
        }
    }
}
