//! A scripted HTTP/1.1 server: one closure answers every request.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::document::fault;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

pub enum Reply {
    Full {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// Chunks of a stream; then the connection is cut, or kept silent.
    Stream {
        chunks: Vec<String>,
        then: Then,
    },
    /// Close the connection without a word.
    Cut,
    /// Never answer.
    Hang,
}

pub enum Then {
    Cut,
    End,
    Silence,
}

impl Reply {
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self::Full { status, headers: Vec::new(), body: body.into() }
    }

    pub fn problem(code: coracle_client::api::Code) -> Self {
        let problem = coracle_client::api::Problem::new(code, "");
        Self::json(problem.status, serde_json::to_string(&problem).unwrap())
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Full { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

pub struct Fake {
    pub url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Drop for Fake {
    /// Whatever the script answers, a server of ours would have to take what was asked.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let faults: Vec<String> =
                self.seen().iter().filter_map(|r| fault(&r.method, &r.target)).collect();
            assert_eq!(faults, Vec::<String>::new());
        }
    }
}

type Script = Arc<Mutex<dyn FnMut(&Request) -> Reply + Send>>;

impl Fake {
    /// A server that answers each request with what `script` says.
    pub async fn start(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Script = Arc::new(Mutex::new(script));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { url, seen }
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }
}

/// An address where nobody listens.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    script: Script,
    seen: Arc<Mutex<Vec<Request>>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = read_request(&mut stream).await?;
        seen.lock().unwrap().push(request.clone());
        let reply = (script.lock().unwrap())(&request);
        match reply {
            Reply::Cut => return None,
            Reply::Hang => std::future::pending().await,
            Reply::Full { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    let _ = write!(head, "{name}: {value}\r\n");
                }
                stream.write_all((head + "\r\n" + &body).as_bytes()).await.ok()?;
                stream.flush().await.ok()?;
            }
            Reply::Stream { chunks, then } => {
                stream.write_all(b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n").await.ok()?;
                for chunk in chunks {
                    let framed = format!("{:x}\r\n{chunk}\r\n", chunk.len());
                    stream.write_all(framed.as_bytes()).await.ok()?;
                    stream.flush().await.ok()?;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                match then {
                    Then::Cut => return None,
                    Then::Silence => std::future::pending().await,
                    Then::End => {
                        stream.write_all(b"0\r\n\r\n").await.ok()?;
                        stream.flush().await.ok()?;
                    }
                }
            }
        }
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { method, target, headers, body })
}
