//! Streams over time: heartbeats, slow readers, shutdown.

use std::time::Duration;

use crate::client::{Client, Frames};
use crate::server::start;

#[tokio::test]
async fn quiet_streams_are_told_how_far_the_world_has_come() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let mut quiet =
        Frames::open(running.address, "GET", "/v1/kv?prefix=quiet/&watch=true&heartbeat=1s", &[]).await;
    assert_eq!(quiet.frame().await["type"], "snapshot");
    assert_eq!(quiet.frame().await["type"], "synced");
    client.put("/v1/kv/other", b"1").await;
    let revision = client.put("/v1/kv/other", b"2").await.json()["revision"].clone();
    let progress = quiet.frame().await;
    assert_eq!((&progress["type"], &progress["revision"]), (&"progress".into(), &revision));
    client.put("/v1/kv/quiet/now", b"3").await;
    assert_eq!(quiet.frame().await["events"][0]["key"], "quiet/now");
}

#[tokio::test]
async fn every_change_once_and_in_order_for_many_watchers() {
    let running = start(|_| {}).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream =
            Frames::open(running.address, "GET", "/v1/kv?prefix=w/&watch=true&initial=false", &[]).await;
        assert_eq!(stream.frame().await["type"], "synced");
        streams.push(stream);
    }
    let address = running.address;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for i in 0..50 {
                    let key = if i % 2 == 0 { "w" } else { "x" };
                    assert!(
                        client.put(&format!("/v1/kv/{key}/{writer}"), format!("{i}").as_bytes()).await.status
                            < 300
                    );
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for stream in &mut streams {
        let (mut last, mut next) = (0, [0u64; 4]);
        for _ in 0..100 {
            let frame = stream.news().await;
            let revision = frame["revision"].as_u64().unwrap();
            assert!(revision > last, "{frame}");
            last = revision;
            let event = &frame["events"][0];
            let writer: usize = event["key"].as_str().unwrap()[2..].parse().unwrap();
            let value: u64 = event["value"].as_str().unwrap().parse().unwrap();
            assert_eq!(value, next[writer]);
            next[writer] += 2;
        }
        assert_eq!(next, [50; 4]);
    }
}

#[tokio::test]
async fn a_reader_too_slow_for_history_is_told_and_resumes() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let mut slow = Frames::open(running.address, "GET", "/v1/kv?watch=true&initial=false", &[]).await;
    assert_eq!(slow.frame().await["type"], "synced");
    // More than the sockets hold, so that the stream stands still while history goes on.
    let value = vec![b'x'; 256 * 1024];
    for i in 0..80 {
        assert!(client.put(&format!("/v1/kv/k{}", i % 4), &value).await.status < 300);
    }
    assert_eq!(client.post("/v1/maintenance/compact?keep=1", b"").await.status, 200);
    let mut last = 0;
    let lagged = loop {
        let frame = slow.frame().await;
        if frame["type"] == "lagged" {
            break frame;
        }
        let revision = frame["revision"].as_u64().unwrap();
        assert!(last == 0 || revision == last + 1, "a hole before {revision}");
        last = revision;
    };
    assert_eq!(lagged["revision"], last);
    assert!(slow.line().await.is_none(), "the stream ends");
    let mut again =
        Frames::open(running.address, "GET", &format!("/v1/kv?watch=true&after={last}"), &[]).await;
    let gap = again.frame().await;
    assert_eq!((&gap["type"], &gap["from"]), (&"gap".into(), &last.into()));
    assert_eq!(again.frame().await["type"], "snapshot");
}

#[tokio::test]
async fn large_snapshots_come_in_chunks() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    for batch in 0..5 {
        let puts: Vec<String> =
            (0..120).map(|i| format!(r#"{{"op":"put","key":"s/{batch}/{i:03}","value":"v"}}"#)).collect();
        client.post("/v1/txn", format!(r#"{{"then":[{}]}}"#, puts.join(",")).as_bytes()).await;
    }
    let mut stream = Frames::open(running.address, "GET", "/v1/kv?prefix=s/&watch=true", &[]).await;
    // A change behind the snapshot is no part of it.
    let first = stream.frame().await;
    client.put("/v1/kv/s/9/last", b"late").await;
    let (mut keys, mut frames, mut frame) = (Vec::new(), 1, first);
    loop {
        assert_eq!(frame["type"], "snapshot");
        keys.extend(frame["items"].as_array().unwrap().iter().map(|i| i["key"].as_str().unwrap().to_owned()));
        if frame["more"] != true {
            break;
        }
        frame = stream.frame().await;
        frames += 1;
    }
    assert!(frames > 1);
    keys.retain(|key| key != "s/9/last");
    let expect: Vec<String> = (0..5).flat_map(|b| (0..120).map(move |i| format!("s/{b}/{i:03}"))).collect();
    assert_eq!(keys, expect);
}

#[tokio::test]
async fn a_stopping_node_says_bye_and_answers_who_waits() {
    let running = start(|config| config.shutdown_grace = "5s".parse().unwrap()).await;
    let address = running.address;
    let mut watch = Frames::open(address, "GET", "/v1/kv?watch=true&initial=false", &[]).await;
    let synced = watch.frame().await;
    let mut held = Frames::open(address, "POST", "/v1/locks/door/acquire?hold=true&ttl=30s", &[]).await;
    assert_eq!(held.frame().await["type"], "acquired");
    let mut parked = Client::connect(address).await;
    parked.send(&crate::client::request("POST", "/v1/locks/door/acquire?ttl=30s&wait=60s", &[], b"")).await;
    let mut poll = Client::connect(address).await;
    poll.send(&crate::client::request("GET", "/v1/kv/none?wait=60s", &[], b"")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    let began = std::time::Instant::now();
    running.server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let frame = loop {
        let frame = watch.frame().await;
        if frame["type"] == "bye" {
            break frame;
        }
    };
    assert_eq!(frame["reason"], "shutdown");
    assert!(frame["revision"].as_u64() >= synced["revision"].as_u64());
    assert!(watch.line().await.is_none());
    let bye = held.news().await;
    assert_eq!((&bye["type"], &bye["reason"]), (&"bye".into(), &"shutdown".into()));
    for client in [&mut parked, &mut poll] {
        let answer = client.answer(false).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "shutting_down"));
        assert_eq!(answer.json()["retry"], "other_node");
    }
}

#[tokio::test]
async fn every_family_can_be_followed_by_its_word() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    for family in ["kv", "sessions"].iter().chain(coracle_recipes::FAMILIES) {
        let mut frames =
            Frames::open(running.address, "GET", &format!("/v1/events?family={family}"), &[]).await;
        assert_eq!(frames.frame().await["type"], "synced", "{family}");
    }
    let unknown = client.get("/v1/events?family=flocks").await;
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "invalid_argument"));
}
