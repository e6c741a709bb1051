//! Whole nodes in one process: real sockets and directories, no recipes, no HTTP.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_raft::types::Member;
use coracle_raft::{Circumstance, Node, Options, RenewError, Start, StartError};
use coracle_store::command::{Append, OpenSession, Precondition, Put};
use coracle_store::program::NoProgram;
use coracle_store::{
    Action, Attach, Cause, Command, ContentType, Family, Idempotency, Key, Millis, Operation, Outcome,
    Principal, Program, Record, Refusal, Revision, Selection, SessionId, Txn, View,
};
use tempfile::TempDir;

fn program() -> Box<dyn Program> {
    Box::new(NoProgram)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Addresses nobody listens on at this moment.
fn addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

#[tokio::test]
async fn founders_learn_where_each_other_serves_clients() {
    let mut cluster = Cluster::start(3).await;
    let deadline = soon();
    loop {
        let clients = |n| cluster.node(n).members().into_iter().map(|member| member.member.client).collect();
        let known: Vec<Vec<String>> = (0..3).map(clients).collect();
        if known.iter().all(|known| *known == ["http://n1", "http://n2", "http://n3"]) {
            break;
        }
        assert!(Instant::now() < deadline, "{known:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.stop_all().await;
}

fn members(addresses: &[SocketAddr]) -> Vec<Member> {
    let member = |(n, address): (usize, &SocketAddr)| Member {
        name: format!("n{}", n + 1),
        peer: address.to_string(),
        client: format!("http://n{}", n + 1),
    };
    addresses.iter().enumerate().map(member).collect()
}

fn options(data: &Path, member: &Member, start: Start) -> Options {
    Options {
        checkpoint_interval: Duration::from_millis(300),
        segment_bytes: 4 << 20,
        // So little that a member that joins or was away has to be sent a snapshot.
        keep_entries: 10,
        keep_bytes: 1 << 10,
        ..Options::new(data.to_owned(), member.clone(), member.peer.parse().unwrap(), start)
    }
}

struct Cluster {
    members: Vec<Member>,
    data: Vec<TempDir>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    async fn start(count: usize) -> Self {
        let members = members(&addresses(count));
        let data = (0..count).map(|_| TempDir::new().unwrap()).collect();
        let mut cluster = Self { members, data, nodes: vec![None; count] };
        for n in 0..count {
            cluster.restart(n).await;
        }
        cluster
    }

    fn options(&self, n: usize) -> Options {
        let mut members = self.members.clone();
        for member in &mut members {
            member.client.clear();
        }
        let start = Start::Found { members, token: "test".into() };
        options(self.data[n].path(), &self.members[n], start)
    }

    async fn restart(&mut self, n: usize) {
        self.nodes[n] = Some(Node::start(self.options(n), program).await.unwrap());
    }

    async fn stop(&mut self, n: usize) {
        self.nodes[n].take().unwrap().shutdown().await;
    }

    fn node(&self, n: usize) -> &Node {
        self.nodes[n].as_ref().unwrap()
    }

    /// The place of the leader, once all running nodes agree on one.
    async fn leader(&self) -> usize {
        let deadline = soon();
        loop {
            let seen: Vec<_> = self.nodes.iter().flatten().map(Node::leader).collect();
            if let Some(leader) = seen[0]
                && seen.iter().all(|other| *other == Some(leader))
            {
                return usize::try_from(leader).unwrap() - 1;
            }
            assert!(Instant::now() < deadline, "no leader: {seen:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop_all(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].is_some() {
                self.stop(n).await;
            }
        }
    }
}

fn command(operation: Operation) -> Command {
    Command {
        principal: Principal("anonymous".into()),
        idempotency: None,
        guards: Vec::new(),
        action: Action::One(operation),
    }
}

fn key(name: &str) -> Key {
    Key::new(Family::KV, name.as_bytes())
}

fn put(name: &str, value: &str) -> Command {
    command(Operation::Put(Put {
        key: key(name),
        value: value.as_bytes().into(),
        content_type: ContentType::Text,
        attach: Attach::None,
        precondition: Precondition::None,
        return_previous: false,
    }))
}

fn value(node: &Node, name: &str) -> Option<String> {
    node.read(|store| store.get(&key(name)).map(|record| String::from_utf8(record.value.to_vec()).unwrap()))
}

#[tokio::test]
async fn one_node_writes_reads_and_remembers() {
    let mut cluster = Cluster::start(1).await;
    let node = cluster.node(0).clone();
    let reply = node.propose(&put("a", "1"), soon()).await.unwrap();
    assert_eq!(reply.revision, Revision(1));
    node.read_barrier(soon()).await.unwrap();
    assert_eq!(value(&node, "a").as_deref(), Some("1"));
    let hash = node.status().hash;
    drop(node);
    cluster.stop(0).await;
    cluster.restart(0).await;
    let node = cluster.node(0).clone();
    node.read_barrier(soon()).await.unwrap();
    assert_eq!((value(&node, "a").as_deref(), node.status().hash), (Some("1"), hash));
    cluster.stop_all().await;
}

#[tokio::test]
async fn every_node_takes_writes_and_reads_what_any_other_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    for round in 0..30 {
        let (writer, reader) = (cluster.node(round % 3), cluster.node((round + 1) % 3));
        let text = round.to_string();
        let reply = writer.propose(&put("a", &text), soon()).await.unwrap();
        assert_eq!(reply.revision, Revision(round as u64 + 1));
        reader.read_barrier(soon()).await.unwrap();
        assert_eq!(value(reader, "a"), Some(text));
    }
    let last = Revision(30);
    for n in 0..3 {
        cluster.node(n).wait_revision(last, soon()).await.unwrap();
    }
    let hashes: Vec<_> = (0..3).map(|n| cluster.node(n).status().hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    cluster.stop_all().await;
}

#[tokio::test]
async fn another_leads_when_the_leader_stops_and_the_stopped_one_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    cluster.node(first).propose(&put("a", "1"), soon()).await.unwrap();
    cluster.stop(first).await;
    let other = (first + 1) % 3;
    cluster.node(other).propose(&put("a", "2"), soon()).await.unwrap();
    cluster.restart(first).await;
    cluster.node(first).read_barrier(soon()).await.unwrap();
    assert_eq!(value(cluster.node(first), "a").as_deref(), Some("2"));
    cluster.stop_all().await;
}

#[tokio::test]
async fn without_a_majority_nothing_is_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.node(leader).propose(&put("a", "1"), soon()).await.unwrap();
    for n in (0..3).filter(|n| *n != leader) {
        cluster.stop(n).await;
    }
    let deadline = Instant::now() + Duration::from_secs(3);
    let write = cluster.node(leader).propose(&put("a", "2"), deadline).await;
    assert!(matches!(write, Err(Circumstance::NoLeader | Circumstance::CommitTimeout)), "{write:?}");
    let deadline = Instant::now() + Duration::from_secs(3);
    assert_eq!(cluster.node(leader).read_barrier(deadline).await, Err(Circumstance::NoLeader));
    cluster.stop_all().await;
}

fn open(id: u64, ttl_ms: u64) -> Command {
    command(Operation::OpenSession(OpenSession::new(SessionId(id), Millis(ttl_ms))))
}

#[tokio::test]
async fn a_session_lives_while_it_is_renewed_and_its_keys_go_with_it() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.node((leader + 1) % 3).clone();
    let session = SessionId(7);
    follower.propose(&open(7, 1000), soon()).await.unwrap();
    let append = Append {
        directory: key("dir"),
        value: b"x".as_slice().into(),
        content_type: ContentType::Text,
        attach: Attach::Session(session),
    };
    let reply = follower.propose(&command(Operation::Append(append)), soon()).await.unwrap();
    let Ok(Outcome::Put(written)) = reply.result else { panic!("{reply:?}") };
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(follower.renew(session, soon()).await, Ok(Duration::from_secs(1)));
    }
    let mut watch = follower.watch(Selection::Key(written.key.clone()));
    tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.unwrap();
    assert!(follower.read(|store| store.get(&written.key).is_none() && store.session(session).is_none()));
    assert_eq!(follower.renew(session, soon()).await, Err(RenewError::Expired));
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_retry_through_another_node_answers_the_first_reply() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let mut once = put("a", "1");
    once.idempotency = Some(Idempotency { key: "k".into(), fingerprint: 1 });
    let first = cluster.node(0).propose(&once, soon()).await.unwrap();
    let again = cluster.node(1).propose(&once, soon()).await.unwrap();
    assert_eq!((again.revision, again.replayed), (first.revision, true));
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_member_joins_by_snapshot_is_promoted_and_removed_for_good() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for n in 0..50 {
        cluster.node(leader).propose(&put(&format!("k{n}"), "v"), soon()).await.unwrap();
    }
    let deadline = soon();
    while cluster.node(leader).status().purged < 30 {
        assert!(Instant::now() < deadline, "the log is not purged");
        cluster.node(leader).propose(&put("k49", "v"), soon()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let address = addresses(1)[0];
    let member = Member { name: "n4".into(), peer: address.to_string(), client: "http://n4".into() };
    let id = cluster.node((leader + 1) % 3).admit(member.clone(), soon()).await.unwrap();
    assert!(id > 100);
    let known = (1..).zip(cluster.members.clone()).collect();
    let start = Start::Join { id, cluster: cluster.node(0).status().cluster, members: known };
    let data = TempDir::new().unwrap();
    let joined = Node::start(options(data.path(), &member, start.clone()), program).await.unwrap();
    joined.read_barrier(soon()).await.unwrap();
    assert_eq!(value(&joined, "k49").as_deref(), Some("v"));
    joined.promote(id, soon()).await.unwrap();
    let voters = cluster.node(leader).members().iter().filter(|member| member.voter).count();
    assert_eq!(voters, 4);
    cluster.node(0).remove(id, soon()).await.unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(20), async {
        joined.shutdown().await;
        drop(joined);
        let back = Node::start(options(data.path(), &member, start), program).await.unwrap();
        let reason = back.stopped().await;
        back.shutdown().await;
        reason
    });
    assert!(reason.await.unwrap().contains("removed"));
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_wiped_directory_under_an_old_id_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    cluster.node(leader).propose(&put("a", "1"), soon()).await.unwrap();
    cluster.node(victim).read_barrier(soon()).await.unwrap();
    // The leader writes down what it has seen once a second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    cluster.stop(victim).await;
    cluster.data[victim] = TempDir::new().unwrap();
    cluster.restart(victim).await;
    let reason = tokio::time::timeout(Duration::from_secs(20), cluster.node(victim).stopped()).await.unwrap();
    assert!(reason.contains("older than what peers have seen"), "{reason}");
    cluster.stop_all().await;
}

/// A recipe with a bug.
struct Panics;

impl Program for Panics {
    fn apply(&self, _: &mut Txn<'_>, _: &Principal, _: &[u8]) -> Result<Vec<u8>, Refusal> {
        panic!("as the test wants");
    }

    fn check(&self, _: View<'_>, _: &[u8]) -> Result<(), Refusal> {
        Err(Refusal::Malformed)
    }

    fn released(&self, _: &mut Txn<'_>, _: &[(Key, Arc<Record>)], _: Cause) {}
}

#[tokio::test]
async fn a_panic_while_applying_stops_the_node() {
    let data = TempDir::new().unwrap();
    let member = members(&addresses(1)).remove(0);
    let start = Start::Found { members: vec![member.clone()], token: "test".into() };
    let node = Node::start(options(data.path(), &member, start), || Box::new(Panics)).await.unwrap();
    node.propose(&put("a", "1"), soon()).await.unwrap();
    let lost = node.propose(&command(Operation::Program(vec![1].into())), soon()).await;
    assert!(matches!(lost, Err(Circumstance::Lost | Circumstance::Stopped(_))), "{lost:?}");
    assert!(node.stopped().await.contains("panicked"));
    assert!(matches!(node.propose(&put("a", "2"), soon()).await, Err(Circumstance::Stopped(_))));
    assert!(matches!(node.read_barrier(soon()).await, Err(Circumstance::Stopped(_))));
    node.shutdown().await;
}

#[tokio::test]
async fn directories_that_are_not_ours_are_refused() {
    let at = addresses(2);
    let members = members(&at);
    let found = |token: &str| Start::Found { members: members.clone(), token: token.into() };
    let refused = |data: &Path, start: Start| {
        let options = options(data, &members[0], start);
        async move {
            match Node::start(options, program).await {
                Err(StartError::Data(reason)) => reason,
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("started"),
            }
        }
    };
    let data = TempDir::new().unwrap();
    std::fs::write(data.path().join("holiday.jpg"), "x").unwrap();
    assert!(refused(data.path(), found("t")).await.contains("not a Coracle data directory"));

    let data = TempDir::new().unwrap();
    let node = Node::start(options(data.path(), &members[0], found("one")), program).await.unwrap();
    node.shutdown().await;
    assert!(refused(data.path(), found("another")).await.contains("another cluster"));
    let identity = data.path().join("IDENTITY");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replace("format 1", "format 9")).unwrap();
    assert!(refused(data.path(), found("one")).await.contains("newer version"));
}
