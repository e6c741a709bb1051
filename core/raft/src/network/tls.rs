//! TLS by rustls, with the provider and the roots named, never the system's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::stream::Stream;

/// Certificates between peers: each verifies the other against the CA, in both directions, and the dialling one
/// also that the certificate names the host it dialled. TLS 1.3 only.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// PEM chain, the leaf first; good for servers and for clients.
    pub certificate: PathBuf,
    /// PEM key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// PEM roots. Whoever holds a certificate of theirs is a peer: never share them with clients.
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

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(what: &str, path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError(format!("cannot use {what} file={} reason={reason}", path.display()))
}

fn reason(error: pem::Error) -> String {
    match error {
        pem::Error::Io(e) => e.to_string(),
        pem::Error::NoItemsFound => "no such PEM section in it".into(),
        e => e.to_string(),
    }
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unusable(what, path, reason(pem::Error::NoItemsFound))),
        Ok(found) => Ok(found),
        Err(e) => Err(unusable(what, path, reason(e))),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| unusable("private key", path, reason(e)))
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA certificates", path)? {
        roots.add(certificate).map_err(|e| unusable("CA certificates", path, e))?;
    }
    Ok(Arc::new(roots))
}

fn verifier(ca: &Path, required: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|e| unusable("CA certificates", ca, e))
}

impl EdgeTls {
    /// TLS 1.2 and 1.3; ALPN offers h2 and http/1.1.
    ///
    /// # Errors
    /// If a file is missing, empty or does not fit the others.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|e| TlsError(e.to_string()))?;
        let ca = || {
            let missing = || TlsError("client certificates cannot be verified without a client CA".into());
            self.client_ca.as_deref().ok_or_else(missing)
        };
        let builder = match self.client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional => builder.with_client_cert_verifier(verifier(ca()?, false)?),
            ClientAuth::Required => builder.with_client_cert_verifier(verifier(ca()?, true)?),
        };
        let chain = certificates("certificate", &self.certificate)?;
        let mut config = builder
            .with_single_cert(chain, key(&self.key)?)
            .map_err(|e| unusable("certificate and key", &self.certificate, e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl PeerTls {
    /// Requires a certificate of the CA from whoever connects.
    ///
    /// # Errors
    /// If a file is missing, empty or does not fit the others.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| TlsError(e.to_string()))?;
        let config = builder
            .with_client_cert_verifier(verifier(&self.ca, true)?)
            .with_single_cert(certificates("peer certificate", &self.certificate)?, key(&self.key)?)
            .map_err(|e| unusable("peer certificate and key", &self.certificate, e))?;
        Ok(Arc::new(config))
    }

    /// Shows the certificate, and verifies the server's against the CA and the host dialled.
    ///
    /// # Errors
    /// If a file is missing, empty or does not fit the others.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| TlsError(e.to_string()))?;
        let config = builder
            .with_root_certificates(roots(&self.ca)?)
            .with_client_auth_cert(certificates("peer certificate", &self.certificate)?, key(&self.key)?)
            .map_err(|e| unusable("peer certificate and key", &self.certificate, e))?;
        Ok(Arc::new(config))
    }
}

/// Turns accepted sockets into streams.
#[derive(Clone)]
pub struct Acceptor(Option<TlsAcceptor>);

impl Acceptor {
    #[must_use]
    pub fn plain() -> Self {
        Self(None)
    }

    #[must_use]
    pub fn tls(config: Arc<ServerConfig>) -> Self {
        Self(Some(config.into()))
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.is_some()
    }

    /// Sets `TCP_NODELAY` and shakes hands. Bounded by nothing: put a timeout around it.
    ///
    /// # Errors
    /// If the client does not speak TLS, or its certificate is missing or not accepted.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        Ok(match &self.0 {
            None => Stream::Plain(tcp),
            Some(acceptor) => Stream::Tls(Box::new(acceptor.accept(tcp).await?.into())),
        })
    }
}

/// Turns dialled sockets into streams.
#[derive(Clone)]
pub struct Connector(Option<TlsConnector>);

impl Connector {
    #[must_use]
    pub fn plain() -> Self {
        Self(None)
    }

    #[must_use]
    pub fn tls(config: Arc<ClientConfig>) -> Self {
        Self(Some(config.into()))
    }

    /// Sets `TCP_NODELAY` and shakes hands with what was dialled as `address` (`host:port`). Put a timeout around it.
    ///
    /// # Errors
    /// If the server does not speak TLS, or its certificate is not accepted for that host.
    pub async fn connect(&self, address: &str, tcp: TcpStream) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        let Some(connector) = &self.0 else { return Ok(Stream::Plain(tcp)) };
        let name = ServerName::try_from(host(address).to_owned())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Stream::Tls(Box::new(connector.connect(name, tcp).await?.into())))
    }
}

/// Without the port, and without the brackets of IPv6.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts() {
        for (address, expected) in
            [("a.b:1", "a.b"), ("127.0.0.1:7071", "127.0.0.1"), ("[::1]:7", "::1"), ("x", "x")]
        {
            assert_eq!(host(address), expected);
        }
    }
}
