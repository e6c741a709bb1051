//! SIGSTOP and SIGCONT: a node that was away does not know it, and still never answers with the past.

use std::time::Duration;

use coracle_tests::check;
use coracle_tests::cluster::Cluster;
use coracle_tests::load::{Load, Shape};
use coracle_tests::rounds::Rounds;
use coracle_tests::wait;

/// Longer than any election.
const AWAY: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn of_the_leader_under_load() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(cluster.https(), Shape::default());
    let mut rounds = Rounds::of(2);
    while rounds.another() {
        load.goes_on(100).await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].pause();
        // The time itself is the fault.
        tokio::time::sleep(AWAY).await;
        cluster.nodes[leader].resume();
        load.goes_on(100).await;
    }
    let history = load.stop().await;
    let log = cluster.one_log().await;
    check::holds(&history, &log);
    check::did_enough(&history, 5);
}

/// Reads that a paused leader finds in its sockets when it wakes up.
#[tokio::test(flavor = "multi_thread")]
async fn of_the_leader_leaves_no_stale_read() {
    let mut cluster = Cluster::start(3).await;
    let mut rounds = Rounds::of(2);
    while rounds.another() {
        let leader = cluster.leader().await;
        let old = cluster.nodes[leader].http().clone();
        let other = cluster.nodes[(leader + 1) % 3].http().clone();
        let before = other.put("/v1/kv/register", "before").send().await.expect("an answer").revision();
        old.get("/v1/kv/register").expect(200).await;
        cluster.nodes[leader].pause();
        let newest = wait::until("a write without the paused leader", Duration::from_secs(20), || async {
            let reply = other.put("/v1/kv/register", "after").send().await?;
            anyhow::ensure!(reply.status == 200, "{reply:?}");
            anyhow::Ok(reply.revision())
        })
        .await;
        assert!(newest > before);
        let reads: Vec<_> = (0..8)
            .map(|_| {
                let old = old.clone();
                tokio::spawn(async move { old.get("/v1/kv/register").send().await })
            })
            .collect();
        // On their way; how far they have got does not matter.
        tokio::task::yield_now().await;
        cluster.nodes[leader].resume();
        for read in reads {
            let Ok(reply) = read.await.expect("no panic") else { continue };
            if reply.status == 200 {
                assert_eq!(reply.text(), "after", "a stale read: {reply:?}");
                assert!(reply.revision() >= newest, "{reply:?}");
            } else {
                assert!(reply.status >= 500, "{reply:?}");
                reply.check_problem();
            }
        }
        let seen = wait::until("the resumed node serves again", Duration::from_secs(20), || async {
            let reply = old.get("/v1/kv/register").send().await?;
            anyhow::ensure!(reply.status == 200, "{reply:?}");
            anyhow::Ok(reply.text())
        })
        .await;
        assert_eq!(seen, "after");
    }
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_follower_costs_nothing() {
    let mut cluster = Cluster::start(3).await;
    let follower = cluster.follower().await;
    cluster.nodes[follower].pause();
    for n in 0..50 {
        let node = &cluster.nodes[(follower + 1 + n % 2) % 3];
        node.http().put(&format!("/v1/kv/n{n}"), "x").expect(201).await;
    }
    cluster.nodes[follower].resume();
    let reply = cluster.nodes[follower].http().get("/v1/kv?prefix=n&count_only=true").expect(200).await;
    assert_eq!(reply.number("count"), 50);
    cluster.converged().await;
}
