//! More requests than there are places for: refused at once and cheaply, while what gives back is still taken.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::http::{Http, Reply};
use coracle_tests::wait;
use tokio::task::JoinHandle;

const PLACES: usize = 8;
const REFUSED: usize = 200;
const PATIENCE: Duration = Duration::from_secs(50);

/// A log that does not get on fills all places; then only what frees something is taken. Nothing taken is lost.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_log_that_stands_still() {
    let mut cluster = Cluster::start_with(3, &["--max-requests", "8", "--request-timeout", "40s"]).await;
    let leader = cluster.leader().await;
    let http = cluster.nodes[leader].http().clone();
    let session = http.post("/v1/sessions?ttl=10m", "").expect(201).await.member("id");
    http.post(&format!("/v1/locks/door/acquire?session={session}"), "").expect(200).await;
    let before = cluster.nodes[leader].resident_bytes();
    for follower in (0..3).filter(|node| *node != leader) {
        cluster.nodes[follower].pause();
    }

    let puts: Vec<_> = (0..PLACES)
        .map(|n| sent(http.put(&format!("/v1/kv/taken/{n}"), "x").patience(PATIENCE).send()))
        .collect();
    in_flight(&http, PLACES).await;
    for n in 0..REFUSED {
        let refused =
            http.put(&format!("/v1/kv/refused/{n}"), vec![b'x'; 100_000]).refused(503, "overloaded").await;
        assert_eq!(refused.header("retry-after"), "1", "{refused:?}");
        assert_eq!(refused.member("effect"), "none");
    }
    let release = format!("/v1/locks/door/release?session={session}");
    let release = sent(http.post(&release, "").patience(PATIENCE).send());
    let renewal = sent(http.post(&format!("/v1/sessions/{session}/renew"), "").patience(PATIENCE).send());
    // Beyond the places, and not refused.
    in_flight(&http, PLACES + 2).await;
    http.get("/livez").expect(200).await;
    let grown = cluster.nodes[leader].resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for {REFUSED} refused requests");

    for follower in (0..3).filter(|node| *node != leader) {
        cluster.nodes[follower].resume();
    }
    for put in puts {
        let reply = put.await.expect("no panic");
        // If the others have chosen another leader, it may be unknown whether it came to be.
        assert!(reply.status == 201 || reply.code() != "overloaded", "{reply:?}");
    }
    for freed in [release, renewal] {
        let reply = freed.await.expect("no panic");
        assert!(reply.status < 300 || reply.code() != "overloaded", "{reply:?}");
    }
    in_flight(&http, 0).await;
    for n in 0..REFUSED {
        let path = format!("/v1/kv/refused/{n}");
        assert_eq!(http.get(&path).send().await.expect("an answer").status, 404, "{path}");
    }
    wait::until("a write after it", Duration::from_secs(20), || async {
        let reply = http.put("/v1/kv/after", "x").send().await?;
        anyhow::ensure!(reply.status < 300, "{reply:?}");
        anyhow::Ok(())
    })
    .await;
    cluster.converged().await;
}

fn sent(call: impl Future<Output = anyhow::Result<Reply>> + Send + 'static) -> JoinHandle<Reply> {
    tokio::spawn(async move { call.await.expect("an answer") })
}

/// Waits until so many requests are worked on, beside the one that asks.
async fn in_flight(http: &Http, count: usize) {
    wait::until("so many requests are in flight", Duration::from_secs(20), || async {
        let metrics = http.get("/metrics").send().await?.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("coracle_requests_in_flight "));
        let now: usize = line.unwrap_or_default().parse()?;
        anyhow::ensure!(now == count + 1, "{now} of {}", count + 1);
        anyhow::Ok(())
    })
    .await;
}
