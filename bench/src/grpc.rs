//! A minimal gRPC client: unary calls and one-by-one streams over a shared HTTP/2 connection.

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use tokio::net::TcpStream;

/// Larger than anything in flight, so that no call waits for a window update.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Compressed flag and length.
const PREFIX_BYTES: usize = 5;

#[derive(Clone)]
pub struct Channel {
    requests: SendRequest<Bytes>,
    authority: String,
}

/// A stream of messages both ways.
pub struct Stream {
    sender: SendStream<Bytes>,
    receiver: RecvStream,
    received: BytesMut,
}

impl Channel {
    /// Connects; the connection is driven by the current local task set.
    pub async fn dial(authority: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(authority).await.with_context(|| format!("connect to {authority}"))?;
        stream.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await?;
        // Its end is seen by every call that is on it.
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self { requests, authority: authority.to_owned() })
    }

    /// The address of a method, `/package.Service/Method`, to be made once and used often.
    pub fn method(&self, path: &str) -> Result<Uri> {
        Ok(Uri::builder().scheme("http").authority(self.authority.as_str()).path_and_query(path).build()?)
    }

    pub async fn unary(&self, method: &Uri, message: &[u8]) -> Result<Bytes> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut sender) = requests.send_request(request(method), false)?;
        sender.send_data(framed(message), true)?;
        let response = response.await?;
        check_status(response.headers(), false)?;
        let mut body = response.into_body();
        let mut received = BytesMut::new();
        let mut answer = None;
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            received.extend_from_slice(&chunk);
            if answer.is_none() {
                answer = take_message(&mut received)?;
            }
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        check_status(&trailers, true)?;
        answer.ok_or_else(|| anyhow!("grpc answer without a message"))
    }

    pub async fn stream(&self, method: &Uri) -> Result<PendingStream> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, sender) = requests.send_request(request(method), false)?;
        Ok(PendingStream { response, sender })
    }
}

/// A stream whose first message has not been sent: a server may answer nothing, not even headers, before it.
pub struct PendingStream {
    response: h2::client::ResponseFuture,
    sender: SendStream<Bytes>,
}

impl PendingStream {
    pub async fn begin(mut self, message: &[u8]) -> Result<(Stream, Bytes)> {
        self.sender.send_data(framed(message), false)?;
        let response = self.response.await?;
        check_status(response.headers(), false)?;
        let mut stream =
            Stream { sender: self.sender, receiver: response.into_body(), received: BytesMut::new() };
        let answer = stream.receive().await?;
        Ok((stream, answer))
    }
}

impl Stream {
    pub async fn exchange(&mut self, message: &[u8]) -> Result<Bytes> {
        self.sender.send_data(framed(message), false)?;
        self.receive().await
    }

    /// The next message, whoever asked for it.
    pub async fn receive(&mut self) -> Result<Bytes> {
        loop {
            if let Some(answer) = take_message(&mut self.received)? {
                return Ok(answer);
            }
            let Some(chunk) = self.receiver.data().await else {
                check_status(&self.receiver.trailers().await?.unwrap_or_default(), true)?;
                bail!("grpc stream ended");
            };
            let chunk = chunk?;
            self.receiver.flow_control().release_capacity(chunk.len())?;
            self.received.extend_from_slice(&chunk);
        }
    }
}

fn request(method: &Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = method.clone();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a message below 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

/// Takes one whole message off the front; `None` until it is there.
pub fn take_message(received: &mut BytesMut) -> Result<Option<Bytes>> {
    let Some(prefix) = received.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    ensure!(prefix[0] == 0, "compressed grpc answer");
    let length = usize::try_from(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]))?;
    if received.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    received.advance(PREFIX_BYTES);
    Ok(Some(received.split_to(length).freeze()))
}

/// A failed call has its status in the headers or in the trailers, a good one always in the trailers.
fn check_status(headers: &HeaderMap, required: bool) -> Result<()> {
    match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        None if !required => Ok(()),
        None => bail!("grpc answer without a status"),
        Some(status) => {
            let reason = headers.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes);
            bail!("grpc status {}: {}", String::from_utf8_lossy(status), String::from_utf8_lossy(reason))
        }
    }
}
