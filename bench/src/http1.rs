//! A minimal HTTP/1.1 connection: keep-alive, one request at a time, bodies with a length.

use std::fmt;
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD_BYTES_MAX: usize = 16 * 1024;

pub struct Connection {
    stream: TcpStream,
    host: String,
    outgoing: Vec<u8>,
    incoming: BytesMut,
}

pub struct Request<'a> {
    pub method: &'static str,
    pub path: fmt::Arguments<'a>,
    /// Whole header lines, each with its line end.
    pub headers: fmt::Arguments<'a>,
    pub body: &'a [u8],
}

#[derive(Debug, PartialEq, Eq)]
pub struct Response<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// Where a response lies in the bytes received so far.
#[derive(Debug, PartialEq, Eq)]
pub struct Extent {
    pub status: u16,
    pub head: usize,
    pub body: usize,
}

impl Connection {
    pub async fn dial(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            host: host.to_owned(),
            outgoing: Vec::with_capacity(1024),
            incoming: BytesMut::with_capacity(8 * 1024),
        })
    }

    pub async fn redial(&mut self) -> Result<()> {
        *self = Self::dial(&self.host).await?;
        Ok(())
    }

    /// Sends one request and reads its whole answer. After an error the connection must be redialled.
    pub async fn call(&mut self, request: Request<'_>) -> Result<Response<'_>> {
        let Request { method, path, headers, body } = request;
        self.outgoing.clear();
        write!(self.outgoing, "{method} {path} HTTP/1.1\r\nhost: {}\r\n{headers}", self.host)?;
        if method != "GET" {
            write!(self.outgoing, "content-length: {}\r\n", body.len())?;
        }
        self.outgoing.extend_from_slice(b"\r\n");
        self.outgoing.extend_from_slice(body);
        self.stream.write_all(&self.outgoing).await?;

        self.incoming.clear();
        let head = loop {
            ensure!(
                self.stream.read_buf(&mut self.incoming).await? > 0,
                "connection closed before the answer"
            );
            if let Some(head) = parse_head(&self.incoming)? {
                break head;
            }
        };
        let whole = head.head + head.body;
        self.incoming.reserve(whole.saturating_sub(self.incoming.len()));
        while self.incoming.len() < whole {
            ensure!(
                self.stream.read_buf(&mut self.incoming).await? > 0,
                "connection closed inside the answer"
            );
        }
        ensure!(self.incoming.len() == whole, "bytes after the answer count={}", self.incoming.len() - whole);
        Ok(Response { status: head.status, body: &self.incoming[head.head..] })
    }
}

/// Reads the status line and the length; `None` until the head is complete.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Extent>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        ensure!(bytes.len() <= HEAD_BYTES_MAX, "head of the answer is too long");
        return Ok(None);
    };
    let status = match bytes {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            _,
            b' ',
            a @ b'1'..=b'5',
            b @ b'0'..=b'9',
            c @ b'0'..=b'9',
            ..,
        ] => u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'),
        _ => bail!("not an HTTP/1.1 answer"),
    };
    let mut body = None;
    for line in bytes[..end].split(|&byte| byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // The length of a name rejects nearly every line without comparing its text.
        if line.get(14) == Some(&b':') && line[..14].eq_ignore_ascii_case(b"content-length") {
            let text = std::str::from_utf8(&line[15..])?.trim();
            body = Some(text.parse().with_context(|| format!("content-length {text}"))?);
        } else if line.get(17) == Some(&b':') && line[..17].eq_ignore_ascii_case(b"transfer-encoding") {
            bail!("a streamed answer has no place in a measurement");
        }
    }
    let body = match (status, body) {
        (204 | 304, _) => 0,
        (_, Some(length)) => length,
        (_, None) => bail!("answer without a content-length status={status}"),
    };
    Ok(Some(Extent { status, head: end + 4, body }))
}
