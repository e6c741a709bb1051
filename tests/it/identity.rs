//! Data directories that are not what their node believes: wiped, rolled back, foreign, swapped.

use std::fs;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::files;
use coracle_tests::node::Node;
use coracle_tests::wait;

/// Writes through a node that runs, so that there is something to lose.
async fn write(cluster: &Cluster, through: usize, prefix: &str) {
    for n in 0..20 {
        let path = format!("/v1/kv/{prefix}/{n}");
        wait::until("a write", Duration::from_secs(20), || async {
            let reply = cluster.nodes[through].http().put(&path, "x").send().await?;
            anyhow::ensure!(reply.status < 300, "{reply:?}");
            anyhow::Ok(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_directory_under_the_old_name_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    write(&cluster, leader, "before").await;
    cluster.converged().await;
    let wiped = cluster.follower().await;
    cluster.nodes[wiped].kill9();
    fs::remove_dir_all(cluster.nodes[wiped].data()).expect("wiped");
    let said = cluster.nodes[wiped].refuses_to_start().await;
    assert!(said.contains("refused by member"), "{said}");
    write(&cluster, leader, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_directory_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    write(&cluster, leader, "early").await;
    let node = cluster.follower().await;
    cluster.nodes[node].kill9();
    let copy = cluster.folder().join("copy");
    files::copy(cluster.nodes[node].data(), &copy);
    cluster.nodes[node].restart().await;
    write(&cluster, node, "late").await;
    cluster.converged().await;
    cluster.nodes[node].kill9();
    files::restore(&copy, cluster.nodes[node].data());
    let said = cluster.nodes[node].refuses_to_start().await;
    assert!(said.contains("refused by member"), "{said}");
    write(&cluster, leader, "after").await;
}

/// Only the log is of yesterday: the high-water mark beside it knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_log_is_refused_without_any_peer() {
    let mut cluster = Cluster::start(1).await;
    write(&cluster, 0, "early").await;
    cluster.nodes[0].kill9();
    let copy = cluster.folder().join("copy");
    files::copy(&cluster.nodes[0].data().join("log"), &copy);
    cluster.nodes[0].restart().await;
    write(&cluster, 0, "late").await;
    cluster.nodes[0].terminate().await;
    files::restore(&copy, &cluster.nodes[0].data().join("log"));
    let said = cluster.nodes[0].refuses_to_start().await;
    assert!(said.contains("HIGH-WATER") || said.contains("high-water") || said.contains("lost"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    write(&cluster, leader, "a").await;
    cluster.converged().await;
    let (one, two) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.nodes[one].kill9();
    let copy = cluster.folder().join("copy");
    files::copy(cluster.nodes[one].data(), &copy);
    cluster.nodes[one].restart().await;
    cluster.nodes[two].kill9();
    files::restore(&copy, cluster.nodes[two].data());
    let said = cluster.nodes[two].refuses_to_start().await;
    println!("{said}");
    write(&cluster, leader, "b").await;
    assert!(cluster.nodes[one].runs() && cluster.nodes[leader].runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let mut alone = Cluster::start(1).await;
    write(&alone, 0, "other").await;
    alone.nodes[0].kill9();
    let leader = cluster.leader().await;
    write(&cluster, leader, "a").await;
    let node = cluster.follower().await;
    cluster.nodes[node].kill9();
    files::restore(alone.nodes[0].data(), cluster.nodes[node].data());
    let said = cluster.nodes[node].refuses_to_start().await;
    println!("{said}");
    write(&cluster, leader, "b").await;
    let list = cluster.nodes[leader].http().get("/v1/kv?prefix=other&count_only=true").expect(200).await;
    assert_eq!(list.number("count"), 0);
}

/// Whoever is told to join never founds a cluster of its own, also after a start that was cut short.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_told_to_join_never_founds() {
    let cluster = Cluster::start(1).await;
    let url = cluster.nodes[0].url();
    let mut node = Node::new("n2", cluster.folder()).with(&["--join", &url]);
    fs::create_dir_all(node.data()).expect("a folder");
    fs::write(node.data().join("LOCK"), "").expect("written");
    node.restart().await;
    let (old, new) =
        (cluster.nodes[0].status().await.expect("an answer"), node.status().await.expect("an answer"));
    assert_eq!(old["cluster_id"], new["cluster_id"]);
    assert_ne!(old["member_id"], new["member_id"]);
    // With the flag still there it stays who it is.
    node.kill9();
    node.restart().await;
    assert_eq!(node.status().await.expect("an answer")["member_id"], new["member_id"]);
    // With something else in its directory it refuses, and nobody was admitted.
    let mut other = Node::new("n3", cluster.folder()).with(&["--join", &url]);
    fs::create_dir_all(other.data().join("lost+found")).expect("a folder");
    let said = other.refuses_to_start().await;
    assert!(said.contains("lost+found"), "{said}");
    let members = cluster.nodes[0].http().get("/v1/members").expect(200).await.json();
    assert_eq!(members["items"].as_array().map(Vec::len), Some(2), "{members}");
}

#[tokio::test(flavor = "multi_thread")]
async fn founders_that_were_told_different_things_never_form_a_majority() {
    let mut cluster = Cluster::prepare(2);
    for (index, token) in ["one", "two"].iter().enumerate() {
        cluster.nodes[index].add(&["--cluster-token", token]);
        cluster.nodes[index].start();
    }
    // One may see the other's refusal and stop; whichever lives is not ready.
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while std::time::Instant::now() < end {
        for node in &mut cluster.nodes {
            if !node.runs() {
                assert!(node.log().contains("cluster"), "{}", node.log());
                continue;
            }
            if let Ok(reply) = node.http().get("/readyz").patience(Duration::from_secs(3)).send().await {
                assert_eq!(reply.status, 503, "{reply:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
