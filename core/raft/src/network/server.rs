//! Listening: accepts peers and answers them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::counters::Traffic;
use super::service::{Local, Service};
use super::tls::{PeerTls, TlsError};

/// What the listener puts up with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections, including those still shaking hands; more are closed at once.
    pub connections: usize,
    /// Time for TLS and both greetings.
    pub handshake: Duration,
    /// A connection silent for so long is closed; peers ping well below it.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, handshake: Duration::from_secs(5), silence: Duration::from_secs(60) }
    }
}

/// A running listener; stops when dropped.
pub struct Server {}

impl Server {
    /// Accept peers on `listener`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the certificate files cannot be used.
    pub fn start<S: Service>(
        listener: TcpListener,
        tls: Option<&PeerTls>,
        limits: Limits,
        local: Arc<dyn Local>,
        service: Arc<S>,
    ) -> Result<Self, TlsError> {
        let _ = (listener, tls, limits, local, service);
        todo!()
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        todo!()
    }

    /// Sum over all connections ever accepted.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        todo!()
    }

    /// Accept no more and close what is open.
    pub fn close(&self) {
        todo!()
    }
}
