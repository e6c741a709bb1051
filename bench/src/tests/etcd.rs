//! A server that answers as etcd does, for queues, watches and leases.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::net::{TcpListener, TcpStream};

use crate::etcd::Etcd;
use crate::grpc::take_message;
use crate::load::{Plan, Tally, offer};
use crate::protobuf::{self, Message};
use crate::workload::{Connections, Shape, Workload};

const SHAPE: Shape = Shape { clients: 4, keys: 20, value_bytes: 60, sessions: 10 };

#[derive(Default)]
struct State {
    revision: u64,
    /// Key to its revision and value.
    keys: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    /// All puts, in order.
    puts: Vec<(Vec<u8>, Vec<u8>)>,
    deleted: u64,
    /// What somebody tried to take.
    tries: u64,
    longest: usize,
    leases: u64,
    opened: u64,
    /// Lease to how often it was renewed.
    renewed: BTreeMap<u64, u64>,
}

type Shared = Rc<RefCell<State>>;

async fn converse(stream: TcpStream, state: Shared) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let state = state.clone();
        tokio::task::spawn_local(async move {
            let method = request.uri().path().to_owned();
            let mut body = request.into_body();
            let mut received = BytesMut::new();
            let mut sender = respond.send_response(http::Response::new(()), false).unwrap();
            while let Some(Ok(chunk)) = body.data().await {
                let _ = body.flow_control().release_capacity(chunk.len());
                received.extend_from_slice(&chunk);
                while let Some(message) = take_message(&mut received).unwrap() {
                    if method == "/etcdserverpb.Watch/Watch" {
                        return tell(&mut sender, &state).await;
                    }
                    let answer = state.borrow_mut().answer(&method, &message);
                    if sender.send_data(framed(&answer), false).is_err() {
                        return;
                    }
                }
            }
            let status = (http::HeaderName::from_static("grpc-status"), "0".parse().unwrap());
            let _ = sender.send_trailers(http::HeaderMap::from_iter([status]));
        });
    }
}

fn framed(message: &Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.as_bytes().len()).unwrap());
    frame.put_slice(message.as_bytes());
    frame.freeze()
}

/// That the watch is made, then what is put; several events an answer, if there are.
async fn tell(sender: &mut h2::SendStream<Bytes>, state: &Shared) {
    let mut from = state.borrow().puts.len();
    let mut answer = Message::default().number(3, 1);
    while sender.send_data(framed(&answer), false).is_ok() {
        while state.borrow().puts.len() == from {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        answer = Message::default();
        for (key, value) in &state.borrow().puts[from..] {
            let event = Message::default().message(2, &Message::default().bytes(1, key).bytes(5, value));
            answer = answer.message(11, &event);
        }
        from = state.borrow().puts.len();
    }
}

impl State {
    fn answer(&mut self, method: &str, message: &[u8]) -> Message {
        let bytes = |field| protobuf::bytes(message, field).unwrap();
        let number = |field| protobuf::number(message, field).unwrap();
        let header = |revision| Message::default().message(1, &Message::default().number(3, revision));
        match method {
            "/etcdserverpb.KV/Put" => {
                self.revision += 1;
                self.keys.insert(bytes(1).to_vec(), (self.revision, bytes(2).to_vec()));
                self.puts.push((bytes(1).to_vec(), bytes(2).to_vec()));
                self.longest = self.longest.max(self.keys.len());
                header(self.revision)
            }
            "/etcdserverpb.KV/Range" => {
                assert_eq!(number(3), 1, "the first key is asked for");
                let first = self.keys.range(bytes(1).to_vec()..bytes(2).to_vec()).next();
                first.map_or_else(Message::default, |(key, (revision, _))| {
                    Message::default().message(2, &Message::default().bytes(1, key).number(3, *revision))
                })
            }
            "/etcdserverpb.KV/Txn" => {
                let compare = bytes(1);
                let key = protobuf::bytes(compare, 3).unwrap();
                assert_eq!(protobuf::bytes(protobuf::bytes(bytes(2), 3).unwrap(), 1).unwrap(), key);
                let expected = protobuf::number(compare, 6).unwrap();
                self.tries += 1;
                // At the first try, too, another was faster.
                let there = self.keys.get(key).is_some_and(|(revision, _)| *revision == expected);
                let taken = there && self.tries > 1 && self.keys.remove(key).is_some();
                self.deleted += u64::from(taken);
                Message::default().number(2, u64::from(taken))
            }
            "/etcdserverpb.Lease/LeaseGrant" => {
                assert_eq!(number(1), 60);
                self.opened += 1;
                self.leases += 1;
                Message::default().number(2, self.opened)
            }
            "/etcdserverpb.Lease/LeaseKeepAlive" => {
                *self.renewed.entry(number(1)).or_default() += 1;
                Message::default().number(3, 60)
            }
            "/etcdserverpb.Lease/LeaseRevoke" => {
                self.leases -= 1;
                Message::default()
            }
            other => panic!("{other} is not asked for"),
        }
    }
}

fn load(workload: Workload, rate: Option<f64>, connections: Connections) -> (Tally, Shared) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let state = Shared::default();
    let server = state.clone();
    let tally = tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nodes = [listener.local_addr().unwrap().to_string()];
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(converse(stream, server.clone()));
            }
        });
        let service = Etcd::open(&nodes, SHAPE, connections).await.unwrap();
        let (warmup, window) = (Duration::from_millis(20), Duration::from_millis(300));
        offer(&service, Plan { workload, shape: SHAPE, warmup, window, rate }, || {}).await.unwrap()
    });
    assert_eq!(tally.errors, [].into(), "{workload:?}");
    assert!(!tally.latencies.is_empty(), "{workload:?}");
    (tally, state)
}

#[test]
fn the_queue_of_etcd_is_raced_for_and_does_not_grow() {
    let (tally, state) = load(Workload::QueuePairs, None, Connections::Each);
    let state = state.borrow();
    assert!(state.deleted >= tally.latencies.len());
    assert!(state.tries > state.deleted, "who came too late has to ask again");
    assert_eq!(state.puts.len() as u64, state.deleted + state.keys.len() as u64);
    assert!(state.longest <= Workload::QueuePairs.backlog().unwrap(), "{} keys", state.longest);
    assert!(state.puts.iter().all(|(key, value)| key.starts_with(b"queue/") && value.len() == 60));
}

#[test]
fn every_watch_of_etcd_tells_every_write() {
    for connections in [Connections::Each, Connections::Shared(2)] {
        let (tally, state) = load(Workload::WatchRate, Some(300.0), connections);
        // Four streams; what was told before and after the window is not counted.
        let told = state.borrow().puts.len() as u64 * 4;
        assert!(tally.latencies.len() <= told, "{} of {told}", tally.latencies.len());
    }
}

#[test]
fn each_of_many_leases_is_renewed_and_revoked() {
    let (_, state) = load(Workload::RenewMany, Some(1000.0), Connections::Each);
    let state = state.borrow();
    assert_eq!((state.opened, state.leases, state.renewed.len()), (10, 0, 10));
}
