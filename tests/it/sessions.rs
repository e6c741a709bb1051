//! Sessions: not early, not late, all at once, and gone for good.

use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::wait;
use serde_json::json;

/// How much later than its ttl a session may end while there is a leader: expiry tick, elections, and a busy machine.
const SLACK: Duration = Duration::from_secs(5);

async fn open(http: &Http, ttl: &str) -> String {
    http.post("/v1/sessions", json!({"ttl": ttl, "on_expire": "delete"}).to_string())
        .expect(201)
        .await
        .member("id")
}

/// Waits until the key is gone and says when.
async fn gone(http: &Http, key: &str, patience: Duration) -> Instant {
    wait::until("the key is gone", patience, || async {
        let reply = http.get(&format!("/v1/kv/{key}")).send().await?;
        anyhow::ensure!(reply.status == 404, "{reply:?}");
        anyhow::Ok(Instant::now())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_neither_early_nor_late_and_all_at_once() {
    let cluster = Cluster::start(3).await;
    let http = cluster.nodes[0].http();
    let mut frames = http.watch("/v1/events?initial=false").await;
    frames.until("synced", Duration::from_secs(5)).await;
    let ttl = Duration::from_secs(2);
    let opened = Instant::now();
    let session = open(http, "2s").await;
    for key in ["a", "b", "c"] {
        http.put(&format!("/v1/kv/s/{key}?session={session}"), "x").expect(201).await;
    }
    http.post(&format!("/v1/locks/l/acquire?session={session}"), "").expect(200).await;
    let mut renewed = opened;
    for node in [1, 2, 0] {
        // Half of it passes, then it is renewed through another node.
        tokio::time::sleep(ttl / 2).await;
        renewed = Instant::now();
        let reply =
            cluster.nodes[node].http().post(&format!("/v1/sessions/{session}/renew"), "").expect(200).await;
        assert_eq!(reply.json()["valid_for"], "2s", "{reply:?}");
        http.get("/v1/kv/s/a").expect(200).await;
    }
    let end = gone(http, "s/a", ttl + SLACK).await;
    assert!(end.duration_since(renewed) >= ttl, "early: {:?}", end.duration_since(renewed));
    let change = loop {
        let frame = frames.until("change", Duration::from_secs(5)).await;
        if frame["events"]
            .as_array()
            .is_some_and(|events| events.iter().any(|event| event["cause"] == "session_expired"))
        {
            break frame;
        }
    };
    let events = change["events"].as_array().expect("events");
    let told: Vec<String> =
        events.iter().map(|event| format!("{} {}", event["family"], event["op"])).collect();
    assert_eq!(
        told.iter().filter(|told| *told == "\"kv\" \"delete\"").count(),
        3,
        "not in one revision: {change}"
    );
    assert!(told.contains(&"\"locks\" \"expired\"".to_owned()), "{change}");
    assert!(told.contains(&"\"sessions\" \"expired\"".to_owned()), "{change}");
    for node in &cluster.nodes {
        node.http().post(&format!("/v1/sessions/{session}/renew"), "").refused(410, "session_expired").await;
        node.http().get(&format!("/v1/sessions/{session}")).refused(410, "session_expired").await;
    }
    http.put(&format!("/v1/kv/s/d?session={session}"), "x").refused(410, "session_expired").await;
    http.post(&format!("/v1/locks/l/acquire?session={session}"), "").refused(410, "session_expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outlives_a_leader_change_and_ends_after_it() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let http = cluster.nodes[(leader + 1) % 3].http().clone();
    let ttl = Duration::from_secs(3);
    let session = open(&http, "3s").await;
    http.put(&format!("/v1/kv/s?session={session}"), "x").expect(201).await;
    let renewed = Instant::now();
    http.post(&format!("/v1/sessions/{session}/renew"), "").expect(200).await;
    cluster.nodes[leader].kill9();
    let end = gone(&http, "s", 2 * ttl + SLACK + Duration::from_secs(10)).await;
    let lived = end.duration_since(renewed);
    assert!(lived >= ttl, "early: {lived:?}");
    println!("a session of {ttl:?} lived {lived:?} over a leader change");
    cluster.nodes[leader].restart().await;
    let log = cluster.one_log().await;
    assert_eq!(log.events("kv").filter(|(_, event)| event.op == "delete").count(), 1);
}

/// A keeper that renews at a third of the ttl through whichever node answers never loses it.
#[tokio::test(flavor = "multi_thread")]
async fn is_kept_by_renewals_while_leaders_die() {
    let mut cluster = Cluster::start(3).await;
    let https = cluster.https();
    let session = open(&https[0], "6s").await;
    https[0].put(&format!("/v1/kv/kept?session={session}"), "x").expect(201).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let keeper = tokio::spawn({
        let (stop, session, https) = (stop.clone(), session.clone(), https.clone());
        async move {
            let mut node = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let call = https[node]
                    .post(&format!("/v1/sessions/{session}/renew"), "")
                    .patience(Duration::from_secs(2));
                match call.send().await {
                    Ok(reply) if reply.status == 200 => tokio::time::sleep(Duration::from_millis(500)).await,
                    Ok(reply) if reply.status < 500 => panic!("lost: {reply:?}"),
                    _ => node = (node + 1) % 3,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill9();
        cluster.leader().await;
        cluster.nodes[leader].restart().await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    keeper.await.expect("the session was kept");
    https[0].get("/v1/kv/kept").expect(200).await;
    let log = cluster.one_log().await;
    assert!(log.events("kv").all(|(_, event)| event.op == "put"), "it was deleted in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_releases_everything_in_one_revision() {
    let mut cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http().clone();
    let session = open(&http, "1m").await;
    http.put(&format!("/v1/kv/a?session={session}"), "x").expect(201).await;
    http.put(&format!("/v1/kv/b?session={session}"), "x").expect(201).await;
    http.post(&format!("/v1/locks/l/acquire?session={session}"), "").expect(200).await;
    let next = open(&http, "1m").await;
    let waiting =
        http.post(&format!("/v1/locks/l/acquire?session={next}&wait=0&keep=true"), "").expect(202).await;
    assert_eq!(waiting.number("position"), 1);
    let shown = http.get(&format!("/v1/sessions/{session}")).expect(200).await.json();
    assert_eq!(shown["keys"], json!(["a", "b"]), "{shown}");
    assert_eq!(shown["holds"][0]["name"], "l", "{shown}");
    // A key that another put takes away from the session stays.
    http.put("/v1/kv/b", "mine").expect(200).await;
    let closed = http.delete(&format!("/v1/sessions/{session}")).expect(200).await;
    http.get("/v1/kv/a").refused(404, "key_not_found").await;
    assert_eq!(http.get("/v1/kv/b").expect(200).await.text(), "mine");
    let lock = http.get("/v1/locks/l").expect(200).await.json();
    assert_eq!(
        (&lock["holders"][0]["session"], &lock["holders"][0]["token"]),
        (&json!(next), &json!(closed.number("revision")))
    );
    http.delete(&format!("/v1/sessions/{session}")).refused(404, "session_not_found").await;
    http.post(&format!("/v1/sessions/{session}/renew"), "").refused(410, "session_expired").await;
    let log = cluster.one_log().await;
    let ended: Vec<_> =
        log.changes.iter().filter(|change| change.revision == closed.number("revision")).collect();
    assert!(ended[0].events.len() >= 3, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_ttl_of_its_own_and_one_that_keeps_its_session() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let put = http.put("/v1/kv/ttl?ttl=1s", "x").expect(201).await;
    let session = put.member("session");
    http.put("/v1/kv/ttl?keep_session=true", "y").expect(200).await;
    assert_eq!(http.get("/v1/kv/ttl").expect(200).await.header("coracle-session"), session);
    gone(http, "ttl", Duration::from_secs(1) + SLACK).await;
    // A plain put takes it out of its session.
    http.put("/v1/kv/free?ttl=1s", "x").expect(201).await;
    http.put("/v1/kv/free", "y").expect(200).await;
    http.put("/v1/kv/mark?ttl=1s", "x").expect(201).await;
    gone(http, "mark", Duration::from_secs(1) + SLACK).await;
    http.get("/v1/kv/free").expect(200).await;
}

/// A session held by a connection: the stream keeps it, its end starts the grace, or ends it at once.
#[tokio::test(flavor = "multi_thread")]
async fn lives_with_a_connection() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    for at_once in [false, true] {
        let disconnect = if at_once { "&on_disconnect=expire" } else { "" };
        let path = format!("/v1/sessions?hold=true&ttl=2s{disconnect}");
        let mut held = http.stream(reqwest::Method::POST, &path).await.expect("a stream");
        assert!(held.status == 200 || held.status == 201, "{}", held.status);
        let opened = held.until("opened", Duration::from_secs(5)).await;
        let session = opened["session"].as_str().expect("a session").to_owned();
        http.put(&format!("/v1/kv/held?session={session}"), "x").expect(201).await;
        // Twice its ttl, kept by the stream alone.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            held.until("held", Duration::from_secs(3)).await;
        }
        http.get("/v1/kv/held").expect(200).await;
        let dropped = Instant::now();
        drop(held);
        let patience = if at_once { Duration::from_millis(1900) } else { Duration::from_secs(2) + SLACK };
        let end = gone(http, "held", patience).await;
        if !at_once {
            // The last renewal was at most a third of the ttl before the end of the connection.
            assert!(
                end.duration_since(dropped) >= Duration::from_millis(1200),
                "{:?}",
                end.duration_since(dropped)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_end_together_while_others_are_renewed() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let kept = open(http, "3s").await;
    http.put(&format!("/v1/kv/kept?session={kept}"), "x").expect(201).await;
    let opening = (0..500).map(|n| async move {
        let session = open(http, "2s").await;
        http.put(&format!("/v1/kv/mass/{n}?session={session}"), "x").expect(201).await;
    });
    futures::future::join_all(opening).await;
    wait::until("all have ended", Duration::from_secs(20), || async {
        http.post(&format!("/v1/sessions/{kept}/renew"), "").expect(200).await;
        let left = http.get("/v1/kv?prefix=mass/&count_only=true").send().await?.number("count");
        anyhow::ensure!(left == 0, "{left} are left");
        anyhow::Ok(())
    })
    .await;
    http.get("/v1/kv/kept").expect(200).await;
}
