//! A server of one node in this process, on ports of its own.

use std::net::SocketAddr;

use coracle_server::{Config, Server};
use tempfile::TempDir;

/// A running server and its directory.
pub struct Running {
    pub server: Server,
    pub address: SocketAddr,
    _data: TempDir,
}

/// Start a cluster of one, with settings for tests.
pub async fn start(change: impl FnOnce(&mut Config)) -> Running {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.data = data.path().join("data");
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.peer_listen = "127.0.0.1:0".parse().unwrap();
    config.segment_bytes.0 = 1 << 20;
    change(&mut config);
    let server = Server::start(config).await.unwrap();
    let address = server.address();
    ready(&server).await;
    Running { server, address, _data: data }
}

async fn ready(server: &Server) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    server.node().read_barrier(deadline).await.expect("the node leads within 20 s");
}
