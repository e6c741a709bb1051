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
    head: &'a [u8],
    pub body: &'a [u8],
}

impl Response<'_> {
    /// Whether a header of this name, in lower case, is there.
    pub fn has_header(&self, name: &[u8]) -> bool {
        self.head
            .split(|&byte| byte == b'\n')
            .skip(1)
            .any(|line| line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name))
    }
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

    /// Opens a streamed answer, on a connection of its own.
    pub async fn stream(&self, path: fmt::Arguments<'_>) -> Result<Lines> {
        let Self { mut stream, mut incoming, .. } = Self::dial(&self.host).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        stream.write_all(request.as_bytes()).await?;
        let end = loop {
            ensure!(stream.read_buf(&mut incoming).await? > 0, "connection closed before the answer");
            if let Some(end) = incoming.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
        };
        let head = incoming.split_to(end + 4).to_ascii_lowercase();
        ensure!(head.starts_with(b"http/1.1 200 "), "GET {path} was refused");
        let chunked = b"transfer-encoding: chunked";
        ensure!(head.windows(chunked.len()).any(|line| line == chunked), "GET {path} answered no stream");
        Ok(Lines { stream, incoming, text: BytesMut::new(), chunk: 0 })
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
        let (lines, body) = self.incoming.split_at(head.head);
        Ok(Response { status: head.status, head: lines, body })
    }
}

/// A streamed answer, line by line.
pub struct Lines {
    stream: TcpStream,
    /// As received.
    incoming: BytesMut,
    /// Without the marks between chunks.
    text: BytesMut,
    /// Bytes of the present chunk that are still to come, with the end of its line.
    chunk: usize,
}

impl Lines {
    /// The next whole line, without its end.
    pub async fn next(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(end) = self.text.iter().position(|&byte| byte == b'\n') {
                let mut line = self.text.split_to(end + 1);
                line.truncate(end);
                return Ok(line);
            }
            if !self.take()? {
                ensure!(self.stream.read_buf(&mut self.incoming).await? > 0, "the stream ended");
            }
        }
    }

    /// Moves what has come of a chunk to the text; false if more has to come first.
    fn take(&mut self) -> Result<bool> {
        if self.chunk == 0 {
            let Some(end) = self.incoming.windows(2).position(|two| two == b"\r\n") else { return Ok(false) };
            let head = self.incoming.split_to(end + 2);
            let size =
                usize::from_str_radix(std::str::from_utf8(&head[..end])?, 16).context("size of a chunk")?;
            ensure!(size > 0, "the stream ended");
            self.chunk = size + 2;
        }
        let come = self.incoming.len().min(self.chunk);
        let piece = self.incoming.split_to(come);
        // The last two bytes end the line of the chunk.
        let text = come.min(self.chunk.saturating_sub(2));
        self.text.extend_from_slice(&piece[..text]);
        self.chunk -= come;
        Ok(come > 0)
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
