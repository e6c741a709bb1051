//! TLS: only the given authority is trusted, and our certificate is shown.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_client::{Coracle, Error, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::fake::{Reply, serve};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A TLS server of `authority` that asks for client certificates of the same authority.
async fn start(authority: &Authority) -> String {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let (certificate, key) = authority.sign("127.0.0.1");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from(certificate)],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.ok()?;
                let script = |_: &crate::fake::Request| Reply::json(200, r#"{"version":"9","api":"v1"}"#);
                serve(stream, Arc::new(Mutex::new(script)), Arc::default()).await
            });
        }
    });
    url
}

#[tokio::test]
async fn certificates_both_ways() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let url = start(&ours).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let (certificate, key) = ours.sign("client");
    let ca_file = file("ca.pem", ours.certificate.pem());
    let cert_file = file("cert.pem", certificate.pem());
    let key_file = file("key.pem", key.serialize_pem());
    let foreign_ca = file("foreign.pem", foreign.certificate.pem());
    let connect = |tls| {
        let builder = Coracle::builder().endpoints([&url]).tls(tls);
        builder.deadline(Duration::from_millis(500)).build()
    };

    let all = TlsOptions { ca_file: ca_file.clone(), cert_file: cert_file.clone(), key_file };
    assert_eq!(connect(all.clone()).unwrap().version().await.unwrap().version, "9");

    let anonymous = TlsOptions { ca_file, ..TlsOptions::default() };
    assert!(connect(anonymous).unwrap().version().await.is_err());

    let distrusting = TlsOptions { ca_file: foreign_ca, ..all.clone() };
    let patient = connect(distrusting).unwrap().with_deadline(Duration::from_mins(1));
    let start = std::time::Instant::now();
    let error = patient.version().await.unwrap_err();
    assert!(matches!(&error, Error::Tls(detail) if detail.contains("certificate")), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "no patience with what stays the same");

    for unusable in [
        TlsOptions { key_file: None, ..all.clone() },
        TlsOptions { ca_file: Some("/nonexistent".into()), ..all.clone() },
        TlsOptions { ca_file: file("empty.pem", String::new()), ..all.clone() },
        TlsOptions { key_file: cert_file, ..all },
    ] {
        assert!(matches!(connect(unusable), Err(Error::Tls(_))));
    }
}
