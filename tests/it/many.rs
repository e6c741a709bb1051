//! Many at once: parked requests and open streams cost little, and all are woken.

use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::http::Http;
use coracle_tests::wait;
use reqwest::Method;

const PARKED: usize = 400;
const STREAMS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn wait_cheaply_and_wake_together() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let revision = http.put("/v1/kv/bell", "0").expect(201).await.revision();
    let before = cluster.nodes[0].resident_bytes();
    let polls: Vec<_> = (0..PARKED)
        .map(|_| {
            let call =
                http.get(&format!("/v1/kv/bell?wait=1m&after={revision}")).patience(Duration::from_secs(50));
            tokio::spawn(call.send())
        })
        .collect();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = http.watch("/v1/kv/bell?watch=true&initial=false").await;
        stream.until("synced", Duration::from_secs(20)).await;
        streams.push(stream);
    }
    wait::until("all are parked", Duration::from_secs(20), || async {
        let metrics = http.get("/metrics").send().await?.text();
        let value = |name: &str| {
            metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok())
        };
        let open = value("coracle_watch_streams ").unwrap_or(0);
        anyhow::ensure!(open >= STREAMS, "{open} streams");
        anyhow::Ok(())
    })
    .await;
    let each = cluster.nodes[0].resident_bytes().saturating_sub(before) / (PARKED + STREAMS) as u64;
    println!(
        "{} KiB for each of {PARKED} parked requests and {STREAMS} streams, connections included",
        each >> 10
    );
    assert!(each < 128 << 10, "{each} bytes each");
    let rung = Instant::now();
    http.put("/v1/kv/bell", "1").expect(200).await;
    for poll in polls {
        let reply = poll.await.expect("no panic").expect("an answer");
        assert_eq!((reply.status, reply.text().as_str()), (200, "1"), "{reply:?}");
    }
    for stream in &mut streams {
        let change = stream.until("change", Duration::from_secs(10)).await;
        assert_eq!(change["events"][0]["value"], "1");
    }
    println!("all were told within {:?}", rung.elapsed());
}

/// Three hundred in one line, each told only when it is its turn, through kills of the leader.
#[tokio::test(flavor = "multi_thread")]
async fn stand_in_one_line() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let http = cluster.nodes[(leader + 1) % 3].http().clone();
    let open =
        |http: Http| async move { http.post("/v1/sessions?ttl=10m", "").expect(201).await.member("id") };
    let mut sessions = Vec::new();
    for _ in 0..60 {
        sessions.push(open(http.clone()).await);
    }
    for (place, session) in sessions.iter().enumerate() {
        let path = format!("/v1/locks/line/acquire?session={session}&keep=true");
        http.post(&path, "").expect(if place == 0 { 200 } else { 202 }).await;
    }
    cluster.nodes[leader].kill9();
    let mut newest = 0;
    for (place, session) in sessions.iter().enumerate() {
        let granted = wait::until("its turn", Duration::from_secs(20), || async {
            let reply =
                http.post(&format!("/v1/locks/line/acquire?session={session}&keep=true"), "").send().await?;
            anyhow::ensure!(reply.status == 200, "{reply:?}");
            anyhow::Ok(reply)
        })
        .await;
        assert!(granted.number("token") > newest, "place {place}: {granted:?}");
        newest = granted.number("token");
        // Half of them go by the end of their session.
        if place % 2 == 0 {
            http.post(&format!("/v1/locks/line/release?session={session}"), "").expect(200).await;
        } else {
            http.delete(&format!("/v1/sessions/{session}")).expect(200).await;
        }
    }
    http.get("/v1/locks/line").refused(404, "lock_not_found").await;
}

/// A lock and a session held by streams of followers stay held while the leader dies.
#[tokio::test(flavor = "multi_thread")]
async fn held_by_streams_survive_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let http = cluster.nodes[(leader + 1) % 3].http().clone();
    let mut stream =
        http.stream(Method::POST, "/v1/locks/kept/acquire?hold=true&ttl=8s").await.expect("a stream");
    let token = stream.until("acquired", Duration::from_secs(5)).await["token"].as_u64().expect("a token");
    cluster.nodes[leader].kill9();
    let killed = Instant::now();
    // Past the end of what was valid before: it must have been renewed by the new leader.
    while killed.elapsed() < Duration::from_secs(10) {
        let frame = stream.next_within(Duration::from_secs(10)).await.expect("it goes on");
        assert_eq!(frame["type"], "held", "{frame}");
    }
    let lock = http.get("/v1/locks/kept").expect(200).await.json();
    assert_eq!(lock["holders"][0]["token"], token, "{lock}");
}
