//! A bare HTTP/1.1 client: what is written is what is sent.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing in these tests takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer: status, headers in lower case, body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// One request with a body; the length is added.
    pub async fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&request(method, path, headers, body)).await;
        self.answer(method == "HEAD").await
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, &[], b"").await
    }

    pub async fn put(&mut self, path: &str, body: &[u8]) -> Answer {
        self.call("PUT", path, &[], body).await
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.call("POST", path, &[], body).await
    }

    /// The head of the next answer; its body is left in the buffer.
    pub async fn head(&mut self) -> Option<Answer> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                let answer = parse(&head);
                if answer.status == 100 {
                    continue;
                }
                return Some(answer);
            }
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    pub async fn answer(&mut self, bodiless: bool) -> Answer {
        let head = self.head().await.expect("an answer before the connection ends");
        self.rest(head, bodiless).await
    }

    /// The answer whose head was read before.
    pub async fn rest(&mut self, mut answer: Answer, bodiless: bool) -> Answer {
        let length = answer.header("content-length").and_then(|l| l.parse::<usize>().ok());
        if bodiless || answer.status == 304 || answer.status == 204 {
            return answer;
        }
        if let Some(length) = length {
            while self.buffer.len() < length {
                assert!(self.fill().await > 0, "the body ends early");
            }
            answer.body = self.buffer.drain(..length).collect();
        } else {
            while let Some(chunk) = self.chunk().await {
                answer.body.extend_from_slice(&chunk);
            }
        }
        answer
    }

    /// The next chunk of a chunked body; `None` at its end or at the end of the connection.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let size = usize::from_str_radix(&String::from_utf8_lossy(&self.buffer[..end]), 16)
                    .expect("a chunk size");
                if self.buffer.len() >= end + 2 + size + 2 {
                    let chunk = self.buffer[end + 2..end + 2 + size].to_vec();
                    self.buffer.drain(..end + 2 + size + 2);
                    return (size > 0).then_some(chunk);
                }
            }
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    /// More bytes into the buffer; 0 at the end of the connection.
    pub async fn fill(&mut self) -> usize {
        let mut part = vec![0; 16 * 1024];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut part)).await.expect("bytes in time");
        let read = read.unwrap_or(0);
        self.buffer.extend_from_slice(&part[..read]);
        read
    }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        out.extend_from_slice(b"Host: localhost\r\n");
    }
    for (name, value) in headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || matches!(method, "PUT" | "POST") {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

fn parse(head: &str) -> Answer {
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).expect("a status line");
    let headers =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
    Answer { status, headers: headers.collect(), body: Vec::new() }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A stream of NDJSON frames.
pub struct Frames {
    client: Client,
    pub head: Answer,
    lines: std::collections::VecDeque<String>,
    rest: Vec<u8>,
}

impl Frames {
    pub async fn open(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::open_with(address, method, path, headers, b"").await
    }

    pub async fn open_with(
        address: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let mut client = Client::connect(address).await;
        client.send(&request(method, path, headers, body)).await;
        let head = client.head().await.expect("the head of a stream");
        Self { client, head, lines: std::collections::VecDeque::new(), rest: Vec::new() }
    }

    /// The next line; `None` at the end of the stream.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let chunk = self.client.chunk().await?;
            self.rest.extend_from_slice(&chunk);
            while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.lines.push_back(String::from_utf8(line[..end].to_vec()).unwrap());
            }
        }
    }

    pub async fn frame(&mut self) -> serde_json::Value {
        let line = self.line().await.expect("a frame");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// The next frame that is no progress mark.
    pub async fn news(&mut self) -> serde_json::Value {
        loop {
            let frame = self.frame().await;
            if frame["type"] != "progress" {
                return frame;
            }
        }
    }
}
