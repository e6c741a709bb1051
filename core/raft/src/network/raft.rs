//! openraft's view of the network.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use futures::future::{Either, ready};
use futures::stream::{self, Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2, Snapshot};
use tokio::time::Instant;

use super::client::{CallError, Peers};
use super::hello::Class;
use super::messages as m;
use super::snapshot::{Outgoing, Transfer};
use super::wire::Kind;
use crate::codec::Malformed;
use crate::types::{CommittedLeaderId, LogId, Member, NodeId, Types, Vote};

/// Appends on their way to one follower. More would only make the batches smaller.
const PIPELINE: usize = 4;
/// For the follower to fsync a batch. A dead connection is noticed much sooner, by its silence.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);

/// Makes openraft's clients; `S` is the snapshot the state machine builds.
pub struct Dialer<S> {
    peers: Peers,
    rate: Option<u64>,
    snapshot: PhantomData<fn() -> S>,
}

impl<S: Outgoing> Dialer<S> {
    #[must_use]
    pub fn new(peers: Peers) -> Self {
        Self { peers, rate: None, snapshot: PhantomData }
    }

    /// Send each snapshot at no more than so many bytes a second.
    #[must_use]
    pub fn with_snapshot_rate(self, bytes_per_second: u64) -> Self {
        Self { rate: Some(bytes_per_second), ..self }
    }

    fn connection(&self, target: NodeId, member: &Member, class: Class) -> Connection<S> {
        self.peers.learn(target, member);
        Connection { peers: self.peers.clone(), target, class, rate: self.rate, snapshot: PhantomData }
    }
}

impl<S: Outgoing> RaftNetworkFactory<Types> for Dialer<S> {
    type Network = Connection<S>;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Connection<S> {
        self.connection(target, member, Class::Append)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, member: &Member) -> Connection<S> {
        self.connection(target, member, Class::Control)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, member: &Member) -> Connection<S> {
        self.connection(target, member, Class::Snapshot)
    }
}

/// openraft's client for one target and purpose.
pub struct Connection<S> {
    peers: Peers,
    target: NodeId,
    class: Class,
    rate: Option<u64>,
    snapshot: PhantomData<fn() -> S>,
}

type Rpc<T> = Result<T, RPCError<Types>>;

/// What an append claims: the log before it, and the log after it.
type Span = (Option<LogId>, Option<LogId>);

fn span(request: &AppendEntriesRequest<Types>) -> Span {
    let prev = request.prev_log_id;
    (prev, request.entries.last().map(|entry| entry.log_id).or(prev))
}

impl<S: Outgoing> Connection<S> {
    /// Queued when this is called, answered when the future is.
    fn call<T>(
        &self,
        (class, kind, action): (Class, Kind, RPCTypes),
        patience: Duration,
        encode: &dyn Fn(&mut Vec<u8>),
        decode: fn(&[u8]) -> Result<T, Malformed>,
    ) -> impl Future<Output = Rpc<T>> + Send + use<S, T> {
        let answer = self.peers.request(self.target, class, kind, Instant::now() + patience, encode);
        let (peers, target) = (self.peers.clone(), self.target);
        async move {
            match answer.await {
                Ok(body) => decode(&body).map_err(|e| RPCError::Network(NetworkError::new(&e))),
                Err(CallError::Timeout) => {
                    Err(RPCError::Timeout(Timeout { action, id: peers.id(), target, timeout: patience }))
                }
                Err(e @ (CallError::Lost | CallError::Overloaded)) => {
                    Err(RPCError::Network(NetworkError::new(&e)))
                }
                Err(e @ (CallError::Unreachable(_) | CallError::Refused(_) | CallError::Failed(_))) => {
                    Err(RPCError::Unreachable(Unreachable::new(&e)))
                }
            }
        }
    }

    fn append(
        &self,
        request: &AppendEntriesRequest<Types>,
        option: &RPCOption,
    ) -> impl Future<Output = Rpc<AppendEntriesResponse<Types>>> + Send + use<S> {
        let (class, patience) = match self.class {
            Class::Control => (Class::Control, option.soft_ttl()),
            _ => (Class::Append, option.soft_ttl().max(APPEND_DEADLINE)),
        };
        let call = (class, Kind::Append, RPCTypes::AppendEntries);
        self.call(call, patience, &|out| m::put_append(out, request), m::append_response)
    }

    fn tell(&self, request: &AppendEntriesRequest<Types>) -> bool {
        self.peers.tell(self.target, Class::Append, Kind::Commit, |out| m::put_append(out, request))
    }

    fn control<T>(
        &self,
        (kind, action): (Kind, RPCTypes),
        option: &RPCOption,
        encode: &dyn Fn(&mut Vec<u8>),
        decode: fn(&[u8]) -> Result<T, Malformed>,
    ) -> impl Future<Output = Rpc<T>> + Send + use<S, T> {
        self.call((Class::Control, kind, action), option.soft_ttl(), encode, decode)
    }
}

/// The answer to one append of a stream, and whether the stream goes on after it.
fn judge(
    (prev, last): Span,
    response: Rpc<AppendEntriesResponse<Types>>,
) -> (Rpc<StreamAppendResult<Types>>, bool) {
    match response {
        Ok(AppendEntriesResponse::Success) => (Ok(Ok(last)), true),
        Ok(AppendEntriesResponse::PartialSuccess(matched)) => (Ok(Ok(matched)), matched == last),
        Ok(AppendEntriesResponse::HigherVote(vote)) => (Ok(Err(StreamAppendError::HigherVote(vote))), false),
        Ok(AppendEntriesResponse::Conflict) => {
            let nonsense = || NetworkError::from_string("the peer reports a conflict with an empty log");
            let conflict = prev.ok_or_else(|| RPCError::Network(nonsense()));
            (conflict.map(|prev| Err(StreamAppendError::Conflict(prev))), false)
        }
        Err(e) => (Err(e), false),
    }
}

impl<S: Outgoing> RaftNetworkV2<Types> for Connection<S> {
    type SnapshotData = S;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<Types>> {
        self.append(&request, &option).await
    }

    fn stream_append<'s, I>(
        &'s mut self,
        input: I,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<Types>>>>>
    where
        I: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let this = &*self;
        let mut first = true;
        let answers = input
            .map(move |request| {
                let span = span(&request);
                // What an append without entries claims has been asked before in this stream, and those answers come
                // first. A commit that is lost on the way comes again with the next append or heartbeat.
                let opens = std::mem::take(&mut first);
                if request.entries.is_empty() && !opens && this.tell(&request) {
                    return Either::Left(ready(judge(span, Ok(AppendEntriesResponse::Success))));
                }
                let response = this.append(&request, &option);
                Either::Right(async move { judge(span, response.await) })
            })
            .buffered(PIPELINE);
        let until_failed = stream::unfold(Some(Box::pin(answers)), async |answers| {
            let mut answers = answers?;
            let (answer, goes_on) = answers.next().await?;
            Some((answer, goes_on.then_some(answers)))
        });
        Box::pin(async move { Ok(Box::pin(until_failed) as BoxStream<'s, _>) })
    }

    async fn vote(&mut self, request: VoteRequest<Types>, option: RPCOption) -> Rpc<VoteResponse<Types>> {
        let call = (Kind::Vote, RPCTypes::Vote);
        self.control(call, &option, &|out| m::put_vote_request(out, &request), m::vote_response).await
    }

    async fn pre_vote(&mut self, request: VoteRequest<Types>, option: RPCOption) -> Rpc<VoteResponse<Types>> {
        let call = (Kind::PreVote, RPCTypes::Vote);
        self.control(call, &option, &|out| m::put_vote_request(out, &request), m::vote_response).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<CommittedLeaderId, NodeId, Member, S>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Snapshot { meta, snapshot } = snapshot;
        let transfer = Transfer { peers: self.peers.clone(), to: self.target, rate: self.rate };
        transfer.send((vote, meta), snapshot, cancel).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<Types>> {
        let call = (Kind::Transfer, RPCTypes::TransferLeader);
        self.control(call, &option, &|out| m::put_transfer(out, &request), m::transfer_response).await
    }

    /// Dialling has a back-off of its own; this one only keeps openraft from spinning.
    fn backoff(&self) -> Option<Backoff> {
        let growing = [20, 50, 100, 200].map(Duration::from_millis);
        Some(Backoff::new(growing.into_iter().chain(std::iter::repeat(Duration::from_millis(250)))))
    }
}
