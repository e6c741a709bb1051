//! What may arrive on the port besides peers.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::{CLUSTER, pair};

/// Written out by hand: these bytes must never change.
fn hello(version: u16) -> Vec<u8> {
    let mut body = b"coraclep".to_vec();
    body.extend(version.to_le_bytes());
    body.extend(CLUSTER.to_le_bytes());
    body.extend(1_u64.to_le_bytes());
    body.extend(2_u64.to_le_bytes());
    body.push(3);
    body.extend(9_u64.to_le_bytes());
    body.extend(4_u64.to_le_bytes());
    body.extend(1_u64.to_le_bytes());
    body.push(1);
    frame(1, 0, &body)
}

fn frame(kind: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(9 + body.len()).unwrap().to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(id.to_le_bytes());
    frame.extend(body);
    frame
}

/// Everything the server says until it closes.
async fn conversation(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let read = stream.read_to_end(&mut said);
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await.expect("it does not close");
    said
}

async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let size = stream.read_u32_le().await.unwrap();
    let mut frame = vec![0; size as usize];
    stream.read_exact(&mut frame).await.unwrap();
    frame
}

#[tokio::test]
async fn the_greeting_has_golden_bytes() {
    let pair = pair().await;
    let mut stream = TcpStream::connect(pair.server.address()).await.unwrap();
    stream.write_all(&hello(1)).await.unwrap();
    let answer = read_frame(&mut stream).await;
    let mut expected = vec![1];
    expected.extend(0_u64.to_le_bytes());
    expected.extend(b"coraclep\x01\x00");
    expected.extend(CLUSTER.to_le_bytes());
    expected.extend(2_u64.to_le_bytes());
    expected.extend(1_u64.to_le_bytes());
    expected.push(3);
    expected.extend(0_u64.to_le_bytes());
    expected.extend(1_u64.to_le_bytes());
    expected.extend(1_u64.to_le_bytes());
    expected.push(0);
    assert_eq!(answer, expected);
    stream.write_all(&frame(20, 77, b"hi")).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, frame(32, 77, b"hi")[4..]);
    stream.write_all(&frame(4, 5, b"")).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, frame(5, 5, b"")[4..]);
}

#[tokio::test]
async fn a_newer_protocol_is_told_what_is_spoken_here() {
    let pair = pair().await;
    let said = conversation(pair.server.address(), &hello(2)).await;
    assert_eq!(said, frame(2, 0, &[5, 1, 0]));
}

#[tokio::test]
async fn oversize_and_malformed_frames_close_only_their_connection() {
    let pair = pair().await;
    assert_eq!(pair.ask("before").await.unwrap(), "before");
    let greeted = |more: &[u8]| [hello(1), more.to_vec()].concat();
    for bytes in [
        vec![0xff; 4],
        frame(1, 0, &[0; 2000]),
        frame(99, 0, b""),
        frame(20, 1, b"no greeting"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        greeted(&[0xff, 0xff, 0xff, 0xff]),
        greeted(&(64_u32 << 20 | 1).to_le_bytes()),
        greeted(&8_u32.to_le_bytes()),
        greeted(&frame(16, 1, b"no append")),
        greeted(&frame(17, 1, b"no vote")),
        greeted(&frame(1, 1, b"hello again")),
        greeted(&frame(32, 1, b"an answer")),
        greeted(&frame(99, 1, b"")),
    ] {
        let said = conversation(pair.server.address(), &bytes).await;
        let hellos = usize::from(bytes.starts_with(&hello(1)));
        assert_eq!(said.len(), hellos * hello(1).len(), "{bytes:?}");
    }
    assert_eq!(pair.ask("after").await.unwrap(), "after");
    assert_eq!(*pair.node.requests.lock().unwrap(), ["before", "after"]);
}

#[tokio::test]
async fn random_bytes_harm_nobody() {
    let pair = pair().await;
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = if seed % 2 == 0 { hello(1) } else { Vec::new() };
        if seed % 4 == 0 {
            let kind = [16, 17, 18, 19, 21, 22][random.random_range(0..6)];
            let body: Vec<u8> = (0..random.random_range(0..200)).map(|_| random.random()).collect();
            bytes.extend(frame(kind, random.random(), &body));
        }
        // A length of at most one byte, so that nobody waits for the rest of a frame for long.
        bytes.extend([random.random(), 0, 0, 0]);
        bytes.extend((0..random.random_range(300..1000)).map(|_| random.random::<u8>()));
        conversation(pair.server.address(), &bytes).await;
    }
    assert_eq!(pair.ask("still there").await.unwrap(), "still there");
}
