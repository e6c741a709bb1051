//! From an address to a connection on which both sides have greeted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::hello::{Class, Hello, Opening, Reject};
use super::server::again;
use super::service::Local;
use super::stream::Stream;
use super::tls::Connector;
use super::wire::{FrameReader, Kind};
use crate::types::NodeId;

/// Time for name resolution, TCP, TLS and both greetings. A path that has just healed is tried again this soon.
const CONNECT_DEADLINE: Duration = Duration::from_millis(1500);

/// One, and one more if the peer asks.
const GREETINGS_MAX: usize = 2;

#[derive(Debug)]
pub enum DialError {
    Io(io::Error),
    /// One side hung up on the other for this reason.
    Rejected(Reject),
}

impl From<io::Error> for DialError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// How this node dials.
pub struct Dial {
    pub local: Arc<dyn Local>,
    pub connector: Connector,
}

impl Dial {
    /// Within [`CONNECT_DEADLINE`].
    pub async fn dial(
        &self,
        address: &str,
        to: NodeId,
        class: Class,
    ) -> Result<FrameReader<Stream>, DialError> {
        let greeted = tokio::time::timeout(CONNECT_DEADLINE, self.greet(address, to, class));
        let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        greeted.await.map_err(|_| timed_out())?
    }

    async fn greet(&self, address: &str, to: NodeId, class: Class) -> Result<FrameReader<Stream>, DialError> {
        let tcp = TcpStream::connect(address).await?;
        let stream = self.connector.connect(address, tcp).await?;
        let mut reader = FrameReader::new(stream);
        let theirs = self.exchange(&mut reader, to, class).await?;
        if theirs.from != to {
            return Err(DialError::Rejected(Reject::WrongNode { theirs: theirs.from }));
        }
        let judged = theirs.check(&self.local.greeting()).and_then(|()| self.local.judge(&theirs));
        let judged = match judged {
            Err(Reject::RolledBack { seen }) => again(&mut reader, seen).await?.map(|_| ()),
            judged => judged,
        };
        match judged {
            Ok(()) => {
                reader.trust();
                Ok(reader)
            }
            Err(reject) => hang_up(reader.get_mut(), reject).await,
        }
    }

    /// Say hello, as often as the peer asks, and hear its.
    async fn exchange(
        &self,
        reader: &mut FrameReader<Stream>,
        to: NodeId,
        class: Class,
    ) -> Result<Hello, DialError> {
        for _ in 0..GREETINGS_MAX {
            let mut out = Vec::new();
            Hello::new(self.local.greeting(), to, class).put(&mut out);
            let stream = reader.get_mut();
            stream.write_all(&out).await?;
            stream.flush().await?;
            let closed = || io::Error::new(io::ErrorKind::ConnectionAborted, "closed without a greeting");
            let frame = reader.next().await?.ok_or_else(closed)?;
            if frame.kind == Kind::Again {
                continue;
            }
            return match Opening::read(&frame)? {
                Opening::Hello(theirs) => Ok(theirs),
                Opening::Rejected(reject) => {
                    self.local.refused(to, &reject);
                    Err(DialError::Rejected(reject))
                }
                Opening::Reject(reject) => hang_up(reader.get_mut(), reject).await,
            };
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the peer is never content with our greeting").into())
    }
}

async fn hang_up<T>(stream: &mut Stream, reject: Reject) -> Result<T, DialError> {
    let mut out = Vec::new();
    reject.put(&mut out);
    stream.write_all(&out).await?;
    stream.shutdown().await?;
    Err(DialError::Rejected(reject))
}
