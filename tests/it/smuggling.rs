//! Requests whose framing is ambiguous, oversized or slow, as raw bytes: one answer at most, and nothing changed.

use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::node::Node;
use coracle_tests::raw;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const QUIET: Duration = Duration::from_millis(400);

/// Sends the bytes; every answer must be a refusal, and nothing is changed.
async fn refused(node: &Node, name: &str, request: &[u8]) -> raw::Exchange {
    let state = node.state().await.expect("an answer");
    let exchange = raw::exchange(&node.address(), request, QUIET).await;
    let statuses = exchange.statuses();
    assert!(
        !statuses.iter().any(|status| (200..300).contains(status)),
        "{name}: {statuses:?} {}",
        exchange.text()
    );
    assert!(statuses.len() <= 1, "{name}: two answers {}", exchange.text());
    assert!(statuses.len() == 1 || exchange.closed, "{name}: neither an answer nor an end");
    assert_eq!(node.state().await.expect("an answer"), state, "{name} changed something");
    exchange
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_framing_is_refused() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0];
    let smuggled = "PUT /v1/kv/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let head = "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n";
    for (name, request) in [
        ("two lengths", format!("{head}Content-Length: 0\r\nContent-Length: 70\r\n\r\n{smuggled}")),
        ("a list of lengths", format!("{head}Content-Length: 0, 70\r\n\r\n{smuggled}")),
        ("a signed length", format!("{head}Content-Length: +1\r\n\r\nx")),
        ("a negative length", format!("{head}Content-Length: -1\r\n\r\nx")),
        ("a length of hex", format!("{head}Content-Length: 0x1\r\n\r\nx")),
        ("a huge length", format!("{head}Content-Length: 99999999999999999999999\r\n\r\nx")),
        (
            "chunked twice",
            format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        ),
        ("chunked but not last", format!("{head}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n")),
        ("an unknown coding", format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        (
            "a chunk size that overflows",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff1\r\nx\r\n0\r\n\r\n"),
        ),
        (
            "a chunk size that is none",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n"),
        ),
        ("a space before the colon", format!("{head}Content-Length : 1\r\n\r\nx")),
        ("a folded header", format!("{head}X-A: 1\r\n b\r\nContent-Length: 1\r\n\r\nx")),
        ("a header without a colon", format!("{head}Nonsense\r\n\r\n")),
        ("a header name with a control", format!("{head}X\x01: 1\r\n\r\n")),
        ("a null in a header", format!("{head}X-A: a\0b\r\nContent-Length: 1\r\n\r\nx")),
        ("no host", "PUT /v1/kv/a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx".to_owned()),
        ("two hosts", format!("{head}Host: localhost\r\nContent-Length: 1\r\n\r\nx")),
        ("an unknown version", "PUT /v1/kv/a HTTP/3.7\r\nHost: localhost\r\n\r\n".to_owned()),
        ("no version", "PUT /v1/kv/a\r\nHost: localhost\r\n\r\n".to_owned()),
        (
            "a space in the path",
            "PUT /v1/kv/a b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        ),
        (
            "a control in the path",
            "PUT /v1/kv/a\x01b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        ),
        ("a method that is none", "P\x00T /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()),
        (
            "another target",
            "PUT http://evil.example/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
                .to_owned(),
        ),
        (
            "a proxy's method",
            "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n".to_owned(),
        ),
        ("a star", "PUT * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()),
    ] {
        refused(node, name, request.as_bytes()).await;
    }
    node.http().get("/v1/kv/smuggled").refused(404, "key_not_found").await;
    node.http().get("/readyz").expect(200).await;
}

/// RFC 9112 §6.3: chunks win over a length, and the connection is closed behind such a request.
#[tokio::test(flavor = "multi_thread")]
async fn length_and_chunks_make_one_request_and_an_end() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0];
    let smuggled = "PUT /v1/kv/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let head = "PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n";
    for framing in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 70",
    ] {
        let request = format!("{head}{framing}\r\n\r\n1\r\nx\r\n0\r\n\r\n{smuggled}");
        let exchange = raw::exchange(&node.address(), request.as_bytes(), QUIET).await;
        assert!(exchange.closed && exchange.statuses().len() <= 1, "{exchange:?}");
    }
    node.http().get("/v1/kv/smuggled").refused(404, "key_not_found").await;
    let found = node.http().get("/v1/kv/a").send().await.expect("an answer").text();
    assert!(found == "x" || found.contains("key_not_found"), "{found}");
}

/// Bare line feeds end lines in HTTP's own recommendation for lenient readers; what matters is that there is one request.
#[tokio::test(flavor = "multi_thread")]
async fn bare_line_feeds_make_one_request_at_most() {
    let cluster = Cluster::start(1).await;
    let request = "PUT /v1/kv/lf HTTP/1.1\nHost: localhost\nContent-Length: 1\n\nx";
    let exchange = raw::exchange(&cluster.nodes[0].address(), request.as_bytes(), QUIET).await;
    assert!(exchange.statuses().len() <= 1, "{}", exchange.text());
    let count = cluster.nodes[0].http().get("/v1/kv?count_only=true").expect(200).await.number("count");
    assert!(count <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_heads_are_refused() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0];
    let head = |extra: &str| format!("GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n");
    let huge = format!("X-Huge: {}\r\n", "x".repeat(200_000));
    let many = (0..2000).map(|n| format!("X-{n}: 1\r\n")).collect::<Vec<_>>().concat();
    let path = format!("GET /v1/kv/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000));
    let parameters: Vec<String> = (0..10_000).map(|n| format!("p{n}=1")).collect();
    let query = format!("GET /v1/kv?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", parameters.join("&"));
    for (name, request) in
        [("a header", head(&huge)), ("headers", head(&many)), ("a path", path), ("parameters", query)]
    {
        let exchange = refused(node, name, request.as_bytes()).await;
        println!("{name}: {:?}", exchange.statuses());
    }
    let parameters: Vec<String> = (0..65).map(|n| format!("p{n}=1")).collect();
    node.http().get(&format!("/v1/kv?{}", parameters.join("&"))).refused(400, "invalid_argument").await;
    node.http().get("/readyz").expect(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_without_a_length_are_refused() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0];
    let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
    let head = b"PUT /v1/kv/big HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let exactly = [head.as_slice(), &chunk.repeat(16), b"0\r\n\r\n"].concat();
    let exchange = raw::exchange(&node.address(), &exactly, Duration::from_secs(3)).await;
    assert_eq!(exchange.statuses(), [201], "{}", exchange.text());
    let over = [head.as_slice(), &chunk.repeat(16), b"1\r\nx\r\n0\r\n\r\n"].concat();
    let exchange = refused(node, "one byte more", &over).await;
    assert_eq!(exchange.statuses(), [413], "{}", exchange.text());
    assert!(exchange.text().contains("too_large"), "{}", exchange.text());
    // A length that lies: less comes than was announced.
    let short = b"PUT /v1/kv/short HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nxyz";
    let mut stream = TcpStream::connect(node.address()).await.expect("connected");
    stream.write_all(short).await.expect("sent");
    drop(stream);
    node.http().get("/v1/kv/short").refused(404, "key_not_found").await;
    // One that asks first is told before it sends.
    let asks = b"PUT /v1/kv/big HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n";
    let exchange = refused(node, "a huge length announced", asks).await;
    assert_eq!(exchange.statuses(), [413], "{}", exchange.text());
}

/// Heads and bodies that come by drops are given up, and cost nobody else anything.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut() {
    let cluster =
        Cluster::start_with(1, &["--header-timeout", "1s", "--body-timeout", "1s", "--idle-timeout", "2s"])
            .await;
    let node = &cluster.nodes[0];
    let mut slow = Vec::new();
    for start in [
        "",
        "GET /v1/kv/a HT",
        "GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nX-A: ",
        "PUT /v1/kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nxy",
    ] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(node.address()).await.expect("connected");
            stream.write_all(start.as_bytes()).await.expect("sent");
            slow.push(stream);
        }
    }
    node.http().put("/v1/kv/quick", "x").expect(201).await;
    let start = Instant::now();
    for stream in &mut slow {
        let exchange = raw::read(stream, Duration::from_secs(8)).await;
        assert!(exchange.closed, "still open: {}", exchange.text());
        assert!(!exchange.statuses().contains(&200), "{}", exchange.text());
    }
    println!("80 slow clients were cut within {:?}", start.elapsed());
    node.http().get("/v1/kv/slow").refused(404, "key_not_found").await;
    // Drop by drop counts as slow too.
    let mut stream = TcpStream::connect(node.address()).await.expect("connected");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) && stream.write_all(b"X").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(8), "a head by drops is read for ever");
}
