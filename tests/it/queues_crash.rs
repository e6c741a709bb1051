//! A queue in use while leaders are killed: everything sent is acknowledged once, and is nobody else's meanwhile.

use coracle_tests::check::queues::Verb;
use coracle_tests::cluster::Cluster;
use coracle_tests::load::queues::{QUEUE, QueueLoad};
use coracle_tests::rounds::Rounds;

#[tokio::test(flavor = "multi_thread")]
async fn of_the_leader_loses_no_message() {
    let mut cluster = Cluster::start(3).await;
    let load = QueueLoad::start(cluster.https()).await;
    let mut rounds = Rounds::of(3);
    while rounds.another() {
        load.goes_on(60).await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill9();
        load.goes_on(60).await;
        cluster.nodes[leader].restart().await;
    }
    let history = load.drain().await;
    let log = cluster.one_log().await;
    let mut wrong = history.violations();
    wrong.extend(history.against(&log, QUEUE));
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
    assert!(history.count(Verb::Ack, Some(true)) >= 300, "{}", history.summary());
    assert!(history.lengths.len() >= 100, "it was looked at {} times", history.lengths.len());
    assert!(history.count(Verb::Nack, Some(true)) >= 10, "{}", history.summary());
    assert!(history.deliveries.iter().any(|delivery| delivery.number > 1), "{}", history.summary());
    cluster.converged().await;
}
