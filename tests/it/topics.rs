//! Topics in use while leaders are killed and the history is compacted: every reader sees the same, once, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coracle_client::api::{SubscriptionConfig, TopicMessage};
use coracle_client::{Coracle, MessageUpdate};
use coracle_tests::cluster::Cluster;
use coracle_tests::rounds::Rounds;
use coracle_tests::wait;
use futures::StreamExt;
use tokio::task::JoinHandle;

const TOPICS: [&str; 2] = ["p.a", "p.b"];
const WRITERS: usize = 3;
/// A message: topic and seq, revision, body.
type Seen = (String, u64, u64, String);

fn seen(message: &TopicMessage) -> Seen {
    let body = message.value.as_str().expect("text").to_owned();
    (message.topic.clone(), message.seq, message.revision, body)
}

/// Publish until told to stop; what was acknowledged, in order.
fn writer(
    client: Coracle,
    number: usize,
    published: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Vec<Seen>> {
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for i in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let (topic, body) = (TOPICS[i % 2], format!("{number}/{i}"));
            // The client repeats under one key until it knows.
            let done = client.topic(topic).publish(body.as_str()).await.expect("a publish that came through");
            acknowledged.push((topic.to_owned(), done.seq, done.revision, body));
            published.fetch_add(1, Ordering::Relaxed);
        }
        acknowledged
    })
}

/// Follow from the beginning up to a message of this body.
fn reader(client: &Coracle, subject: &str, last: &'static str) -> JoinHandle<Vec<Seen>> {
    let mut messages = client.topic(subject).subscribe().heartbeat(Duration::from_secs(1)).from_first();
    tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(update) = messages.next().await {
            match update.expect("a stream that goes on") {
                MessageUpdate::Messages { messages, .. } => all.extend(messages.iter().map(seen)),
                MessageUpdate::Gap { from, to } => panic!("a gap from={from} to={to}"),
                MessageUpdate::Lagged => panic!("lagged"),
                _ => {}
            }
            if all.last().is_some_and(|(.., body)| body == last) {
                break;
            }
        }
        all
    })
}

/// Receive and acknowledge until told to stop; what was acknowledged for certain.
fn consumer(client: &Coracle, stop: Arc<AtomicBool>) -> JoinHandle<Vec<(String, u64)>> {
    let subscription = client.topic("p.*").subscription("work");
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        loop {
            let receive = subscription.receive().max(10).wait(Duration::from_millis(500));
            let received = receive.await.expect("a receive that came through");
            if received.items.is_empty() && stop.load(Ordering::Relaxed) {
                return acknowledged;
            }
            for delivery in received.items {
                let what = (delivery.message.topic.clone(), delivery.message.seq);
                if subscription.ack(vec![delivery.receipt]).await.is_ok() {
                    acknowledged.push(what);
                }
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_die_and_every_reader_sees_the_same_once_and_in_order() {
    let mut cluster = Cluster::start(3).await;
    let urls: Vec<String> = cluster.nodes.iter().map(coracle_tests::node::Node::url).collect();
    // Each client begins with another node.
    let client = async |first: usize| {
        let endpoints = (0..3).map(|i| urls[(first + i) % 3].clone());
        Coracle::connect(endpoints).await.expect("a node that answers")
    };
    let operator = client(0).await;
    let config = SubscriptionConfig {
        from: Some("first".to_owned()),
        visibility: Some("2s".parse().expect("a span")),
        max_deliveries: Some(0),
        ..SubscriptionConfig::default()
    };
    operator.topic("p.*").subscription("work").configure(&config).await.expect("a subscription");

    let (published, stop, drained) = (Arc::default(), Arc::default(), Arc::default());
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        writers.push(writer(client(number).await, number, Arc::clone(&published), Arc::clone(&stop)));
    }
    let subjects = ["p.a", "p.b", "p.*", "p.>", ">"];
    let mut readers = Vec::new();
    for (number, subject) in subjects.iter().enumerate() {
        readers.push(reader(&client(number).await, subject, "last"));
    }
    let consumers =
        [consumer(&client(0).await, Arc::clone(&drained)), consumer(&client(1).await, Arc::clone(&drained))];
    let goes_on = async |count: u64| {
        let goal = published.load(Ordering::Relaxed) + count;
        wait::until("publishing goes on", Duration::from_secs(30), || async {
            let now = published.load(Ordering::Relaxed);
            anyhow::ensure!(now >= goal, "{now} of {goal}");
            anyhow::Ok(())
        })
        .await;
    };
    let mut rounds = Rounds::of(3);
    while rounds.another() {
        goes_on(60).await;
        // A topic is not read from the history: what it keeps is there whatever is compacted.
        cluster.nodes[0].http().post("/v1/maintenance/compact?keep=1", "").expect(200).await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill9();
        goes_on(60).await;
        cluster.nodes[leader].restart().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged: BTreeMap<(String, u64), Seen> = BTreeMap::new();
    for writer in writers {
        let own = writer.await.expect("a writer");
        let mut newest = BTreeMap::new();
        for message in own {
            let (topic, seq) = (message.0.clone(), message.1);
            assert!(
                newest.insert(topic.clone(), seq).is_none_or(|before| before < seq),
                "out of order: {message:?}"
            );
            assert!(acknowledged.insert((topic, seq), message).is_none(), "a seq is given twice");
        }
    }
    for topic in TOPICS {
        operator.topic(topic).publish("last").await.expect("the last message");
    }
    let mut streams = Vec::new();
    for reader in readers {
        streams.push(
            tokio::time::timeout(Duration::from_secs(30), reader).await.expect("in time").expect("a reader"),
        );
    }
    let messages = acknowledged.len() as u64;
    all_see_the_same(&streams, acknowledged.into_values().collect());
    drained.store(true, Ordering::Relaxed);
    let mut settled = BTreeSet::new();
    for consumer in consumers {
        for what in consumer.await.expect("a consumer") {
            assert!(settled.insert(what.clone()), "{what:?} is acknowledged twice");
        }
    }
    // An acknowledgement whose answer was lost came through under its key: nothing is left.
    wait::until("all is settled", Duration::from_secs(20), || async {
        let it = operator.topic("p.*").subscription("work").show().await?;
        anyhow::ensure!(it.lag + it.in_flight + it.returned == 0, "{it:?}");
        anyhow::ensure!(it.acked == messages + 2 && it.dead == 0 && it.gaps == 0, "{it:?}");
        anyhow::Ok(())
    })
    .await;
    cluster.converged().await;
}

/// The first streams are of one topic each, the others of patterns over both.
fn all_see_the_same(streams: &[Vec<Seen>], mut acknowledged: Vec<Seen>) {
    acknowledged.sort_by_key(|(_, seq, revision, _)| (*revision, *seq));
    // Every message that was acknowledged, and no other, in each topic from 1 on without a hole.
    for (stream, topic) in streams.iter().zip(TOPICS) {
        let (last, messages) = stream.split_last().expect("a message");
        assert_eq!(last.3, "last");
        assert!(messages.iter().map(|message| message.1).eq(1..=messages.len() as u64), "{topic} has a hole");
        let of_topic: Vec<_> = acknowledged.iter().filter(|message| message.0 == topic).cloned().collect();
        assert_eq!(messages, of_topic, "{topic}");
    }
    // A pattern ends with the first of the two last messages, or with both.
    for stream in &streams[TOPICS.len()..] {
        let messages: Vec<Seen> = stream.iter().filter(|message| message.3 != "last").cloned().collect();
        assert_eq!(messages, acknowledged, "one order over all topics");
    }
}
