//! A snapshot on its way to a peer: chunks on a connection of its own.
//!
//! The receiver writes a chunk before it reads the next, so TCP holds the sender back. There is no deadline for the
//! whole, only for making progress.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCTypes;
use openraft::raft::SnapshotResponse;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::Peers;
use super::counters::Counters;
use super::dial::DialError;
use super::hello::Reject;
use super::messages::{SnapshotHead, put_snapshot_response, snapshot_response};
use super::out::Out;
use super::service::{RaftService, Service};
use super::wire::{Frame, Kind, Reader, Writer, put_frame};
use crate::types::{NodeId, SnapshotMeta, Types, Vote};

/// Time for one chunk to be taken by the peer, and for any sign of life while it installs.
const PROGRESS: Duration = Duration::from_secs(15);
/// How often the receiver says that it is still installing.
const BUSY: Duration = Duration::from_secs(1);
/// Chunks of a peer that sends larger ones are refused.
const CHUNK_MAX: usize = 1 << 20;

/// A complete snapshot, sent by several transfers at once.
pub trait Outgoing: Send + Sync + 'static {
    type Chunks: Iterator<Item = io::Result<Bytes>> + Send + 'static;

    /// Sum of all chunks. Called on a thread that may block.
    fn bytes(&self) -> u64;

    /// The content from the start, in chunks of at most 256 KiB. This and the iterator are called on threads
    /// that may block; nobody waits for them on the other side yet.
    ///
    /// # Errors
    /// The transfer stops and is retried.
    fn chunks(&self) -> io::Result<Self::Chunks>;
}

/// A snapshot being received. Dropped unfinished, it leaves nothing behind.
pub trait Incoming: Send + 'static {
    type Snapshot: Send + 'static;

    /// Append a chunk. Called on a thread that may block.
    ///
    /// # Errors
    /// The transfer stops and is retried.
    fn write(&mut self, chunk: &[u8]) -> io::Result<()>;

    /// Verify and make durable what was received. Called on a thread that may block.
    ///
    /// # Errors
    /// The transfer stops and is retried.
    fn finish(self) -> io::Result<Self::Snapshot>;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Why a transfer failed, in openraft's words.
enum SendError {
    Io(io::Error),
    Rejected(Reject),
    Stalled,
    /// The peer could not take it.
    Failed(String),
}

impl From<io::Error> for SendError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// A transfer to one peer, at most `rate` bytes a second if that is set.
pub struct Transfer {
    pub peers: Peers,
    pub to: NodeId,
    pub rate: Option<u64>,
}

impl Transfer {
    pub async fn send<S: Outgoing>(
        &self,
        (vote, meta): (Vote, SnapshotMeta),
        snapshot: S,
        cancel: impl Future<Output = ReplicationClosed> + Send,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        // Dropping the other branch closes the connection, and the receiver discards what it has.
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            sent = self.connect_and_send((vote, meta), snapshot) => sent,
        };
        sent.map_err(|e| match e {
            SendError::Io(e) => RPCError::Network(NetworkError::new(&e)),
            SendError::Rejected(reject) => RPCError::Unreachable(Unreachable::from_string(reject)),
            SendError::Failed(why) => RPCError::Unreachable(Unreachable::from_string(why)),
            SendError::Stalled => RPCError::Timeout(Timeout {
                action: RPCTypes::InstallSnapshot,
                id: self.peers.id(),
                target: self.to,
                timeout: PROGRESS,
            }),
        })
        .map_err(StreamingError::from)
    }

    async fn connect_and_send<S: Outgoing>(
        &self,
        (vote, meta): (Vote, SnapshotMeta),
        snapshot: S,
    ) -> Result<SnapshotResponse<Types>, SendError> {
        let (bytes, chunks) = blocking(move || {
            let chunks = snapshot.chunks()?;
            Ok((snapshot.bytes(), chunks))
        })
        .await?;
        let head = SnapshotHead { vote, meta, bytes };
        let (reader, counters) = self.peers.dial_snapshot(self.to).await.map_err(|e| match e {
            DialError::Io(e) => SendError::Failed(e.to_string()),
            DialError::Rejected(reject) => SendError::Rejected(reject),
        })?;
        let (mut reader, mut writer) = reader.split(&counters);
        let send = async {
            self.send_chunks::<S>(&mut writer, &head, chunks, &counters).await?;
            // From here on only the answer counts.
            std::future::pending().await
        };
        tokio::select! {
            biased;
            answer = receive_answer(&mut reader, &counters) => answer,
            never = send => never,
        }
    }

    async fn send_chunks<S: Outgoing>(
        &self,
        writer: &mut Writer,
        head: &SnapshotHead,
        mut chunks: S::Chunks,
        counters: &Counters,
    ) -> Result<(), SendError> {
        let started = Instant::now();
        let mut sent = 0;
        let mut out = Vec::new();
        let fits = |r: Result<(), _>| r.map_err(|_| io::Error::other("a chunk does not fit a frame"));
        fits(put_frame(&mut out, Kind::SnapshotBegin, 1, |out| head.put(out)))?;
        loop {
            let chunk;
            (chunks, chunk) = blocking(move || {
                let chunk = chunks.next().transpose()?;
                Ok((chunks, chunk))
            })
            .await?;
            match &chunk {
                Some(chunk) => {
                    fits(put_frame(&mut out, Kind::SnapshotChunk, 1, |out| out.extend_from_slice(chunk)))?;
                }
                None => fits(put_frame(&mut out, Kind::SnapshotEnd, 1, |_| {}))?,
            }
            let write = async {
                writer.write_all(&out).await?;
                writer.flush().await
            };
            timeout(PROGRESS, write).await.map_err(|_| SendError::Stalled)??;
            counters.queued();
            out.clear();
            let Some(chunk) = chunk else { return Ok(()) };
            sent += chunk.len() as u64;
            if let Some(rate) = self.rate {
                let due = Duration::from_nanos(sent.saturating_mul(1_000_000_000) / rate.max(1));
                sleep_until(started + due).await;
            }
        }
    }
}

/// Wait for the final word; anything else the peer says proves that it lives.
async fn receive_answer(
    reader: &mut Reader,
    counters: &Counters,
) -> Result<SnapshotResponse<Types>, SendError> {
    loop {
        let frame = timeout(PROGRESS, reader.next()).await.map_err(|_| SendError::Stalled)??;
        counters.received();
        let Some(Frame { kind, body, .. }) = frame else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        };
        match kind {
            Kind::Reply => return Ok(snapshot_response(&body).map_err(io::Error::from)?),
            Kind::Failed => return Err(SendError::Failed(String::from_utf8_lossy(&body).into_owned())),
            Kind::Reject => {
                return Err(SendError::Rejected(Reject::read(&body).map_err(io::Error::from)?));
            }
            _ => {}
        }
    }
}

/// Take one snapshot from a peer and install it. An error closes the connection; why the node does not want the
/// snapshot goes to `out`.
pub async fn receive<S: Service>(reader: &mut Reader, out: &Out, service: &Arc<S>) -> io::Result<()> {
    let mut alive = tokio::time::interval(BUSY);
    let work = receive_and_install(reader, out, service);
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            _ = alive.tick() => out.put(Kind::Pong, 0, |_| {}),
        }
    };
    if let Err(e) = &result {
        out.fail(1, &e.to_string());
    }
    result
}

async fn receive_and_install<S: Service>(reader: &mut Reader, out: &Out, service: &Arc<S>) -> io::Result<()> {
    let begin = next(reader, out).await?;
    if begin.kind != Kind::SnapshotBegin {
        return Err(protocol("no snapshot"));
    }
    let head = SnapshotHead::read(&begin.body)?;
    let (meta, bytes, node) = (head.meta.clone(), head.bytes, service.clone());
    let mut incoming = blocking(move || node.incoming(&meta, bytes)).await?;
    let mut received = 0;
    loop {
        let frame = next(reader, out).await?;
        match frame.kind {
            Kind::SnapshotChunk => {
                received += frame.body.len() as u64;
                if received > head.bytes || frame.body.len() > CHUNK_MAX {
                    return Err(protocol("more than was announced"));
                }
                incoming = blocking(move || incoming.write(&frame.body).map(|()| incoming)).await?;
            }
            Kind::SnapshotEnd if received == head.bytes => break,
            Kind::SnapshotEnd => return Err(protocol("less than was announced")),
            _ => return Err(protocol("no part of a snapshot")),
        }
    }
    let snapshot = blocking(move || incoming.finish()).await?;
    let installed = service.raft().install_snapshot(head.vote, head.meta, snapshot).await;
    match installed {
        Ok(response) => out.put(Kind::Reply, 1, |out| put_snapshot_response(out, &response)),
        Err(e) => out.fail(1, &e.to_string()),
    }
    Ok(())
}

async fn next(reader: &mut Reader, out: &Out) -> io::Result<Frame> {
    let frame = timeout(PROGRESS, reader.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    out.counters.received();
    frame.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn protocol(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
