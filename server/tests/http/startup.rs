//! Starts that fail with a clear word, and a restart that finds everything.

use coracle_server::{Config, RunError, Server};

use crate::client::Client;
use crate::server::start;

fn config(directory: &std::path::Path) -> Config {
    let mut config = Config::default();
    config.data = directory.join("data");
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.peer_listen = "127.0.0.1:0".parse().unwrap();
    config.segment_bytes.0 = 1 << 20;
    config
}

async fn refused(config: Config) -> String {
    match Server::start(config).await {
        Ok(_) => panic!("started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn taken_ports_and_directories_are_named() {
    let running = start(|_| {}).await;
    let directory = tempfile::tempdir().unwrap();
    let mut taken = config(directory.path());
    taken.listen = running.address;
    let error = refused(taken).await;
    assert!(
        error.contains("cannot listen for clients") && error.contains(&running.address.to_string()),
        "{error}"
    );

    let first = Server::start(config(directory.path())).await.unwrap();
    let error = refused(config(directory.path())).await;
    assert!(error.to_lowercase().contains("lock") || error.contains("use"), "{error}");
    first.stop().await;

    let foreign = tempfile::tempdir().unwrap();
    std::fs::create_dir(foreign.path().join("data")).unwrap();
    std::fs::write(foreign.path().join("data/precious.txt"), "not ours").unwrap();
    let error = refused(config(foreign.path())).await;
    assert!(error.contains("data"), "{error}");
    assert_eq!(std::fs::read_dir(foreign.path().join("data")).unwrap().count(), 1, "nothing was added");
}

#[tokio::test]
async fn a_cluster_that_cannot_be_joined_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for (url, expect) in [
        ("http://127.0.0.1:1", "cannot join the cluster at http://127.0.0.1:1"),
        ("ftp://x", "must begin with http:// or https://"),
        ("https://127.0.0.1:1", "https needs"),
    ] {
        let mut joining = config(directory.path());
        joining.join = Some(url.to_owned());
        let error = refused(joining).await;
        assert!(error.contains(expect), "{error}");
    }
    let mut joining = config(directory.path());
    joining.join = Some("http://127.0.0.1:1".to_owned());
    assert!(matches!(Server::start(joining).await, Err(RunError::Join { .. })));
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let directory = tempfile::tempdir().unwrap();
    let first = Server::start(config(directory.path())).await.unwrap();
    let mut client = Client::connect(first.address()).await;
    for _ in 0..100 {
        if client.put("/v1/kv/k", b"kept").await.status < 300 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let held = client.post("/v1/locks/door/acquire?ttl=60s", b"").await.json();
    drop(client);
    first.stop().await;

    let second = Server::start(config(directory.path())).await.unwrap();
    let mut client = Client::connect(second.address()).await;
    let mut answer = client.get("/v1/kv/k").await;
    for _ in 0..100 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        answer = client.get("/v1/kv/k").await;
    }
    assert_eq!(answer.text(), "kept");
    assert_eq!(client.get("/v1/locks/door").await.json()["holders"][0]["token"], held["token"]);
    let again = client.post("/v1/locks/door/acquire?ttl=60s", b"").await;
    assert_eq!((again.status, again.code().as_str()), (409, "lock_held"));
}
