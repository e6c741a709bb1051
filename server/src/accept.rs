//! ① Connections: accepted within bounds, watched for silence, drained at the end.
//!
//! hyper's own header timer is not used: it would cost a timer a request and end idle connections after it. One look at
//! all connections a moment does for slow heads, idle keep-alive and clients that stopped reading: [`Sweep`].

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_api::{Code, PROBLEM_JSON, Problem};
use coracle_raft::network::stream::Stream;
use coracle_raft::network::tls::Acceptor;
use coracle_store::Principal;
use http::header;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity::{Activity, Open, Order, Sweep};
use crate::edge::Edge;
use crate::http::call::Peer;
use crate::http::front::{Ambiguous, Service};
use crate::http::message::Request;
use crate::http::piece::Deaf;

/// Head of a request, the request line included.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const H2_STREAMS: u32 = 256;

/// Accept until told to stop, then let connections finish.
pub struct Listening {
    stop: CancellationToken,
    connections: TaskTracker,
    sweep: Arc<Sweep>,
    accepting: tokio::task::JoinHandle<()>,
    sweeping: tokio::task::JoinHandle<()>,
}

/// Begin to accept.
#[must_use]
pub fn listen(listener: TcpListener, acceptor: Acceptor, edge: Edge) -> Listening {
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    let sweep = Sweep::new(&edge.config);
    let sweeping = tokio::spawn(sweep.clone().run());
    let accepting =
        tokio::spawn(accept(listener, acceptor, edge, sweep.clone(), stop.clone(), connections.clone()));
    Listening { stop, connections, sweep, accepting, sweeping }
}

impl Listening {
    /// Take no new connections, let the running requests finish, at most for `grace`.
    pub async fn close(self, grace: Duration) {
        self.stop.cancel();
        let _ = self.accepting.await;
        self.sweep.stop();
        self.connections.close();
        if tokio::time::timeout(grace, self.connections.wait()).await.is_err() {
            tracing::warn!(
                connections = self.connections.len(),
                "connections were cut at the end of the grace"
            );
        }
        self.sweeping.abort();
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Acceptor,
    edge: Edge,
    sweep: Arc<Sweep>,
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
                    sweep: sweep.clone(),
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
    sweep: Arc<Sweep>,
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
        let principal = name.map_or_else(|| Peer::anonymous().principal, |name| Principal(name.into()));
        let peer = Arc::new(Peer { principal, secure: self.acceptor.is_tls(), host: OnceLock::new() });
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let deaf = Deaf::waker(&waker);
        let activity = self.sweep.watch(waker);
        let (service, watched) = (self.service, activity.clone());
        let handler = hyper::service::service_fn(move |mut request: Request| {
            let (service, peer) = (service.clone(), peer.clone());
            let open = Open::new(watched.clone(), request.version());
            if watched.take_head(request.headers().contains_key(header::TRANSFER_ENCODING)) {
                request.extensions_mut().insert(Ambiguous);
            }
            async move { Ok::<_, Infallible>(open.until_sent(service.answer(request, peer).await)) }
        });
        let io = TokioIo::new(Watched { stream, activity: activity.clone(), instead: None });
        let mut connection = pin!(self.servers[usize::from(multiplexed)].serve_connection(io, handler));
        let mut finishing = false;
        let served = poll_fn(|context| {
            match activity.ordered() {
                Order::GoOn => {}
                Order::Finish if finishing => {}
                Order::Finish => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
                Order::Close => return Poll::Ready(Ok(())),
            }
            if multiplexed {
                return connection.as_mut().poll(context);
            }
            connection.as_mut().poll(&mut Context::from_waker(&deaf))
        })
        .await;
        if let Err(error) = served {
            tracing::debug!(error = %error, "a connection ended");
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
            if self.activity.answering() || !written.starts_with(b"HTTP/1.1 4") {
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
            self.activity.came(&buf.filled()[before..], HEAD_BYTES);
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
        self.activity.wrote(poll.is_ready());
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
        self.activity.wrote(poll.is_ready());
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
}
