//! Who is let in by certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_raft::network::CallError;
use coracle_raft::network::stream::Stream;
use coracle_raft::network::tls::{Acceptor, ClientAuth, Connector, EdgeTls, PeerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::{Myself, listen, pair_of};

struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes NAME.pem and NAME.key.
    fn certify(&self, name: &str, host: &str) -> PeerTls {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "coracle");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let tls = PeerTls {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            ca: self.path("ca.pem"),
        };
        fs::write(&tls.certificate, certificate.pem()).unwrap();
        fs::write(&tls.key, key.serialize_pem()).unwrap();
        tls
    }
}

async fn attempt(dialler: Option<&PeerTls>, listener: Option<&PeerTls>) -> Result<(), CallError> {
    let pair = pair_of(Myself::new(1), Myself::new(2), dialler, listener).await;
    let asked = pair.ask("hello").await;
    let received = pair.node.requests.lock().unwrap().len();
    assert_eq!(received, usize::from(asked.is_ok()));
    if let Err(CallError::Timeout) = asked {
        panic!("nobody should have to wait for this to be known");
    }
    asked.map(|answer| assert_eq!(answer, "hello"))
}

fn assert_unreachable(result: &Result<(), CallError>, reason: &str) {
    let Err(CallError::Unreachable(found)) = result else { panic!("{result:?}") };
    assert!(found.to_lowercase().contains(reason), "{found}");
}

#[tokio::test]
async fn peers_of_one_authority_talk() {
    let ca = Authority::new();
    let (one, two) = (ca.certify("one", "127.0.0.1"), ca.certify("two", "127.0.0.1"));
    attempt(Some(&one), Some(&two)).await.unwrap();
}

#[tokio::test]
async fn both_sides_insist_on_their_authority() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = ours.certify("good", "127.0.0.1");
    // A stranger that would believe our server, but has no certificate of ours.
    let mut stranger = theirs.certify("stranger", "127.0.0.1");
    stranger.ca = ours.path("ca.pem");
    let refused = attempt(Some(&stranger), Some(&good)).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_) | CallError::Lost)), "{refused:?}");
    // A server that would believe us, but has no certificate of ours.
    assert_unreachable(
        &attempt(Some(&good), Some(&theirs.certify("other", "127.0.0.1"))).await,
        "certificate",
    );
    // A certificate of ours, but for another host.
    assert_unreachable(
        &attempt(Some(&good), Some(&ours.certify("elsewhere", "10.1.2.3"))).await,
        "certificate",
    );
}

#[tokio::test]
async fn plain_and_tls_do_not_mix() {
    let ca = Authority::new();
    let tls = ca.certify("one", "127.0.0.1");
    let refused = attempt(None, Some(&tls)).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
    let refused = attempt(Some(&tls), None).await;
    assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_shut_out() {
    let ca = Authority::new();
    let tls = ca.certify("one", "127.0.0.1");
    let pair = pair_of(Myself::new(1), Myself::new(2), Some(&tls), Some(&tls)).await;
    let tcp = TcpStream::connect(pair.server.address()).await.unwrap();
    let connector = Connector::tls(Arc::new(client(&ca, None)));
    // In TLS 1.3 the client learns of it only when it reads.
    if let Ok(mut stream) = connector.connect("127.0.0.1:1", tcp).await {
        let _ = stream.write_all(&[0; 100]).await;
        assert!(stream.read(&mut [0]).await.is_err(), "closed by an alert");
    }
    assert_eq!(pair.ask("hello").await.unwrap(), "hello");
}

/// A client's configuration, with a certificate or without.
fn client(ca: &Authority, shows: Option<&PeerTls>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.path("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(tls) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&tls.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&tls.key).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// What the edge sees of a client: its common name, or that it was not let in.
async fn edge(server: &EdgeTls, client: rustls::ClientConfig) -> Result<Option<String>, std::io::Error> {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let acceptor = Acceptor::tls(server.server().unwrap());
    let connector = Connector::tls(Arc::new(client));
    let serve = async {
        let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await?;
        assert_eq!(stream.protocol(), Some(&b"h2"[..]));
        assert!(stream.tcp().nodelay().unwrap());
        stream.write_all(b"welcome").await?;
        stream.shutdown().await?;
        Ok(stream.common_name())
    };
    let dial = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut said = String::new();
        if let Ok(mut stream) = connector.connect("127.0.0.1:1", tcp).await {
            let _ = stream.read_to_string(&mut said).await;
        }
        said
    };
    let both = async { tokio::join!(serve, dial) };
    let (outcome, said) = tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
    assert_eq!(said == "welcome", outcome.is_ok());
    outcome
}

#[tokio::test]
async fn the_edge_knows_its_clients() {
    let (ca, foreign) = (Authority::new(), Authority::new());
    let server = ca.certify("server", "127.0.0.1");
    let (ann, eve) = (ca.certify("ann", "ann.example"), foreign.certify("eve", "eve.example"));
    let edge_tls = |client_auth| EdgeTls {
        certificate: server.certificate.clone(),
        key: server.key.clone(),
        client_ca: Some(ca.path("ca.pem")),
        client_auth,
    };
    for (auth, nobody_is_let_in) in
        [(ClientAuth::None, true), (ClientAuth::Optional, true), (ClientAuth::Required, false)]
    {
        let tls = edge_tls(auth);
        let nobody = edge(&tls, client(&ca, None)).await;
        assert_eq!(nobody.is_ok(), nobody_is_let_in, "{auth:?} {nobody:?}");
        assert_eq!(nobody.unwrap_or_default(), None);
        let known = edge(&tls, client(&ca, Some(&ann))).await.unwrap();
        assert_eq!(known.as_deref(), (auth != ClientAuth::None).then_some("ann"), "{auth:?}");
        let stranger = edge(&tls, client(&ca, Some(&eve))).await;
        assert_eq!(stranger.is_ok(), auth == ClientAuth::None, "{auth:?} {stranger:?}");
    }
}

#[tokio::test]
async fn a_plain_acceptor_gives_the_same_stream() {
    let listener = listen().await;
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut stream = Acceptor::plain().accept(listener.accept().await.unwrap().0).await.unwrap();
    assert!(matches!(stream, Stream::Plain(_)));
    assert!(stream.tcp().nodelay().unwrap());
    assert_eq!((stream.common_name(), stream.protocol()), (None, None));
    client.write_all(b"hi").await.unwrap();
    let mut said = [0; 2];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hi");
}

#[test]
fn unusable_files_are_named() {
    let ca = Authority::new();
    let (one, two) = (ca.certify("one", "x"), ca.certify("two", "x"));
    let missing = ca.path("missing");
    let empty = ca.path("empty");
    fs::write(&empty, "").unwrap();
    let said = |tls: &PeerTls, names: &Path, why: &str| {
        let said = tls.client().unwrap_err().to_string();
        assert!(said.contains(&names.display().to_string()) && said.contains(why), "{said}");
        assert!(tls.server().is_err());
    };
    said(&PeerTls { certificate: missing.clone(), ..one.clone() }, &missing, "No such file");
    said(&PeerTls { key: missing.clone(), ..one.clone() }, &missing, "No such file");
    said(&PeerTls { ca: missing.clone(), ..one.clone() }, &missing, "No such file");
    said(&PeerTls { certificate: empty.clone(), ..one.clone() }, &empty, "no such PEM section");
    said(&PeerTls { key: one.certificate.clone(), ..one.clone() }, &one.certificate, "no such PEM section");
    said(&PeerTls { ca: empty.clone(), ..one.clone() }, &empty, "no such PEM section");
    said(&PeerTls { key: two.key.clone(), ..one.clone() }, &one.certificate, "");
    let edge = EdgeTls {
        certificate: one.certificate.clone(),
        key: one.key.clone(),
        client_ca: None,
        client_auth: ClientAuth::Required,
    };
    assert!(edge.server().unwrap_err().to_string().contains("without a client CA"));
}
