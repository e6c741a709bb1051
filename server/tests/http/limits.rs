//! Every limit at its value and one beyond.

use crate::client::{Client, Frames, request};
use crate::server::start;

#[tokio::test]
async fn sizes() {
    let running = start(|config| config.max_value.0 = 2000).await;
    let mut client = Client::connect(running.address).await;
    let limits = client.get("/v1/limits").await.json();
    let of = |name: &str| usize::try_from(limits[name].as_u64().unwrap_or_else(|| panic!("{name}"))).unwrap();

    let key = "k".repeat(of("key_bytes_max"));
    assert_eq!(client.put(&format!("/v1/kv/{key}"), b"x").await.status, 201);
    let long = client.put(&format!("/v1/kv/{key}k"), b"x").await;
    assert_eq!((long.status, long.code().as_str()), (400, "invalid_argument"));

    let value = vec![b'v'; of("value_bytes_max")];
    assert_eq!(client.put("/v1/kv/value", &value).await.status, 201);
    let large = client.put("/v1/kv/value", &[&value[..], b"v"].concat()).await;
    assert_eq!((large.status, large.code().as_str()), (413, "too_large"));
    assert_eq!(large.json()["limit"], "value_bytes");
    assert_eq!((&large.json()["max"], &large.json()["actual"]), (&2000.into(), &2001.into()));

    // Without a length the limit is the same.
    let chunked = |size: usize| {
        let head = "PUT /v1/kv/chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", size - 5, "c".repeat(size - 5), 5, "ccccc")
    };
    client.send(chunked(2000).as_bytes()).await;
    assert_eq!(client.answer(false).await.status, 201);
    client.send(chunked(2001).as_bytes()).await;
    let large = client.answer(false).await;
    assert_eq!((large.status, large.code().as_str()), (413, "too_large"));

    let mut client = Client::connect(running.address).await;
    let name = "n".repeat(512);
    assert_eq!(client.post(&format!("/v1/locks/{name}/acquire?ttl=5s"), b"").await.status, 200);
    assert_eq!(client.post(&format!("/v1/locks/{name}n/acquire?ttl=5s"), b"").await.status, 400);

    let meta = |size: usize| format!(r#"{{"meta":{{"m":"{}"}}}}"#, "m".repeat(size));
    let most = of("metadata_bytes_max") - r#"{"m":""}"#.len();
    assert_eq!(client.post("/v1/sessions", meta(most).as_bytes()).await.status, 201);
    let large = client.post("/v1/sessions", meta(most + 1).as_bytes()).await;
    assert_eq!((large.status, large.code().as_str()), (413, "too_large"));

    for (length, status) in
        [(of("idempotency_key_bytes_max"), 201), (of("idempotency_key_bytes_max") + 1, 400)]
    {
        let key = "i".repeat(length);
        let answer =
            client.call("PUT", &format!("/v1/kv/i{length}"), &[("Idempotency-Key", &key)], b"x").await;
        assert_eq!(answer.status, status, "{length}");
    }
}

#[tokio::test]
async fn services() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let limits = client.get("/v1/limits").await.json();
    let of = |name: &str| usize::try_from(limits[name].as_u64().unwrap_or_else(|| panic!("{name}"))).unwrap();
    // The number of instances is tested with the recipe: so many requests take their time.
    assert_eq!(limits["instances_per_service_max"], coracle_recipes::service::INSTANCES);

    let put = |more: &str| format!(r#"{{"address":"10.0.0.7",{more}}}"#);
    let at = "/v1/services/web/instances/a";
    let meta = |size: usize| put(&format!(r#""meta":{{"m":"{}"}}"#, "m".repeat(size)));
    let most = of("metadata_bytes_max") - 3;
    assert_eq!(client.put(at, meta(most).as_bytes()).await.status, 201);
    let large = client.put(at, meta(most + 1).as_bytes()).await;
    assert_eq!((large.status, large.code().as_str()), (413, "too_large"));
    assert_eq!(large.json()["limit"], "metadata_bytes");

    for (more, status) in [
        (r#""weight":1000"#, 200),
        (r#""weight":1001"#, 400),
        (r#""port":65535"#, 200),
        (r#""port":65536"#, 400),
        (r#""port":0"#, 400),
        (r#""ports":{"admin":0}"#, 400),
        (r#""scheme":"a b""#, 400),
        (r#""zone":"""#, 400),
        (r#""tags":[""]"#, 400),
        (r#""status":"fine""#, 400),
    ] {
        assert_eq!(client.put(at, put(more).as_bytes()).await.status, status, "{more}");
    }
    for (address, status) in [
        ("a".repeat(255), 200),
        ("a".repeat(256), 400),
        (String::new(), 400),
        ("10.0.0.7:80".to_owned(), 400),
        ("::1".to_owned(), 200),
        ("[::1]".to_owned(), 400),
        ("a b".to_owned(), 400),
        ("$(reboot)".to_owned(), 400),
        ("-o".to_owned(), 400),
    ] {
        let body = format!(r#"{{"address":"{address}"}}"#);
        assert_eq!(client.put(at, body.as_bytes()).await.status, status, "{address}");
    }
    let n = of("pick_instances_max");
    assert_eq!(client.get(&format!("/v1/services/web/pick?n={n}")).await.status, 200);
    assert_eq!(client.get(&format!("/v1/services/web/pick?n={}", n + 1)).await.status, 400);
    for (config, status) in [
        (r#"{"protect":1,"deregister_after":"24h","eject_errors":1000}"#, 201),
        (r#"{"protect":1.001}"#, 400),
        (r#"{"deregister_after":"24h1s"}"#, 400),
        (r#"{"eject_for":"24h1s"}"#, 400),
        (r#"{"slow_start":"24h1s"}"#, 400),
        (r#"{"eject_errors":1001}"#, 400),
    ] {
        assert_eq!(client.put("/v1/services/web", config.as_bytes()).await.status, status, "{config}");
    }
    for (drain, status) in [("24h", 200), ("24h1s", 400)] {
        assert_eq!(client.post(&format!("{at}/drain?deadline={drain}"), b"").await.status, status);
    }
}

#[tokio::test]
async fn transactions() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let txn = |part: &str, each: &dyn Fn(usize) -> String, count: usize| {
        let items: Vec<String> = (0..count).map(each).collect();
        format!(r#"{{"{part}":[{}]}}"#, items.join(","))
    };
    let put = |i: usize| format!(r#"{{"op":"put","key":"k{i}","value":"v"}}"#);
    let compare = |i: usize| format!(r#"{{"key":"k{i}","exists":true}}"#);
    assert_eq!(client.post("/v1/txn", txn("then", &put, 128).as_bytes()).await.status, 200);
    assert_eq!(client.post("/v1/txn", txn("then", &put, 129).as_bytes()).await.code(), "too_many_ops");
    let all = client.post("/v1/txn", txn("if", &compare, 128).as_bytes()).await;
    assert_eq!((all.status, &all.json()["succeeded"]), (200, &true.into()));
    assert_eq!(client.post("/v1/txn", txn("if", &compare, 129).as_bytes()).await.code(), "too_many_ops");
    let deep = format!(
        r#"{{"then":[{{"op":"put","key":"d","value":{}1{}}}]}}"#,
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    assert_eq!(client.post("/v1/txn", deep.as_bytes()).await.code(), "invalid_argument");
    let body = format!(r#"{{"then":[{{"op":"put","key":"l","value":"{}"}}]}}"#, "x".repeat(4 << 20));
    assert_eq!(client.post("/v1/txn", body.as_bytes()).await.code(), "too_large");
}

#[tokio::test]
async fn queues() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let limits = client.get("/v1/limits").await.json();
    let of = |name: &str| usize::try_from(limits[name].as_u64().unwrap_or_else(|| panic!("{name}"))).unwrap();
    let list = |count: usize, item: &str| vec![item; count].join(",");

    let most = of("send_messages_max");
    let batch = |count: usize| format!(r#"{{"items":[{}]}}"#, list(count, r#"{"value":"x"}"#));
    let path = "/v1/queues/q/messages?batch=true";
    assert_eq!(client.post(path, batch(most).as_bytes()).await.status, 201);
    assert_eq!(client.post(path, batch(most + 1).as_bytes()).await.code(), "too_large");
    assert_eq!(client.get("/v1/queues/q").await.json()["length"], most);

    let most = of("receive_messages_max");
    let received = client.post(&format!("/v1/queues/q/receive?max={most}"), b"").await.json();
    assert_eq!(received["items"].as_array().unwrap().len(), most);
    assert_eq!(client.post(&format!("/v1/queues/q/receive?max={}", most + 1), b"").await.status, 400);
    let receipts: Vec<&str> =
        received["items"].as_array().unwrap().iter().map(|item| item["receipt"].as_str().unwrap()).collect();
    let body = |receipts: &[&str]| serde_json::json!({ "receipts": receipts }).to_string();
    let over = [&receipts[..], &receipts[..1]].concat();
    assert_eq!(client.post("/v1/queues/q/ack", body(&over).as_bytes()).await.code(), "invalid_argument");
    let acked = client.post("/v1/queues/q/ack", body(&receipts).as_bytes()).await.json();
    assert!(acked["items"].as_array().unwrap().iter().all(|item| item["ok"] == true));

    // A receive is as large as it may be, and one message more.
    let large = vec![b'v'; 600_000];
    for _ in 0..3 {
        assert_eq!(client.post("/v1/queues/large/messages", &large).await.status, 201);
    }
    let received = client.post("/v1/queues/large/receive?max=3", b"").await.json();
    assert!(2 * large.len() > of("receive_bytes_max") && large.len() < of("receive_bytes_max"));
    assert_eq!(received["items"].as_array().unwrap().len(), 2);

    let headers = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("Coracle-Meta-N{n}")).collect();
        names.into_iter().map(|name| (name, "x".to_owned())).collect::<Vec<_>>()
    };
    for (count, status) in [(of("message_headers_max"), 201), (of("message_headers_max") + 1, 413)] {
        let headers = headers(count);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(client.call("POST", "/v1/queues/h/messages", &headers, b"x").await.status, status);
    }

    let barrier = |what: String| format!(r#"{{"kind":"barrier","barrier":{{{what}}}}}"#);
    let most = of("generation_items_max");
    for (size, status) in [(most, 201), (most + 1, 400)] {
        let body = barrier(format!(r#""size":{size}"#));
        assert_eq!(client.put(&format!("/v1/queues/b{size}"), body.as_bytes()).await.status, status);
    }
    let most = of("generation_ids_max");
    for (count, status) in [(most, 201), (most + 1, 400)] {
        let ids: Vec<String> = (0..count).map(|n| format!("\"i{n}\"")).collect();
        let body = barrier(format!(r#""contains":[{}]"#, ids.join(",")));
        assert_eq!(client.put(&format!("/v1/queues/c{count}"), body.as_bytes()).await.status, status);
    }
    // The name of a queue leaves room for that of its dead letters.
    let name = "n".repeat(507);
    assert_eq!(client.post(&format!("/v1/queues/{name}/messages"), b"x").await.status, 201);
    assert_eq!(client.post(&format!("/v1/queues/{name}n/messages"), b"x").await.status, 413);
}

#[tokio::test]
async fn pages_follow_their_cursor_at_one_revision() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    for i in 0..25 {
        client.put(&format!("/v1/kv/p/{i:02}"), b"x").await;
    }
    for order in ["asc", "desc"] {
        let (mut cursor, mut seen, mut revision) = (String::new(), Vec::new(), None);
        loop {
            let path = format!("/v1/kv?prefix=p/&limit=10&keys_only=true&order={order}{cursor}");
            let page = client.get(&path).await.json();
            // What happens between the pages is not in them.
            client.put("/v1/kv/p/00a", b"new").await;
            assert_eq!(revision.get_or_insert(page["revision"].clone()), &page["revision"]);
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|i| i["key"].as_str().unwrap().to_owned()),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let mut expect: Vec<String> = (0..25).map(|i| format!("p/{i:02}")).collect();
        if order == "desc" {
            expect.insert(1, "p/00a".to_owned());
            expect.reverse();
        }
        assert_eq!(seen.len(), expect.len(), "{order}");
        if order == "asc" {
            assert_eq!(seen, expect);
        }
        client.call("DELETE", "/v1/kv/p/00a", &[], b"").await;
        client.put("/v1/kv/p/00a", b"x").await;
    }
    // A cursor whose revision is compacted.
    let page = client.get("/v1/kv?prefix=p/&limit=10&keys_only=true").await.json();
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    client.put("/v1/kv/later", b"x").await;
    assert_eq!(client.post("/v1/maintenance/compact?keep=0", b"").await.status, 200);
    let expired = client.get(&format!("/v1/kv?prefix=p/&limit=10&keys_only=true&cursor={cursor}")).await;
    assert_eq!((expired.status, expired.code().as_str()), (410, "cursor_expired"));
    let other = client.get(&format!("/v1/kv?prefix=q/&limit=10&cursor={cursor}")).await;
    assert_eq!((other.status, other.code().as_str()), (400, "invalid_argument"));
}

#[tokio::test]
async fn a_great_delete_goes_in_slices() {
    let running = start(|config| config.request_timeout = "20s".parse().unwrap()).await;
    let mut client = Client::connect(running.address).await;
    // One more than a slice.
    for batch in 0..79 {
        let puts: Vec<String> = (0..128)
            .map(|i| batch * 128 + i)
            .filter(|i| *i <= 10_000)
            .map(|i| format!(r#"{{"op":"put","key":"many/{i:05}","value":""}}"#))
            .collect();
        let answer = client.post("/v1/txn", format!(r#"{{"then":[{}]}}"#, puts.join(",")).as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(client.get("/v1/kv?prefix=many/&count_only=true").await.json()["count"], 10_001);
    let answer = client.call("DELETE", "/v1/kv?prefix=many/&idempotency_key=x", &[], b"").await;
    assert_eq!((answer.status, &answer.json()["deleted"]), (200, &10_001.into()));
    let again = client.call("DELETE", "/v1/kv?prefix=many/&idempotency_key=x", &[], b"").await;
    assert_eq!(
        (&again.json()["deleted"], again.header("idempotency-replayed")),
        (&10_001.into(), Some("true"))
    );
}

#[tokio::test]
async fn waiters_streams_and_requests() {
    let running = start(|config| {
        config.max_waiters = 1;
        config.max_streams = 1;
    })
    .await;
    let mut client = Client::connect(running.address).await;
    let mut parked = Client::connect(running.address).await;
    parked.send(&request("GET", "/v1/kv/k?wait=20s", &[], b"")).await;
    let mut refused = None;
    for _ in 0..100 {
        let answer = client.get("/v1/kv/k?wait=1ms").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("one place for waiters and no more");
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("too_many_waiters", Some("1")));
    client.put("/v1/kv/k", b"x").await;
    assert_eq!(parked.answer(false).await.status, 200);

    let first = Frames::open(running.address, "GET", "/v1/kv?watch=true", &[]).await;
    assert_eq!(first.head.status, 200);
    let second = Frames::open(running.address, "GET", "/v1/kv?watch=true", &[]).await;
    assert_eq!((second.head.status, second.head.header("retry-after")), (429, Some("1")));
    drop(first);
    for _ in 0..100 {
        if Frames::open(running.address, "GET", "/v1/kv?watch=true", &[]).await.head.status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the place of a closed stream did not become free");
}

#[tokio::test]
async fn at_overload_what_frees_is_still_taken() {
    let running = start(|config| config.max_requests = 0).await;
    let mut client = Client::connect(running.address).await;
    let refused = client.put("/v1/kv/k", b"x").await;
    assert_eq!(
        (refused.status, refused.code().as_str(), refused.header("retry-after")),
        (503, "overloaded", Some("1"))
    );
    assert_eq!(refused.json()["effect"], "none");
    assert_eq!(client.call("DELETE", "/v1/kv/k", &[], b"").await.status, 200);
    assert_eq!(client.post("/v1/sessions/7587d8aa00000001/renew", b"").await.status, 410);
    assert_eq!(client.post("/v1/locks/x/release?session=7587d8aa00000001", b"").await.status, 409);
    assert_eq!(client.get("/livez").await.status, 200);
}

#[tokio::test]
async fn metrics_are_lines_that_prometheus_reads() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    client.put("/v1/kv/secret-name", b"x").await;
    client.post("/v1/locks/secret-lock/acquire?ttl=30s", b"").await;
    let answer = client.get("/metrics").await;
    let text = answer.text();
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("secret"), "no names of clients in labels");
    let mut types = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            assert!(types.insert(name.to_owned()), "{name} is described twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("coracle_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for line in [
        "coracle_is_leader 1",
        "coracle_keys 1",
        "coracle_sessions 1",
        r#"coracle_http_requests_total{route="/v1/kv",method="PUT",status="201"} 1"#,
        r#"coracle_http_requests_total{route="/v1/locks/{name}/acquire",method="POST",status="200"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}
