//! Queues and barrier queues while leaders are killed: nothing lost, nothing acknowledged twice, order kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coracle_client::Coracle;
use coracle_client::api::queue::{Barrier, QueueConfig, QueueKind};
use coracle_tests::cluster::Cluster;
use coracle_tests::wait;

const PRODUCERS: usize = 2;
const MESSAGES: usize = 60;
const GROUPS: usize = 5;

/// What a consumer was told, in the order of the calls.
#[derive(Default)]
struct Seen {
    /// Value to the times at which a receive that brought it was answered.
    delivered: BTreeMap<String, Vec<Instant>>,
    /// Value to the time at which its acknowledgement was answered, and in which order that was within its group.
    acked: BTreeMap<String, Instant>,
    order: BTreeMap<String, Vec<String>>,
    twice: Vec<String>,
}

fn client(cluster: &Cluster) -> Coracle {
    let urls: Vec<String> = cluster.nodes.iter().map(coracle_tests::node::Node::url).collect();
    Coracle::builder().endpoints(urls).deadline(Duration::from_mins(1)).build().expect("a client")
}

async fn produce(client: Coracle, producer: usize) {
    let queue = client.queue("work");
    for number in 0..MESSAGES {
        let group = format!("g{}", number % GROUPS);
        let value = format!("{producer}/{group}/{number:04}");
        queue.send(value).group(group).await.expect("sent in time");
    }
}

async fn consume(client: Coracle, seen: Arc<Mutex<Seen>>) {
    let queue = client.queue("work");
    loop {
        let Ok(jobs) = queue.receive().max(3).wait(Duration::from_secs(2)).await else { continue };
        let now = Instant::now();
        for job in jobs {
            let value = String::from_utf8(job.bytes().to_vec()).expect("text");
            let group = job.message().group.clone().expect("a group");
            seen.lock().unwrap().delivered.entry(value.clone()).or_default().push(now);
            // Stale: it took too long while nobody led, and somebody else has it by now.
            let Ok(settled) = queue.ack(vec![job.receipt().to_owned()]).await else { continue };
            if settled.items.first().is_some_and(|item| item.ok) {
                let mut seen = seen.lock().unwrap();
                if seen.acked.insert(value.clone(), Instant::now()).is_some() {
                    seen.twice.push(value.clone());
                }
                seen.order.entry(group).or_default().push(value);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_done_twice_while_leaders_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let client = client(&cluster);
    let config = QueueConfig {
        visibility: Some("4s".parse().expect("a span")),
        max_deliveries: Some(0),
        ..QueueConfig::default()
    };
    client.queue("work").configure(&config).await.expect("configured");
    let seen = Arc::new(Mutex::new(Seen::default()));
    let producers: Vec<_> = (0..PRODUCERS).map(|p| tokio::spawn(produce(client.clone(), p))).collect();
    let consumers: Vec<_> = (0..3).map(|_| tokio::spawn(consume(client.clone(), seen.clone()))).collect();
    for round in 1..=3 {
        wait::until("some are acknowledged", Duration::from_mins(1), || async {
            let acked = seen.lock().unwrap().acked.len();
            anyhow::ensure!(acked >= round * 15, "{acked}");
            anyhow::Ok(())
        })
        .await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill9();
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.nodes[leader].restart().await;
    }
    for producer in producers {
        producer.await.expect("all is sent");
    }
    wait::until("all is acknowledged", Duration::from_secs(90), || async {
        let queue = client.queue("work").show().await?;
        let acked = seen.lock().unwrap().acked.len();
        anyhow::ensure!(queue.length == 0 && acked == PRODUCERS * MESSAGES, "{acked} {queue:?}");
        anyhow::Ok(())
    })
    .await;
    // A delivery that begins now would be one after the acknowledgement.
    tokio::time::sleep(Duration::from_secs(5)).await;
    consumers.iter().for_each(tokio::task::JoinHandle::abort);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.twice, Vec::<String>::new(), "acknowledged twice");
    for (value, acked) in &seen.acked {
        // A receive that was under way may be answered late; one that was asked for after it may not.
        let late = seen.delivered[value].iter().any(|delivered| *delivered > *acked + Duration::from_secs(3));
        assert!(!late, "{value} was delivered after it was acknowledged");
    }
    for (group, values) in &seen.order {
        for producer in 0..PRODUCERS {
            let prefix = format!("{producer}/");
            let of_one: Vec<_> = values.iter().filter(|value| value.starts_with(&prefix)).collect();
            assert!(of_one.is_sorted(), "{group}: {of_one:?}");
            assert_eq!(of_one.len(), MESSAGES / GROUPS, "{group}");
        }
    }
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_is_released_once_and_in_order_while_leaders_are_killed() {
    const SIZE: u64 = 10;
    const GENERATIONS: u64 = 4;
    let mut cluster = Cluster::start(3).await;
    let client = client(&cluster);
    let barrier = Barrier {
        size: Some(SIZE),
        strict: true,
        finalizer: Some(coracle_client::api::queue::Finalizer::default()),
        ..Barrier::default()
    };
    let config = QueueConfig { kind: QueueKind::Barrier, barrier: Some(barrier), ..QueueConfig::default() };
    client.queue("gather").configure(&config).await.expect("configured");
    let sending = {
        let queue = client.queue("gather");
        tokio::spawn(async move {
            for number in 0..SIZE * GENERATIONS {
                queue.send(format!("{number:04}")).id(format!("item-{}", number % SIZE)).await.expect("sent");
            }
        })
    };
    let mut told = Vec::new();
    let mut finals = Vec::new();
    let mut kills = 0;
    while finals.len() < usize::try_from(GENERATIONS).expect("few") {
        let jobs = client.queue("gather").receive().wait(Duration::from_secs(5)).await.expect("received");
        for job in jobs {
            let message = job.message().clone();
            match message.role {
                None => told.push((
                    message.generation.expect("one"),
                    message.ordinal.expect("one"),
                    message.deliveries,
                )),
                Some(_) => finals.push(String::from_utf8(job.bytes().to_vec()).expect("text")),
            }
            // Lost or late: it comes again.
            let _ = job.ack().await;
        }
        if told.len() > 5 + kills * 12 && kills < 3 {
            kills += 1;
            let leader = cluster.leader().await;
            cluster.nodes[leader].kill9();
            tokio::time::sleep(Duration::from_millis(300)).await;
            cluster.nodes[leader].restart().await;
        }
    }
    sending.await.expect("all is sent");
    assert_eq!(kills, 3, "the faults came too late");
    let first: Vec<_> =
        told.iter().filter(|(_, _, deliveries)| *deliveries == 1).map(|(g, o, _)| (*g, *o)).collect();
    let expected: Vec<_> = (1..=GENERATIONS).flat_map(|g| (0..SIZE).map(move |o| (g, o))).collect();
    assert_eq!(first, expected, "{told:?}");
    for (generation, text) in (1..).zip(&finals) {
        let counts: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(counts["generation"], generation, "{finals:?}");
        assert_eq!((&counts["size"], &counts["acked"]), (&SIZE.into(), &SIZE.into()), "{finals:?}");
    }
    cluster.converged().await;
}
