//! Random and foreign bytes on both ports: no panic, no leak, no notice by others.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::raw;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const QUIET: Duration = Duration::from_millis(150);

fn junk(random: &mut StdRng, longest: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(1..longest)];
    random.fill_bytes(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn on_both_ports_is_survived() {
    let mut cluster = Cluster::start(3).await;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    cluster.nodes[0].http().put("/v1/kv/a", "1").expect(201).await;
    let before = cluster.converged().await;
    let resident: Vec<u64> = cluster.nodes.iter().map(coracle_tests::node::Node::resident_bytes).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    // A frame of settings whose length is a lie, a window of nothing, headers that are no HPACK.
    let h2 = [
        preface,
        b"\xff\xff\xff\x04\x00\x00\x00\x00\x00",
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ]
    .concat();
    let hpack = [
        preface,
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x00\x00\x05\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff\xff",
    ]
    .concat();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    for round in 0..60 {
        let node = &cluster.nodes[round % 3];
        let mut inputs = vec![junk(&mut random, 3000), tls.to_vec(), h2.clone(), hpack.clone()];
        inputs.push([preface, &junk(&mut random, 500)].concat());
        inputs.push([b"GET ".as_slice(), &junk(&mut random, 500), b" HTTP/1.1\r\n\r\n"].concat());
        // The first bytes of a peer, then something else.
        inputs.push([b"coraclep".as_slice(), &junk(&mut random, 300)].concat());
        inputs.push([b"coraclep".as_slice(), &u32::MAX.to_le_bytes(), &junk(&mut random, 50)].concat());
        inputs.push([b"coraclep".as_slice(), &u32::MAX.to_be_bytes(), &[0; 4096]].concat());
        let input = &inputs[round % inputs.len()];
        for address in [node.address(), node.peer_address()] {
            raw::exchange(&address, input, QUIET).await;
        }
    }
    // Connections that say nothing, and are then gone.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(cluster.nodes[0].address()).await.expect("connected"));
        silent.push(TcpStream::connect(cluster.nodes[0].peer_address()).await.expect("connected"));
    }
    drop(silent);
    assert_eq!(cluster.converged().await, before);
    for (node, resident) in cluster.nodes.iter().zip(resident) {
        assert!(!node.log().contains("panicked"), "{} panicked", node.name);
        let grown = node.resident_bytes().saturating_sub(resident);
        assert!(grown < 64 << 20, "{} grew by {} MiB", node.name, grown >> 20);
        node.http().get("/readyz").expect(200).await;
    }
}

/// A flood of resets on one HTTP/2 connection is ended, not served.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_is_cut() {
    let cluster = Cluster::start(1).await;
    let mut stream = TcpStream::connect(cluster.nodes[0].address()).await.expect("connected");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    // :method GET, :scheme http, :path /, and an authority.
    let headers = b"\x82\x86\x84\x41\x09localhost";
    for n in 0..5000_u32 {
        let id = (2 * n + 1).to_be_bytes();
        bytes.extend([0, 0, u8::try_from(headers.len()).expect("short"), 1, 5]);
        bytes.extend(id);
        bytes.extend(headers);
        bytes.extend([0, 0, 4, 3, 0]);
        bytes.extend(id);
        bytes.extend(8_u32.to_be_bytes());
    }
    let _ = stream.write_all(&bytes).await;
    let answer = raw::read(&mut stream, Duration::from_secs(5)).await;
    assert!(answer.closed, "it goes on");
    cluster.nodes[0].http().put("/v1/kv/a", "1").expect(201).await;
}
