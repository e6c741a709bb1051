//! kill -9 under mixed load: nothing acknowledged is lost, nothing is applied twice, all nodes agree.

use std::time::{Duration, Instant};

use coracle_tests::check;
use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::load::{Load, Shape};
use coracle_tests::rounds::Rounds;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Writes between two faults, so that each fault meets a busy cluster.
const BETWEEN: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn of_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(cluster.https(), Shape::default());
    let mut pauses = Vec::new();
    let mut rounds = Rounds::of(4);
    while rounds.another() {
        load.goes_on(BETWEEN).await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill9();
        pauses.push(until_a_write(&cluster.https(), leader).await);
        load.goes_on(BETWEEN).await;
        cluster.nodes[leader].restart().await;
    }
    end(cluster, load).await;
    pauses.sort_unstable();
    println!("kill -9 of the leader to the next write: median {:?} of {pauses:?}", pauses[pauses.len() / 2]);
    assert!(pauses[pauses.len() / 2] < Duration::from_secs(10), "{pauses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_follower() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(cluster.https(), Shape::default());
    let mut rounds = Rounds::of(3);
    while rounds.another() {
        load.goes_on(BETWEEN).await;
        let follower = cluster.follower().await;
        cluster.nodes[follower].kill9();
        load.goes_on(BETWEEN).await;
        cluster.nodes[follower].restart().await;
    }
    end(cluster, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_at_once() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(cluster.https(), Shape::default());
    let mut rounds = Rounds::of(3);
    while rounds.another() {
        load.goes_on(BETWEEN).await;
        for node in &mut cluster.nodes {
            node.kill9();
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.ready().await;
    }
    end(cluster, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_only_node() {
    let mut cluster = Cluster::start(1).await;
    let load = Load::start(cluster.https(), Shape::default());
    let mut rounds = Rounds::of(5);
    while rounds.another() {
        load.goes_on(BETWEEN).await;
        cluster.nodes[0].kill9();
        cluster.nodes[0].restart().await;
    }
    end(cluster, load).await;
}

/// Whatever comes: kills and pauses of one, of two, of all, one after the other and at once.
#[tokio::test(flavor = "multi_thread")]
async fn and_pauses_of_anybody() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(cluster.https(), Shape::default());
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut rounds = Rounds::of(4);
    while rounds.another() {
        load.goes_on(random.random_range(1..100)).await;
        let mut paused = Vec::new();
        for index in 0..3 {
            match random.random_range(0..4) {
                0 => cluster.nodes[index].kill9(),
                1 => {
                    cluster.nodes[index].pause();
                    paused.push(index);
                }
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..2500))).await;
        for index in 0..3 {
            if !cluster.nodes[index].runs() {
                cluster.nodes[index].start();
            }
        }
        for index in paused {
            cluster.nodes[index].resume();
        }
        cluster.ready().await;
    }
    end(cluster, load).await;
}

/// What was read before a crash is read after it, and the log of before begins the log of after.
#[tokio::test(flavor = "multi_thread")]
async fn leaves_the_log_as_it_was() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(cluster.https(), Shape::default());
    load.goes_on(300).await;
    load.stop().await;
    let before = cluster.one_log().await;
    let state = cluster.converged().await;
    for node in &mut cluster.nodes {
        node.kill9();
        node.start();
    }
    cluster.ready().await;
    assert_eq!(cluster.converged().await, state);
    let after = cluster.one_log().await;
    assert_eq!(before, after);
    cluster.nodes[0].http().put("/v1/kv/after", "x").expect(201).await;
    let later = cluster.one_log().await;
    assert_eq!(later.changes[..before.changes.len()], before.changes[..]);
    assert_eq!(later.revision(), before.revision() + 1);
}

/// How long it takes until a write through one of the other nodes is acknowledged.
async fn until_a_write(nodes: &[Http], except: usize) -> Duration {
    let start = Instant::now();
    let mut node = except;
    loop {
        node = (node + 1) % nodes.len();
        if node == except {
            continue;
        }
        let call = nodes[node].put("/v1/kv/probe", "x").patience(Duration::from_secs(1));
        if call.send().await.is_ok_and(|reply| reply.status < 300) {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no write for 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends the load and judges it.
async fn end(mut cluster: Cluster, load: Load) {
    load.goes_on(BETWEEN).await;
    let history = load.stop().await;
    let log = cluster.one_log().await;
    println!("longest pause between writes: {:?}", history.longest_pause());
    check::holds(&history, &log);
    check::did_enough(&history, 10);
}
