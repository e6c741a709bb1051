//! Every call of the handles, made once: that a server knows its path, its method and its parameters is checked against
//! the document by the scripted server itself.

use std::time::Duration;

use coracle_client::api::queue::{MessageState, OnBreak, QueueConfig};
use coracle_client::api::{
    AcquireMany, BarrierConfig, BarrierKind, Code, Holding, LockConfig, MemberAdd, ServiceConfig,
    SubscriptionConfig, TopicConfig,
};
use coracle_client::{Coracle, Fence, Nack};

use crate::fake::{Fake, Reply};
use crate::sessions::ID;

const SECOND: Duration = Duration::from_secs(1);

async fn refusing() -> (Fake, Coracle) {
    // No is an answer to anything: what is asked is the point here.
    let server = Fake::start(|_| Reply::problem(Code::QueueNotFound)).await;
    let client = Coracle::builder().endpoints([server.url.as_str()]).deadline(SECOND).build().unwrap();
    (server, client)
}

/// Await each call, whatever it answers.
macro_rules! each {
    ($($call:expr),* $(,)?) => { $(assert!($call.await.is_err(), stringify!($call));)* };
}

#[tokio::test]
async fn of_queues_and_topics() {
    let (server, client) = refusing().await;
    let (queue, nack) = (
        client.queue("a b"),
        Nack { delay: Some(SECOND), uncounted: true, fatal: true, reason: Some("x".into()) },
    );
    let session = ID.parse().unwrap();
    let fence = Fence::new("locks/boss", 7);
    let send = queue.send("x").group("g").priority(1).delay(SECOND).ttl(SECOND).dedup_id("d").id("i");
    each![
        send.session(session).wait(SECOND).header("n", "v").fence(fence.clone()),
        queue.send_all(vec![coracle_client::api::Value::from("x").into()]),
        queue.receive().max(2).visibility(SECOND).session(session).wait(SECOND),
        queue.ack(vec!["r".into()]),
        queue.nack(vec!["r".into()], &nack),
        queue.renew(vec!["r".into()], Some(SECOND)),
        queue.show(),
        queue.configure(&QueueConfig::default()),
        queue.delete(),
        queue.messages(Some(MessageState::InFlight)),
        queue.peek(Some(MessageState::Held), 3),
        queue.message("7-0"),
        queue.remove("7-0"),
        queue.purge(),
        queue.redrive(Some("other")),
        queue.close(),
        queue.open(),
        queue.open_with(Some(&fence)),
        queue.signal("go", Some(&fence)),
        queue.break_generation("why", Some(OnBreak::CarryOver)),
        client.queues().list("a"),
    ];
    let topic = client.topic("a.*");
    let subscription = topic.subscription("s");
    let publish = topic.publish("x").key("k").ttl(SECOND).expect_last_seq(1).header("n", "v");
    each![
        publish.fence(fence),
        topic.publish_all(Vec::new()),
        topic.read(0, 3),
        topic.read(7, 3),
        topic.last(),
        topic.subscriptions(),
        topic.show(),
        topic.configure(&TopicConfig::default()),
        topic.delete(),
        client.topics().list("a"),
        subscription.configure(&SubscriptionConfig::default()),
        subscription.show(),
        subscription.delete(),
        subscription.seek("first"),
        subscription.receive().max(2).visibility(SECOND).session(session).wait(SECOND),
        subscription.ack(vec!["r".into()]),
        subscription.nack(vec!["r".into()], &nack),
        subscription.renew(vec!["r".into()], None),
    ];
    assert!(server.lines().len() >= 39);
}

#[tokio::test]
async fn of_claims() {
    let (server, client) = refusing().await;
    let session = ID.parse().unwrap();
    let (locks, semaphores, election) = (client.locks(), client.semaphores(), client.election("e"));
    each![
        locks.list(),
        locks.show("l"),
        locks.break_holds("l", "why"),
        locks.transfer("l", session, session),
        locks.release("l", session),
        locks.configure("l", &LockConfig::default()),
        locks.acquire_all(session, &AcquireMany::default(), SECOND),
        semaphores.list(),
        semaphores.show("s"),
        semaphores.set_limit("s", 3),
        semaphores.break_holds("s", "why"),
        semaphores.transfer("s", session, session),
        election.show(),
        election.resign(session, true),
        election.transfer(session, session),
        client.elections().list(),
        client.sessions().list(),
        client.sessions().show(session),
        client.sessions().renew(session),
        client.sessions().close(session),
        client.txn().release(Holding::Semaphore("s".into()), session),
    ];
    assert_eq!(server.lines().len(), 21);
}

#[tokio::test]
async fn of_meetings_counters_groups_and_fences() {
    let (server, client) = refusing().await;
    let config = BarrierConfig {
        kind: BarrierKind::Gate,
        parties: None,
        exact: None,
        timeout: None,
        members: Vec::new(),
    };
    let (barrier, latch, counter) = (client.barrier("b"), client.latch("l"), client.counter("c"));
    let (group, fence) = (client.group("g"), client.fence("f"));
    each![
        barrier.create(&config),
        barrier.show(),
        barrier.delete(),
        barrier.enter("w").ttl(SECOND).wait(SECOND).wait_for_all(),
        barrier.enter("w").session_id(ID.parse().unwrap()).wait_for_all(),
        barrier.leave("w", SECOND),
        barrier.open(),
        barrier.close(),
        barrier.wait_open(SECOND),
        client.barriers().list("a"),
        latch.create(3),
        latch.create_for(["a"]),
        latch.count_down("a"),
        latch.wait(SECOND),
        latch.show(),
        latch.delete(),
        client.latches().list("a"),
        counter.add(-1).min(-2).max(2),
        counter.reserve(100),
        counter.set(7).if_match(3),
        counter.set(7).if_absent(),
        counter.get(),
        counter.delete(),
        client.counters().list("a"),
        group.show(),
        group.shares(16),
        group.wait_for(3, SECOND),
        group.remove("w"),
        client.groups().list("a"),
        fence.check(7),
        fence.show(),
        fence.delete(),
        client.fences().list("a"),
    ];
    assert!(server.lines().len() >= 33);
}

#[tokio::test]
async fn of_services_and_the_cluster() {
    let (server, client) = refusing().await;
    let (service, cluster) = (client.service("s"), client.cluster());
    let added = MemberAdd { name: "n".into(), peer: "h:1".into(), client_url: "http://h:2".into() };
    each![
        service.configure(&ServiceConfig::default()),
        service.drain("i", SECOND),
        client.services().list(),
        cluster.status(),
        cluster.members(),
        cluster.member("1"),
        cluster.add(&added),
        cluster.remove("1"),
        cluster.promote("1"),
        cluster.transfer("1"),
        cluster.hash(),
        cluster.compact(7),
        cluster.compact_to(7),
    ];
    assert_eq!(server.lines().len(), 13);
}
