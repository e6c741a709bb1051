//! A node without a majority: an honest no within its deadline, never a yes.

use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::wait;

/// The default of `--request-timeout`, and some time for a busy machine.
const DEADLINE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn follower_says_no_leader() {
    cut_off(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_says_no_leader() {
    cut_off(true).await;
}

async fn cut_off(leader: bool) {
    let mut cluster = Cluster::start(3).await;
    let alone = if leader { cluster.leader().await } else { cluster.follower().await };
    let http = cluster.nodes[alone].http().clone();
    http.put("/v1/kv/a", "1").expect(201).await;
    let session = http.post("/v1/sessions?ttl=1m", "").expect(201).await.member("id");
    http.get("/v1/kv/a").expect(200).await;
    let others: Vec<usize> = (0..3).filter(|index| *index != alone).collect();
    for &other in &others {
        cluster.nodes[other].pause();
    }
    let calls = [
        ("GET", "/v1/kv/a".to_owned()),
        ("GET", "/v1/kv?prefix=a".to_owned()),
        ("PUT", "/v1/kv/a".to_owned()),
        ("DELETE", "/v1/kv/a".to_owned()),
        ("POST", "/v1/txn".to_owned()),
        ("POST", "/v1/sessions".to_owned()),
        ("POST", format!("/v1/sessions/{session}/renew")),
        ("POST", format!("/v1/locks/l/acquire?session={session}")),
        ("GET", "/v1/kv?prefix=a&watch=true".to_owned()),
    ];
    let ask = |method: &str, path: &str| {
        let call = http.call(method.parse().expect("a method"), path).patience(DEADLINE);
        let call = if path == "/v1/txn" {
            call.body(r#"{"then":[{"op":"put","key":"a","value":"2"}]}"#)
        } else {
            call
        };
        async move {
            let start = Instant::now();
            let reply = call.send().await.unwrap_or_else(|error| panic!("{error:#}"));
            assert!(start.elapsed() < DEADLINE, "{reply:?}");
            assert!(matches!(reply.status, 503 | 504), "without a majority: {reply:?}");
            reply.check_problem();
            if reply.status == 503 {
                assert_eq!(reply.json()["effect"], "none", "{reply:?}");
            }
            reply
        }
    };
    // All at once, so that the deadlines do not add up. The first round may still find a leader that hopes.
    futures::future::join_all(calls.iter().map(|(method, path)| ask(method, path))).await;
    let path = &calls[0].1;
    wait::until("it knows that it is alone", Duration::from_secs(20), || async {
        let reply = ask("GET", path).await;
        if reply.code() == "no_leader" { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    for reply in futures::future::join_all(calls.iter().map(|(method, path)| ask(method, path))).await {
        assert_eq!(reply.code(), "no_leader", "{reply:?}");
    }
    // What needs no majority still works.
    http.get("/v1/kv/a?consistency=stale").expect(200).await;
    http.get("/v1/cluster").expect(200).await;
    http.get("/livez").expect(200).await;
    http.get("/metrics").expect(200).await;
    http.get("/readyz").expect(503).await;
    for &other in &others {
        cluster.nodes[other].resume();
    }
    wait::until("it serves again", Duration::from_secs(20), || async {
        let reply = http.put("/v1/kv/b", "2").send().await?;
        anyhow::ensure!(reply.status < 300, "{reply:?}");
        anyhow::Ok(())
    })
    .await;
    cluster.converged().await;
}
