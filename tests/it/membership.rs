//! Members come by snapshot and go for good, while clients write.

use std::time::Duration;

use coracle_tests::check;
use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::load::{Load, Shape};
use coracle_tests::node::Node;
use coracle_tests::wait;
use serde_json::Value;

/// So little log is kept that whoever is new needs a snapshot.
const LITTLE_LOG: [&str; 4] = ["--keep-log-entries", "200", "--segment-bytes", "1MiB"];

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_joins_by_snapshot_and_replaces_a_dead_one() {
    let mut cluster = Cluster::start_with(3, &LITTLE_LOG).await;
    let load = Load::start(cluster.https(), Shape { lockers: 2, clients: 4, ..Shape::default() });
    load.goes_on(700).await;
    // What is only in the snapshot: it is older than any log kept.
    let leader = cluster.leader().await;
    let url = cluster.nodes[leader].url();
    let mut new = Node::new("n4", cluster.folder()).with(&LITTLE_LOG).with(&["--join", &url]);
    new.restart().await;
    cluster.nodes.push(new);
    let http = cluster.nodes[leader].http().clone();
    let member = member(&http, "n4").await;
    assert_eq!(member["role"], "learner", "{member}");
    promote(&http, &member).await;
    let metrics = cluster.nodes[3].http().get("/metrics").expect(200).await.text();
    println!("{}", metrics.lines().filter(|line| line.contains("snapshot")).collect::<Vec<_>>().join("\n"));

    // One of the founders dies for good and is taken out.
    let follower = cluster.follower().await;
    let gone = if follower == 3 { (leader + 1) % 3 } else { follower };
    cluster.nodes[gone].kill9();
    load.goes_on(100).await;
    let leader = cluster.leader().await;
    let http = cluster.nodes[leader].http().clone();
    let id = self::member(&http, &format!("n{}", gone + 1)).await["id"].as_str().expect("an id").to_owned();
    http.delete(&format!("/v1/members/{id}")).patience(Duration::from_secs(40)).expect(200).await;
    load.goes_on(100).await;

    // It does not know that it was taken out, comes back, and is told.
    let said = cluster.nodes[gone].refuses_to_start().await;
    assert!(said.contains("removed"), "{said}");
    load.goes_on(100).await;
    let history = load.stop().await;
    let members = http.get("/v1/members").expect(200).await.json();
    assert_eq!(members["items"].as_array().map(Vec::len), Some(3), "{members}");
    let log = cluster.one_log().await;
    check::holds(&history, &log);
    check::did_enough(&history, 5);

    // The new one counts: with one of the other two gone there is still a majority.
    let leader = cluster.leader().await;
    if leader == 3 {
        let other = (0..3).find(|index| *index != gone).expect("two are left");
        cluster.nodes[other].kill9();
    } else {
        cluster.nodes[leader].kill9();
    }
    let http = cluster.nodes[3].http().clone();
    wait::until("a write with the new member's vote", Duration::from_secs(20), || async {
        let reply = http.put("/v1/kv/after", "x").send().await?;
        anyhow::ensure!(reply.status < 300, "{reply:?}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_for_long_catches_up_by_snapshot() {
    let mut cluster = Cluster::start_with(3, &LITTLE_LOG).await;
    let follower = cluster.follower().await;
    cluster.nodes[follower].kill9();
    let mut https = cluster.https();
    https.remove(follower);
    let load = Load::start(https, Shape { lockers: 2, clients: 4, ..Shape::default() });
    load.goes_on(700).await;
    cluster.nodes[follower].restart().await;
    load.goes_on(100).await;
    let history = load.stop().await;
    let log = cluster.one_log().await;
    check::holds(&history, &log);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_harm_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let http = cluster.nodes[leader].http().clone();
    for body in [
        "",
        "{}",
        r#"{"name":"x"}"#,
        r#"{"name":"x","peer":"nonsense"}"#,
        r#"{"name":"","peer":"h:1"}"#,
        "[]",
        "{",
    ] {
        http.post("/v1/members", body).refused(400, "invalid_argument").await;
    }
    let taken = r#"{"name":"n1","peer":"127.0.0.1:9"}"#;
    http.post("/v1/members", taken).refused(409, "already_exists").await;
    let taken = format!(r#"{{"name":"n9","peer":"{}"}}"#, cluster.nodes[1].peer_address());
    http.post("/v1/members", taken).refused(409, "already_exists").await;
    http.delete("/v1/members/99").refused(404, "member_not_found").await;
    http.delete("/v1/members/x").refused(404, "member_not_found").await;
    http.post("/v1/members/99/promote", "").refused(404, "member_not_found").await;
    http.post("/v1/members/99/transfer", "").refused(404, "member_not_found").await;

    // With one of three dead, taking out a living one would lose the majority; taking out the dead one is fine.
    let dead = cluster.follower().await;
    cluster.nodes[dead].kill9();
    let alive = (0..3).find(|index| *index != dead && *index != leader).expect("three");
    let id = |index: usize| format!("n{}", index + 1);
    let alive = member(&http, &id(alive)).await["id"].as_str().expect("an id").to_owned();
    let refused = wait::until("the dead one is known to be dead", Duration::from_secs(20), || async {
        let members = http.get("/v1/members").send().await?.json();
        let down =
            members["items"].as_array().is_some_and(|items| items.iter().any(|item| item["state"] == "down"));
        anyhow::ensure!(down, "{members}");
        http.delete(&format!("/v1/members/{alive}")).patience(Duration::from_secs(40)).send().await
    })
    .await;
    assert_eq!(refused.code(), "would_lose_quorum", "{refused:?}");
    let dead = member(&http, &id(dead)).await["id"].as_str().expect("an id").to_owned();
    http.delete(&format!("/v1/members/{dead}")).patience(Duration::from_secs(40)).expect(200).await;
    http.put("/v1/kv/a", "x").expect(201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request_and_on_sigterm() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(cluster.https(), Shape { lockers: 1, clients: 3, ..Shape::default() });
    load.goes_on(50).await;
    let leader = cluster.leader().await;
    let to = (leader + 1) % 3;
    let http = cluster.nodes[leader].http().clone();
    let id = member(&http, &format!("n{}", to + 1)).await["id"].as_str().expect("an id").to_owned();
    http.post(&format!("/v1/members/{id}/transfer"), "").patience(Duration::from_secs(40)).expect(200).await;
    assert_eq!(cluster.leader().await, to);
    load.goes_on(50).await;
    cluster.nodes[to].terminate().await;
    load.goes_on(50).await;
    cluster.nodes[to].restart().await;
    let history = load.stop().await;
    let log = cluster.one_log().await;
    check::holds(&history, &log);
}

async fn member(http: &Http, name: &str) -> Value {
    let members = http.get("/v1/members").expect(200).await.json();
    let items = members["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {members}"))
}

/// As soon as it has caught up.
async fn promote(http: &Http, member: &Value) {
    let path = format!("/v1/members/{}/promote", member["id"].as_str().expect("an id"));
    wait::until("the learner has caught up", Duration::from_secs(40), || async {
        let reply = http.post(&path, "").patience(Duration::from_secs(40)).send().await?;
        anyhow::ensure!(reply.status == 200 && reply.json()["role"] == "voter", "{reply:?}");
        anyhow::Ok(())
    })
    .await;
}
