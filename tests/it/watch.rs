//! Watches: every change once, in order, whole, from anywhere, over restarts.

use std::collections::BTreeSet;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::http::{Frames, Http};
use coracle_tests::load::{Load, Shape};
use coracle_tests::log::Change;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

/// Follows a prefix for ever, from node to node, and keeps what it was told.
async fn follow(nodes: Vec<Http>, prefix: &str, until: tokio::sync::watch::Receiver<u64>) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let (mut after, mut node, mut streams) = (0, 0, 0);
    loop {
        node = (node + 1) % nodes.len();
        let path = format!(
            "/v1/kv?prefix={prefix}&watch=true&after={after}&initial=false&heartbeat=1s&on_gap=error"
        );
        let Ok(mut frames) = nodes[node].stream(reqwest::Method::GET, &path).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if frames.status != 200 {
            assert!(frames.status >= 500, "{path}: {}", frames.status);
            continue;
        }
        streams += 1;
        loop {
            let goal = *until.borrow();
            if goal > 0 && after >= goal {
                println!("{} changes over {streams} streams", changes.len());
                return changes;
            }
            let line =
                tokio::time::timeout(Duration::from_secs(5), frames.line_within(Duration::from_mins(1)))
                    .await;
            // The end of a stream, the silence of a paused node, half a line: go on elsewhere.
            let Ok(Some(line)) = line else { break };
            let Ok(frame) = serde_json::from_str::<Value>(&line) else { break };
            match frame["type"].as_str() {
                Some("change") => {
                    let change = Change::parse(&frame);
                    assert!(change.revision > after, "{frame} after {after}");
                    after = change.revision;
                    changes.push(change);
                }
                Some("progress" | "synced") => {
                    let revision = frame["revision"].as_u64().expect("a revision");
                    assert!(revision >= after, "{frame} after {after}");
                    after = revision;
                }
                Some("bye") => break,
                _ => panic!("{frame}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_over_kills_it_tells_exactly_what_happened() {
    let mut cluster = Cluster::start(3).await;
    let (done, until) = tokio::sync::watch::channel(0);
    let all = tokio::spawn(follow(cluster.https(), "load/", until.clone()));
    let some = tokio::spawn(follow(cluster.https().split_off(1), "load/0", until));
    let load = Load::start(cluster.https(), Shape { lockers: 0, ..Shape::default() });
    for index in 0..3 {
        load.goes_on(80).await;
        cluster.nodes[index].kill9();
        load.goes_on(40).await;
        cluster.nodes[index].restart().await;
    }
    load.stop().await;
    let log = cluster.one_log().await;
    done.send(log.revision()).expect("somebody listens");
    let expected = |prefix: &str| -> Vec<Change> {
        let within = |change: &Change| {
            let events: Vec<_> = change
                .events
                .iter()
                .filter(|e| e.family == "kv" && e.name.starts_with(prefix))
                .cloned()
                .collect();
            (!events.is_empty()).then_some(Change { revision: change.revision, events })
        };
        log.changes.iter().filter_map(within).collect()
    };
    assert!(expected("load/0").len() > 20);
    assert_eq!(all.await.expect("no panic"), expected("load/"));
    assert_eq!(some.await.expect("no panic"), expected("load/0"));
}

async fn until_synced(frames: &mut Frames) -> Vec<Value> {
    let mut before = Vec::new();
    loop {
        let frame = frames.next_within(SOON).await.expect("a frame");
        if frame["type"] == "synced" {
            return before;
        }
        before.push(frame);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_one_frame_and_a_snapshot_comes_first() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    http.put("/v1/kv/a/1", "one").expect(201).await;
    let revision = http.put("/v1/kv/a/2", "two").expect(201).await.revision();
    let mut frames = http.watch("/v1/kv?prefix=a/&watch=true").await;
    let before = until_synced(&mut frames).await;
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!((&before[0]["type"], &before[0]["revision"]), (&json!("snapshot"), &json!(revision)));
    assert_eq!(before[0]["items"].as_array().map(Vec::len), Some(2));
    let txn = json!({"then": [
        {"op": "put", "key": "a/1", "value": "uno"}, {"op": "delete", "key": "a/2"},
        {"op": "put", "key": "a/3", "value": "tres"}, {"op": "put", "key": "elsewhere", "value": "x"},
    ]});
    let done = http.post("/v1/txn", txn.to_string()).expect(200).await;
    let frame = frames.next().await.expect("a frame");
    assert_eq!((&frame["type"], &frame["revision"]), (&json!("change"), &json!(done.number("revision"))));
    let events = frame["events"].as_array().expect("events");
    let told: Vec<(&str, &str)> = events
        .iter()
        .map(|event| (event["op"].as_str().unwrap_or(""), event["key"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        told.iter().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from([("put", "a/1"), ("delete", "a/2"), ("put", "a/3")])
    );
    assert_eq!(events[0]["previous_revision"], json!(revision - 1), "{frame}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compacted_is_told_as_a_gap() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    for n in 0..20 {
        http.put("/v1/kv/k", n.to_string()).send().await.expect("an answer");
    }
    let newest = http.get("/v1/kv/k").expect(200).await.revision();
    let compacted =
        http.post(&format!("/v1/maintenance/compact?revision={}", newest - 5), "").expect(200).await;
    let oldest = compacted.number("compact_revision");
    assert_eq!(oldest, newest - 5);
    http.get("/v1/kv?prefix=k&watch=true&after=2&on_gap=error").refused(410, "compacted").await;
    http.get("/v1/kv/k?revision=2").refused(410, "compacted").await;
    http.get(&format!("/v1/kv/k?revision={}", newest + 100)).refused(400, "invalid_argument").await;
    let mut frames = http.watch("/v1/kv?prefix=k&watch=true&after=2").await;
    let before = until_synced(&mut frames).await;
    assert_eq!(
        (&before[0]["type"], &before[0]["from"], &before[0]["to"]),
        (&json!("gap"), &json!(2), &json!(oldest))
    );
    assert_eq!(before[1]["type"], "snapshot", "{before:?}");
    assert_eq!(before[1]["items"][0]["value"], "19");
    // From the edge of what is left it is exact.
    let mut frames = http.watch(&format!("/v1/kv?prefix=k&watch=true&after={oldest}&on_gap=error")).await;
    let revisions: Vec<u64> =
        until_synced(&mut frames).await.iter().filter_map(|frame| frame["revision"].as_u64()).collect();
    assert_eq!(revisions, (oldest + 1..=newest).collect::<Vec<_>>());
    assert_eq!(http.get(&format!("/v1/kv/k?revision={oldest}")).expect(200).await.text(), "14");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_future_it_waits_until_then() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let now = http.put("/v1/kv/k", "0").expect(201).await.revision();
    let mut frames =
        http.watch(&format!("/v1/kv?prefix=k&watch=true&after={}&initial=false&heartbeat=1s", now + 2)).await;
    for n in 1..=4 {
        http.put("/v1/kv/k", n.to_string()).expect(200).await;
    }
    for revision in [now + 3, now + 4] {
        let change = frames.until("change", SOON).await;
        assert_eq!(change["revision"], revision, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_prefix_has_progress_also_on_followers() {
    let cluster = Cluster::start(3).await;
    for node in &cluster.nodes {
        let mut frames =
            node.http().watch("/v1/kv?prefix=quiet/&watch=true&initial=false&heartbeat=1s").await;
        frames.until("synced", SOON).await;
        let revision =
            cluster.nodes[0].http().put("/v1/kv/loud", "x").send().await.expect("an answer").revision();
        loop {
            let progress = frames.until("progress", SOON).await;
            if progress["revision"].as_u64() >= Some(revision) {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_resume_by_their_id() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let first = http.put("/v1/kv/s", "one").expect(201).await.revision();
    let second = http.put("/v1/kv/s", "two\nlines").expect(200).await.revision();
    let address = cluster.nodes[0].address();
    let request = format!(
        "GET /v1/kv?prefix=s&watch=true&limit=2 HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nLast-Event-ID: {first}\r\nConnection: close\r\n\r\n"
    );
    let answer = coracle_tests::raw::exchange(&address, request.as_bytes(), Duration::from_secs(3)).await;
    let text = answer.text();
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    assert!(text.contains(&format!("event: change\nid: {second}\ndata: {{")), "{text}");
    assert!(!text.contains(&format!("id: {first}\n")), "{text}");
    assert!(text.contains("event: bye"), "{text}");
    assert!(text.contains("retry: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_answers_with_the_change_or_with_304() {
    let cluster = Cluster::start(3).await;
    let http = cluster.nodes[0].http().clone();
    let revision = http.put("/v1/kv/p", "one").expect(201).await.revision();
    for node in &cluster.nodes {
        let quiet = node.http().get(&format!("/v1/kv/p?wait=200ms&after={revision}")).expect(304).await;
        assert!(quiet.revision() >= revision);
    }
    // What has happened already is answered at once.
    let reply =
        cluster.nodes[2].http().get(&format!("/v1/kv/p?wait=1m&after={}", revision - 1)).expect(200).await;
    assert_eq!(reply.text(), "one");
    let polls: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| {
            tokio::spawn(
                node.http().get(&format!("/v1/kv/p?wait=30s&after={revision}")).patience(SOON).send(),
            )
        })
        .collect();
    let list =
        tokio::spawn(http.get(&format!("/v1/kv?prefix=p&wait=30s&after={revision}")).patience(SOON).send());
    http.put("/v1/kv/other", "x").expect(201).await;
    let changed = http.put("/v1/kv/p", "two").expect(200).await.revision();
    for poll in polls {
        let reply = poll.await.expect("no panic").expect("an answer");
        assert_eq!((reply.status, reply.text().as_str()), (200, "two"));
        assert!(reply.revision() >= changed);
    }
    let list = list.await.expect("no panic").expect("an answer");
    assert_eq!(list.json()["items"][0]["value"], "two", "{list:?}");
    // A deletion is a change too.
    let poll = tokio::spawn(http.get(&format!("/v1/kv/p?wait=30s&after={changed}")).patience(SOON).send());
    http.delete("/v1/kv/p").expect(200).await;
    assert_eq!(poll.await.expect("no panic").expect("an answer").code(), "key_not_found");
}

/// A reader that does not read costs the others nothing, and is told when it has missed something.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_told_that_it_lagged() {
    let cluster = Cluster::start_with(1, &["--history-count", "200", "--history-age", "1s"]).await;
    let http = cluster.nodes[0].http();
    let mut slow = http.watch("/v1/kv?prefix=s&watch=true&initial=false").await;
    let synced = slow.until("synced", SOON).await["revision"].as_u64().expect("a revision");
    let value = "x".repeat(60_000);
    let before = cluster.nodes[0].resident_bytes();
    for n in 0..600 {
        http.put(&format!("/v1/kv/s{}", n % 10), value.clone()).send().await.expect("an answer");
    }
    let grown = cluster.nodes[0].resident_bytes().saturating_sub(before);
    println!("{} MiB more for a slow reader and 36 MB of writes", grown >> 20);
    let (mut last, mut lagged) = (synced, false);
    while let Some(frame) = slow.next().await {
        let revision = frame["revision"].as_u64().expect("a revision");
        match frame["type"].as_str() {
            Some("change") => {
                assert_eq!(revision, last + 1, "a silent gap");
                last = revision;
            }
            Some("lagged") => {
                assert_eq!(revision, last, "the safe revision is the last one told");
                lagged = true;
            }
            Some("progress") => last = revision,
            _ => panic!("{frame}"),
        }
        if last == synced + 600 {
            break;
        }
    }
    assert!(lagged, "the history of 200 changes was passed, yet it saw all 600");
}
