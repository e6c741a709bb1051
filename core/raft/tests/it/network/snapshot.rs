//! Snapshots between peers.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use coracle_raft::network::{Connection, Dialer};
use coracle_raft::types::{Membership, SnapshotMeta, StoredMembership, Vote};
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::RPCOption;
use openraft::{RaftNetworkFactory, RaftNetworkV2, Snapshot};

use super::fixture::{FakeSnapshot, Mode, Pair, Wire, log_id, member, pair};

fn meta() -> SnapshotMeta {
    let member = member("127.0.0.1:1".parse().unwrap());
    let membership =
        Membership::new(vec![[1].into()], std::collections::BTreeMap::from([(1, member)])).unwrap();
    SnapshotMeta {
        last_log_id: Some(log_id(9)),
        last_membership: StoredMembership::new(Some(log_id(3)), membership),
    }
}

/// `bytes` of content, none like its neighbour.
fn snapshot(
    bytes: usize,
) -> openraft::Snapshot<
    coracle_raft::types::CommittedLeaderId,
    coracle_raft::types::NodeId,
    coracle_raft::types::Member,
    FakeSnapshot,
> {
    let content = (0..bytes).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect();
    Snapshot { meta: meta(), snapshot: FakeSnapshot(content) }
}

async fn client(pair: &Pair, rate: Option<u64>) -> Connection<FakeSnapshot> {
    let dialer = Dialer::new(pair.peers.clone());
    let mut dialer = match rate {
        Some(rate) => dialer.with_snapshot_rate(rate),
        None => dialer,
    };
    dialer.new_snapshot_client(2, &member(pair.server.address())).await
}

fn option() -> RPCOption {
    RPCOption::new(Duration::from_mins(1))
}

#[tokio::test]
async fn a_snapshot_arrives_whole() {
    let pair = pair().await;
    let vote = Vote::new_committed(4, 1);
    for bytes in [0, 1, 99_999, 100_000, 3_000_001] {
        let sent = snapshot(bytes);
        let content = sent.snapshot.0.clone();
        let answer =
            client(&pair, None).await.full_snapshot(vote, sent, futures::future::pending(), option()).await;
        // What Raft there says about the vote comes back as it is.
        assert_eq!(answer.unwrap().vote, Vote::new(1, 1));
        let installed = pair.node.raft.installed.lock().unwrap().pop().unwrap();
        assert!(installed == (vote, meta(), content), "{bytes}");
    }
    assert_eq!(pair.node.discarded.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_cancelled_transfer_leaves_nothing_behind() {
    let pair = pair().await;
    let mut client = client(&pair, Some(1_000_000)).await;
    let begun = pair.node.begun.clone();
    let cancel = async move {
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ReplicationClosed::new("enough")
    };
    let started = Instant::now();
    let answer = client.full_snapshot(Vote::new(1, 1), snapshot(10_000_000), cancel, option()).await;
    assert!(matches!(answer, Err(StreamingError::Closed(_))), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    pair.node.until(|node| node.discarded.load(Ordering::SeqCst) == 1).await;
    assert!(pair.node.raft.installed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_rate_is_kept() {
    let pair = pair().await;
    let mut client = client(&pair, Some(1_000_000)).await;
    let started = Instant::now();
    client
        .full_snapshot(Vote::new(1, 1), snapshot(400_000), futures::future::pending(), option())
        .await
        .unwrap();
    assert!(started.elapsed() >= Duration::from_millis(390), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_refused_snapshot_says_why() {
    let pair = pair().await;
    let mut client = client(&pair, None).await;
    let answer =
        client.full_snapshot(Vote::new(1, 1), snapshot(13), futures::future::pending(), option()).await;
    let Err(StreamingError::Unreachable(e)) = answer else { panic!("{answer:?}") };
    assert!(e.to_string().contains("no thirteen bytes today"), "{e}");
}

#[tokio::test]
async fn a_transfer_cut_off_is_discarded() {
    let pair = pair().await;
    let wire = Wire::to(pair.server.address()).await;
    wire.set(Mode::CutAfter(500_000));
    let mut client: Connection<FakeSnapshot> =
        Dialer::new(pair.peers.clone()).new_snapshot_client(2, &member(wire.address)).await;
    let answer = client
        .full_snapshot(Vote::new(1, 1), snapshot(2_000_000), futures::future::pending(), option())
        .await;
    assert!(matches!(answer, Err(StreamingError::Network(_))), "{answer:?}");
    pair.node.until(|node| node.discarded.load(Ordering::SeqCst) == 1).await;
    assert!(pair.node.raft.installed.lock().unwrap().is_empty());
}
