//! Topics: limits at the limit and one beyond, bad input, slow readers, receivers that go away.

use std::time::Duration;

use crate::client::{Client, Frames};
use crate::server::start;

fn batch(count: usize, value: &str) -> Vec<u8> {
    let items = vec![serde_json::json!({ "value": value }); count];
    serde_json::to_vec(&serde_json::json!({ "items": items })).unwrap()
}

#[tokio::test]
async fn limits_are_public_and_kept() {
    let running = start(|config| {
        // An entry of a megabyte, and a machine that may have much else to do.
        config.segment_bytes.0 = 8 << 20;
        config.request_timeout = "15s".parse().unwrap();
    })
    .await;
    let mut client = Client::connect(running.address).await;
    let limits = client.get("/v1/limits").await.json();
    let limit = |name: &str| usize::try_from(limits[name].as_u64().expect(name)).unwrap();

    let most = limit("publish_messages_max");
    let path = "/v1/topics/t/messages?batch=true";
    assert_eq!(client.post(path, &batch(most, "x")).await.status, 201);
    assert_eq!(client.post(path, &batch(most + 1, "x")).await.status, 413);
    let bytes = limit("publish_bytes_max");
    let taken = client.post(path, &batch(4, &"x".repeat(bytes / 4))).await;
    assert_eq!(taken.status, 201, "{}", taken.text());
    assert_eq!(client.post(path, &batch(4, &"x".repeat(bytes / 4 + 1))).await.status, 413);
    let value = limit("value_bytes_max");
    assert_eq!(client.post("/v1/topics/t/messages", &vec![b'x'; value]).await.status, 201);
    assert_eq!(client.post("/v1/topics/t/messages", &vec![b'x'; value + 1]).await.status, 413);

    let most = limit("messages_per_key_max");
    let config = |most: usize| format!(r#"{{"max_per_key":{most}}}"#).into_bytes();
    assert_eq!(client.put("/v1/topics/table", &config(most)).await.status, 201);
    assert_eq!(client.put("/v1/topics/table", &config(most + 1)).await.status, 400);

    let longest = "n".repeat(512);
    assert_eq!(client.post(&format!("/v1/topics/{longest}/messages"), b"x").await.status, 201);
    assert_eq!(client.post(&format!("/v1/topics/{longest}n/messages"), b"x").await.status, 400);
    assert_eq!(client.post(&format!("/v1/topics/k/messages?key={longest}"), b"x").await.status, 201);
    assert_eq!(client.post(&format!("/v1/topics/k/messages?key={longest}n"), b"x").await.status, 400);
    let meta = limit("metadata_bytes_max");
    let mut with_meta = async |size: usize| {
        let headers = [("Coracle-Meta-A", "m".repeat(size - 1))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        client.call("POST", "/v1/topics/k/messages", &headers, b"x").await.status
    };
    assert_eq!(with_meta(meta).await, 201);
    assert_eq!(with_meta(meta + 1).await, 413);

    let most = limit("receive_messages_max");
    assert_eq!(client.put("/v1/topics/t/subscriptions/s", br#"{"from":"first"}"#).await.status, 201);
    let path = "/v1/topics/t/subscriptions/s/receive";
    let received = client.post(&format!("{path}?max={most}"), b"").await.json();
    assert_eq!(received["items"].as_array().unwrap().len(), most);
    assert_eq!(client.post(&format!("{path}?max={}", most + 1), b"").await.status, 400);

    let most = limit("subscriptions_per_topic_max");
    for number in 1..most {
        let path = format!("/v1/topics/t/subscriptions/s{number}");
        assert_eq!(client.put(&path, b"").await.status, 201);
    }
    let refused = client.put("/v1/topics/t/subscriptions/one-more", b"").await;
    assert_eq!((refused.status, refused.code()), (413, "too_large".to_owned()));
    // A topic with all its subscriptions goes in one call.
    let deleted = client.call("DELETE", "/v1/topics/t", &[], b"").await.json();
    assert_eq!(deleted["subscriptions"], most);
}

#[tokio::test]
async fn so_many_are_in_flight_and_no_more() {
    let running = start(|config| config.request_timeout = "15s".parse().unwrap()).await;
    let mut client = Client::connect(running.address).await;
    let most = client.get("/v1/limits").await.json()["deliveries_in_flight_max"].as_u64().unwrap();
    client.put("/v1/topics/t/subscriptions/s", br#"{"visibility":"1h"}"#).await;
    for _ in 0..=most / 1_000 {
        assert_eq!(client.post("/v1/topics/t/messages?batch=true", &batch(1_000, "x")).await.status, 201);
    }
    let path = "/v1/topics/t/subscriptions/s/receive?max=100";
    let mut receipt = String::new();
    for _ in 0..most / 100 {
        let received = client.post(path, b"").await.json();
        receipt = received["items"][99]["receipt"].as_str().expect("a hundred").to_owned();
    }
    let refused = client.post(path, b"").await;
    assert_eq!((refused.status, refused.code()), (429, "too_many_in_flight".to_owned()));
    let again = client.post(&format!("{path}&acks={receipt}"), b"").await.json();
    assert_eq!(again["items"].as_array().unwrap().len(), 1, "one has made room for one");
}

#[tokio::test]
async fn bad_input_changes_nothing() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    client.post("/v1/topics/t/messages", b"x").await;
    client.put("/v1/topics/t/subscriptions/s", br#"{"from":"first"}"#).await;
    let receipt =
        client.post("/v1/topics/t/subscriptions/s/receive", b"").await.json()["items"][0]["receipt"]
            .as_str()
            .unwrap()
            .to_owned();
    let before = client.get("/v1/cluster").await.json()["revision"].clone();
    let s = "/v1/topics/t/subscriptions/s";
    let table = [of_topics(), of_subscriptions(s, &receipt)].concat();
    let mut wrong = Vec::new();
    for (method, path, body, status) in &table {
        let answer = client.call(method, path, &[], body.as_bytes()).await;
        if answer.status != *status || !answer.text().contains("\"code\":") {
            wrong.push(format!(
                "{method} {path} {body}: {} instead of {status}: {}",
                answer.status,
                answer.text()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(client.get("/v1/cluster").await.json()["revision"], before, "something has changed");
    assert_eq!(client.post(&format!("{s}/ack?receipt={receipt}"), b"").await.status, 200);
}

/// What retention takes from a reader that does not read is told, and nothing is held for it.
#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    client.put("/v1/topics/t", br#"{"max_messages":50}"#).await;
    let mut slow = Frames::open(running.address, "GET", "/v1/topics/t/messages?watch=true", &[]).await;
    assert_eq!(slow.frame().await["type"], "synced");
    let mut last = 0;
    let body = "x".repeat(200_000);
    for _ in 0..200 {
        last = client.post("/v1/topics/t/messages", body.as_bytes()).await.json()["seq"].as_u64().unwrap();
    }
    let (mut seen, mut missed, mut after) = (0, 0, 0);
    loop {
        let frame = slow.news().await;
        match frame["type"].as_str().unwrap() {
            "change" => {
                seen += frame["events"].as_array().unwrap().len() as u64;
                after = frame["after"].as_u64().unwrap();
            }
            "gap" => missed += frame["to"].as_u64().unwrap() - frame["from"].as_u64().unwrap(),
            "lagged" => {
                assert_eq!(frame["after"], after);
                let path = format!("/v1/topics/t/messages?watch=true&after={after}");
                slow = Frames::open(running.address, "GET", &path, &[]).await;
            }
            "synced" => {}
            other => panic!("{other}: {frame}"),
        }
        if after == last {
            break;
        }
    }
    assert!(missed > 0, "the reader was not slow");
    assert_eq!(seen + missed, last, "each message is read or told to be missed");
}

/// A receiver that waits and goes away takes nothing with it.
#[tokio::test]
async fn who_goes_away_takes_nothing_along() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    client.put("/v1/topics/t/subscriptions/s", br#"{"visibility":"1h"}"#).await;
    let path = "/v1/topics/t/subscriptions/s/receive?wait=30s";
    for _ in 0..3 {
        let mut leaves = Client::connect(running.address).await;
        leaves.send(&crate::client::request("POST", path, &[], b"")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(leaves);
    }
    let mut stays = Client::connect(running.address).await;
    stays.send(&crate::client::request("POST", path, &[], b"")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.post("/v1/topics/t/messages", b"one").await;
    let got = stays.answer(false).await.json();
    assert_eq!((&got["items"][0]["value"], &got["items"][0]["deliveries"]), (&"one".into(), &1.into()));
}

/// Method, path, body, status.
type Bad = (&'static str, String, &'static str, u16);

fn of_topics() -> Vec<Bad> {
    let mut table: Vec<Bad> = Vec::new();
    for name in ["", ".", "a.", ".a", "a..b", "a*", "%3Ea", "*", "a.%3E", "%00", "%FF", "%1B%5B31m"] {
        table.push(("POST", format!("/v1/topics/{name}/messages"), "x", 400));
        // Without a name there is no such path.
        let status = if name.is_empty() { 404 } else { 400 };
        table.push(("PUT", format!("/v1/topics/{name}"), "{}", status));
    }
    for name in ["", ".", "a..b", "a*", "%3E.a", "%00", "%FF"] {
        table.push(("GET", format!("/v1/topics/{name}/messages"), "", 400));
        table.push(("PUT", format!("/v1/topics/{name}/subscriptions/s"), "{}", 400));
        let status = if name.is_empty() { 404 } else { 400 };
        table.push(("PUT", format!("/v1/topics/t/subscriptions/{name}"), "{}", status));
    }
    for query in [
        "whatch=1",
        "ttl=0",
        "ttl=999ms",
        "ttl=367d",
        "ttl=x",
        "key=",
        "key=%00",
        "expect_last_seq=-1",
        "expect_last_seq=18446744073709551616",
        "batch=maybe",
    ] {
        table.push(("POST", format!("/v1/topics/t/messages?{query}"), "x", 400));
    }
    for body in [
        "",
        "{",
        "[]",
        "7",
        r#"{"items":[]}"#,
        r#"{"items":7}"#,
        r#"{"items":[{}]}"#,
        r#"{"items":[{"value":"x","value_base64":"eA=="}]}"#,
        r#"{"items":[{"value":"x","ttl":0}]}"#,
        r#"{"items":[{"value":"x","key":""}]}"#,
        r#"{"items":[{"value":"x","what":1}]}"#,
        r#"{"items":[{"value":"x","headers":{"A B":"c"}}]}"#,
        r#"{"items":[],"items":[]}"#,
    ] {
        table.push(("POST", "/v1/topics/t/messages?batch=true".into(), body, 400));
    }
    for query in [
        "after=-1",
        "after=x",
        "from=0",
        "from=nowhere",
        "from=18446744073709551616",
        "after=1&from=first",
        "limit=0",
        "limit=1001",
        "wait=11m",
        "heartbeat=5s",
        "watch=true&heartbeat=1ms",
        "watch=true&format=raw",
        "format=yaml",
        "initial=false",
    ] {
        table.push(("GET", format!("/v1/topics/t/messages?{query}"), "", 400));
    }
    table.push(("GET", "/v1/topics/t.*/messages?from=7".into(), "", 400));
    for body in [
        "[]",
        "{",
        r#"{"max_age":-1}"#,
        r#"{"max_age":"x"}"#,
        r#"{"max_count":1}"#,
        r#"{"max_bytes":1.5}"#,
        r#"{"max_messages":18446744073709551616}"#,
        r#"{"max_per_key":101}"#,
        r#"{"overflow":"explode"}"#,
        r#"{"max_age":"1h","max_age":"2h"}"#,
    ] {
        table.push(("PUT", "/v1/topics/t".into(), body, 400));
    }
    table
}

fn of_subscriptions(s: &str, receipt: &str) -> Vec<Bad> {
    let mut table: Vec<Bad> = Vec::new();
    for body in [
        r#"{"from":"nowhere"}"#,
        r#"{"mode":"both"}"#,
        r#"{"visibility":"999ms"}"#,
        r#"{"visibility":"13h"}"#,
        r#"{"max_deliveries":1001}"#,
        r#"{"max_deliveries":-1}"#,
        r#"{"filter":"a..b"}"#,
        r#"{"filter":""}"#,
        r#"{"dead_letter":"a.*"}"#,
        r#"{"dead_letter":""}"#,
        r#"{"what":1}"#,
    ] {
        table.push(("PUT", format!("{s}x"), body, 400));
    }
    for query in [
        "max=0",
        "max=101",
        "visibility=1ms",
        "wait=11m",
        "acks=x",
        "acks=r1:",
        "session=x",
        "session=7000000000000001&ttl=5s",
        "ttl=1ms",
        "format=raw&max=2",
        "hold=true&format=raw",
        "hold=true&acks=r1:goMYKQEBGCo",
        "hold=true&session=7000000000000001",
        "on_disconnect=expire",
        "whatch=1",
    ] {
        table.push(("POST", format!("{s}/receive?{query}"), "", 400));
    }
    table.push(("POST", format!("{s}/receive?session=7000000000000001"), "", 410));
    let r = format!("receipt={receipt}");
    let cut = format!("receipt={}", &receipt[..receipt.len() - 1]);
    for (verb, query, status) in [
        ("ack", "", 400),
        ("ack", "receipt=", 400),
        ("ack", "receipt=r1:AAAA", 400),
        ("ack", &cut, 400),
        ("nack", &format!("{r}&delay=13h"), 400),
        ("nack", &format!("{r}&count=x"), 400),
        ("nack", &format!("{r}&reason={}", "r".repeat(513)), 400),
        ("renew", &format!("{r}&visibility=1ms"), 400),
        ("renew", &format!("{r}&visibility=13h"), 400),
        // Of another delivery, well made: nothing is there to settle.
        ("ack", "receipt=r1:goMYKQEBGCo", 409),
        ("renew", "receipt=r1:goMYKQEBGCo&visibility=5s", 409),
        ("seek", "", 400),
        ("seek", "to=nowhere", 400),
        ("explode", "", 404),
    ] {
        table.push(("POST", format!("{s}/{verb}?{query}"), "", status));
    }
    table.push(("POST", "/v1/topics/t/subscriptions/nobody/receive".into(), "", 404));
    table.push(("POST", "/v1/topics/t/subscriptions/nobody/receive?hold=true".into(), "", 404));
    table.push(("POST", format!("/v1/topics/t/subscriptions/nobody/ack?{r}"), "", 404));
    table.push(("GET", "/v1/topics/nobody".into(), "", 404));
    table.push(("GET", "/v1/topics/t/messages/2".into(), "", 404));
    table.push(("GET", "/v1/topics/t/messages/0".into(), "", 400));
    table.push(("DELETE", "/v1/topics/t/messages".into(), "", 405));
    table
}
