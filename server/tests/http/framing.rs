//! Bytes that are no requests, or hardly: an answer or a closed connection, and a healthy server after it.

use std::time::{Duration, Instant};

use crate::client::{Client, request};
use crate::server::{Running, start};

async fn healthy(running: &Running) {
    let answer = Client::connect(running.address).await.put("/v1/kv/health", b"good").await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
}

/// Send bytes on a connection of its own: the status of the first answer, if one came before the connection ended.
async fn status_of(running: &Running, bytes: &[u8]) -> Option<u16> {
    let mut client = Client::connect(running.address).await;
    client.send(bytes).await;
    client.head().await.map(|answer| answer.status)
}

#[tokio::test]
async fn shapes_of_smuggling_are_refused_or_read_one_way() {
    let running = start(|_| {}).await;
    let put = "PUT /v1/kv/smuggled HTTP/1.1\r\nHost: localhost\r\n";
    for bad in [
        format!("{put}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        format!("{put}Content-Length: -1\r\n\r\nx"),
        format!("{put}Content-Length: 1x\r\n\r\nx"),
        format!("{put}Transfer-Encoding: gzip\r\n\r\nx"),
        format!("{put}Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n"),
        format!("{put}Host: other\r\nContent-Length: 1\r\n\r\nx"),
        "PUT /v1/kv/smuggled HTTP/9.9\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /v1/kv/a b HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
    ] {
        let status = status_of(&running, bad.as_bytes()).await;
        assert!(status.is_none_or(|s| (400..500).contains(&s)), "{bad:?} {status:?}");
    }
    // A length and a transfer coding, in either order, and no host at all.
    let (length, coding) = ("Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n");
    for bad in [
        format!("{put}{length}{coding}\r\n1\r\nx\r\n0\r\n\r\n"),
        format!("{put}{coding}{length}\r\n1\r\nx\r\n0\r\n\r\n"),
        "PUT /v1/kv/smuggled HTTP/1.1\r\nContent-Length: 1\r\n\r\nx".to_owned(),
    ] {
        assert_eq!(status_of(&running, bad.as_bytes()).await, Some(400), "{bad:?}");
    }
    // Nothing that follows on such a connection is a request.
    let mut client = Client::connect(running.address).await;
    let smuggled = String::from_utf8(request("PUT", "/v1/kv/smuggled", &[], b"x")).unwrap();
    client.send(format!("{put}{coding}{length}\r\n1\r\nx\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
    assert_eq!(client.answer(false).await.status, 400);
    assert!(client.head().await.is_none(), "the connection ends");
    // What is no request at all gets a problem too.
    let mut client = Client::connect(running.address).await;
    client.send(b"GET /v1/kv/a b HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = client.answer(false).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"));
    let mut client = Client::connect(running.address).await;
    assert_eq!(client.get("/v1/kv/smuggled").await.status, 404, "nothing was written");
    healthy(&running).await;
}

#[tokio::test]
async fn heads_over_their_limits() {
    let running = start(|_| {}).await;
    let long = "x".repeat(128 * 1024);
    for bad in [
        format!("GET /v1/kv/{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"),
        format!("GET /v1/kv/a HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(5000)),
    ] {
        let status = status_of(&running, bad.as_bytes()).await;
        assert!(status.is_none_or(|s| matches!(s, 400 | 414 | 431)), "{status:?}");
    }
    let many: Vec<String> = (0..10_000).map(|i| format!("p{i}")).collect();
    let query = format!("GET /v1/kv/a?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", many.join("&"));
    let status = status_of(&running, query.as_bytes()).await;
    assert!(status.is_none_or(|s| matches!(s, 400 | 414 | 431)), "{status:?}");
    healthy(&running).await;
}

#[tokio::test]
async fn bodies_in_pieces_are_read_to_their_ends_and_so_is_what_follows() {
    for max_requests in [4096, 0] {
        let running = start(|config| config.max_requests = max_requests).await;
        let statuses = if max_requests > 0 { [200, 201] } else { [503, 503] };
        let mut client = Client::connect(running.address).await;
        let put = "PUT /v1/kv/pieces HTTP/1.1\r\nHost: localhost\r\n";
        let piece = "x".repeat(1000);
        let counted =
            [format!("{put}Content-Length: 3000\r\n\r\n"), piece.clone(), piece.clone(), piece.clone()];
        let chunk = format!("3e8\r\n{piece}\r\n");
        let chunked = [
            format!("{put}Transfer-Encoding: chunked\r\n\r\n"),
            chunk.clone(),
            chunk.repeat(2),
            "0\r\n\r\n".into(),
        ];
        for pieces in [counted, chunked] {
            for piece in &pieces {
                client.send(piece.as_bytes()).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(statuses.contains(&client.answer(false).await.status), "in pieces");
            // All at once, and the next request right behind it.
            client.send(format!("{0}{0}", pieces.concat()).as_bytes()).await;
            for _ in 0..2 {
                assert!(statuses.contains(&client.answer(false).await.status), "in one piece");
            }
        }
        if max_requests > 0 {
            assert_eq!(client.get("/v1/kv/pieces").await.text(), piece.repeat(3));
        }
    }
}

#[tokio::test]
async fn random_bytes_hurt_nobody() {
    use rand::{Rng, SeedableRng};
    let running = start(|config| config.header_timeout = "1s".parse().unwrap()).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for round in 0..60 {
        let mut bytes = vec![0; random.random_range(1..2000)];
        random.fill(bytes.as_mut_slice());
        if round % 3 == 0 {
            bytes.splice(..0, *b"PUT /v1/kv/a HTTP/1.1\r\n");
        }
        if round % 3 == 1 {
            bytes.splice(..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        let mut client = Client::connect(running.address).await;
        client.send(&bytes).await;
        client.send(b"\r\n\r\n").await;
    }
    healthy(&running).await;
}

#[tokio::test]
async fn slow_and_silent_clients_are_let_go() {
    let running = start(|config| {
        config.header_timeout = "300ms".parse().unwrap();
        config.body_timeout = "300ms".parse().unwrap();
        config.idle_timeout = "1s".parse().unwrap();
    })
    .await;
    let began = Instant::now();
    let mut silent = Client::connect(running.address).await;
    let mut slow_head = Client::connect(running.address).await;
    slow_head.send(b"GET /v1/kv/a HTTP/1.1\r\nHost: loc").await;
    let mut preface = Client::connect(running.address).await;
    preface.send(b"PRI * HT").await;
    let mut slow_body = Client::connect(running.address).await;
    slow_body.send(b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc").await;
    let mut idle = Client::connect(running.address).await;
    assert_eq!(idle.get("/v1/kv/none").await.status, 404);

    let refused = slow_body.answer(false).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_argument"));
    assert_eq!(silent.fill().await, 0);
    assert_eq!(slow_head.fill().await, 0);
    // The server's own settings come first; then it ends.
    while preface.fill().await > 0 {}
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(idle.get("/v1/kv/none").await.status, 404, "idle is not slow");
    assert_eq!(idle.fill().await, 0);
    healthy(&running).await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let running = start(|config| config.max_connections = 2).await;
    let mut first = Client::connect(running.address).await;
    let mut second = Client::connect(running.address).await;
    assert_eq!(first.get("/version").await.status, 200);
    assert_eq!(second.get("/version").await.status, 200);
    let mut third = Client::connect(running.address).await;
    let answer = third.answer(false).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    drop(second);
    for _ in 0..100 {
        let mut next = Client::connect(running.address).await;
        next.send(&request("GET", "/version", &[], b"")).await;
        if next.answer(false).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a place did not become free");
}

#[tokio::test]
async fn expect_continue_is_answered_before_the_body_comes() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    client
        .send(
            b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        )
        .await;
    // The interim answer is there before a byte of the body is.
    assert!(client.fill().await > 0);
    client.send(b"blue").await;
    assert_eq!(client.answer(false).await.status, 201);
    let mut large = Client::connect(running.address).await;
    large.send(b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n").await;
    let refused = large.answer(false).await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "too_large"));
}
