//! Traps that were real bugs of others, across the recipes. Those of one recipe stand in its conversations.

use coracle_recipes::queue::{self, Config, MessageId, Nack, Receipt, Receipts, Receive, Send, Terms};
use coracle_recipes::topic::{self, Draft, Publish, Settings as Durable, Settle, Start};
use coracle_recipes::{Operation, Outcome, barrier, election, group, latch, lock, semaphore, service};
use coracle_store::{
    Action, Attach, ContentType, Millis, Refusal as StoreRefusal, Revision, SessionId, Settings, Timestamp,
};

use crate::driver::{self, Driver, No};

const ANN: SessionId = SessionId(1);

fn ann() -> Attach {
    Attach::Session(ANN)
}

fn message(dedup_id: Option<&str>) -> queue::Message {
    queue::Message { dedup_id: dedup_id.map(Into::into), ..driver::message() }
}

fn send(driver: &mut Driver, message: queue::Message) -> Result<queue::Sent, No> {
    let wanted = Send { queue: "q".into(), messages: vec![message], attach: Attach::None };
    match driver.run(&Operation::Queue(queue::Operation::Send(wanted)))? {
        Outcome::Queue(queue::Outcome::Sent(sent)) => Ok(sent[0]),
        other => panic!("{other:?}"),
    }
}

fn receive(driver: &mut Driver, max: u32, attach: Attach) -> Vec<Receipt> {
    let terms = Terms { max, visibility: None, bound: attach != Attach::None, at_most_once: false };
    let receive = Receive { queue: "q".into(), terms, attach, wait: false, acks: Vec::new() };
    match driver.run(&Operation::Queue(queue::Operation::Receive(receive))).unwrap() {
        Outcome::Queue(queue::Outcome::Delivered(delivered)) => delivered
            .messages
            .iter()
            .map(|message| Receipt { id: message.id, delivery: message.delivery })
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn receipts(receipt: Receipt) -> Receipts {
    Receipts { queue: "q".into(), receipts: vec![receipt], all: true }
}

fn acquire(lock: &str) -> Operation {
    Operation::Lock(lock::Operation::Acquire(lock::Acquire {
        lock: lock.into(),
        mode: lock::Mode::Exclusive,
        attach: ann(),
        owner: "".into(),
        meta: "".into(),
        wait: true,
        reentrant: false,
        convert: false,
    }))
}

fn permits(semaphore: &str) -> Operation {
    Operation::Semaphore(semaphore::Operation::Acquire(semaphore::Acquire {
        semaphore: semaphore.into(),
        permits: 1,
        limit: Some(1),
        attach: ann(),
        owner: "".into(),
        meta: "".into(),
        wait: true,
    }))
}

fn campaign(election: &str) -> Operation {
    Operation::Election(election::Operation::Campaign(election::Campaign {
        election: election.into(),
        candidacy: election::Candidacy {
            priority: 0,
            value: b"here".to_vec().into(),
            content_type: ContentType::Text,
        },
        attach: ann(),
        owner: "".into(),
        wait: true,
    }))
}

fn publish(topic: &str) -> Operation {
    let draft = Draft {
        key: None,
        ttl: None,
        body: b"news".to_vec().into(),
        content_type: ContentType::Text,
        headers: Vec::new(),
        dead: None,
    };
    Operation::Topic(topic::Operation::Publish(Publish {
        topic: topic.into(),
        messages: vec![draft],
        expect_last_seq: None,
    }))
}

fn join(group: &str) -> Operation {
    Operation::Group(group::Operation::Join(group::Join {
        group: group.into(),
        id: "w".into(),
        attach: ann(),
        payload: b"busy".to_vec().into(),
        content_type: ContentType::Text,
        progress: None,
    }))
}

fn register(service: &str) -> Operation {
    Operation::Service(service::Operation::Register(Box::new(service::Register {
        named: instance(service),
        description: service::Description { address: "h".into(), weight: 100, ..Default::default() },
        status: service::Status::Passing,
        attach: ann(),
    })))
}

fn instance(service: &str) -> service::Named {
    service::Named { service: service.into(), id: "i".into(), generation: None }
}

fn enter(barrier: &str) -> Operation {
    Operation::Barrier(barrier::Operation::Enter(barrier::Enter {
        barrier: barrier.into(),
        id: "w".into(),
        attach: ann(),
        wait: true,
        generation: None,
    }))
}

/// Whoever cannot add anything can still give back everything, of every recipe; then there is room again.
#[test]
fn quota_full_then_ack() {
    let mut driver = Driver::new();
    assert!(driver.open(ANN.0));
    let config = barrier::Config { kind: barrier::Kind::Cyclic, parties: 2, exact: false, timeout: None };
    let create = barrier::Create { barrier: "b".into(), config, members: Vec::new() };
    driver.run(&Operation::Barrier(barrier::Operation::Create(create))).unwrap();
    let create = latch::Create { latch: "l".into(), count: 2, members: Vec::new() };
    driver.run(&Operation::Latch(latch::Operation::Create(create))).unwrap();
    let news = topic::Name { subject: "t".into(), name: "s".into() };
    let settings = Durable {
        mode: topic::Mode::Shared,
        visibility: Millis(60_000),
        max_deliveries: 5,
        dead_letter: None,
        filter: None,
    };
    driver.run(&Operation::Topic(topic::Operation::Subscribe(news.clone(), settings, Start::New))).unwrap();
    let grow = |thing: &str| {
        [acquire(thing), permits(thing), campaign(thing), publish(thing), join(thing), register(thing)]
    };
    for operation in grow("t").iter().chain([&enter("b")]) {
        driver.run(operation).unwrap();
    }
    for _ in 0..4 {
        send(&mut driver, message(None)).unwrap();
    }
    let held = receive(&mut driver, 4, ann());
    let receive = topic::Receive {
        from: news.clone(),
        attach: Attach::None,
        max: 9,
        visibility: None,
        acks: Vec::new(),
        ack: false,
    };
    let Ok(Outcome::Topic(topic::Outcome::Received(told))) =
        driver.run(&Operation::Topic(topic::Operation::Receive(receive)))
    else {
        panic!("the news were not received")
    };
    let quota_bytes = driver.store.live_bytes();
    driver.action(Action::Configure(Settings { quota_bytes, ..Settings::default() })).unwrap();
    let full = |result: Result<Outcome, No>| {
        assert!(matches!(result, Err(No::Store(StoreRefusal::QuotaExceeded(..)))), "{result:?}");
    };
    for operation in grow("more") {
        full(driver.run(&operation));
    }
    assert!(matches!(send(&mut driver, message(None)), Err(No::Store(StoreRefusal::QuotaExceeded(..)))));
    // Fatal: a dead letter is as large as what died; nothing is lost for want of room.
    let fatal = Nack { fatal: true, ..Nack::default() };
    let claim = |name: &str| (Box::<str>::from(name), ANN, None);
    let (name, session, token) = claim("t");
    let back = [
        Operation::Queue(queue::Operation::Ack(receipts(held[0]))),
        Operation::Queue(queue::Operation::Nack(receipts(held[1]), fatal)),
        Operation::Queue(queue::Operation::Nack(receipts(held[2]), Nack::default())),
        Operation::Queue(queue::Operation::Remove("q".into(), held[3].id)),
        Operation::Queue(queue::Operation::Purge("q".into(), Revision(u64::MAX), true)),
        Operation::Topic(topic::Operation::Settle(
            news.clone(),
            vec![told.deliveries[0].receipt],
            Settle::Ack,
        )),
        Operation::Lock(lock::Operation::Release(lock::Claim { lock: name.clone(), session, token })),
        Operation::Semaphore(semaphore::Operation::Release(semaphore::Claim {
            semaphore: name.clone(),
            session,
            token,
        })),
        Operation::Election(election::Operation::Resign(
            election::Claim { election: name.clone(), session, token },
            false,
        )),
        Operation::Group(group::Operation::Leave(group::Leave {
            group: name,
            id: "w".into(),
            session: Some(ANN),
        })),
        Operation::Barrier(barrier::Operation::Leave(barrier::Claim {
            barrier: "b".into(),
            id: "w".into(),
            session: Some(ANN),
            generation: None,
        })),
        Operation::Service(service::Operation::Deregister(instance("t"))),
    ];
    for operation in &back {
        driver.run(operation).unwrap_or_else(|no| panic!("{operation:?}: {no:?}"));
    }
    assert!(driver.close(&[ANN.0]), "a session can always be closed");
    assert!(driver.store.live_bytes() < quota_bytes, "there is room again, with nothing to re-arm");
    send(&mut driver, message(None)).unwrap();
}

/// Timers are keys: those of before a restart run out after it, and those that were taken back do not.
#[test]
fn timers_of_before_a_restart_run_out_after_it() {
    let mut driver = Driver::new();
    let config = Config { visibility: Millis(5_000), ..Config::default() };
    driver.run(&Operation::Queue(queue::Operation::Configure("q".into(), Some(config)))).unwrap();
    send(&mut driver, message(None)).unwrap();
    send(&mut driver, queue::Message { delay: Millis(3_000), ..message(None) }).unwrap();
    let first = receive(&mut driver, 9, Attach::None);
    assert_eq!(first.len(), 1);
    driver.restart();
    assert_eq!(driver.store.due(), Some(Timestamp(3_001)), "the delay is next");
    driver.wait(3_000);
    driver.restart();
    let second = receive(&mut driver, 9, Attach::None);
    assert_eq!(second.len(), 1, "its delay was over");
    driver.run(&Operation::Queue(queue::Operation::Ack(receipts(second[0])))).unwrap();
    driver.restart();
    driver.wait(2_000);
    assert_eq!(receive(&mut driver, 9, Attach::None)[0].id, first[0].id, "nobody settled it in time");
    driver.restart();
    let again = Receipt { delivery: driver.store.revision(), ..first[0] };
    driver.run(&Operation::Queue(queue::Operation::Ack(receipts(again)))).unwrap();
    assert_eq!(driver.store.due(), None, "nothing is left to wait for");
}

/// A dedup id is remembered for its window, whatever becomes of the message and of the node.
#[test]
fn a_duplicate_is_known_after_a_purge_and_a_restart() {
    let mut driver = Driver::new();
    let config = Config { dedup_window: Millis(10_000), ..Config::default() };
    driver.run(&Operation::Queue(queue::Operation::Configure("q".into(), Some(config)))).unwrap();
    let first = send(&mut driver, message(Some("once"))).unwrap();
    driver.run(&Operation::Queue(queue::Operation::Purge("q".into(), Revision(u64::MAX), true))).unwrap();
    let known = |driver: &mut Driver, id: MessageId| {
        let sent = send(driver, message(Some("once"))).unwrap();
        sent.duplicate && sent.id == id
    };
    assert!(known(&mut driver, first.id), "purged is not forgotten");
    driver.restart();
    driver.wait(9_999);
    assert!(known(&mut driver, first.id), "nor is it by a restart");
    assert!(receive(&mut driver, 9, Attach::None).is_empty());
    driver.wait(1);
    driver.restart();
    let second = send(&mut driver, message(Some("once"))).unwrap();
    assert!(!second.duplicate && second.id != first.id, "the window is over");
}
