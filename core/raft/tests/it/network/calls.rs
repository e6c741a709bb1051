//! Requests and their answers, late answers, lost ones.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coracle_raft::network::{CallError, Peers};
use tokio::sync::mpsc;

use super::fixture::{Mode, Myself, Wire, listen, member, pair, soon};

fn unreachable<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::Unreachable(reason)) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn ten_thousand_requests_arrive_in_order_and_one_slow_answer_holds_up_nobody() {
    let pair = pair().await;
    let slow = pair.peers.ask(2, Instant::now() + Duration::from_millis(900), |out| out.extend(b"hold"));
    let (done, mut answers) = mpsc::unbounded_channel();
    let mut answered = 0;
    for batch in 0..4 {
        for n in batch * 2500..(batch + 1) * 2500_u32 {
            let done = done.clone();
            let encode = |out: &mut Vec<u8>| out.extend_from_slice(&n.to_le_bytes());
            pair.peers.forward(2, soon(), encode, move |answer| done.send((n, answer)).unwrap());
        }
        for _ in 0..2500 {
            let (n, answer) = answers.recv().await.unwrap();
            assert_eq!(answer.unwrap(), n.to_le_bytes().as_slice());
            assert_eq!(n, answered);
            answered += 1;
        }
    }
    let received = pair.node.requests.lock().unwrap().clone();
    assert_eq!(received.len(), 10_001);
    for (n, request) in (0_u32..).zip(&received[1..]) {
        assert_eq!(request, n.to_le_bytes().as_slice());
    }
    assert_eq!(slow.await, Err(CallError::Timeout));
    // The answer that comes too late finds nobody, and the connection goes on.
    pair.node.held.lock().unwrap().pop().unwrap().send(b"late");
    assert_eq!(pair.ask("after").await.unwrap(), "after");
    let traffic = pair.peers.traffic();
    assert_eq!(traffic.iter().map(|(_, _, t)| t.timeouts).sum::<u64>(), 1);
    assert_eq!(traffic.iter().map(|(_, _, t)| t.connects).sum::<u64>(), 1);
}

#[tokio::test]
async fn each_request_has_its_own_deadline() {
    let pair = pair().await;
    let started = Instant::now();
    let order = Arc::new(Mutex::new(Vec::new()));
    for (name, after) in [("c", 300), ("a", 100), ("b", 200)] {
        let order = order.clone();
        let deadline = started + Duration::from_millis(after);
        pair.peers.forward(
            2,
            deadline,
            |out| out.extend(b"hold"),
            move |answer| {
                assert_eq!(answer, Err(CallError::Timeout));
                assert!(Instant::now() >= deadline);
                order.lock().unwrap().push(name);
            },
        );
    }
    pair.node.until(|_| order.lock().unwrap().len() == 3).await;
    assert_eq!(*order.lock().unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn too_many_pending_are_refused_at_once() {
    let pair = pair().await;
    let answers = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..8192 {
        let answers = answers.clone();
        let done = move |answer| answers.lock().unwrap().push(answer);
        pair.peers.forward(2, soon(), |out| out.extend(b"hold"), done);
    }
    assert_eq!(pair.ask("one more").await, Err(CallError::Overloaded));
    pair.node.until(|node| node.held.lock().unwrap().len() == 8192).await;
    pair.node.held.lock().unwrap().pop().unwrap().send(b"done");
    pair.node.until(|_| !answers.lock().unwrap().is_empty()).await;
    assert_eq!(pair.ask("one more").await.unwrap(), "one more");
    pair.peers.close();
    pair.node.until(|_| answers.lock().unwrap().len() == 8192).await;
    let answers = answers.lock().unwrap();
    assert_eq!(answers[0], Ok("done".into()));
    assert!(answers[1..].iter().all(|answer| *answer == Err(CallError::Lost)));
}

#[tokio::test]
async fn a_dropped_request_is_answered_all_the_same() {
    let pair = pair().await;
    assert_eq!(pair.ask("drop").await, Err(CallError::Failed("the request was dropped".into())));
}

#[tokio::test]
async fn answers_may_come_from_any_thread() {
    let pair = pair().await;
    let ask = pair.ask("hold");
    let answer = async {
        pair.node.until(|node| node.held.lock().unwrap().len() == 1).await;
        let reply = pair.node.held.lock().unwrap().pop().unwrap();
        std::thread::spawn(move || reply.send_with(|out| out.extend(b"from afar"))).join().unwrap();
    };
    assert_eq!(tokio::join!(ask, answer).0.unwrap(), "from afar");
}

#[tokio::test]
async fn large_requests_and_answers_pass() {
    let pair = pair().await;
    let large = "x".repeat(5_000_000);
    for _ in 0..3 {
        assert!(pair.ask(&large).await.unwrap() == large);
    }
    let oversize = pair.peers.ask(2, soon(), |out| out.resize(out.len() + (64 << 20), 0)).await;
    assert_eq!(unreachable(oversize), "the request is too large");
    assert_eq!(pair.ask("small").await.unwrap(), "small");
}

#[tokio::test]
async fn nobody_there_means_no_effect() {
    let closed = listen().await.local_addr().unwrap();
    let peers = Peers::new(Myself::new(1), None).unwrap();
    assert_eq!(unreachable(peers.ask(2, soon(), |_| {}).await), "not a known member");
    peers.learn(2, &member(closed));
    assert!(unreachable(peers.ask(2, soon(), |_| {}).await).contains("refused"));
    assert_eq!(peers.reachable(2), Some(false));
}

/// What waits for a connection was not written, however it ends.
#[tokio::test]
async fn a_deadline_before_the_connection_means_no_effect() {
    // The backlog accepts; nobody says hello.
    let mute = listen().await;
    let peers = Peers::new(Myself::new(1), None).unwrap();
    peers.learn(2, &member(mute.local_addr().unwrap()));
    let early = peers.ask(2, Instant::now() + Duration::from_millis(100), |out| out.extend(b"early"));
    let late = peers.ask(2, soon(), |out| out.extend(b"late"));
    assert_eq!(unreachable(early.await), "no connection before the deadline");
    assert_eq!(unreachable(late.await), "no connection in time");
}

/// An expired request is taken out of the buffer, not sent to have an effect nobody expects any more.
#[tokio::test]
async fn what_expired_while_connecting_is_never_sent() {
    let pair = pair().await;
    let wire = Wire::to(pair.server.address()).await;
    wire.set(Mode::Hold);
    pair.peers.learn(2, &member(wire.address));
    let ask = |text: &'static str, millis| {
        let deadline = Instant::now() + Duration::from_millis(millis);
        pair.peers.ask(2, deadline, move |out| out.extend(text.as_bytes()))
    };
    let (first, expired, last) = (ask("first", 9000), ask("expired", 80), ask("last", 9000));
    assert_eq!(unreachable(expired.await), "no connection before the deadline");
    wire.set(Mode::Through);
    assert_eq!((first.await.unwrap(), last.await.unwrap()), ("first".into(), "last".into()));
    assert_eq!(*pair.node.requests.lock().unwrap(), ["first", "last"]);
}

#[tokio::test]
async fn a_peer_that_dies_within_a_frame_leaves_the_outcome_open_and_is_found_again() {
    let pair = pair().await;
    let wire = Wire::to(pair.server.address()).await;
    pair.peers.learn(2, &member(wire.address));
    assert_eq!(pair.ask("warm up").await.unwrap(), "warm up");
    let pending = pair.ask("hold");
    let cut = async {
        pair.node.until(|node| node.requests.lock().unwrap().len() == 2).await;
        wire.set(Mode::CutAfter(10_000));
        pair.ask(&"y".repeat(100_000)).await
    };
    let (pending, cut) = tokio::join!(pending, cut);
    assert_eq!((pending, cut), (Err(CallError::Lost), Err(CallError::Lost)));
    // Half a frame is no request.
    assert_eq!(pair.node.requests.lock().unwrap().len(), 2);
    wire.set(Mode::Through);
    let found_again = async {
        loop {
            match pair.ask("again").await {
                Ok(answer) => return answer,
                Err(e) => assert!(!e.effect_unknown(), "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(3), found_again).await.unwrap();
    assert_eq!(answer, "again");
}

#[tokio::test]
async fn a_wire_that_swallows_everything_is_noticed_by_its_silence() {
    let pair = pair().await;
    let wire = Wire::to(pair.server.address()).await;
    pair.peers.learn(2, &member(wire.address));
    // A slow answer is not silence: pings are answered.
    let slow = pair.peers.ask(2, Instant::now() + Duration::from_millis(2600), |out| out.extend(b"hold"));
    assert_eq!(slow.await, Err(CallError::Timeout));
    wire.set(Mode::Hole);
    let started = Instant::now();
    assert_eq!(pair.ask("into the void").await, Err(CallError::Lost));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// Longer on its way than a dead peer is given; nothing is heard meanwhile.
#[tokio::test]
async fn a_slow_wire_is_not_taken_for_dead() {
    let pair = pair().await;
    let wire = Wire::to(pair.server.address()).await;
    pair.peers.learn(2, &member(wire.address));
    wire.set(Mode::Slow);
    let started = Instant::now();
    let large = "z".repeat(2_500_000);
    assert!(pair.ask(&large).await.unwrap() == large);
    assert!(started.elapsed() > Duration::from_millis(2500), "not slow: {:?}", started.elapsed());
    assert_eq!(pair.peers.traffic().iter().map(|(_, _, t)| t.connects).sum::<u64>(), 1);
}

#[tokio::test]
async fn a_member_that_moves_is_followed() {
    let (before, after) = (pair().await, pair().await);
    assert_eq!(before.ask("here").await.unwrap(), "here");
    let pending = before.ask("hold");
    let moved = async {
        before.node.until(|node| node.requests.lock().unwrap().len() == 2).await;
        before.peers.learn(2, &member(after.server.address()));
    };
    assert_eq!(tokio::join!(pending, moved).0, Err(CallError::Lost));
    let arrived = async {
        while before.ask("there").await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), arrived).await.unwrap();
    assert_eq!(*after.node.requests.lock().unwrap(), ["there"]);
}

#[tokio::test]
async fn closing_fails_what_is_pending() {
    let pair = pair().await;
    let pending = pair.ask("hold");
    let close = async {
        pair.node.until(|node| !node.requests.lock().unwrap().is_empty()).await;
        pair.peers.close();
    };
    assert_eq!(tokio::join!(pending, close).0, Err(CallError::Lost));
    assert_eq!(unreachable(pair.ask("more").await), "not a known member");
}

#[tokio::test]
async fn a_listener_that_closes_leaves_no_connection() {
    let pair = pair().await;
    let pending = pair.ask("hold");
    let close = async {
        pair.node.until(|node| !node.requests.lock().unwrap().is_empty()).await;
        pair.server.close();
    };
    assert_eq!(tokio::join!(pending, close).0, Err(CallError::Lost));
    // An answer to a connection that is gone goes nowhere.
    pair.node.held.lock().unwrap().pop().unwrap().send(b"late");
    let address = pair.server.address();
    let gone = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(3), gone).await.unwrap();
}
