//! Listening: accepts peers and answers them.
//!
//! One task per connection reads requests, polls what Raft makes of them and writes the answers. Appends of a
//! connection reach Raft in the order of arrival, each before the one before it is answered.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, sleep, timeout};

use super::counters::{Counters, Traffic};
use super::hello::{Class, Hello, Opening, Reject};
use super::messages as m;
use super::out::{Out, ReplySender};
use super::service::{BoxFuture, Local, RaftService, Service, Unavailable};
use super::snapshot;
use super::stream::Stream;
use super::tls::{Acceptor, PeerTls, TlsError};
use super::wire::{Frame, FrameReader, Kind, Reader, put_frame};

/// Requests of one connection that Raft has not answered.
const IN_FLIGHT: usize = 128;
/// To write what is left when a connection ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the listener puts up with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections, including those still shaking hands; more are closed at once.
    pub connections: usize,
    /// Time for TLS and both greetings.
    pub handshake: Duration,
    /// A connection silent for so long is closed, at the latest after twice the time; peers ping well below it.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, handshake: Duration::from_secs(5), silence: Duration::from_mins(1) }
    }
}

/// A running listener; it and its connections close when this is dropped.
pub struct Server {
    address: SocketAddr,
    counters: Arc<Counters>,
    closed: watch::Sender<bool>,
}

struct Shared<S> {
    acceptor: Acceptor,
    limits: Limits,
    local: Arc<dyn Local>,
    service: Arc<S>,
    counters: Arc<Counters>,
}

impl Server {
    /// Accept peers on `listener`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the certificate files cannot be used.
    ///
    /// # Panics
    /// If the listener has no local address.
    pub fn start<S: Service>(
        listener: TcpListener,
        tls: Option<&PeerTls>,
        limits: Limits,
        local: Arc<dyn Local>,
        service: Arc<S>,
    ) -> Result<Self, TlsError> {
        let acceptor = tls.map_or(Ok(Acceptor::plain()), |tls| tls.server().map(Acceptor::tls))?;
        let address = listener.local_addr().expect("a listener is bound");
        let counters = Arc::<Counters>::default();
        let (closed, close) = watch::channel(false);
        let shared = Arc::new(Shared { acceptor, limits, local, service, counters: counters.clone() });
        tokio::spawn(accept(listener, shared, close));
        Ok(Self { address, counters, closed })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sum over all connections ever accepted.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.counters.traffic()
    }

    /// Accept no more and close what is open.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }
}

async fn accept<S: Service>(listener: TcpListener, shared: Arc<Shared<S>>, mut close: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = close.wait_for(|closed| *closed) => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors, most likely: it may pass.
                tracing::warn!("cannot accept a peer: {e}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "too many connections from peers");
            continue;
        };
        let (shared, mut close) = (shared.clone(), close.clone());
        tokio::spawn(async move {
            let end = tokio::select! {
                biased;
                _ = close.wait_for(|closed| *closed) => Ok(()),
                end = shared.serve(tcp) => end,
            };
            if let Err(e) = end {
                tracing::debug!(%address, "connection from a peer ended: {e}");
            }
            drop(place);
        });
    }
}

/// However a connection ends, answers that come later are not kept.
struct ClosesOut(Arc<Out>);

impl Drop for ClosesOut {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<S: Service> Shared<S> {
    async fn serve(&self, tcp: TcpStream) -> io::Result<()> {
        let greeted = timeout(self.limits.handshake, self.greet(tcp)).await;
        let Some((reader, hello)) = greeted.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
        self.counters.connected();
        let out = ClosesOut(Out::new(self.counters.clone()));
        let (mut reader, mut writer) = reader.split(&self.counters);
        let work = pin!(async {
            match hello.class {
                Class::Snapshot => snapshot::receive(&mut reader, &out.0, &self.service).await,
                _ => self.answer(&mut reader, &out.0, &hello).await,
            }
        });
        let write = pin!(out.0.write_to(&mut writer));
        match futures::future::select(work, write).await {
            Either::Left((end, write)) => {
                out.0.close();
                let _ = timeout(LAST_WORDS, write).await;
                end
            }
            Either::Right((end, _)) => end,
        }
    }

    /// `None`: one side has hung up on the other.
    async fn greet(&self, tcp: TcpStream) -> io::Result<Option<(FrameReader<Stream>, Hello)>> {
        let stream = self.acceptor.accept(tcp).await?;
        let mut reader = FrameReader::new(stream);
        let Some(frame) = reader.next().await? else { return Ok(None) };
        let opening = Opening::read(&frame)?;
        let us = self.local.greeting();
        let judged = match opening {
            Opening::Rejected(_) => return Ok(None),
            Opening::Reject(reject) => Err(reject),
            Opening::Hello(hello) => match hello.check(&us).and_then(|()| self.local.judge(&hello)) {
                Ok(()) => Ok(hello),
                Err(Reject::RolledBack { seen }) => again(&mut reader, seen).await?,
                Err(reject) => Err(reject),
            },
        };
        let mut out = Vec::new();
        match &judged {
            Ok(hello) => Hello::new(us, hello.from, hello.class).put(&mut out),
            Err(reject) => reject.put(&mut out),
        }
        let stream = reader.get_mut();
        stream.write_all(&out).await?;
        stream.flush().await?;
        match judged {
            Ok(hello) => {
                reader.trust();
                Ok(Some((reader, hello)))
            }
            Err(reject) => {
                tracing::info!("refused a peer: {reject}");
                stream.shutdown().await?;
                Ok(None)
            }
        }
    }

    /// Requests until the peer closes.
    async fn answer(&self, reader: &mut Reader, out: &Arc<Out>, hello: &Hello) -> io::Result<()> {
        let mut answers = FuturesUnordered::new();
        let mut silence = interval(self.limits.silence);
        let mut heard = true;
        loop {
            tokio::select! {
                biased;
                // First, because a request reaches Raft when its future is first polled.
                Some(()) = answers.next(), if !answers.is_empty() => {}
                frame = reader.next(), if answers.len() < IN_FLIGHT => {
                    let Some(frame) = frame? else { return Ok(()) };
                    heard = true;
                    self.counters.received();
                    if let Some(answer) = self.dispatch(frame, out, hello)? {
                        answers.push(answer);
                    }
                    out.room().await;
                }
                _ = silence.tick() => {
                    if !std::mem::take(&mut heard) && answers.is_empty() {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer has fallen silent"));
                    }
                }
            }
        }
    }

    fn dispatch(&self, frame: Frame, out: &Arc<Out>, peer: &Hello) -> io::Result<Option<BoxFuture<()>>> {
        let Frame { kind, id, body } = frame;
        let raft = self.service.raft();
        let out = out.clone();
        if matches!(kind, Kind::Vote | Kind::PreVote)
            && let Err(reject @ Reject::Removed) = self.local.judge(peer)
        {
            // Removed since it said hello, and campaigning because it no longer hears of us: let it know.
            out.put_raw(|out| reject.put(out));
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, reject.to_string()));
        }
        Ok(Some(match kind {
            Kind::Append => reply(out, id, raft.append_entries(m::append(&body)?), m::put_append_response),
            Kind::Commit => {
                let told = raft.append_entries(m::append(&body)?);
                Box::pin(async move { drop(told.await) })
            }
            Kind::Vote => reply(out, id, raft.vote(m::vote_request(&body)?), m::put_vote_response),
            Kind::PreVote => reply(out, id, raft.pre_vote(m::vote_request(&body)?), m::put_vote_response),
            Kind::Transfer => {
                reply(out, id, raft.transfer_leader(m::transfer(&body)?), m::put_transfer_response)
            }
            Kind::Forward => {
                self.service.forward(peer.from, body, ReplySender::new(out, id));
                return Ok(None);
            }
            Kind::Ping => {
                out.put(Kind::Pong, id, |_| {});
                return Ok(None);
            }
            Kind::Again => {
                let hello = Hello::new(self.local.greeting(), peer.from, peer.class);
                out.put_raw(|out| hello.put(out));
                return Ok(None);
            }
            Kind::Reject => {
                let reject = Reject::read(&body)?;
                self.local.refused(peer.from, &reject);
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, reject.to_string()));
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no request")),
        }))
    }
}

/// A peer seems to have lost entries that it had. But it wrote its greeting before we looked, and may have stored
/// them in between: only a greeting asked for now proves anything.
pub async fn again(reader: &mut FrameReader<Stream>, seen: u64) -> io::Result<Result<Hello, Reject>> {
    let mut out = Vec::new();
    put_frame(&mut out, Kind::Again, 0, |_| {}).expect("empty");
    let stream = reader.get_mut();
    stream.write_all(&out).await?;
    stream.flush().await?;
    let frame = reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(match Opening::read(&frame)? {
        Opening::Hello(hello) if hello.last_log >= seen => Ok(hello),
        Opening::Hello(_) => Err(Reject::RolledBack { seen }),
        Opening::Rejected(reject) | Opening::Reject(reject) => Err(reject),
    })
}

/// What polls `call` and puts its result into the out-buffer.
fn reply<T: 'static>(
    out: Arc<Out>,
    id: u64,
    call: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
    put: fn(&mut Vec<u8>, &T),
) -> BoxFuture<()> {
    Box::pin(async move {
        match call.await {
            Ok(response) => out.put(Kind::Reply, id, |out| put(out, &response)),
            Err(e) => out.fail(id, &e.0),
        }
    })
}
