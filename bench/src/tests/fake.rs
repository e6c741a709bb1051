//! A server that answers as Coracle does, for as much as the generator asks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
pub struct State {
    pub revision: u64,
    pub keys: BTreeMap<String, (u64, Vec<u8>)>,
    pub sessions: u64,
    pub opened: u64,
    /// Connection to the sessions that were renewed on it, in order.
    pub turns: BTreeMap<u64, Vec<String>>,
    /// Lock to the session that holds it.
    pub held: BTreeMap<String, String>,
    pub grants: u64,
    pub stale_reads: u64,
    pub renewals: u64,
    /// Messages ready, received, acknowledged.
    pub queue: [u64; 3],
    /// The most that were ready at once.
    pub longest: u64,
    /// Connections that sent to a queue of pairs, and that received from it.
    pub senders: usize,
    pub receivers: usize,
    last_connection: u64,
    seen: BTreeSet<(u64, bool)>,
    pub instances: u64,
    pub published: u64,
    /// Values of the keys that were written under the watched prefix, in order.
    pub told: Vec<String>,
    /// How often the how-manieth of them is told, if not once.
    pub copies: Option<(usize, usize)>,
    /// Before each answer.
    pub delay: Duration,
    /// Added to the values that are read.
    pub corrupt: &'static str,
}

pub type Shared = Rc<RefCell<State>>;

/// Serves until the local task set is dropped; returns `host:port`.
pub async fn serve(state: Shared) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(converse(stream, state.clone()));
        }
    });
    host
}

async fn converse(stream: TcpStream, state: Shared) {
    stream.set_nodelay(true).unwrap();
    state.borrow_mut().last_connection += 1;
    let connection = state.borrow().last_connection;
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            head.push(line.trim_end().to_ascii_lowercase());
        }
        let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mut body = vec![0; header("content-length:").map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        let mut words = head[0].split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        if path == "/v1/kv?prefix=watch/&watch=true" {
            return tell(stream.into_inner(), state).await;
        }
        let expected = header("if-match:").map(|revision| revision.trim_matches('"').parse().unwrap());

        let delay = state.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(verb) = path.strip_prefix("/v1/queues/bench-pairs/") {
            state.borrow_mut().note_pair(connection, verb);
        }
        let renewed = path.strip_prefix("/v1/sessions/").and_then(|rest| rest.strip_suffix("/renew"));
        if let Some(session) = renewed {
            state.borrow_mut().turns.entry(connection).or_default().push(session.to_owned());
        }
        let (status, answer) = loop {
            let answer = state.borrow_mut().answer(method, path, expected, body.clone());
            match answer {
                Some(answer) => break answer,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let head =
            format!("HTTP/1.1 {status} X\r\nCoracle-Revision: 1\r\nContent-Length: {}\r\n\r\n", answer.len());
        // In two pieces, so that the reader has to put answers together.
        stream.get_mut().write_all(head.as_bytes()).await.unwrap();
        if stream.get_mut().write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// A stream of what is written under the prefix. Its chunks begin and end anywhere in the lines.
async fn tell(mut stream: TcpStream, state: Shared) {
    let mut from = state.borrow().told.len();
    let mut text = "{\"type\":\"synced\"}\n".to_owned();
    stream.write_all(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    loop {
        for piece in text.as_bytes().chunks(7) {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            if stream.write_all(&chunk).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        text = String::new();
        let copies = state.borrow().copies;
        for (number, value) in state.borrow().told.iter().enumerate().skip(from) {
            let times = copies.filter(|(chosen, _)| *chosen == number).map_or(1, |(_, times)| times);
            for _ in 0..times {
                writeln!(text, "{{\"value\":\"{value}\"}}").unwrap();
            }
        }
        from = state.borrow().told.len();
    }
}

impl State {
    fn note_pair(&mut self, connection: u64, verb: &str) {
        let receives = verb.starts_with("receive?");
        if (receives || verb == "messages") && self.seen.insert((connection, receives)) {
            *if receives { &mut self.receivers } else { &mut self.senders } += 1;
        }
    }

    /// `None` while the request has to wait.
    fn answer(
        &mut self,
        method: &str,
        path: &str,
        expected: Option<u64>,
        body: Vec<u8>,
    ) -> Option<(u16, Vec<u8>)> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let session = query.split('&').find_map(|part| part.strip_prefix("session=")).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').skip(2).collect();
        let answer = match (method, &parts[..]) {
            ("put", ["kv", key @ ..]) => self.put(&key.join("/"), expected, body),
            ("get", ["kv", key @ ..]) => {
                self.stale_reads += u64::from(query == "consistency=stale");
                match self.keys.get(&key.join("/")) {
                    Some((_, value)) => (200, [value, self.corrupt.as_bytes()].concat()),
                    None => problem(404, "key_not_found"),
                }
            }
            ("post", ["sessions"]) => {
                assert!(body == br#"{"ttl":"3600s"}"# || body == br#"{"ttl":"60s"}"#);
                self.sessions += 1;
                self.opened += 1;
                (201, format!(r#"{{"id":"s{}","ttl":"3600s"}}"#, self.opened).into_bytes())
            }
            ("post", ["sessions", _, "renew"]) => {
                self.renewals += 1;
                (200, br#"{"valid_for":"600s","holds":[],"lost":[]}"#.to_vec())
            }
            ("delete", ["sessions", _]) => {
                self.sessions -= 1;
                (200, br#"{"released":[]}"#.to_vec())
            }
            ("post", ["locks", lock, "acquire"]) => {
                if self.held.contains_key(*lock) {
                    return if query.contains("wait=") { None } else { Some(problem(409, "lock_held")) };
                }
                self.held.insert((*lock).to_owned(), session.to_owned());
                self.grants += 1;
                (200, format!(r#"{{"session":"{session}","token":{}}}"#, self.grants).into_bytes())
            }
            ("post", ["locks", lock, "release"]) => match self.held.remove(*lock) {
                Some(holder) if holder == session => (200, b"{}".to_vec()),
                _ => problem(409, "not_holder"),
            },
            (_, ["queues", queue, verb @ ..]) => return self.queue(method, queue, verb, query, &body),
            ("put", ["services", "bench", "instances", _]) => {
                assert!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["address"].is_string());
                self.instances += 1;
                (201, b"{}".to_vec())
            }
            ("get", ["services", "bench", "pick"]) if self.instances > 0 => {
                (200, br#"{"items":[{"id":"a","address":"10.0.0.1","port":80}]}"#.to_vec())
            }
            ("post", ["topics", "bench", "messages"]) => {
                self.published += 1;
                (201, format!(r#"{{"seq":{},"revision":1}}"#, self.published).into_bytes())
            }
            // etcd's gateway.
            ("post", ["kv", what @ ("put" | "range" | "txn")]) => self.gateway(what, &body),
            _ => problem(404, "route_not_found"),
        };
        Some(answer)
    }

    fn queue(
        &mut self,
        method: &str,
        queue: &str,
        verb: &[&str],
        query: &str,
        body: &[u8],
    ) -> Option<(u16, Vec<u8>)> {
        let answer = match (method, queue, verb) {
            ("post", _, ["messages"]) if query == "batch=true" => {
                let body: serde_json::Value = serde_json::from_slice(body).unwrap();
                self.queue[0] += body["items"].as_array().unwrap().len() as u64;
                (201, br#"{"items":[],"revision":1}"#.to_vec())
            }
            ("post", _, ["messages"]) => {
                assert!(body.starts_with(b"bench:"));
                self.queue[0] += 1;
                self.longest = self.longest.max(self.queue[0]);
                (201, br#"{"id":"1-0","revision":1}"#.to_vec())
            }
            ("delete", _, []) => {
                self.queue = [0; 3];
                (200, b"{}".to_vec())
            }
            ("post", "bench-pairs", ["receive"]) => {
                assert!(query.starts_with("wait=10s&max=1"), "{query}");
                if self.queue[0] == 0 {
                    return None;
                }
                let acks = query.split("&acks=").skip(1);
                let acks: Vec<_> =
                    acks.map(|receipt| format!(r#"{{"receipt":"{receipt}","ok":true}}"#)).collect();
                self.queue[2] += acks.len() as u64;
                self.queue[1] += 1;
                self.queue[0] -= 1;
                let item = format!(r#"{{"id":"1-0","receipt":"r1:{}"}}"#, self.queue[1]);
                (
                    200,
                    format!(r#"{{"items":[{item}],"acks":[{}],"revision":1}}"#, acks.join(",")).into_bytes(),
                )
            }
            ("post", _, ["receive"]) => {
                let max: u64 = query.split("max=").nth(1).unwrap().parse().unwrap();
                // Some receive less than they asked for.
                let count = self.queue[0].min(max).min(60);
                self.queue[0] -= count;
                if count == 0 {
                    return None;
                }
                let receipts = self.queue[1] + 1..=self.queue[1] + count;
                self.queue[1] += count;
                let items = receipts.map(|receipt| format!(r#"{{"id":"1-0","receipt":"r1:{receipt}"}}"#));
                (200, format!(r#"{{"items":[{}]}}"#, items.collect::<Vec<_>>().join(",")).into_bytes())
            }
            ("post", _, ["ack"]) if query.is_empty() => {
                let body: serde_json::Value = serde_json::from_slice(body).unwrap();
                self.queue[2] += body["receipts"].as_array().unwrap().len() as u64;
                (200, b"{}".to_vec())
            }
            ("post", _, ["ack"]) => {
                assert!(query.starts_with("receipt=r1:"), "{query}");
                self.queue[2] += 1;
                (200, b"{}".to_vec())
            }
            _ => problem(404, "route_not_found"),
        };
        Some(answer)
    }

    fn gateway(&mut self, what: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let decoded = |text: &serde_json::Value| BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
        let key = |text: &serde_json::Value| String::from_utf8(decoded(text)).unwrap();
        let mut answer = match what {
            "put" => {
                self.put(&key(&body["key"]), None, decoded(&body["value"]));
                json!({})
            }
            "range" => {
                self.stale_reads += u64::from(body["serializable"] == true);
                let (_, value) = &self.keys[&key(&body["key"])];
                json!({ "kvs": [{ "value": BASE64_STANDARD.encode(value) }] })
            }
            _ => {
                let (compare, put) = (&body["compare"][0], &body["success"][0]["requestPut"]);
                let expected = compare["mod_revision"].as_str().unwrap().parse().unwrap();
                let (status, _) = self.put(&key(&put["key"]), Some(expected), decoded(&put["value"]));
                json!({ "succeeded": status == 200 })
            }
        };
        answer["header"] = json!({ "revision": self.revision.to_string() });
        (200, serde_json::to_vec(&answer).unwrap())
    }

    fn put(&mut self, key: &str, expected: Option<u64>, value: Vec<u8>) -> (u16, Vec<u8>) {
        let current = self.keys.get(key).map_or(0, |(revision, _)| *revision);
        if expected.is_some_and(|expected| expected != current) {
            return problem(412, "revision_mismatch");
        }
        self.revision += 1;
        if key.starts_with("watch/") {
            self.told.push(String::from_utf8(value.clone()).unwrap());
        }
        self.keys.insert(key.to_owned(), (self.revision, value));
        (200, format!(r#"{{"key":"{key}","revision":{},"version":1}}"#, self.revision).into_bytes())
    }
}

fn problem(status: u16, code: &str) -> (u16, Vec<u8>) {
    (status, format!(r#"{{"status":{status},"code":"{code}"}}"#).into_bytes())
}
