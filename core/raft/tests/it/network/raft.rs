//! openraft's RPCs over the wire.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_raft::network::{Connection, Dialer, Reject};
use coracle_raft::types::{Entry, EntryPayload, Payload, Types, Vote};
use coracle_store::Timestamp;
use futures::StreamExt;
use openraft::errors::RPCError;
use openraft::network::{NetBackoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest, VoteRequest,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use super::fixture::{FakeSnapshot, Myself, Pair, log_id, member, pair, pair_of};

fn option() -> RPCOption {
    RPCOption::new(Duration::from_millis(400))
}

async fn append_client(pair: &Pair) -> Connection<FakeSnapshot> {
    Dialer::new(pair.peers.clone()).new_client(2, &member(pair.server.address())).await
}

async fn heartbeat_client(pair: &Pair) -> Connection<FakeSnapshot> {
    Dialer::new(pair.peers.clone()).new_heartbeat_client(2, &member(pair.server.address())).await
}

/// One entry after `prev`.
fn request(prev: u64) -> AppendEntriesRequest<Types> {
    let command = Bytes::from(vec![b'c'; usize::try_from(prev).unwrap()]);
    let payload = EntryPayload::Normal(Payload { time: Timestamp(prev), command });
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(log_id(prev)),
        entries: vec![Entry { log_id: log_id(prev + 1), payload }],
        leader_commit: Some(log_id(prev)),
    }
}

fn prevs(pair: &Pair) -> Vec<u64> {
    pair.node.raft.appended.lock().unwrap().iter().map(|r| r.prev_log_id.unwrap().index).collect()
}

#[tokio::test]
async fn an_append_arrives_as_it_was_sent() {
    let pair = pair().await;
    let mut client = append_client(&pair).await;
    let response = client.append_entries(request(7), option()).await.unwrap();
    assert_eq!(response, AppendEntriesResponse::Success);
    let received = pair.node.raft.appended.lock().unwrap()[0].clone();
    let sent = request(7);
    assert_eq!((received.vote, received.prev_log_id), (sent.vote, sent.prev_log_id));
    assert_eq!((received.entries, received.leader_commit), (sent.entries, sent.leader_commit));
}

#[tokio::test]
async fn appends_are_pipelined_and_answered_in_order() {
    let pair = pair().await;
    let mut client = append_client(&pair).await;
    pair.node.raft.released.send_replace(0);
    let input = futures::stream::iter((1..=50).map(request));
    let mut answers = client.stream_append(input, option()).await.unwrap();
    let first = tokio::select! {
        biased;
        answer = answers.next() => panic!("nothing was released: {answer:?}"),
        () = pair.node.until(|_| prevs(&pair).len() == 4) => {
            // The next is not sent before the first is answered.
            assert_eq!(prevs(&pair), [1, 2, 3, 4]);
            pair.node.raft.released.send_replace(1);
            answers.next().await
        }
    };
    assert_eq!(first, Some(Ok(Ok(Some(log_id(2))))));
    pair.node.raft.released.send_replace(u64::MAX);
    for prev in 2..=50 {
        assert_eq!(answers.next().await, Some(Ok(Ok(Some(log_id(prev + 1))))));
    }
    assert_eq!(answers.next().await, None);
    assert_eq!(prevs(&pair), (1..=50).collect::<Vec<_>>());
}

/// Nothing but what is committed, after `prev`.
fn commit(prev: u64) -> AppendEntriesRequest<Types> {
    AppendEntriesRequest { entries: Vec::new(), ..request(prev) }
}

#[tokio::test]
async fn what_is_committed_is_told_and_not_asked() {
    let pair = pair().await;
    let mut client = append_client(&pair).await;
    // The peer answers the first, and would never answer the second.
    pair.node.raft.released.send_replace(1);
    client.append_entries(request(1), option()).await.expect("a connection that is open");
    let input = futures::stream::iter([request(1), commit(2)]);
    let answers: Vec<_> = client.stream_append(input, option()).await.unwrap().collect().await;
    assert_eq!(answers, [Ok(Ok(Some(log_id(2)))), Ok(Ok(Some(log_id(2))))]);
    pair.node.until(|_| prevs(&pair) == [1, 1, 2]).await;
}

#[tokio::test]
async fn a_claim_is_asked_before_it_is_told() {
    let pair = pair().await;
    let mut client = append_client(&pair).await;
    *pair.node.raft.answer.lock().unwrap() = Arc::new(Box::new(|_| AppendEntriesResponse::Conflict));
    for input in [vec![commit(3)], vec![request(3), commit(4)]] {
        let input = futures::stream::iter(input);
        let answers: Vec<_> = client.stream_append(input, option()).await.unwrap().collect().await;
        assert_eq!(answers, [Ok(Err(StreamAppendError::Conflict(log_id(3))))]);
    }
}

#[tokio::test]
async fn a_stream_stops_at_the_first_bad_answer() {
    type Answers = Box<dyn Fn(u64) -> AppendEntriesResponse<Types> + Send + Sync>;
    let bad: [(Answers, _); 3] = [
        (
            Box::new(
                |n| if n == 3 { AppendEntriesResponse::Conflict } else { AppendEntriesResponse::Success },
            ),
            Ok(Err(StreamAppendError::Conflict(log_id(3)))),
        ),
        (
            Box::new(|n| match n {
                3 => AppendEntriesResponse::HigherVote(Vote::new(9, 9)),
                _ => AppendEntriesResponse::Success,
            }),
            Ok(Err(StreamAppendError::HigherVote(Vote::new(9, 9)))),
        ),
        (
            Box::new(|n| match n {
                3 => AppendEntriesResponse::PartialSuccess(Some(log_id(3))),
                _ => AppendEntriesResponse::Success,
            }),
            Ok(Ok(Some(log_id(3)))),
        ),
    ];
    let pair = pair().await;
    let mut client = append_client(&pair).await;
    for (answer, expected) in bad {
        *pair.node.raft.answer.lock().unwrap() = Arc::new(answer);
        let input = futures::stream::iter((1..=50).map(request));
        let answers: Vec<_> = client.stream_append(input, option()).await.unwrap().collect().await;
        assert_eq!(answers, [Ok(Ok(Some(log_id(2)))), Ok(Ok(Some(log_id(3)))), expected]);
    }
}

#[tokio::test]
async fn a_heartbeat_has_a_short_deadline_and_a_connection_of_its_own() {
    let pair = pair().await;
    pair.node.raft.released.send_replace(5);
    let mut appends = append_client(&pair).await;
    let mut heartbeats = heartbeat_client(&pair).await;
    let stuck = appends.append_entries(request(8), option());
    let started = Instant::now();
    let beats = async {
        pair.node.until(|_| !prevs(&pair).is_empty()).await;
        for _ in 0..3 {
            let input = futures::stream::iter([request(5)]);
            let answers: Vec<_> = heartbeats.stream_append(input, option()).await.unwrap().collect().await;
            assert_eq!(answers, [Ok(Ok(Some(log_id(6))))]);
        }
        let late: Vec<_> = heartbeats
            .stream_append(futures::stream::iter([request(9)]), option())
            .await
            .unwrap()
            .collect()
            .await;
        let elapsed = started.elapsed();
        assert!(matches!(late[..], [Err(RPCError::Timeout(_))]), "{late:?}");
        assert!(elapsed >= Duration::from_millis(300), "{elapsed:?}");
        pair.node.raft.released.send_replace(u64::MAX);
    };
    let (stuck, ()) = tokio::join!(stuck, beats);
    assert_eq!(stuck.unwrap(), AppendEntriesResponse::Success);
}

#[tokio::test]
async fn votes_and_pre_votes_are_told_apart() {
    let pair = pair().await;
    let mut client = append_client(&pair).await;
    let mut request = VoteRequest::new(Vote::new(5, 1), Some(log_id(4)));
    request.leadership_transfer = true;
    let response = client.vote(request.clone(), option()).await.unwrap();
    assert!(response.vote_granted);
    assert_eq!((response.vote, response.last_log_id), (request.vote, request.last_log_id));
    let response = client.pre_vote(request.clone(), option()).await.unwrap();
    assert!(!response.vote_granted, "the fake grants no pre-vote; a default implementation would");
    assert_eq!(*pair.node.raft.votes.lock().unwrap(), [request.clone(), request]);
}

#[tokio::test]
async fn a_member_removed_meanwhile_is_told_when_it_campaigns() {
    let removed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_removed = removed.clone();
    let judge =
        Myself::judging(
            2,
            move |_| if is_removed.load(Ordering::SeqCst) { Err(Reject::Removed) } else { Ok(()) },
        );
    let candidate = Myself::new(1);
    let pair = pair_of(candidate.clone(), judge, None, None).await;
    let mut client = append_client(&pair).await;
    let request = VoteRequest::new(Vote::new(5, 1), None);
    client.pre_vote(request.clone(), option()).await.unwrap();
    removed.store(true, Ordering::SeqCst);
    let response = client.pre_vote(request, option()).await;
    assert!(response.is_err(), "{response:?}");
    assert_eq!(candidate.refusals(), [(2, Reject::Removed)]);
    assert_eq!(pair.node.raft.votes.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_without_raft_is_unreachable() {
    let pair = pair().await;
    let mut client = append_client(&pair).await;
    let request = TransferLeaderRequest::new(Vote::new_committed(5, 1), 2, Some(log_id(4)));
    let response = client.transfer_leader(request.clone(), option()).await;
    assert!(
        matches!(&response, Err(RPCError::Unreachable(e)) if e.to_string().contains("stopped")),
        "{response:?}"
    );
    assert_eq!(*pair.node.raft.transfers.lock().unwrap(), [request]);
    pair.server.close();
    let response = loop {
        match client.vote(VoteRequest::new(Vote::new(5, 1), None), option()).await {
            // The connection of before has not been noticed to be gone.
            Err(RPCError::Network(_)) => {}
            response => break response,
        }
    };
    assert!(matches!(response, Err(RPCError::Unreachable(_))), "{response:?}");
    assert!(NetBackoff::<Types>::backoff(&client).unwrap().nth(9).unwrap() > Duration::ZERO);
}
