//! The short measurement that users have.

use std::process::Command;

use coracle_tests::cluster::Cluster;
use coracle_tests::program;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn measures_every_kind_of_work_and_leaves_nothing() {
    let cluster = Cluster::start(3).await;
    let nodes = cluster.https();
    let urls: Vec<String> = nodes.iter().map(|node| node.base().to_owned()).collect();
    let urls = urls.join(",");
    let bench = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program::path());
        command.args(["bench", "--clients", "3", "--time", "300ms", "-o", "json", "-u", &urls]);
        command.output().expect("the program starts")
    });
    let output = bench.await.expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Vec<Value> = serde_json::from_slice(&output.stdout).expect("figures");
    let work: Vec<&str> = figures.iter().filter_map(|figures| figures["work"].as_str()).collect();
    assert_eq!(work, ["put", "get", "lock", "queue"]);
    for figures in &figures {
        assert!(figures["operations"].as_u64() > Some(0) && figures["errors"].is_null(), "{figures}");
        assert!(figures["p50_ms"].as_f64() <= figures["max_ms"].as_f64(), "{figures}");
    }
    for path in ["/v1/kv", "/v1/sessions", "/v1/queues", "/v1/locks"] {
        let left = nodes[1].get(path).send().await.expect("an answer");
        assert_eq!(left.json()["items"], serde_json::json!([]), "{path}");
    }
}
