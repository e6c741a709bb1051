//! Waits that end without an answer, and holds that end with their connection.

use std::time::{Duration, Instant};

use crate::client::{Client, Frames, PATIENCE, request};
use crate::server::start;

/// Ask until the answer is as wanted.
async fn until(client: &mut Client, path: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> Duration {
    let began = Instant::now();
    loop {
        let answer = client.get(path).await;
        if wanted(&answer.json()) {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "{path}: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_ghost_in_the_line() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let held = client.post("/v1/locks/door/acquire?ttl=60s", b"").await.json();
    let session = client.post("/v1/sessions?ttl=60s", b"").await.json()["id"].as_str().unwrap().to_owned();
    for who in ["ttl=60s".to_owned(), format!("session={session}")] {
        let mut gone = Client::connect(running.address).await;
        gone.send(&request("POST", &format!("/v1/locks/door/acquire?wait=60s&{who}"), &[], b"")).await;
        until(&mut client, "/v1/locks/door", |lock| lock["waiters"].as_array().is_some_and(|w| w.len() == 1))
            .await;
        drop(gone);
        let took = until(&mut client, "/v1/locks/door", |lock| {
            lock["waiters"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
        assert!(took < Duration::from_secs(30), "{who} {took:?}");
    }
    // With keep it is the session's place, and stays.
    let mut gone = Client::connect(running.address).await;
    gone.send(&request(
        "POST",
        &format!("/v1/locks/door/acquire?wait=60s&keep=true&session={session}"),
        &[],
        b"",
    ))
    .await;
    until(&mut client, "/v1/locks/door", |lock| lock["waiters"].as_array().is_some_and(|w| w.len() == 1))
        .await;
    drop(gone);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let free = format!("/v1/locks/door/release?session={}", held["session"].as_str().unwrap());
    let released = client.post(&free, b"").await.json();
    assert_eq!(released["released_to"][0], session.as_str());
}

#[tokio::test]
async fn a_private_claim_is_renewed_while_it_waits() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let held = client.post("/v1/locks/door/acquire?ttl=60s", b"").await.json();
    let mut waiting = Client::connect(running.address).await;
    waiting.send(&request("POST", "/v1/locks/door/acquire?ttl=1s&wait=30s", &[], b"")).await;
    // Three times its ttl.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let free = format!("/v1/locks/door/release?session={}", held["session"].as_str().unwrap());
    assert_eq!(client.post(&free, b"").await.status, 200);
    let granted = waiting.answer(false).await;
    assert_eq!(granted.status, 200, "{}", granted.text());
    assert!(granted.json()["token"].as_u64() > held["token"].as_u64());
    assert_eq!(
        granted.json()["valid_for"].as_str().map(|v| v == "1s" || v.ends_with("ms")),
        Some(true),
        "{}",
        granted.text()
    );
    // Answered, it is the caller's to renew: it runs out.
    until(&mut client, "/v1/locks/door", |lock| lock["code"] == "lock_not_found").await;
}

#[tokio::test]
async fn a_hold_lives_with_its_connection() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    // The ttl is the grace.
    let mut held =
        Frames::open(running.address, "POST", "/v1/locks/door/acquire?hold=true&ttl=2s", &[]).await;
    let acquired = held.frame().await;
    assert_eq!(acquired["type"], "acquired");
    for _ in 0..5 {
        assert_eq!(held.frame().await["type"], "held");
    }
    let lock = client.get("/v1/locks/door").await.json();
    assert_eq!(lock["holders"][0]["session"], acquired["session"]);
    drop(held);
    let took = until(&mut client, "/v1/locks/door", |lock| lock["code"] == "lock_not_found").await;
    assert!(took > Duration::from_millis(900), "{took:?}");

    // At once, if that is asked for.
    let path = "/v1/locks/door/acquire?hold=true&ttl=60s&on_disconnect=expire";
    let mut held = Frames::open(running.address, "POST", path, &[]).await;
    assert_eq!(held.frame().await["type"], "acquired");
    drop(held);
    let took = until(&mut client, "/v1/locks/door", |lock| lock["code"] == "lock_not_found").await;
    assert!(took < Duration::from_secs(30), "{took:?}");

    // A key, a session.
    let path = "/v1/kv/lease?hold=true&ttl=60s&on_disconnect=expire";
    let mut held = Frames::open(running.address, "PUT", path, &[]).await;
    assert_eq!(held.frame().await["type"], "acquired");
    assert_eq!(client.get("/v1/kv/lease").await.status, 200);
    drop(held);
    until(&mut client, "/v1/kv?prefix=lease&count_only=true", |count| count["count"] == 0).await;
}

#[tokio::test]
async fn the_line_moves_from_stream_to_stream() {
    let running = start(|_| {}).await;
    let open = |owner: &str| {
        let path = format!("/v1/locks/door/acquire?hold=true&ttl=30s&on_disconnect=expire&owner={owner}");
        let address = running.address;
        async move { Frames::open(address, "POST", &path, &[]).await }
    };
    let mut ann = open("ann").await;
    let first = ann.frame().await;
    assert_eq!(first["type"], "acquired");
    let mut bob = open("bob").await;
    let waiting = bob.frame().await;
    assert_eq!((&waiting["type"], &waiting["position"]), (&"waiting".into(), &1.into()));
    assert_eq!(waiting["blockers"][0]["owner"], "ann");
    drop(ann);
    let second = bob.news().await;
    assert_eq!(second["type"], "acquired");
    assert!(second["token"].as_u64() > first["token"].as_u64());
}

#[tokio::test]
async fn a_revision_that_does_not_come_is_told_as_such() {
    let running = start(|config| config.request_timeout = "300ms".parse().unwrap()).await;
    let mut client = Client::connect(running.address).await;
    client.put("/v1/kv/a", b"1").await;
    for path in ["/v1/kv/a?min_revision=7", "/v1/kv?min_revision=7", "/v1/locks?min_revision=7"] {
        let answer = client.get(path).await;
        let body = answer.json();
        assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"), "{path}: {body}");
        assert_eq!((&body["min_revision"], &body["newest"]), (&7.into(), &1.into()), "{path}");
    }
    assert_eq!(client.get("/v1/kv/a?min_revision=1").await.status, 200);
}
