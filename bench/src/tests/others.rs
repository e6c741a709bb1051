//! Servers that answer as NATS and ZooKeeper do, for as much as the generator asks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::load::{Plan, Tally, offer, prepare};
use crate::nats::Nats;
use crate::service::Service;
use crate::workload::{Shape, Workload};
use crate::zookeeper::ZooKeeper;

const SHAPE: Shape = Shape { clients: 3, keys: 20, value_bytes: 40, sessions: 10 };

/// A short load on a service that is made of the address of a server.
fn load<S: Service, F: Future<Output = ()> + 'static>(
    workload: Workload,
    serve: impl Fn(TcpStream) -> F + 'static,
    service: impl FnOnce(&[String]) -> S,
) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(serve(stream));
            }
        });
        let service = service(&[host]);
        if let Some(found) = workload.finds() {
            prepare(&service, found, SHAPE).await.unwrap();
        }
        let (warmup, window) = (Duration::from_millis(10), Duration::from_millis(200));
        let tally = offer(&service, Plan { workload, shape: SHAPE, warmup, window, rate: None }, || {})
            .await
            .unwrap();
        assert_eq!(tally.errors, [].into(), "{workload:?}");
        let done = tally.latencies.len() * workload.operations();
        assert!(done > 10, "{workload:?}: {done} operations");
        tally
    })
}

#[derive(Default)]
struct Stream {
    messages: Vec<Vec<u8>>,
    acknowledged: u64,
}

async fn nats(stream: TcpStream, state: Rc<RefCell<Stream>>) {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"INFO {\"version\":\"0\"} \r\n").await.unwrap();
    let mut line = String::new();
    while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        line.clear();
        let answer = match words[0].as_str() {
            "PING" => b"PONG\r\n".to_vec(),
            "PUB" => {
                let mut payload = vec![0; words[3].parse::<usize>().unwrap() + 2];
                stream.read_exact(&mut payload).await.unwrap();
                payload.truncate(payload.len() - 2);
                let wanted = state.borrow_mut().wanted(&words[1], &payload);
                match wanted {
                    Some(count) => deliver(&state, count).await,
                    None => state.borrow_mut().published(&words[1], &words[2], payload),
                }
            }
            _ => Vec::new(),
        };
        if stream.get_mut().write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// So many messages, once they are there.
async fn deliver(state: &RefCell<Stream>, count: usize) -> Vec<u8> {
    let mut answer = Vec::new();
    for _ in 0..count {
        loop {
            let message = state.borrow_mut().messages.pop();
            if let Some(message) = message {
                let place = state.borrow().messages.len();
                answer.extend(told(&format!("queue 1 $JS.ACK.{place}"), &message));
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    answer
}

/// Now and then it asks whether anybody is there.
fn told(from: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("PING\r\nMSG {from} {}\r\n", payload.len());
    [head.as_bytes(), payload, b"\r\n"].concat()
}

impl Stream {
    /// How many messages are asked for by that, also by an acknowledgement.
    fn wanted(&mut self, subject: &str, payload: &[u8]) -> Option<usize> {
        let request = payload.strip_prefix(b"+NXT ").filter(|_| subject.starts_with("$JS.ACK."));
        self.acknowledged += u64::from(request.is_some());
        let request = request.or_else(|| subject.contains(".MSG.NEXT.").then_some(payload))?;
        let request: serde_json::Value = serde_json::from_slice(request).unwrap();
        request["batch"].as_u64()?.try_into().ok()
    }

    /// What the inbox is told.
    fn published(&mut self, subject: &str, inbox: &str, payload: Vec<u8>) -> Vec<u8> {
        let answer = if subject.starts_with("$JS.ACK.") {
            assert_eq!(payload, b"+ACK");
            self.acknowledged += 1;
            Vec::new()
        } else if subject.starts_with("$JS.API.") {
            serde_json::from_slice::<serde_json::Value>(&payload).unwrap();
            b"{\"config\":{}}".to_vec()
        } else {
            assert_eq!(payload.len(), SHAPE.value_bytes);
            self.messages.push(payload);
            b"{\"stream\":\"queue\",\"seq\":7}".to_vec()
        };
        told(&format!("{inbox} 1"), &answer)
    }
}

#[test]
fn nats_is_published_to_and_its_queues_are_worked_on() {
    use Workload::{Publish, Queue, QueueBatch, QueueDeep, QueuePairs};
    for workload in [Publish, Queue, QueuePairs, QueueDeep, QueueBatch] {
        assert!(Nats::does(workload));
        let state = Rc::<RefCell<Stream>>::default();
        let server = state.clone();
        let tally =
            load(workload, move |stream| nats(stream, server.clone()), |nodes| Nats::new(nodes, 1, SHAPE));
        let taken = state.borrow().acknowledged;
        assert!(
            workload == Publish || taken >= tally.latencies.len() * workload.operations(),
            "{workload:?}"
        );
        let left = state.borrow().messages.len();
        match workload {
            Publish => {}
            QueueDeep => assert_eq!(left, 20),
            QueuePairs => assert!(left <= 64, "{left}"),
            _ => assert_eq!(left, 0, "{workload:?}"),
        }
    }
}

/// Node to its value and version.
type Tree = Rc<RefCell<BTreeMap<String, (Vec<u8>, i32)>>>;

async fn zookeeper(mut stream: TcpStream, tree: Tree) {
    let mut places = 0;
    let mut opened = false;
    while let Ok(length) = stream.read_u32().await {
        let mut request = BytesMut::zeroed(length as usize);
        stream.read_exact(&mut request).await.unwrap();
        let mut answer = BytesMut::new();
        if opened {
            let (number, what) = (request.get_i32(), request.get_i32());
            places += 1;
            let (code, body) = answered(what, request, &tree, places);
            // Somebody watches something: that is told in between.
            answer.put_i32(16);
            answer.put_i32(-1);
            answer.put_bytes(0, 12);
            answer.put_u32(u32::try_from(16 + body.len()).unwrap());
            answer.put_i32(number);
            answer.put_i64(1);
            answer.put_i32(code);
            answer.put_slice(&body);
        } else {
            opened = true;
            answer.put_u32(36);
            answer.put_i32(0);
            answer.put_i32(30_000);
            answer.put_i64(0x77);
            answer.put_i32(16);
            answer.put_bytes(0, 16);
        }
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn answered(what: i32, mut request: BytesMut, tree: &Tree, places: u64) -> (i32, Vec<u8>) {
    let mut tree = tree.borrow_mut();
    let text = |request: &mut BytesMut| {
        let length = request.get_u32() as usize;
        request.split_to(length).to_vec()
    };
    let mut body = Vec::new();
    if matches!(what, 11 | -11) {
        return (0, body);
    }
    let path = String::from_utf8(text(&mut request)).unwrap();
    match what {
        1 => {
            let value = text(&mut request);
            let sequential = request.len() > 4 && (&request[request.len() - 4..]).get_i32() == 3;
            let path = if sequential { format!("{path}{places:010}") } else { path };
            if tree.contains_key(&path) {
                return (-110, body);
            }
            body.put_u32(u32::try_from(path.len()).unwrap());
            body.put_slice(path.as_bytes());
            tree.insert(path, (value, 0));
        }
        2 => {
            if tree.remove(&path).is_none() {
                return (-101, body);
            }
        }
        4 => {
            let Some((value, _)) = tree.get(&path) else { return (-101, body) };
            body.put_u32(u32::try_from(value.len()).unwrap());
            body.put_slice(value);
            body.put_bytes(0, 68);
        }
        5 => {
            let value = text(&mut request);
            let expected = request.get_i32();
            let Some(node) = tree.get_mut(&path) else { return (-101, body) };
            if expected != -1 && expected != node.1 {
                return (-103, body);
            }
            *node = (value, node.1 + 1);
            body.put_bytes(0, 32);
            body.put_i32(node.1);
            body.put_bytes(0, 32);
        }
        8 => {
            let prefix = format!("{path}/");
            body.put_i32(
                i32::try_from(tree.keys().filter(|node| node.starts_with(&prefix)).count()).unwrap(),
            );
        }
        9 => {}
        _ => return (-6, body),
    }
    (0, body)
}

#[test]
fn zookeeper_does_what_the_others_do() {
    use Workload::{Cas, Get, Lock, Mixed, Put, Renew, StaleGet};
    for workload in [Put, Get, StaleGet, Mixed, Cas, Lock, Renew] {
        assert!(ZooKeeper::does(workload));
        let tree = Tree::default();
        let server = tree.clone();
        load(workload, move |stream| zookeeper(stream, server.clone()), |nodes| ZooKeeper::new(nodes, SHAPE));
        let held = tree.borrow().keys().filter(|path| path.contains("/place-")).count();
        assert_eq!(held, 0, "{workload:?}");
    }
}
