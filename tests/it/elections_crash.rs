//! An election in use while leaders of the cluster are killed: one leader for each token, and everybody is told.

use coracle_tests::cluster::Cluster;
use coracle_tests::load::elections::{ELECTION, ElectionLoad};
use coracle_tests::rounds::Rounds;

#[tokio::test(flavor = "multi_thread")]
async fn of_the_leader_makes_no_second_one() {
    let mut cluster = Cluster::start(3).await;
    let load = ElectionLoad::start(cluster.https());
    let mut rounds = Rounds::of(3);
    while rounds.another() {
        load.goes_on(10).await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill9();
        load.goes_on(10).await;
        cluster.nodes[leader].restart().await;
    }
    load.goes_on(10).await;
    let history = load.stop().await;
    let log = cluster.one_log().await;
    let wrong = history.violations(&log, ELECTION);
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
    assert!(history.terms.len() >= 60 && history.spoke.len() >= 60, "{}", history.summary());
    assert!(history.late >= 20, "{}", history.summary());
    assert!(history.observers.iter().all(|seen| seen.len() >= 30), "{}", history.summary());
    let of = |op: &str| log.events("elections").filter(|(_, event)| event.op == op).count();
    assert!(of("expired") >= 3 && of("resigned") >= 10, "some were lost, some resigned");
    cluster.converged().await;
}
