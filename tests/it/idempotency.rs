//! A retry with its Idempotency-Key has one effect, through any node, leader change or restart.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_through_another_node_after_a_kill_has_one_effect() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let first =
        cluster.nodes[leader].http().put("/v1/kv/a", "1").header("idempotency-key", "k1").expect(201).await;
    let append = cluster.nodes[leader]
        .http()
        .post("/v1/kv/in/", "x")
        .header("idempotency-key", "k2")
        .expect(201)
        .await;
    cluster.nodes[leader].kill9();
    let other = cluster.nodes[(leader + 1) % 3].http().clone();
    let again = wait::until("a retry is answered", Duration::from_secs(20), || async {
        let reply = other.put("/v1/kv/a", "1").header("idempotency-key", "k1").send().await?;
        anyhow::ensure!(reply.status < 500, "{reply:?}");
        anyhow::Ok(reply)
    })
    .await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("coracle-revision"), first.header("coracle-revision"));
    let again = other.post("/v1/kv/in/", "x").header("idempotency-key", "k2").expect(201).await;
    assert_eq!(again.body, append.body);
    assert_eq!(again.header("location"), append.header("location"));
    cluster.nodes[leader].restart().await;
    // Through the restarted node, and by the parameter.
    let again = cluster.nodes[leader].http().put("/v1/kv/a?idempotency_key=k1", "1").expect(201).await;
    assert_eq!(again.body, first.body);
    assert_eq!(other.get("/v1/kv?count_only=true").expect(200).await.number("count"), 2);
    assert_eq!(other.get("/v1/kv/a").expect(200).await.header("coracle-version"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_is_remembered_over_a_restart_of_all() {
    let mut cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http().clone();
    http.put("/v1/kv/d/1", "x").expect(201).await;
    http.put("/v1/kv/d/2", "x").expect(201).await;
    let session = http.post("/v1/sessions?ttl=5m", "").expect(201).await.member("id");
    let txn = json!({"if": [{"key": "t", "exists": false}], "then": [{"op": "put", "key": "t", "value": "1"}], "else": [{"op": "put", "key": "t2", "value": "1"}]});
    let calls = [
        ("PUT", "/v1/kv/p?return=previous".to_owned(), "v".to_owned()),
        ("PUT", "/v1/kv/n?if_none_match=*".to_owned(), "v".to_owned()),
        ("DELETE", "/v1/kv?prefix=d/".to_owned(), String::new()),
        ("POST", "/v1/txn".to_owned(), txn.to_string()),
        ("POST", "/v1/sessions".to_owned(), r#"{"ttl":"5m"}"#.to_owned()),
        ("POST", format!("/v1/locks/l/acquire?session={session}"), String::new()),
        ("POST", "/v1/locks/m/acquire?ttl=5m".to_owned(), String::new()),
        ("POST", format!("/v1/locks/l/release?session={session}"), String::new()),
        ("DELETE", format!("/v1/sessions/{session}"), String::new()),
    ];
    let mut answers = Vec::new();
    for (n, (method, path, body)) in calls.iter().enumerate() {
        let call = http.call(method.parse().expect("a method"), path).body(body.clone());
        let reply = call.header("idempotency-key", &format!("m{n}")).send().await.expect("an answer");
        assert!(reply.status < 300, "{reply:?}");
        answers.push(reply);
    }
    let state = cluster.converged().await;
    cluster.nodes[0].kill9();
    cluster.nodes[0].restart().await;
    for (n, (method, path, body)) in calls.iter().enumerate() {
        let call = http.call(method.parse().expect("a method"), path).body(body.clone());
        let reply = call.header("idempotency-key", &format!("m{n}")).send().await.expect("an answer");
        assert_eq!(reply.status, answers[n].status, "{reply:?}");
        assert_eq!(without_validity(&reply.json()), without_validity(&answers[n].json()), "{reply:?}");
        assert_eq!(reply.header("idempotency-replayed"), "true", "{reply:?}");
    }
    assert_eq!(cluster.converged().await, state, "a retry changed the state");
}

/// How long something is still good for is said anew each time.
fn without_validity(json: &serde_json::Value) -> serde_json::Value {
    let mut json = json.clone();
    if let Some(members) = json.as_object_mut() {
        members.remove("valid_for");
    }
    json
}

#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_the_same_key_is_refused() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    http.put("/v1/kv/a", "1").header("idempotency-key", "k").expect(201).await;
    for call in [
        http.put("/v1/kv/a", "2"),
        http.put("/v1/kv/b", "1"),
        http.put("/v1/kv/a?if_none_match=*", "1"),
        http.put("/v1/kv/a", "1").header("content-type", "application/json"),
        http.delete("/v1/kv/a"),
    ] {
        call.header("idempotency-key", "k").refused(422, "idempotency_key_reused").await;
    }
    assert_eq!(http.get("/v1/kv/a").expect(200).await.text(), "1");
    let long = "k".repeat(256);
    http.put("/v1/kv/a", "1").header("idempotency-key", &long).refused(400, "invalid_argument").await;
    http.put("/v1/kv/a", "1").header("idempotency-key", &long[1..]).expect(200).await;
    http.put("/v1/kv/a?idempotency_key=", "1").refused(400, "invalid_argument").await;
}

/// Many at once with one key: one effect, one answer, or "still running".
#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_many_times_at_once_has_one_effect() {
    let cluster = Cluster::start(3).await;
    let calls = (0..30).map(|n| {
        let http = cluster.nodes[n % 3].http().clone();
        async move {
            http.post("/v1/kv/once/", "x").header("idempotency-key", "same").send().await.expect("an answer")
        }
    });
    let replies = futures::future::join_all(calls).await;
    let good: Vec<_> = replies.iter().filter(|reply| reply.status == 201).collect();
    assert!(!good.is_empty());
    assert!(good.iter().all(|reply| reply.body == good[0].body), "{good:?}");
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!(reply.code(), "idempotency_in_flight", "{reply:?}");
    }
    let http = cluster.nodes[0].http();
    assert_eq!(http.get("/v1/kv?prefix=once/&count_only=true").expect(200).await.number("count"), 1);
}
