//! Certificates on the client port, and HTTP/2 with and without them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use coracle_server::config::ClientAuth;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::request;
use crate::server::{Running, start};

/// An authority that signs for servers and clients.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn connector(&self, client: Option<(&str, &str)>, protocols: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Arc::new(config).into()
    }
}

async fn secure(authority: &Authority, directory: &Path, auth: ClientAuth) -> Running {
    let (certificate, key) = authority.sign("server");
    let (cert_file, key_file, ca_file) =
        (directory.join("s.pem"), directory.join("s.key"), directory.join("ca.pem"));
    std::fs::write(&cert_file, certificate).unwrap();
    std::fs::write(&key_file, key).unwrap();
    std::fs::write(&ca_file, authority.0.pem()).unwrap();
    start(|config| {
        (config.tls_cert, config.tls_key) = (Some(cert_file), Some(key_file));
        config.tls_client_ca = (auth != ClientAuth::None).then_some(ca_file);
        config.tls_client_auth = auth;
    })
    .await
}

async fn connect(address: SocketAddr, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// One request over HTTP/1.1: the whole answer as text, empty if the server would not talk.
async fn ask(address: SocketAddr, connector: &TlsConnector, method: &str, path: &str, body: &[u8]) -> String {
    let Ok(mut stream) = connect(address, connector).await else { return String::new() };
    let mut answer = Vec::new();
    let bytes = request(method, path, &[("Connection", "close"), ("Idempotency-Key", "same")], body);
    if stream.write_all(&bytes).await.is_ok() {
        let _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn certificates_are_optional_and_name_the_principal() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let running = secure(&authority, directory.path(), ClientAuth::Optional).await;
    let (certificate, key) = authority.sign("ann");
    let ann = authority.connector(Some((&certificate, &key)), &[]);
    let nobody = authority.connector(None, &[]);
    let put = |connector, value: &'static [u8]| ask(running.address, connector, "PUT", "/v1/kv/k", value);
    assert!(put(&ann, b"1").await.starts_with("HTTP/1.1 201"));
    // Idempotency keys belong to who sends them: the same key of another principal is another call.
    assert!(put(&nobody, b"2").await.starts_with("HTTP/1.1 200"));
    assert!(put(&ann, b"1").await.contains("idempotency-replayed: true"));
    assert!(put(&ann, b"3").await.starts_with("HTTP/1.1 422"));
}

#[tokio::test]
async fn required_certificates_are_required() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let running = secure(&authority, directory.path(), ClientAuth::Required).await;
    let (certificate, key) = authority.sign("ann");
    let ann = authority.connector(Some((&certificate, &key)), &[]);
    assert!(ask(running.address, &ann, "GET", "/version", b"").await.starts_with("HTTP/1.1 200"));
    let (certificate, key) = foreign.sign("ann");
    for refused in [authority.connector(None, &[]), authority.connector(Some((&certificate, &key)), &[])] {
        assert_eq!(ask(running.address, &refused, "GET", "/version", b"").await, "");
    }
    // Plain HTTP on the TLS port gets no answer, and hurts nobody.
    let mut plain = crate::client::Client::connect(running.address).await;
    plain.send(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(plain.head().await.is_none());
    assert!(ask(running.address, &ann, "GET", "/version", b"").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn wrong_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.pem");
    let mut config = coracle_server::Config::default();
    config.data = directory.path().join("data");
    (config.tls_cert, config.tls_key) = (Some(missing.clone()), Some(missing.clone()));
    let Err(error) = coracle_server::Server::start(config).await else {
        panic!("started without a certificate")
    };
    assert!(error.to_string().contains("none.pem"), "{error}");
    assert!(!directory.path().join("data").exists(), "nothing was changed");
}

async fn over_h2(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static) {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut calls = Vec::new();
    for i in 0..50 {
        let request = http::Request::put(format!("http://localhost/v1/kv/h2/{i}"))
            .body(Full::new(bytes::Bytes::from_static(b"multiplexed")))
            .unwrap();
        calls.push(sender.send_request(request));
    }
    for call in calls {
        assert_eq!(call.await.unwrap().status(), 201);
    }
    let request = http::Request::get("http://localhost/v1/kv/h2/7").body(Full::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "multiplexed");
    let request = http::Request::get("http://evil.example/v1/kv/h2/7").body(Full::default()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 421);
    drop(sender);
    let _ = connection.await;
}

#[tokio::test]
async fn http2_on_both_ports() {
    let running = start(|_| {}).await;
    over_h2(TcpStream::connect(running.address).await.unwrap()).await;
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let running = secure(&authority, directory.path(), ClientAuth::None).await;
    let stream = connect(running.address, &authority.connector(None, &[b"h2"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    over_h2(stream).await;
}
