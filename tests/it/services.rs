//! Services on real nodes: who renews stays listed through deaths of leaders, who stops is gone in time, and lists, watches
//! and picks tell the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::wait;
use serde_json::Value;

const TTL: Duration = Duration::from_secs(4);
const DEREGISTER: Duration = Duration::from_secs(2);
const INSTANCES: usize = 12;

fn path(id: &str) -> String {
    format!("/v1/services/web/instances/{id}")
}

fn body(n: usize) -> String {
    format!(r#"{{"address":"10.0.0.{n}","port":80,"zone":"z{}"}}"#, n % 3)
}

/// Renews until told to stop; when the last answered renewal was sent. Panics if it is told that the instance is gone
/// although the last renewal still counted.
async fn keep(
    nodes: Vec<Http>,
    mut node: usize,
    id: String,
    mut sent: Instant,
    stop: Arc<AtomicBool>,
) -> Instant {
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let call = nodes[node].post(&(path(&id) + "/renew"), "").patience(Duration::from_secs(1));
        match call.send().await {
            Ok(reply) if reply.status == 200 => sent = asked,
            Ok(reply) if matches!(reply.status, 404 | 409 | 410) => {
                let since = sent.elapsed();
                assert!(since > TTL, "{id}: {} only {since:?} after the last renewal", reply.text());
                panic!("{id}: no renewal was answered for {since:?}: this machine is too slow for the test");
            }
            _ => node = (node + 1) % nodes.len(),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    sent
}

/// Follows the service from node to node; every state of each instance, with when it was told.
async fn observe(nodes: Vec<Http>, stop: Arc<AtomicBool>) -> Vec<(Instant, String, String)> {
    let (mut told, mut after, mut node) = (Vec::new(), None::<u64>, 0);
    while !stop.load(Ordering::Relaxed) {
        node = (node + 1) % nodes.len();
        let from = after.map_or("initial=false".to_owned(), |after| format!("after={after}"));
        let watch = format!("/v1/services/web?watch=true&heartbeat=1s&{from}");
        let Ok(mut frames) = nodes[node].stream(reqwest::Method::GET, &watch).await else { continue };
        while frames.status == 200 && !stop.load(Ordering::Relaxed) {
            let Some(frame) = frames.next_within(Duration::from_secs(3)).await else { break };
            after = frame["revision"].as_u64().or(after);
            for event in frame["events"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let status = event.get("value").map_or("gone".to_owned(), |value| text(&value["status"]));
                told.push((Instant::now(), text(&event["item"]), status));
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn stay_as_long_as_they_are_renewed_and_no_longer() {
    let mut cluster = Cluster::start(3).await;
    let settings = cluster.nodes[0].http().put("/v1/services/web", r#"{"deregister_after":"2s"}"#);
    settings.expect(201).await;
    let (stop, unwatched) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut keepers = Vec::new();
    for n in 0..INSTANCES {
        let (id, sent) = (format!("i{n:02}"), Instant::now());
        cluster.nodes[n % 3].http().put(&(path(&id) + "?ttl=4s"), body(n)).expect(201).await;
        keepers.push(tokio::spawn(keep(cluster.https(), n % 3, id, sent, stop.clone())));
    }
    let observer = tokio::spawn(observe(cluster.https(), unwatched.clone()));

    // A leader dies, the next is paused: nobody flaps.
    let leader = cluster.leader().await;
    cluster.nodes[leader].kill9();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.nodes[leader].restart().await;
    let leader = cluster.leader().await;
    cluster.nodes[leader].pause();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    cluster.nodes[leader].resume();
    cluster.ready().await;
    let seen = cluster.nodes[0].http().get("/v1/services/web?healthy=true").expect(200).await.json();
    assert_eq!(seen["items"].as_array().map(Vec::len), Some(INSTANCES), "{seen}");

    // All stop renewing: critical when the ttl is over, gone two seconds after that.
    stop.store(true, Ordering::Relaxed);
    let mut last = BTreeMap::new();
    for (n, keeper) in keepers.into_iter().enumerate() {
        last.insert(format!("i{n:02}"), keeper.await.expect("no instance was lost while it was renewed"));
    }
    let http = cluster.nodes[1].http().clone();
    wait::until("all are gone", Duration::from_secs(30), || {
        let http = http.clone();
        async move {
            let seen = http.get("/v1/services/web").send().await?.json();
            anyhow::ensure!(seen["items"].as_array().is_some_and(Vec::is_empty), "still there: {seen}");
            Ok::<_, anyhow::Error>(())
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    unwatched.store(true, Ordering::Relaxed);
    let told = observer.await.expect("an observer");
    for (id, sent) in last {
        let when = |status: &str| {
            let mut of = told.iter().filter(|(_, who, what)| *who == id && what == status);
            let (at, ..) = of.next().unwrap_or_else(|| panic!("{id} was never {status}"));
            assert_eq!(of.count(), 0, "{id} was {status} more than once");
            at.duration_since(sent)
        };
        // Never early. How late is left to the machine: that all of them go was waited for above.
        let (critical, gone) = (when("critical"), when("gone"));
        assert!(critical >= TTL, "{id} critical {critical:?} after the last renewal");
        assert!(gone >= TTL + DEREGISTER, "{id} gone {gone:?} after the last renewal");
        assert!(gone > critical, "{id} gone before it was critical");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_watches_and_picks_agree() {
    let mut cluster = Cluster::start(3).await;
    let nodes = cluster.https();
    let mut frames = nodes[1].watch("/v1/services/web?watch=true&healthy=true&heartbeat=1s").await;
    for n in 0..40_usize {
        let (http, id) = (&nodes[n % 3], format!("i{:02}", n % 10));
        http.put(&path(&id), body(n)).send().await.expect("an answer");
        match n % 4 {
            1 => drop(http.post(&(path(&id) + "/renew?status=critical"), "").expect(200).await),
            2 => drop(http.post(&(path(&id) + "/drain?deadline=1h"), "").expect(200).await),
            3 => drop(http.delete(&path(&id)).expect(200).await),
            _ => {}
        }
        // Who asks another node right after is answered what was answered here.
        let other = &nodes[(n + 1) % 3];
        let picked = other.get("/v1/services/web/pick?n=20").send().await.expect("an answer");
        let list = other.get("/v1/services/web?healthy=true").expect(200).await.json();
        let ids = |list: &Value| {
            let items = list["items"].as_array().cloned().unwrap_or_default();
            let mut ids: Vec<String> = items.iter().map(|it| it["id"].to_string()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&picked.json()), ids(&list), "after {n}: {}", picked.text());
    }
    // What the watch adds up to is the list at the same revision.
    let last = nodes[0].get("/v1/services/web?healthy=true").expect(200).await.json();
    let revision = last["revision"].as_u64().expect("a revision");
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    loop {
        let frame = frames.next_within(Duration::from_secs(20)).await.expect("a frame");
        for item in frame["items"].as_array().into_iter().flatten() {
            seen.insert(item["id"].to_string(), item.clone());
        }
        for event in frame["events"].as_array().into_iter().flatten() {
            match event.get("value") {
                Some(value) => drop(seen.insert(event["item"].to_string(), value.clone())),
                None => drop(seen.remove(&event["item"].to_string())),
            }
        }
        if frame["revision"].as_u64().is_some_and(|at| at >= revision) {
            break;
        }
    }
    assert_eq!(Value::Array(seen.into_values().collect()), last["items"]);
    // The farewell of a former generation does not touch its successor, whichever node it comes to.
    let first = nodes[0].put(&path("twice"), body(1)).expect(201).await.number("generation");
    let second = nodes[1].put(&path("twice"), body(2)).expect(200).await.number("generation");
    assert!(second > first);
    for http in &nodes {
        http.delete(&format!("{}?generation={first}", path("twice"))).refused(409, "instance_replaced").await;
        http.post(&format!("{}/renew?generation={first}", path("twice")), "")
            .refused(409, "instance_replaced")
            .await;
    }
    nodes[2].post(&format!("{}/renew?generation={second}", path("twice")), "").expect(200).await;
    cluster.converged().await;
}
