//! TLS on both ports with certificates of this test's own authorities, also by the real curl.

use std::process::Command;
use std::time::Duration;

use coracle_tests::certificates::{Authority, Identity};
use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::raw;

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Flags that make a node speak TLS to clients.
fn server(identity: &Identity, ca: &Authority, auth: &str) -> Vec<String> {
    let mut flags = vec!["--tls-cert", text(&identity.certificate), "--tls-key", text(&identity.key)];
    let ca = ca.file();
    if auth != "none" {
        flags.extend(["--tls-client-ca", text(&ca), "--tls-client-auth", auth]);
    }
    flags.into_iter().map(str::to_owned).collect()
}

fn client(port: u16, ca: &Authority, identity: Option<&Identity>) -> Http {
    let root =
        reqwest::Certificate::from_pem(&std::fs::read(ca.file()).expect("a file")).expect("a certificate");
    Http::with(&format!("https://127.0.0.1:{port}"), |mut builder| {
        if let Some(identity) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(&identity.pem()).expect("an identity"));
        }
        builder.tls_certs_only([root])
    })
}

/// One node that asks for client certificates so.
async fn start(auth: &str) -> (Cluster, Authority) {
    let mut cluster = Cluster::prepare(1);
    let ca = Authority::new(&cluster.folder().join("ca"), "ours");
    let (user, flags) = (ca.issue("harness"), server(&ca.issue("node"), &ca, auth));
    let node = &mut cluster.nodes[0];
    node.add(&flags);
    let http = client(node.listen, &ca, (auth != "none").then_some(&user));
    node.set_http(http);
    node.restart().await;
    (cluster, ca)
}

fn curl(arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new("curl").args(["-sS", "--max-time", "10"]).args(arguments).output().expect("curl");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_talks_with_certificates() {
    let (cluster, ca) = start("required").await;
    let (user, ca_file) = (ca.issue("ann"), ca.file());
    let url = format!("https://127.0.0.1:{}/v1/kv/color", cluster.nodes[0].listen);
    let certificate =
        ["--cacert", text(&ca_file), "--cert", text(&user.certificate), "--key", text(&user.key)];
    let (good, said) = curl(&[&certificate[..], &["-X", "PUT", "-d", "blue", &url]].concat());
    assert!(good && said.contains("\"version\":1"), "{said}");
    for version in ["--http1.1", "--http2"] {
        let (good, said) = curl(&[&certificate[..], &[version, "-w", " %{http_version}", &url]].concat());
        assert!(good && said.starts_with("blue"), "{version}: {said}");
        println!("{version}: {said}");
    }
    for (name, arguments) in [
        ("no certificate", vec!["--cacert", text(&ca_file), &url]),
        ("no trust", vec!["--cert", text(&user.certificate), "--key", text(&user.key), &url]),
    ] {
        let (good, said) = curl(&arguments);
        assert!(!good, "{name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_none_optional_or_required() {
    for auth in ["none", "optional", "required"] {
        let (cluster, ca) = start(auth).await;
        let port = cluster.nodes[0].listen;
        let other = Authority::new(&cluster.folder().join("other"), "theirs");
        let answers = |identity: Option<Identity>| {
            let http = client(port, &ca, identity.as_ref());
            async move { http.get("/livez").send().await.is_ok_and(|reply| reply.status == 200) }
        };
        assert_eq!(answers(None).await, auth != "required", "{auth}: none");
        assert!(answers(Some(ca.issue("ann"))).await, "{auth}: ours");
        // Where none is asked for none is sent.
        assert_eq!(answers(Some(other.issue("eve"))).await, auth == "none", "{auth}: of another authority");
        assert_eq!(answers(Some(ca.issue_expired("old"))).await, auth == "none", "{auth}: expired");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_tls_on_the_wrong_port_do_no_harm() {
    let (secure, _) = start("none").await;
    let plain = Cluster::start(1).await;
    let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = raw::exchange(&secure.nodes[0].address(), request, Duration::from_secs(2)).await;
    assert!(answer.statuses().is_empty() && answer.closed, "{answer:?}");
    let url = format!("https://127.0.0.1:{}/livez", plain.nodes[0].listen);
    let (good, said) = curl(&["-k", &url]);
    assert!(!good, "{said}");
    secure.nodes[0].http().get("/livez").expect(200).await;
    plain.nodes[0].http().get("/livez").expect(200).await;
    // Every request of an idempotency key belongs to who sent it; here nobody is named.
    assert!(!secure.nodes[0].log().contains("panicked") && !plain.nodes[0].log().contains("panicked"));
}

/// Two people use the same Idempotency-Key: each has their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_names_its_principal() {
    let (cluster, ca) = start("required").await;
    let port = cluster.nodes[0].listen;
    for (name, value) in [("ann", "1"), ("bob", "2")] {
        let http = client(port, &ca, Some(&ca.issue(name)));
        let reply =
            http.put("/v1/kv/shared", value).header("idempotency-key", "k").send().await.expect("an answer");
        assert!(reply.status < 300 && reply.header("idempotency-replayed").is_empty(), "{name}: {reply:?}");
    }
    let http = client(port, &ca, Some(&ca.issue("ann")));
    let again = http.put("/v1/kv/shared", "1").header("idempotency-key", "k").expect(201).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(http.get("/v1/kv/shared").expect(200).await.text(), "2");
}

fn peers(identity: &Identity, ca: &Authority) -> Vec<String> {
    let ca = ca.file();
    [
        "--peer-tls-cert",
        text(&identity.certificate),
        "--peer-tls-key",
        text(&identity.key),
        "--peer-tls-ca",
        text(&ca),
    ]
    .into_iter()
    .map(str::to_owned)
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_trust_their_own_authority_only() {
    let mut cluster = Cluster::prepare(3);
    let ours = Authority::new(&cluster.folder().join("ca"), "ours");
    let theirs = Authority::new(&cluster.folder().join("ca"), "theirs");
    for index in 0..3 {
        let flags = peers(&ours.issue(&format!("n{}", index + 1)), &ours);
        cluster.nodes[index].add(&flags);
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.ready().await;
    for node in &cluster.nodes {
        node.http().put("/v1/kv/a", "x").send().await.expect("an answer");
    }
    cluster.converged().await;
    // A node that comes back with certificates of another authority, or none, or an expired one, is no peer.
    let node = cluster.follower().await;
    let founders: Vec<String> =
        cluster.nodes.iter().map(|node| format!("{}={}", node.name, node.peer_address())).collect();
    let founders = ["--initial-cluster".to_owned(), founders.join(",")];
    for (name, flags) in [
        ("another authority", peers(&theirs.issue("eve"), &theirs)),
        ("another authority that trusts ours", peers(&theirs.issue("eve2"), &ours)),
        ("expired", peers(&ours.issue_expired("old"), &ours)),
        ("plain", Vec::new()),
    ] {
        cluster.nodes[node].kill9();
        cluster.nodes[node].clear_arguments();
        cluster.nodes[node].add(&founders);
        cluster.nodes[node].add(&flags);
        let before = cluster.nodes[(node + 1) % 3].http().put("/v1/kv/a", name).expect(200).await.revision();
        cluster.nodes[node].start();
        // As long as three elections: it never learns what happened while it was away.
        let end = std::time::Instant::now() + Duration::from_secs(3);
        while std::time::Instant::now() < end && cluster.nodes[node].runs() {
            if let Ok(status) = cluster.nodes[node].status().await {
                assert!(status["revision"].as_u64() < Some(before), "{name}: {status}");
                assert!(status["leader"].is_null(), "{name}: {status}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.nodes[(node + 1) % 3].http().put("/v1/kv/b", "x").send().await.expect("an answer");
    }
    cluster.nodes[node].kill9();
    cluster.nodes[node].clear_arguments();
    cluster.nodes[node].add(&founders);
    let flags = peers(&ours.issue("n-again"), &ours);
    cluster.nodes[node].add(&flags);
    cluster.nodes[node].restart().await;
    cluster.converged().await;
}
