//! ① Connections: accepted within bounds, watched for silence, drained at the end.
//!
//! hyper's own header timer is not used: it would cost a timer a request and end idle connections after it. One coarse
//! timer a connection does for slow heads, idle keep-alive and clients that stopped reading.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use coracle_api::{Code, PROBLEM_JSON, Problem};
use coracle_raft::network::stream::Stream;
use coracle_raft::network::tls::Acceptor;
use coracle_store::Principal;
use http::{Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::edge::Edge;
use crate::http::call::Peer;
use crate::http::front::{Ambiguous, Service};

/// Head of a request, the request line included.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const H2_STREAMS: u32 = 256;

/// Accept until told to stop, then let connections finish.
pub struct Listening {
    stop: CancellationToken,
    connections: TaskTracker,
    accepting: tokio::task::JoinHandle<()>,
}

/// Begin to accept.
#[must_use]
pub fn listen(listener: TcpListener, acceptor: Acceptor, edge: Edge) -> Listening {
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    let accepting = tokio::spawn(accept(listener, acceptor, edge, stop.clone(), connections.clone()));
    Listening { stop, connections, accepting }
}

impl Listening {
    /// Take no new connections, let the running requests finish, at most for `grace`.
    pub async fn close(self, grace: Duration) {
        self.stop.cancel();
        let _ = self.accepting.await;
        self.connections.close();
        if tokio::time::timeout(grace, self.connections.wait()).await.is_err() {
            tracing::warn!(
                connections = self.connections.len(),
                "connections were cut at the end of the grace"
            );
        }
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Acceptor,
    edge: Edge,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    let service = Service::new(edge.clone());
    let servers = Arc::new([server().http1_only(), server().http2_only()]);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, _)) if connections.len() >= edge.config.max_connections => refuse(&tcp, &acceptor),
            Ok((tcp, _)) => {
                edge.metrics.connections.inc();
                let connection = Connection {
                    acceptor: acceptor.clone(),
                    service: service.clone(),
                    servers: servers.clone(),
                    edge: edge.clone(),
                    stop: stop.clone(),
                };
                connections.spawn(connection.run(tcp));
            }
            Err(error) => {
                // Out of file descriptors, or the client was gone already: neither ends the server.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One connection too many: say so where it costs nothing.
fn refuse(tcp: &TcpStream, acceptor: &Acceptor) {
    const BODY: &str = r#"{"type":"/problems/overloaded","title":"The node is overloaded","status":503,"code":"overloaded","retry":"same_request","effect":"none","detail":"too many connections are open"}"#;
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close";
    if !acceptor.is_tls() {
        let _ = tcp.try_write(format!("{head}\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len()).as_bytes());
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().keep_alive(true).half_close(false).max_buf_size(HEAD_BYTES).header_read_timeout(None);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(128)
        .max_send_buf_size(256 * 1024)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024);
    server
}

struct Connection {
    acceptor: Acceptor,
    service: Service,
    /// For HTTP/1 and for HTTP/2.
    servers: Arc<[auto::Builder<TokioExecutor>; 2]>,
    edge: Edge,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, tcp: TcpStream) {
        let timeout = self.edge.config.header_timeout.as_duration();
        let stream = match tokio::time::timeout(timeout, self.acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.edge.metrics.handshake_failures.inc();
                tracing::debug!(%error, "a connection was refused");
                return;
            }
            Err(_) => return,
        };
        let multiplexed = tokio::select! {
            () = self.stop.cancelled() => return,
            version = tokio::time::timeout(timeout, speaks_h2(&stream)) => match version {
                Ok(Ok(h2)) => h2,
                Ok(Err(_)) | Err(_) => return,
            },
        };
        let name = stream.common_name();
        let peer = Arc::new(Peer {
            principal: name.map_or_else(|| Peer::anonymous().principal, |name| Principal(name.into())),
            secure: self.acceptor.is_tls(),
        });
        let activity = Arc::new(Activity::new());
        let (service, watched) = (self.service, activity.clone());
        let handler = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            let (service, peer) = (service.clone(), peer.clone());
            let open = Open::new(watched.clone(), request.version());
            if watched.take_head(request.headers().contains_key(header::TRANSFER_ENCODING)) {
                request.extensions_mut().insert(Ambiguous);
            }
            async move { Ok::<_, Infallible>(open.until_sent(service.answer(request.map(Body::new), peer).await)) }
        });
        let io = TokioIo::new(Watched { stream, activity: activity.clone(), instead: None });
        let mut connection = pin!(self.servers[usize::from(multiplexed)].serve_connection(io, handler));
        let mut check = pin!(tokio::time::sleep(timeout));
        let mut stopping = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(error = %error, "a connection ended");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = check.as_mut() => match activity.next_check(&self.edge.config) {
                    Some(wait) => check.as_mut().reset(tokio::time::Instant::now() + wait),
                    None => return,
                },
            }
        }
    }
}

/// Which HTTP a client speaks: agreed by ALPN, or told by its first bytes, which are only looked at. (Read and put back,
/// as hyper-util's detection does, they would double the buffer of each connection for good.)
async fn speaks_h2(stream: &Stream) -> std::io::Result<bool> {
    if let Stream::Tls(_) = stream {
        return Ok(stream.protocol() == Some(b"h2"));
    }
    let mut first = [0; 4];
    loop {
        let count = stream.tcp().peek(&mut first).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // No method of HTTP/1 is called PRI.
        if first[..count] != b"PRI "[..count] {
            return Ok(false);
        }
        if count == first.len() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a connection is doing, in milliseconds since it began; 0 is never.
struct Activity {
    began: Instant,
    /// Requests being answered, streams included.
    open: AtomicU32,
    last: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    multiplexed: AtomicBool,
    /// Bytes read between requests: the head of the next one. hyper forgets a length beside a transfer coding, and we
    /// refuse to guess which of the two somebody in between believed.
    head: Mutex<Vec<u8>>,
}

impl Activity {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            open: AtomicU32::new(0),
            last: AtomicU64::new(1),
            // A connection that says nothing at all is one that is slow with its first head.
            head_since: AtomicU64::new(1),
            blocked_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            head: Mutex::default(),
        }
    }

    /// Forget the head that was read; true if it has a length, which is only looked for beside a transfer coding.
    fn take_head(&self, coded: bool) -> bool {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let end =
            if coded { head.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(head.len()) } else { 0 };
        let found = head[..end].windows(16).any(|w| w.eq_ignore_ascii_case(b"\ncontent-length:"));
        if head.capacity() > 4096 {
            *head = Vec::new();
        } else {
            head.clear();
        }
        found
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Time until the next look; `None`: the connection is to be closed now.
    fn next_check(&self, config: &Config) -> Option<Duration> {
        let now = self.now();
        let left = |since: u64, limit: coracle_api::Span| {
            (since + limit.as_millis()).checked_sub(now).filter(|left| *left > 0)
        };
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked > 0 && left(blocked, config.idle_timeout).is_none() {
            return None;
        }
        if self.open.load(Ordering::Relaxed) > 0 {
            return Some(config.header_timeout.as_duration());
        }
        let head = self.head_since.load(Ordering::Relaxed);
        let idle = left(self.last.load(Ordering::Relaxed), config.idle_timeout)?;
        let wait = if head > 0 { left(head, config.header_timeout)?.min(idle) } else { idle };
        // Looking again within the header timeout finds a head that begins in between.
        Some(Duration::from_millis(wait.min(config.header_timeout.as_millis().max(1))))
    }
}

/// A request being answered.
struct Open(Arc<Activity>);

impl Open {
    fn new(activity: Arc<Activity>, version: Version) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.head_since.store(0, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            activity.multiplexed.store(true, Ordering::Relaxed);
        }
        Self(activity)
    }

    /// A streamed answer is open until its body is dropped, any other until it is made.
    fn until_sent(self, response: Response) -> Response {
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        response.map(|body| Body::new(Streaming { body, _open: self }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.last.store(self.0.now(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Streaming {
    body: Body,
    _open: Open,
}

impl http_body::Body for Streaming {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The stream below, with an eye on what moves.
struct Watched {
    stream: Stream,
    activity: Arc<Activity>,
    /// What is written in place of hyper's own bare refusal of a head it could not read, and how far it has got.
    instead: Option<(Vec<u8>, usize)>,
}

/// The problem to send where hyper refuses a head with an empty body; `None` for everything else it writes.
fn refusal(written: &[u8]) -> Option<Vec<u8>> {
    if written.len() > 256 || !written.starts_with(b"HTTP/1.1 4") || !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?;
    if !head.contains("content-length: 0\r\n") || head.contains("coracle-") {
        return None;
    }
    let status: u16 = head.get(9..12)?.parse().ok()?;
    let mut problem = match status {
        414 | 431 => Problem::new(Code::TooLarge, "the head of the request is over a limit limit=head_bytes")
            .with("limit", "head_bytes")
            .with("max", HEAD_BYTES),
        _ => Problem::new(Code::InvalidArgument, "the head of the request is not HTTP as it is taken here"),
    };
    problem.status = status;
    let body = serde_json::to_string(&problem).ok()?;
    let head =
        head.trim_end().replace("content-length: 0\r\n", &format!("content-length: {}\r\n", body.len()));
    Some(format!("{head}\r\ncontent-type: {PROBLEM_JSON}\r\n\r\n{body}").into_bytes())
}

impl Watched {
    /// Write the substitute for `written`, if there is one; `None` to write it as it is.
    fn substitute(
        &mut self,
        context: &mut Context<'_>,
        written: &[u8],
    ) -> Option<Poll<std::io::Result<usize>>> {
        if self.instead.is_none() {
            // Only between requests: while one is answered the bytes are ours.
            if self.activity.open.load(Ordering::Relaxed) > 0 || !written.starts_with(b"HTTP/1.1 4") {
                return None;
            }
            self.instead = Some((refusal(written)?, 0));
        }
        let (bytes, done) = self.instead.as_mut()?;
        while *done < bytes.len() {
            match Pin::new(&mut self.stream).poll_write(context, &bytes[*done..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(count)) => *done += count,
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        self.instead = None;
        Some(Poll::Ready(Ok(written.len())))
    }

    fn wrote(&self, poll: &Poll<std::io::Result<usize>>) {
        let activity = &self.activity;
        match poll {
            Poll::Ready(_) => {
                activity.last.store(activity.now(), Ordering::Relaxed);
                activity.blocked_since.store(0, Ordering::Relaxed);
            }
            Poll::Pending if activity.blocked_since.load(Ordering::Relaxed) == 0 => {
                activity.blocked_since.store(activity.now(), Ordering::Relaxed);
            }
            Poll::Pending => {}
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buf);
        if poll.is_ready() {
            let activity = &self.activity;
            let now = activity.now();
            activity.last.store(now, Ordering::Relaxed);
            let between =
                activity.open.load(Ordering::Relaxed) == 0 && !activity.multiplexed.load(Ordering::Relaxed);
            if between {
                if activity.head_since.load(Ordering::Relaxed) == 0 {
                    activity.head_since.store(now, Ordering::Relaxed);
                }
                let mut head = activity.head.lock().unwrap_or_else(PoisonError::into_inner);
                let room = HEAD_BYTES.saturating_sub(head.len());
                let new = &buf.filled()[before..];
                head.extend_from_slice(&new[..new.len().min(room)]);
            }
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if let Some(poll) = self.substitute(context, buf) {
            return poll;
        }
        let poll = Pin::new(&mut self.stream).poll_write(context, buf);
        self.wrote(&poll);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        if let Some(first) = bufs.iter().find(|buf| !buf.is_empty())
            && let Some(poll) = self.substitute(context, first)
        {
            return poll;
        }
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.wrote(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::default()
    }

    #[test]
    fn bare_refusals_become_problems_and_nothing_else_does() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let text = String::from_utf8(refusal(bare).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 431 ") && head.contains(&format!("content-length: {}", body.len())),
            "{head}"
        );
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert_eq!(Problem::parse(431, body.as_bytes()).code, Code::TooLarge);
        for ours in [
            &b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\ncoracle-member: 1\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nbad",
            b"",
        ] {
            assert!(refusal(ours).is_none());
        }
    }

    #[test]
    fn a_length_beside_a_coding_is_seen() {
        let activity = Activity::new();
        let head = |text: &str| activity.head.lock().unwrap().extend_from_slice(text.as_bytes());
        let put = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
        head(&format!("{put}CONTENT-length: 3\r\n\r\n"));
        assert!(activity.take_head(true));
        head(&format!("{put}\r\n3\r\nContent-Length: 3\r\n"));
        assert!(!activity.take_head(true), "what stands in the body is not in the head");
        head("PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\n");
        assert!(!activity.take_head(false));
        assert!(activity.head.lock().unwrap().is_empty());
    }

    #[test]
    fn a_silent_connection_is_closed_after_the_header_timeout() {
        let mut activity = Activity::new();
        assert!(activity.next_check(&config()).is_some());
        activity.began = Instant::now().checked_sub(config().header_timeout.as_duration() * 2).unwrap();
        assert!(activity.next_check(&config()).is_none());
    }

    #[test]
    fn an_idle_connection_lives_longer_than_a_slow_head_and_a_stream_for_ever() {
        let activity = Arc::new(Activity::new());
        drop(Open::new(activity.clone(), Version::HTTP_11));
        let aged = |activity: &Activity, by: Duration| Activity {
            began: activity.began.checked_sub(by).unwrap(),
            open: AtomicU32::new(activity.open.load(Ordering::Relaxed)),
            last: AtomicU64::new(activity.last.load(Ordering::Relaxed)),
            head_since: AtomicU64::new(activity.head_since.load(Ordering::Relaxed)),
            blocked_since: AtomicU64::new(activity.blocked_since.load(Ordering::Relaxed)),
            multiplexed: AtomicBool::new(false),
            head: Mutex::default(),
        };
        let (header, idle) = (config().header_timeout.as_duration(), config().idle_timeout.as_duration());
        assert!(aged(&activity, header * 2).next_check(&config()).is_some());
        assert!(aged(&activity, idle * 2).next_check(&config()).is_none());
        activity.head_since.store(activity.now(), Ordering::Relaxed);
        assert!(aged(&activity, header * 2).next_check(&config()).is_none());
        let open = Open::new(activity.clone(), Version::HTTP_11);
        assert!(aged(&activity, idle * 2).next_check(&config()).is_some());
        activity.blocked_since.store(1, Ordering::Relaxed);
        assert!(aged(&activity, idle * 2).next_check(&config()).is_none());
        drop(open);
    }
}
