//! Many sessions of a short ttl while leaders are killed and paused: none ends before its last renewal runs out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::rounds::Rounds;
use serde_json::Value;

const TTL: Duration = Duration::from_secs(3);
const SESSIONS: usize = 24;

/// What the keeper of one session knows at its end: when the last good renewal was sent, and when it was told it is over.
struct Kept {
    session: String,
    sent: Instant,
    told: Option<Instant>,
}

/// Renews until it is told to stop, or that it is over; whoever does not answer is left for the next.
async fn keep(
    nodes: Vec<Http>,
    mut node: usize,
    session: String,
    mut sent: Instant,
    stop: Arc<AtomicBool>,
) -> Kept {
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let call =
            nodes[node].post(&format!("/v1/sessions/{session}/renew"), "").patience(Duration::from_secs(1));
        match call.send().await {
            Ok(reply) if reply.status == 200 => sent = asked,
            Ok(reply) if reply.status == 410 => return Kept { session, sent, told: Some(Instant::now()) },
            _ => node = (node + 1) % nodes.len(),
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..700))).await;
    }
    Kept { session, sent, told: None }
}

/// When each session was seen to end, by a watch that goes from node to node.
async fn observe(nodes: Vec<Http>, stop: Arc<AtomicBool>) -> BTreeMap<String, Instant> {
    let (mut ended, mut after, mut node) = (BTreeMap::new(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        node = (node + 1) % nodes.len();
        let path = format!("/v1/events?family=sessions&after={after}&heartbeat=1s");
        let Ok(mut frames) = nodes[node].stream(reqwest::Method::GET, &path).await else { continue };
        while frames.status == 200 && !stop.load(Ordering::Relaxed) {
            let line =
                tokio::time::timeout(Duration::from_secs(2), frames.line_within(Duration::from_mins(1)))
                    .await;
            let Ok(Some(line)) = line else { break };
            let Ok(frame) = serde_json::from_str::<Value>(&line) else { break };
            after = frame["revision"].as_u64().unwrap_or(after);
            for event in
                frame["events"].as_array().into_iter().flatten().filter(|event| event["op"] == "expired")
            {
                ended.insert(event["name"].as_str().unwrap_or_default().to_owned(), Instant::now());
            }
        }
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn end_never_early_and_never_live_on() {
    let mut cluster = Cluster::start(3).await;
    let (stop, unwatched) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut keepers = Vec::new();
    for n in 0..SESSIONS {
        let sent = Instant::now();
        let session =
            cluster.nodes[n % 3].http().post("/v1/sessions?ttl=3s", "").expect(201).await.member("id");
        keepers.push(tokio::spawn(keep(cluster.https(), n % 3, session, sent, stop.clone())));
    }
    let observer = tokio::spawn(observe(cluster.https(), unwatched.clone()));
    let mut rounds = Rounds::of(3);
    while rounds.another() {
        let leader = cluster.leader().await;
        if rounds.begun().is_multiple_of(2) {
            cluster.nodes[leader].kill9();
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..3000))).await;
            cluster.nodes[leader].restart().await;
        } else {
            cluster.nodes[leader].pause();
            tokio::time::sleep(Duration::from_millis(rand::random_range(500..4000))).await;
            cluster.nodes[leader].resume();
        }
        cluster.leader().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut kept = Vec::new();
    for keeper in keepers {
        kept.push(keeper.await.expect("no panic"));
    }
    let http = cluster.nodes[0].http().clone();
    coracle_tests::wait::until("all have ended", 2 * TTL + Duration::from_secs(10), || async {
        let left = http.get("/v1/sessions").send().await?.json();
        anyhow::ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{left}");
        anyhow::Ok(())
    })
    .await;
    unwatched.store(true, Ordering::Relaxed);
    let ended = observer.await.expect("no panic");
    let early: Vec<_> = kept
        .iter()
        .filter_map(|kept| {
            let end = [ended.get(&kept.session).copied(), kept.told].into_iter().flatten().min()?;
            (end < kept.sent + TTL)
                .then(|| format!("{} ended {:?} after its last renewal", kept.session, end - kept.sent))
        })
        .collect();
    assert!(early.is_empty(), "{early:?}");
    println!(
        "{} of {SESSIONS} were lost to the faults",
        kept.iter().filter(|kept| kept.told.is_some()).count()
    );
    let log = cluster.one_log().await;
    let expired = log.events("sessions").filter(|(_, event)| event.op == "expired").count();
    assert_eq!(expired, SESSIONS, "each ends once");
}
