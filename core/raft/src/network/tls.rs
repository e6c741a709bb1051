//! TLS by rustls, with the provider and the roots named, never the system's.

use std::path::PathBuf;

use rustls::ClientConfig;
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

use super::stream::Stream;

/// Certificates between peers: each verifies the other against the CA, in both directions.
#[derive(Debug, Clone)]
pub struct PeerTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    #[default]
    None,
    /// Verified if shown.
    Optional,
    Required,
}

/// Certificate files of the edge.
#[derive(Debug, Clone)]
pub struct EdgeTls {
    /// PEM chain, the leaf first.
    pub certificate: PathBuf,
    /// PEM key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// PEM roots that client certificates are verified against; needed unless `client_auth` is none.
    pub client_ca: Option<PathBuf>,
    pub client_auth: ClientAuth,
}

/// A certificate file that cannot be used. `Display` names the file and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);

impl EdgeTls {
    /// ALPN offers h2 and http/1.1.
    ///
    /// # Errors
    /// If a file is missing, empty or does not fit the others.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        todo!()
    }
}

impl PeerTls {
    /// # Errors
    /// If a file is missing, empty or does not fit the others.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        todo!()
    }

    /// # Errors
    /// If a file is missing, empty or does not fit the others.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        todo!()
    }
}

/// Turns accepted sockets into streams.
#[derive(Clone)]
pub struct Acceptor {}

impl Acceptor {
    #[must_use]
    pub fn plain() -> Self {
        todo!()
    }

    #[must_use]
    pub fn tls(config: Arc<ServerConfig>) -> Self {
        let _ = config;
        todo!()
    }

    /// Sets `TCP_NODELAY` and shakes hands. Bounded by nothing: put a timeout around it.
    ///
    /// # Errors
    /// If the client does not speak TLS, or its certificate is missing or not accepted.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let _ = tcp;
        todo!()
    }
}
