//! Who talks to whom, and who is told what.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_raft::network::{CallError, Class, Limits, Local, Peers, Reject, Server};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::fixture::{CLUSTER, FakeNode, Myself, listen, member, pair, pair_of};

#[tokio::test]
async fn peers_of_one_cluster_talk() {
    let pair = pair().await;
    assert_eq!(pair.peers.reachable(2), None);
    assert_eq!(pair.ask("hello").await.unwrap(), "hello");
    assert_eq!(pair.peers.reachable(2), Some(true));
    let traffic = pair.peers.traffic();
    let (_, _, forward) = *traffic.iter().find(|(_, class, _)| *class == Class::Forward).unwrap();
    assert_eq!((forward.connects, forward.frames_out, forward.frames_in), (1, 1, 1));
    assert_eq!((forward.bytes_out, forward.bytes_in), (18, 18));
    assert!(forward.round_trip > Duration::ZERO);
    // The listener is counted from its side, greetings aside.
    assert_eq!(pair.server.traffic().connects, 1);
}

#[tokio::test]
async fn a_foreign_cluster_is_refused_and_told() {
    let stranger = Myself::of_cluster(1, 7);
    let pair = pair_of(stranger.clone(), Myself::new(2), None, None).await;
    let reject = Reject::ForeignCluster { theirs: CLUSTER };
    assert_eq!(pair.ask("hello").await, Err(CallError::Refused(reject.clone())));
    assert_eq!(stranger.refusals(), [(2, reject)]);
    assert!(pair.node.requests.lock().unwrap().is_empty());
    assert_eq!(pair.peers.reachable(2), Some(false));
}

#[tokio::test]
async fn another_node_at_the_address_is_noticed() {
    let dialler = Myself::new(1);
    let pair = pair_of(dialler.clone(), Myself::new(3), None, None).await;
    let reject = Reject::WrongNode { theirs: 3 };
    assert_eq!(pair.ask("hello").await, Err(CallError::Refused(reject.clone())));
    assert_eq!(dialler.refusals(), [(2, reject)]);
}

#[tokio::test]
async fn a_removed_member_is_told_when_it_dials() {
    let removed = Myself::new(1);
    let judge = Myself::judging(2, |peer| if peer.from == 1 { Err(Reject::Removed) } else { Ok(()) });
    let pair = pair_of(removed.clone(), judge, None, None).await;
    assert_eq!(pair.ask("hello").await, Err(CallError::Refused(Reject::Removed)));
    assert_eq!(removed.refusals(), [(2, Reject::Removed)]);
    // For a while nothing is dialled in vain.
    assert_eq!(pair.ask("hello").await, Err(CallError::Refused(Reject::Removed)));
    assert_eq!(removed.refusals().len(), 1);
}

#[tokio::test]
async fn a_removed_member_is_told_when_it_is_dialled() {
    let judge = Myself::judging(1, |_| Err(Reject::Removed));
    let removed = Myself::new(2);
    let pair = pair_of(judge, removed.clone(), None, None).await;
    assert_eq!(pair.ask("hello").await, Err(CallError::Refused(Reject::Removed)));
    pair.node.until(|_| !removed.refusals().is_empty()).await;
    assert_eq!(removed.refusals(), [(1, Reject::Removed)]);
}

/// Judges as a node does that has seen index 5 from its peer, and counts how often.
fn has_seen_five(id: u64, judged: &Arc<AtomicUsize>) -> Arc<Myself> {
    let judged = judged.clone();
    Myself::judging(id, move |peer| {
        judged.fetch_add(1, Ordering::SeqCst);
        if peer.last_log < 5 { Err(Reject::RolledBack { seen: 5 }) } else { Ok(()) }
    })
}

#[tokio::test]
async fn rolled_back_data_is_refused_on_either_side() {
    let judged = Arc::default();
    let (old, seen) = (Myself::new(1), has_seen_five(2, &judged));
    let pair = pair_of(old.clone(), seen, None, None).await;
    let reject = Reject::RolledBack { seen: 5 };
    assert_eq!(pair.ask("hello").await, Err(CallError::Refused(reject.clone())));
    assert_eq!(old.refusals(), [(2, reject.clone())]);

    let (seen, old) = (has_seen_five(1, &judged), Myself::new(2));
    let pair = pair_of(seen, old.clone(), None, None).await;
    assert_eq!(pair.ask("hello").await, Err(CallError::Refused(reject.clone())));
    pair.node.until(|_| !old.refusals().is_empty()).await;
    assert_eq!(old.refusals(), [(1, reject)]);
    assert_eq!(judged.load(Ordering::SeqCst), 2);
}

/// A greeting says how much log there was when it was written. A node that stores entries meanwhile has not lost them.
#[tokio::test]
async fn a_greeting_overtaken_by_events_is_asked_for_again() {
    let judged = Arc::default();
    let (growing, seen) = (Myself::new(1), has_seen_five(2, &judged));
    growing.grows.store(5, Ordering::SeqCst);
    let pair = pair_of(growing.clone(), seen, None, None).await;
    assert_eq!(pair.ask("hello").await.unwrap(), "hello");
    assert_eq!(growing.refusals(), []);

    let (seen, growing) = (has_seen_five(1, &judged), Myself::new(2));
    growing.grows.store(5, Ordering::SeqCst);
    let pair = pair_of(seen, growing.clone(), None, None).await;
    assert_eq!(pair.ask("hello").await.unwrap(), "hello");
    assert_eq!(growing.refusals(), []);
    assert_eq!(judged.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn silent_and_surplus_connections_are_closed() {
    let limits = Limits { connections: 2, handshake: Duration::from_secs(1), ..Limits::default() };
    let local: Arc<dyn Local> = Myself::new(2);
    let server = Server::start(listen().await, None, limits, local, FakeNode::new()).unwrap();
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(server.address()).await.unwrap());
    }
    let mut surplus = TcpStream::connect(server.address()).await.unwrap();
    assert_eq!(surplus.read(&mut [0]).await.unwrap_or(0), 0);
    for connection in &silent {
        let read = connection.try_read(&mut [0]).expect_err("the surplus one is not kept waiting");
        assert_eq!(read.kind(), std::io::ErrorKind::WouldBlock);
    }
    for mut connection in silent {
        assert_eq!(connection.read(&mut [0]).await.unwrap_or(0), 0);
    }
    let peers = Peers::new(Myself::new(1), None).unwrap();
    peers.learn(2, &member(server.address()));
    let answer = peers.ask(2, super::fixture::soon(), |out| out.push(b'x')).await;
    assert_eq!(answer.unwrap(), "x");
}
