//! A node that is only as deep as the transport can see, and a wire that can be cut.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_raft::network::tls::PeerTls;
use coracle_raft::network::{
    BoxFuture, Greeting, Hello, Incoming, Limits, Local, Outgoing, Peers, RaftService, Reject, ReplySender,
    Server, Service, Unavailable,
};
use coracle_raft::types::{LogId, Member, NodeId, SnapshotMeta, Types, Vote};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

pub const CLUSTER: u128 = 0x00c0_ffee;

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub fn member(address: SocketAddr) -> Member {
    Member { name: "n".into(), peer: address.to_string(), client: String::new() }
}

/// How the node judges whoever says hello.
pub type Judge = Box<dyn FnMut(&Hello) -> Result<(), Reject> + Send>;

pub struct Myself {
    pub cluster: u128,
    pub id: NodeId,
    pub last_log: AtomicU64,
    /// Added to `last_log` after each greeting.
    pub grows: AtomicU64,
    pub judge: Mutex<Judge>,
    pub refused: Mutex<Vec<(NodeId, Reject)>>,
}

impl Myself {
    pub fn new(id: NodeId) -> Arc<Self> {
        Self::of_cluster(id, CLUSTER)
    }

    pub fn of_cluster(id: NodeId, cluster: u128) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            id,
            last_log: AtomicU64::new(0),
            grows: AtomicU64::new(0),
            judge: Mutex::new(Box::new(|_| Ok(()))),
            refused: Mutex::default(),
        })
    }

    pub fn judging(
        id: NodeId,
        judge: impl FnMut(&Hello) -> Result<(), Reject> + Send + 'static,
    ) -> Arc<Self> {
        let node = Self::new(id);
        *node.judge.lock().unwrap() = Box::new(judge);
        node
    }

    pub fn refusals(&self) -> Vec<(NodeId, Reject)> {
        self.refused.lock().unwrap().clone()
    }
}

impl Local for Myself {
    fn greeting(&self) -> Greeting {
        let last_log = self.last_log.fetch_add(self.grows.load(Ordering::SeqCst), Ordering::SeqCst);
        Greeting { cluster: self.cluster, id: self.id, last_log, vote: Vote::new(1, 1) }
    }

    fn judge(&self, peer: &Hello) -> Result<(), Reject> {
        (self.judge.lock().unwrap())(peer)
    }

    fn refused(&self, by: NodeId, reject: &Reject) {
        self.refused.lock().unwrap().push((by, reject.clone()));
    }
}

type Answer = Box<dyn Fn(u64) -> AppendEntriesResponse<Types> + Send + Sync>;

/// Raft that answers as told. The index of `prev_log_id` names a request.
pub struct FakeRaft {
    pub appended: Arc<Mutex<Vec<AppendEntriesRequest<Types>>>>,
    /// Appends up to this one are answered.
    pub released: tokio::sync::watch::Sender<u64>,
    pub answer: Mutex<Arc<Answer>>,
    pub votes: Mutex<Vec<VoteRequest<Types>>>,
    pub transfers: Mutex<Vec<TransferLeaderRequest<Types>>>,
    pub installed: Mutex<Vec<(Vote, SnapshotMeta, Vec<u8>)>>,
    pub vote_there: Mutex<Vote>,
}

fn name(request: &AppendEntriesRequest<Types>) -> u64 {
    request.prev_log_id.map_or(0, |id| id.index)
}

impl RaftService for FakeRaft {
    type Snapshot = Vec<u8>;

    fn append_entries(
        &self,
        request: AppendEntriesRequest<Types>,
    ) -> BoxFuture<Result<AppendEntriesResponse<Types>, Unavailable>> {
        let (appended, mut released) = (self.appended.clone(), self.released.subscribe());
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            let name = name(&request);
            appended.lock().unwrap().push(request);
            released.wait_for(|up_to| *up_to >= name).await.map_err(|e| Unavailable(e.to_string()))?;
            Ok(answer(name))
        })
    }

    fn vote(&self, request: VoteRequest<Types>) -> BoxFuture<Result<VoteResponse<Types>, Unavailable>> {
        let response = VoteResponse::new(request.vote, request.last_log_id, true);
        self.votes.lock().unwrap().push(request);
        Box::pin(async { Ok(response) })
    }

    fn pre_vote(&self, request: VoteRequest<Types>) -> BoxFuture<Result<VoteResponse<Types>, Unavailable>> {
        let response = VoteResponse::new(request.vote, request.last_log_id, false);
        self.votes.lock().unwrap().push(request);
        Box::pin(async { Ok(response) })
    }

    fn transfer_leader(
        &self,
        request: TransferLeaderRequest<Types>,
    ) -> BoxFuture<Result<TransferLeaderResponse<Types>, Unavailable>> {
        self.transfers.lock().unwrap().push(request);
        Box::pin(async { Err(Unavailable("stopped".into())) })
    }

    fn install_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        snapshot: Vec<u8>,
    ) -> BoxFuture<Result<SnapshotResponse<Types>, Unavailable>> {
        self.installed.lock().unwrap().push((vote, meta, snapshot));
        let vote = *self.vote_there.lock().unwrap();
        Box::pin(async move { Ok(SnapshotResponse::new(vote)) })
    }
}

pub struct FakeNode {
    pub raft: FakeRaft,
    pub requests: Mutex<Vec<Bytes>>,
    pub held: Mutex<Vec<ReplySender>>,
    /// Snapshots begun, and those discarded unfinished.
    pub begun: Arc<AtomicUsize>,
    pub discarded: Arc<AtomicUsize>,
    pub changed: Arc<Notify>,
}

impl FakeNode {
    pub fn new() -> Arc<Self> {
        let always: Answer = Box::new(|_| AppendEntriesResponse::Success);
        Arc::new(Self {
            raft: FakeRaft {
                appended: Arc::default(),
                released: tokio::sync::watch::channel(u64::MAX).0,
                answer: Mutex::new(Arc::new(always)),
                votes: Mutex::default(),
                transfers: Mutex::default(),
                installed: Mutex::default(),
                vote_there: Mutex::new(Vote::new(1, 1)),
            },
            requests: Mutex::default(),
            held: Mutex::default(),
            begun: Arc::default(),
            discarded: Arc::default(),
            changed: Arc::default(),
        })
    }

    /// Wait until `done`, looking whenever something reaches the node.
    pub async fn until(&self, done: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if done(self) {
                    return;
                }
                // Not everything notifies.
                let _ = tokio::time::timeout(Duration::from_millis(10), changed).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it never happened");
    }
}

impl Service for FakeNode {
    type Raft = FakeRaft;
    type Incoming = FakeIncoming;

    fn raft(&self) -> &FakeRaft {
        &self.raft
    }

    fn incoming(&self, _: &SnapshotMeta, bytes: u64) -> io::Result<FakeIncoming> {
        if bytes == 13 {
            return Err(io::Error::other("no thirteen bytes today"));
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ok(FakeIncoming { bytes: Vec::new(), discarded: Some(self.discarded.clone()) })
    }

    /// `hold…` is answered never, or by the test; `drop…` is dropped; anything else is answered with itself.
    fn forward(&self, _: NodeId, request: Bytes, reply: ReplySender) {
        self.requests.lock().unwrap().push(request.clone());
        if request.starts_with(b"hold") {
            self.held.lock().unwrap().push(reply);
        } else if request.starts_with(b"drop") {
            drop(reply);
        } else {
            reply.send(&request);
        }
        self.changed.notify_waiters();
    }
}

pub struct FakeIncoming {
    bytes: Vec<u8>,
    discarded: Option<Arc<AtomicUsize>>,
}

impl Incoming for FakeIncoming {
    type Snapshot = Vec<u8>;

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        self.discarded = None;
        Ok(std::mem::take(&mut self.bytes))
    }
}

impl Drop for FakeIncoming {
    fn drop(&mut self) {
        if let Some(discarded) = &self.discarded {
            discarded.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub struct FakeSnapshot(pub Vec<u8>);

impl Outgoing for FakeSnapshot {
    type Chunks = std::vec::IntoIter<io::Result<Bytes>>;

    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn chunks(&self) -> io::Result<Self::Chunks> {
        let chunks: Vec<_> = self.0.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        Ok(chunks.into_iter())
    }
}

pub async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Node 2, listening; and node 1's connections to it.
pub struct Pair {
    pub server: Server,
    pub node: Arc<FakeNode>,
    pub peers: Peers,
}

pub async fn pair() -> Pair {
    pair_of(Myself::new(1), Myself::new(2), None, None).await
}

pub async fn pair_of(
    dialler: Arc<Myself>,
    listener: Arc<Myself>,
    dialler_tls: Option<&PeerTls>,
    listener_tls: Option<&PeerTls>,
) -> Pair {
    let node = FakeNode::new();
    let limits = Limits { handshake: Duration::from_millis(700), ..Limits::default() };
    let server = Server::start(listen().await, listener_tls, limits, listener, node.clone()).unwrap();
    let peers = Peers::new(dialler, dialler_tls).unwrap();
    peers.learn(2, &member(server.address()));
    Pair { server, node, peers }
}

impl Pair {
    pub async fn ask(&self, text: &str) -> Result<Bytes, coracle_raft::network::CallError> {
        self.peers.ask(2, soon(), |out| out.extend_from_slice(text.as_bytes())).await
    }
}

/// What a [`Wire`] does with bytes on their way to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Through,
    /// Cut the connection after so many more bytes.
    CutAfter(usize),
    /// A megabyte a second.
    Slow,
    /// Keep everything back until the mode changes.
    Hold,
    /// Swallow everything, both ways.
    Hole,
}

/// A TCP connection in the middle of which somebody sits.
pub struct Wire {
    pub address: SocketAddr,
    pub mode: Arc<Mutex<Mode>>,
}

impl Wire {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(Mutex::new(Mode::Through));
        let shared = mode.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(server).await.unwrap();
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                let (there, back) = (shared.clone(), shared.clone());
                tokio::spawn(async move {
                    let to_server = async { copy(&mut near_in, &mut far_out, &there).await };
                    let to_client = async { copy(&mut far_in, &mut near_out, &back).await };
                    tokio::select! { biased; () = to_server => {}, () = to_client => {} }
                });
            }
        });
        Self { address, mode }
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

async fn copy(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    mode: &Mutex<Mode>,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        while *mode.lock().unwrap() == Mode::Hold {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let now = *mode.lock().unwrap();
        if now == Mode::Slow {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let pass = match now {
            Mode::Through | Mode::Slow | Mode::Hold => read,
            Mode::Hole => 0,
            Mode::CutAfter(left) => {
                *mode.lock().unwrap() = Mode::CutAfter(left.saturating_sub(read));
                read.min(left)
            }
        };
        if to.write_all(&buffer[..pass]).await.is_err() || (pass < read && now != Mode::Hole) {
            return;
        }
    }
}

pub fn log_id(index: u64) -> LogId {
    openraft::testing::log_id::<Types>(1, 1, index)
}
