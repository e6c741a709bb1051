//! What keeps a node from starting says so, names the thing, and changes nothing.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::node::Node;
use coracle_tests::program;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_directory_is_refused() {
    let mut cluster = Cluster::start(1).await;
    cluster.nodes[0].http().put("/v1/kv/a", "1").expect(201).await;
    let output = Command::new(program::path())
        .args(["serve", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", "--data"])
        .arg(cluster.nodes[0].data())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lock") || said.contains("in use"), "{said}");
    // The first did not notice.
    cluster.nodes[0].http().put("/v1/kv/a", "2").expect(200).await;
    cluster.nodes[0].kill9();
    cluster.nodes[0].restart().await;
    assert_eq!(cluster.nodes[0].http().get("/v1/kv/a").expect(200).await.text(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    for peer in [false, true] {
        let mut cluster = Cluster::prepare(1);
        let port = if peer { cluster.nodes[0].peer } else { cluster.nodes[0].listen };
        let _taken = TcpListener::bind(("127.0.0.1", port)).expect("ours");
        let said = cluster.nodes[0].refuses_to_start().await;
        assert!(said.contains(&port.to_string()), "{said}");
        assert!(said.to_lowercase().contains("in use"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused() {
    let mut cluster = Cluster::start(1).await;
    cluster.nodes[0].terminate().await;
    let identity = cluster.nodes[0].data().join("IDENTITY");
    let text = fs::read_to_string(&identity).expect("an identity");
    fs::write(&identity, text.replace("format 1", "format 2")).expect("written");
    let said = cluster.nodes[0].refuses_to_start().await;
    assert!(said.contains("newer"), "{said}");
    fs::write(&identity, text).expect("written");
    cluster.nodes[0].restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_something_else_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::new("n1", folder.path());
    fs::create_dir_all(folder.path()).expect("a folder");
    fs::write(node.data(), "a file").expect("written");
    node.refuses_to_start().await;
    assert_eq!(fs::read_to_string(node.data()).expect("untouched"), "a file");
    let mut node = Node::new("n2", folder.path());
    fs::create_dir_all(node.data()).expect("a folder");
    fs::write(node.data().join("IDENTITY"), "my diary\n").expect("written");
    node.refuses_to_start().await;
    assert_eq!(fs::read_to_string(node.data().join("IDENTITY")).expect("untouched"), "my diary\n");
}

#[test]
fn bad_settings_are_named_with_their_origin() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("coracle.toml");
    fs::write(&file, "quota = \"lots\"\n").expect("written");
    let unknown = folder.path().join("unknown.toml");
    fs::write(&unknown, "quotta = \"1GiB\"\n").expect("written");
    let data = folder.path().join("data");
    let run = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = Command::new(program::path());
        command.arg("serve").arg("--data").arg(&data).args(arguments).envs(variable);
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (arguments, variable, names) in [
        (&["--listen", "nonsense"][..], None, &["listen", "nonsense"][..]),
        (&["--whatever", "1"], None, &["--whatever"]),
        (&["--quota", "-1"], None, &["quota", "-1"]),
        (&["--history-age", "soon"], None, &["history_age", "soon"]),
        (&["--max-value", "2MiB"], None, &["max_value"]),
        (&["--tls-cert", "x"], None, &["tls_key"]),
        (&["--name", "n7", "--initial-cluster", "n1=127.0.0.1:1"], None, &["n7"]),
        (&["--initial-cluster", "n1"], None, &["initial_cluster"]),
        (&["--join", "http://127.0.0.1:1", "--initial-cluster", "n1=127.0.0.1:1"], None, &["join"]),
        (&["--config", file.to_str().expect("text")], None, &["quota", "lots", "coracle.toml"]),
        (&["--config", unknown.to_str().expect("text")], None, &["quotta", "unknown.toml"]),
        (&["--config", "/nowhere.toml"], None, &["/nowhere.toml"]),
        (&[], Some(("CORACLE_QUOTA", "many")), &["quota", "many", "CORACLE_QUOTA"]),
    ] {
        let (code, said) = run(arguments, variable);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        for name in names {
            assert!(said.contains(name), "{arguments:?} does not name {name}: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
    assert!(!data.exists(), "a refused start leaves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let nonsense = folder.path().join("nonsense.pem");
    fs::write(&nonsense, "nonsense").expect("written");
    let path = nonsense.to_str().expect("text");
    for arguments in
        [["--tls-cert", path, "--tls-key", path], ["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.pem"]]
    {
        let mut node = Node::new("n1", folder.path()).with(&arguments);
        let said = node.refuses_to_start().await;
        assert!(said.contains(arguments[1]), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_joined_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = coracle_tests::ports::reserve();
    let url = format!("http://127.0.0.1:{port}");
    let mut node = Node::new("n1", folder.path()).with(&["--join", &url]);
    let said = node.refuses_to_start().await;
    assert!(said.contains(&url), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_well_while_clients_wait_and_watch() {
    let mut cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http().clone();
    let mut watch = http.watch("/v1/kv?prefix=&watch=true").await;
    watch.until("synced", Duration::from_secs(5)).await;
    http.post("/v1/locks/l/acquire?ttl=1m", "").expect(200).await;
    let waiting = tokio::spawn({
        let http = http.clone();
        async move {
            http.post("/v1/locks/l/acquire?ttl=1m&wait=1m", "").patience(Duration::from_secs(30)).send().await
        }
    });
    coracle_tests::wait::until("it waits in line", Duration::from_secs(10), || async {
        let lock = http.get("/v1/locks/l").send().await?.json();
        anyhow::ensure!(lock["waiters"].as_array().is_some_and(|waiters| waiters.len() == 1), "{lock}");
        anyhow::Ok(())
    })
    .await;
    cluster.nodes[0].terminate().await;
    let bye = watch.until("bye", Duration::from_secs(5)).await;
    assert_eq!(bye["reason"], "shutdown");
    let waited = waiting.await.expect("no panic").expect("an answer");
    assert_eq!((waited.status, waited.code().as_str()), (503, "shutting_down"), "{waited:?}");
}

#[test]
fn the_settings_are_printed_with_their_origin() {
    let output = Command::new(program::path())
        .args(["serve", "--print-config", "--name", "n7"])
        .env("CORACLE_QUOTA", "1GiB")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for line in [
        "name = \"n7\"  # flag",
        "quota = \"1GiB\"  # environment CORACLE_QUOTA",
        "listen = \"127.0.0.1:7070\"  # default",
    ] {
        assert!(said.lines().any(|printed| printed == line), "no line {line:?} in {said}");
    }
}
