//! Bytes and texts: HTTP heads, protobuf, gRPC frames, `/proc`, names of work.

use std::time::Duration;

use bytes::BytesMut;

use crate::coracle::number_member;
use crate::delivery::Mark;
use crate::grpc::{Channel, take_message};
use crate::http1::{Extent, parse_head};
use crate::processes::{parse_machine, parse_stat};
use crate::protobuf::{self, Message};
use crate::workload::{Connections, KeyChoice, Work, Workload, fill_value, is_value_of};

#[test]
fn heads_of_answers() {
    let whole = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nConTent-Length:  5 \r\n\r\nhello";
    assert_eq!(parse_head(whole).unwrap(), Some(Extent { status: 200, head: whole.len() - 5, body: 5 }));
    let end = whole.len() - 5;
    for cut in 0..end {
        assert_eq!(parse_head(&whole[..cut]).unwrap(), None, "cut={cut}");
    }
    let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(parse_head(empty).unwrap(), Some(Extent { status: 204, head: empty.len(), body: 0 }));
    for bad in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\ncontent-length: 1\r\n\r\n",
        "SSH-2.0\r\n\r\n",
    ] {
        assert!(parse_head(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(parse_head(&vec![b'x'; 17 * 1024]).is_err());
}

#[test]
fn numbers_in_json() {
    let json = br#"{"key":"revision","revision": 41,"version":1}"#;
    assert_eq!(number_member(json, "revision"), Some(41));
    assert_eq!(number_member(json, "version"), Some(1));
    assert_eq!(number_member(json, "key"), None);
    assert_eq!(number_member(br#"{"previous_token":3}"#, "token"), None);
}

#[test]
fn protobuf_messages_are_those_of_protoc() {
    // Fields 1 and 2 as in the protobuf manual: 150 is 96 01.
    let message = Message::default().number(1, 150).bytes(2, b"testing").number(3, 0);
    assert_eq!(message.as_bytes(), b"\x08\x96\x01\x12\x07testing");
    assert_eq!(protobuf::number(message.as_bytes(), 1).unwrap(), 150);
    assert_eq!(protobuf::bytes(message.as_bytes(), 2).unwrap(), b"testing");
    assert_eq!(protobuf::number(message.as_bytes(), 3).unwrap(), 0);
    assert!(protobuf::bytes(message.as_bytes(), 1).is_err());

    let twice = Message::default().bytes(11, b"a").number(1, 5).bytes(11, b"b").bytes(2, b"c");
    let all: Vec<&[u8]> = protobuf::each(twice.as_bytes(), 11).collect::<Result<_, _>>().unwrap();
    assert_eq!(all, [b"a", b"b"]);
    assert_eq!(protobuf::each(b"\x5a\x01a\x5a\x09b", 11).filter(Result::is_err).count(), 1);

    let outer = Message::default().message(3, &message).number(4, u64::MAX);
    assert_eq!(protobuf::bytes(outer.as_bytes(), 3).unwrap(), message.as_bytes());
    assert_eq!(protobuf::number(outer.as_bytes(), 4).unwrap(), u64::MAX);
    assert!(protobuf::number(&outer.as_bytes()[..5], 4).is_err());
    assert!(protobuf::number(b"\x09........", 1).is_err());
}

#[test]
fn grpc_frames_may_come_in_pieces() {
    let mut received = BytesMut::new();
    for &byte in b"\0\0\0\0\x02ab" {
        assert_eq!(take_message(&mut received).unwrap(), None);
        received.extend_from_slice(&[byte]);
    }
    received.extend_from_slice(b"\0\0");
    assert_eq!(take_message(&mut received).unwrap().unwrap(), "ab");
    assert_eq!(&received[..], b"\0\0");
    assert!(take_message(&mut BytesMut::from(&b"\x01\0\0\0\0"[..])).is_err());
}

/// Answers each call: method `/t.T/Good` with the message it got, any other with status 5.
async fn serve_grpc() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(call) = connection.accept().await {
            let (request, mut respond) = call.unwrap();
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let good = request.uri().path() == "/t.T/Good";
            tokio::task::spawn_local(async move {
                let message = request.into_body().data().await.unwrap().unwrap();
                let mut response = http::Response::new(());
                if !good {
                    response.headers_mut().insert("grpc-status", "5".parse().unwrap());
                    response.headers_mut().insert("grpc-message", "not here".parse().unwrap());
                    respond.send_response(response, true).unwrap();
                    return;
                }
                let mut sender = respond.send_response(response, false).unwrap();
                sender.send_data(message, false).unwrap();
                let trailers = http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    http::HeaderValue::from_static("0"),
                )]);
                sender.send_trailers(trailers).unwrap();
            });
        }
    });
    host
}

#[test]
fn grpc_calls_share_a_connection_and_tell_their_status() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let channel = Channel::dial(&serve_grpc().await).await.unwrap();
        let good = channel.method("/t.T/Good").unwrap();
        let (first, second) = tokio::join!(channel.unary(&good, b"one"), channel.unary(&good, b"two"));
        assert_eq!((&first.unwrap()[..], &second.unwrap()[..]), (&b"one"[..], &b"two"[..]));
        let bad = channel.unary(&channel.method("/t.T/Bad").unwrap(), b"").await.unwrap_err();
        assert_eq!(bad.to_string(), "grpc status 5: not here");
    });
}

#[test]
fn cpu_times_of_processes_and_machine() {
    let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 7 7 20 0 1 0 100 0 0";
    assert_eq!(parse_stat(stat), Some(("a (b) c", Duration::from_secs(2))));
    assert_eq!(parse_stat("42 broken"), None);
    let machine = parse_machine("cpu  100 0 50 800 20 10 0 30 0 0\ncpu0 1 1 1 1\n").unwrap();
    let millis = [machine.busy, machine.steal, machine.total].map(|time| (time.as_secs_f64() * 1e3).round());
    assert_eq!(millis.map(|millis| millis.to_string()), ["1600", "300", "10100"]);
}

#[test]
fn names_of_work() {
    let work = |clients, nodes| Work { workload: Workload::Put, clients, nodes };
    assert_eq!("put@1".parse::<Work>().unwrap(), work(Some(1), None));
    assert_eq!("put@64/1".parse::<Work>().unwrap(), work(Some(64), Some(1)));
    assert_eq!("put/5".parse::<Work>().unwrap(), work(None, Some(5)));
    for text in ["lock-contended", "watch-rate@100", "put@64/1", "put/5"] {
        assert_eq!(text.parse::<Work>().unwrap().to_string(), text);
    }
    for bad in ["", "putt", "put@", "put@0", "put@-1", "put/", "put/0", "put/1@64", "put@1/x"] {
        assert!(bad.parse::<Work>().is_err(), "{bad}");
    }
    assert_eq!("each".parse::<Connections>().unwrap(), Connections::Each);
    assert_eq!("2".parse::<Connections>().unwrap(), Connections::Shared(2));
    assert!("0".parse::<Connections>().is_err());
    assert!("many".parse::<Connections>().is_err());
}

#[test]
fn marks_survive_the_value_they_begin() {
    let mark = Mark { writer: 3, turn: 12, due: Mark::parse("0:0:1700000:").unwrap().due };
    let mut value = Vec::new();
    fill_value(&mut value, &mark.text(), 64);
    assert_eq!(Mark::parse(std::str::from_utf8(&value).unwrap()).unwrap(), mark);
    for bad in ["", "1:2", "1:2:x:", "a:2:3:", "-1:2:3:"] {
        assert!(Mark::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn values_are_known_by_their_key() {
    let mut value = Vec::new();
    fill_value(&mut value, "bench/1", 20);
    assert_eq!(value, b"bench/1:............");
    assert!(is_value_of(&value, "bench/1", 20));
    assert!(!is_value_of(&value, "bench/2", 20));
    assert!(!is_value_of(&value[..19], "bench/1", 20));
}

#[test]
fn each_client_chooses_among_all_keys_in_its_own_order() {
    let choices = |client| {
        let mut choice = KeyChoice::new(client, 100);
        (0..2000).map(|_| choice.choose()).collect::<Vec<_>>()
    };
    let seen: std::collections::BTreeSet<u32> = choices(0).into_iter().collect();
    assert_eq!(seen.len(), 100);
    assert_ne!(choices(0), choices(1));
    assert_eq!(choices(3), choices(3));
}
