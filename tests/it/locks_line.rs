//! The rest of a lock: sharing, transfer, break, wrong claims, the stream that holds.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::wait;
use reqwest::Method;
use serde_json::json;

async fn open(http: &Http) -> String {
    http.post("/v1/sessions?ttl=5m", "").expect(201).await.member("id")
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_and_a_writer_in_line_stops_later_ones() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let [a, b, c, d] = [open(http).await, open(http).await, open(http).await, open(http).await];
    let shared = |session: &str| {
        http.post(&format!("/v1/locks/l/acquire?session={session}&mode=shared&keep=true"), "")
    };
    shared(&a).expect(200).await;
    shared(&b).expect(200).await;
    let writer = format!("/v1/locks/l/acquire?session={c}&keep=true");
    assert_eq!(http.post(&writer, "").expect(202).await.number("position"), 1);
    assert_eq!(shared(&d).expect(202).await.number("position"), 2);
    http.post(&format!("/v1/locks/l/release?session={a}"), "").expect(200).await;
    http.post(&writer, "").expect(202).await;
    http.post(&format!("/v1/locks/l/release?session={b}"), "").expect(200).await;
    http.post(&writer, "").expect(200).await;
    shared(&d).expect(202).await;
    http.post(&format!("/v1/locks/l/release?session={c}"), "").expect(200).await;
    shared(&d).expect(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_claims_are_refused_and_change_nothing() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let (holder, other) = (open(http).await, open(http).await);
    let token =
        http.post(&format!("/v1/locks/l/acquire?session={holder}"), "").expect(200).await.number("token");
    let state = cluster.nodes[0].state().await.expect("an answer");
    for (path, status, code) in [
        (format!("/v1/locks/l/release?session={other}"), 409, "not_holder"),
        (format!("/v1/locks/l/release?session={holder}&token={}", token + 1), 409, "not_holder"),
        (format!("/v1/locks/l/renew?session={other}"), 409, "not_holder"),
        (format!("/v1/locks/l/transfer?session={other}&to={holder}"), 409, "not_holder"),
        (format!("/v1/locks/l/transfer?session={holder}&to=7000000000000001"), 410, "session_expired"),
        ("/v1/locks/l/release?session=7000000000000001".to_owned(), 409, "not_holder"),
        ("/v1/locks/nobody/release?session=7000000000000001".to_owned(), 409, "not_holder"),
        ("/v1/locks/l/acquire?session=7000000000000001".to_owned(), 410, "session_expired"),
        ("/v1/locks/l/release".to_owned(), 400, "invalid_argument"),
        ("/v1/locks/l/release?session=xyz".to_owned(), 400, "invalid_argument"),
        ("/v1/locks/l/acquire".to_owned(), 400, "invalid_argument"),
        ("/v1/locks/l/acquire?ttl=1ms".to_owned(), 400, "invalid_argument"),
        ("/v1/locks/l/acquire?ttl=25h".to_owned(), 400, "invalid_argument"),
        ("/v1/locks/l/acquire?ttl=5s&wait=11m".to_owned(), 400, "invalid_argument"),
        ("/v1/locks/l/acquire?ttl=5s&mode=both".to_owned(), 400, "invalid_argument"),
        ("/v1/locks/l/acquire?ttl=5s&whatever=1".to_owned(), 400, "unknown_parameter"),
        (format!("/v1/locks/l/acquire?session={holder}&mode=shared"), 409, "would_deadlock"),
    ] {
        let reply = http.post(&path, "").send().await.expect("an answer");
        reply.check_problem();
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{reply:?}");
    }
    http.delete("/v1/locks/nobody").refused(404, "lock_not_found").await;
    assert_eq!(cluster.nodes[0].state().await.expect("an answer"), state);
    http.post(&format!("/v1/locks/l/renew?session={holder}&token={token}"), "").expect(200).await;
    http.post(&format!("/v1/locks/l/release?session={holder}&token={token}"), "").expect(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfer_and_break_make_the_old_token_worthless() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let (a, b) = (open(http).await, open(http).await);
    let old = http.post(&format!("/v1/locks/l/acquire?session={a}"), "").expect(200).await.number("token");
    let new =
        http.post(&format!("/v1/locks/l/transfer?session={a}&to={b}"), "").expect(200).await.number("token");
    assert!(new > old);
    let guarded =
        |token: u64| http.put("/v1/kv/x", "y").header("if-held", &format!("locks/l; token={token}"));
    guarded(old).refused(412, "fence_stale").await;
    guarded(new).expect(201).await;
    let broken = http.delete("/v1/locks/l?reason=stuck").expect(200).await.json();
    assert_eq!(broken["broken"][0]["token"], json!(new), "{broken}");
    guarded(new).refused(412, "fence_stale").await;
    http.post(&format!("/v1/locks/l/renew?session={b}"), "").refused(409, "not_holder").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_the_lock_as_long_as_it_lives() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (cluster.nodes[0].http(), cluster.nodes[1].http());
    let path = "/v1/locks/build/acquire?hold=true&ttl=2s&on_disconnect=expire";
    let mut first = one.stream(Method::POST, path).await.expect("a stream");
    assert_eq!(first.status, 200);
    let acquired = first.until("acquired", Duration::from_secs(5)).await;
    let mut second = two.stream(Method::POST, path).await.expect("a stream");
    let waiting = second.until("waiting", Duration::from_secs(5)).await;
    assert_eq!(waiting["position"], 1, "{waiting}");
    // Longer than the ttl, renewed by the node.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        first.until("held", Duration::from_secs(3)).await;
    }
    drop(first);
    let granted = second.until("acquired", Duration::from_secs(5)).await;
    assert!(granted["token"].as_u64() > acquired["token"].as_u64(), "{granted}");
    // Broken by an operator, the stream says so and ends.
    one.delete("/v1/locks/build").expect(200).await;
    let lost = second.until("lost", Duration::from_secs(5)).await;
    assert_eq!(lost["reason"], "broken", "{lost}");
    assert_eq!(second.next().await, None);
    wait::until("nobody holds it", Duration::from_secs(10), || async {
        let reply = one.get("/v1/locks/build").send().await?;
        anyhow::ensure!(reply.status == 404, "{reply:?}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_guarded_by_a_hold_and_may_release_it() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let session = open(http).await;
    let token =
        http.post(&format!("/v1/locks/l/acquire?session={session}"), "").expect(200).await.number("token");
    let txn = |token: u64| {
        let body = json!({
            "if": [{"held": "locks/l", "token": token}],
            "then": [{"op": "put", "key": "done", "value": "1"}, {"op": "release", "lock": "l", "session": session}],
            "else": [{"op": "put", "key": "late", "value": "1"}],
        });
        http.post("/v1/txn", body.to_string())
    };
    assert_eq!(txn(token).expect(200).await.json()["succeeded"], true);
    http.get("/v1/locks/l").refused(404, "lock_not_found").await;
    assert_eq!(txn(token).expect(200).await.json()["succeeded"], false);
    http.get("/v1/kv/late").expect(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn are_listed_and_watched() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let session = open(http).await;
    for name in ["a", "b/c", "ü ö", "z%zz"] {
        let escaped = name.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        http.post(&format!("/v1/locks/{escaped}/acquire?session={session}"), "").expect(200).await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/locks?limit=2".to_owned();
    loop {
        let page = http.get(&path).expect(200).await.json();
        names.extend(page["items"].as_array().expect("items").iter().map(|item| item["name"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/locks?limit=2&cursor={cursor}");
    }
    assert_eq!(json!(names), json!(["a", "b/c", "z%zz", "ü ö"]));
    let mut frames = http.watch("/v1/locks/a?watch=true").await;
    let snapshot = frames.until("snapshot", Duration::from_secs(5)).await;
    assert_eq!(snapshot["items"][0]["holders"][0]["session"], session, "{snapshot}");
    http.post(&format!("/v1/locks/b%2Fc/release?session={session}"), "").expect(200).await;
    http.post(&format!("/v1/locks/a/release?session={session}"), "").expect(200).await;
    let change = frames.until("change", Duration::from_secs(5)).await;
    let event = &change["events"][0];
    assert_eq!((&event["op"], &event["name"]), (&json!("released"), &json!("a")), "{change}");
}
