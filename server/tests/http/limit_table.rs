//! Each limit of `GET /v1/limits` at its value and one beyond it. The table stands beside the document's own list: a
//! limit that is published without being shown here, or elsewhere by name, fails.

use std::collections::BTreeSet;
use std::path::Path;

use coracle_api::Span;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::client::{Answer, Client, Frames, PATIENCE, request};
use crate::server::{Running, start};

/// How a limit is shown.
enum Shown {
    /// A request with so much of it: taken at the limit, refused with this code one beyond it.
    Most(fn(u64) -> Ask, &'static str),
    /// The same of a lower bound.
    Least(fn(u64) -> Ask, &'static str),
    /// A story of its own.
    Story(for<'a> fn(&'a Running, &'a mut Client, u64) -> BoxFuture<'a, ()>),
    /// By a test elsewhere, where it takes hours or ten thousands of sessions: a file, and what stands in it.
    Elsewhere(&'static str, &'static str),
}

use Shown::{Elsewhere, Least, Most, Story};

/// One request.
struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn ask(method: &'static str, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Ask {
    Ask { method, path: path.into(), headers: Vec::new(), body: body.into() }
}

fn put(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Ask {
    ask("PUT", path, body)
}

fn post(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Ask {
    ask("POST", path, body)
}

fn text(n: u64) -> String {
    "x".repeat(usize::try_from(n).unwrap())
}

/// `n` items with commas between them.
fn list(n: u64, item: impl Fn(u64) -> String) -> String {
    (0..n).map(item).collect::<Vec<_>>().join(",")
}

fn barrier(what: &str) -> String {
    format!(r#"{{"kind":"barrier","barrier":{{{what}}}}}"#)
}

const ROWS: &[(&str, Shown)] = &[
    ("key_bytes_max", Most(|n| put(format!("/v1/kv/{}", text(n)), "x"), "invalid_argument")),
    ("value_bytes_max", Most(|n| put("/v1/kv/value", text(n)), "too_large")),
    (
        "metadata_bytes_max",
        Most(|n| post("/v1/sessions", format!(r#"{{"meta":{{"m":"{}"}}}}"#, text(n - 8))), "too_large"),
    ),
    (
        "body_bytes_max",
        Most(|n| post("/v1/txn", format!("{{}}{}", text(n - 2).replace('x', " "))), "too_large"),
    ),
    (
        "transaction_operations_max",
        Most(
            |n| {
                post(
                    "/v1/txn",
                    format!(r#"{{"then":[{}]}}"#, list(n, |i| format!(r#"{{"op":"get","key":"{i}"}}"#))),
                )
            },
            "too_many_ops",
        ),
    ),
    ("list_items_default", Story(|_, client, most| Box::pin(a_page(client, most)))),
    ("list_items_max", Most(|n| ask("GET", format!("/v1/kv?prefix=&limit={n}"), ""), "invalid_argument")),
    ("wait_max", Most(|n| ask("GET", format!("/v1/kv/there?wait={n}ms&after=0"), ""), "invalid_argument")),
    ("session_ttl_min", Least(|n| post("/v1/sessions", format!(r#"{{"ttl":"{n}ms"}}"#)), "invalid_argument")),
    ("session_ttl_default", Story(|_, client, ttl| Box::pin(a_session(client, ttl)))),
    ("session_ttl_max", Most(|n| post("/v1/sessions", format!(r#"{{"ttl":"{n}ms"}}"#)), "invalid_argument")),
    ("holds_per_session_max", Story(|_, client, most| Box::pin(holds(client, most)))),
    (
        "waiters_per_object_max",
        Elsewhere(
            "recipes/tests/recipes/lock_traps.rs",
            "fn a_full_line_moves_without_touching_those_behind",
        ),
    ),
    ("waiting_requests_max", Story(|running, client, most| Box::pin(waits(running, client, most)))),
    (
        "instances_per_service_max",
        Elsewhere("recipes/tests/recipes/service_traps.rs", "fn a_service_is_full_at_its_limit"),
    ),
    (
        "pick_instances_max",
        Most(|n| ask("GET", format!("/v1/services/web/pick?n={n}"), ""), "invalid_argument"),
    ),
    (
        "send_messages_max",
        Most(
            |n| {
                let items = list(n, |_| r#"{"value":"x"}"#.to_owned());
                post("/v1/queues/many/messages?batch=true", format!(r#"{{"items":[{items}]}}"#))
            },
            "too_large",
        ),
    ),
    (
        "receive_messages_max",
        Most(|n| post(format!("/v1/queues/empty/receive?max={n}"), ""), "invalid_argument"),
    ),
    ("receive_bytes_max", Story(|_, client, most| Box::pin(a_large_receive(client, most)))),
    (
        "message_headers_max",
        Most(
            |n| {
                let headers = (0..n).map(|i| (format!("Coracle-Meta-N{i}"), "x".to_owned())).collect();
                Ask { headers, ..post("/v1/queues/headed/messages", "x") }
            },
            "too_large",
        ),
    ),
    (
        "publish_messages_max",
        Most(
            |n| {
                let items = list(n, |_| r#"{"value":"x"}"#.to_owned());
                post("/v1/topics/many/messages?batch=true", format!(r#"{{"items":[{items}]}}"#))
            },
            "too_large",
        ),
    ),
    (
        "publish_bytes_max",
        Most(
            |n| {
                let body = format!(r#"{{"items":[{{"value":"{}"}},{{"value":"x"}}]}}"#, text(n - 1));
                post("/v1/topics/large/messages?batch=true", body)
            },
            "too_large",
        ),
    ),
    (
        "messages_per_key_max",
        Most(|n| put("/v1/topics/table", format!(r#"{{"max_per_key":{n}}}"#)), "invalid_argument"),
    ),
    ("subscriptions_per_topic_max", Story(|_, client, most| Box::pin(subscriptions(client, most)))),
    ("deliveries_in_flight_max", Story(|_, client, most| Box::pin(deliveries(client, most)))),
    ("generation_items_max", Story(|_, client, most| Box::pin(a_generation(client, most)))),
    (
        "generation_ids_max",
        Most(
            |n| {
                let ids = list(n, |i| format!("\"i{i}\""));
                put("/v1/queues/ids", barrier(&format!(r#""contains":[{ids}]"#)))
            },
            "invalid_argument",
        ),
    ),
    (
        "parties_per_barrier_max",
        Most(
            |n| put("/v1/barriers/step", format!(r#"{{"kind":"cyclic","parties":{n}}}"#)),
            "invalid_argument",
        ),
    ),
    (
        "count_per_latch_max",
        Most(|n| put("/v1/latches/all", format!(r#"{{"count":{n}}}"#)), "invalid_argument"),
    ),
    (
        "declared_members_max",
        Most(
            |n| put("/v1/latches/named", format!(r#"{{"members":[{}]}}"#, list(n, |i| format!("\"m{i}\"")))),
            "invalid_argument",
        ),
    ),
    (
        "members_per_group_max",
        Elsewhere(
            "recipes/tests/recipes/group_model.rs",
            "fn a_group_is_as_large_as_it_may_be_and_goes_at_once",
        ),
    ),
    (
        "slots_per_group_max",
        Most(|n| ask("GET", format!("/v1/groups/crew?slots={n}"), ""), "invalid_argument"),
    ),
    (
        "locks_together_max",
        Most(
            |n| {
                let items = list(n, |i| format!(r#"{{"name":"l{n}.{i}"}}"#));
                post("/v1/locks?ttl=1m", format!(r#"{{"items":[{items}]}}"#))
            },
            "invalid_argument",
        ),
    ),
    (
        "lock_delay_max",
        Most(|n| put("/v1/locks/slow", format!(r#"{{"lock_delay":"{n}ms"}}"#)), "invalid_argument"),
    ),
    (
        "semaphore_permits_max",
        Most(|n| put("/v1/semaphores/pool", format!(r#"{{"limit":{n}}}"#)), "invalid_argument"),
    ),
    ("election_value_bytes_max", Most(|n| post("/v1/elections/cron/campaign?ttl=1m", text(n)), "too_large")),
    (
        "idempotency_key_bytes_max",
        Most(
            |n| Ask { headers: vec![("Idempotency-Key".to_owned(), text(n))], ..put("/v1/kv/once", "x") },
            "invalid_argument",
        ),
    ),
    ("idempotency_retention", Elsewhere("core/store/testdata/idempotency/retries.txt", "retry=k2 at=3601s")),
    ("streams_max", Story(|running, _, most| Box::pin(streams(running, most)))),
    ("quota_bytes", Story(|_, _, _| Box::pin(a_full_store()))),
];

/// Small where a test would have to open very many.
async fn running() -> Running {
    start(|config| {
        config.max_streams = 3;
        config.max_waiters = 3;
        config.request_timeout = "20s".parse().unwrap();
    })
    .await
}

#[test]
fn each_published_limit_has_its_row() {
    let document = crate::document::committed();
    let properties = document["components"]["schemas"]["Limits"]["properties"].as_object().unwrap();
    let published: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    let shown: BTreeSet<&str> = ROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(shown, published, "the rows beside the limits of the document");
    assert_eq!(shown.len(), ROWS.len(), "each has one row");
    for (name, row) in ROWS {
        if let Elsewhere(file, words) = row {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            let text =
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
            assert!(text.contains(words), "{name}: {file} has no {words:?}");
        }
    }
}

#[tokio::test]
async fn each_limit_is_taken_and_no_more() {
    let running = running().await;
    let mut client = Client::connect(running.address).await;
    let limits = client.get("/v1/limits").await.json();
    for Ask { method, path, body, .. } in [
        put("/v1/kv/there", "x"),
        put("/v1/services/web/instances/a?permanent=true", r#"{"address":"10.0.0.7","port":80}"#),
        put("/v1/groups/crew/members/w1?ttl=1m", "x"),
    ] {
        assert!(client.call(method, &path, &[], &body).await.status < 300, "{path}");
    }
    for (name, shown) in ROWS {
        let limit = number(name, &limits[name]);
        let (made, refused, code) = match shown {
            Most(made, code) => (made, limit + 1, code),
            Least(made, code) => (made, limit - 1, code),
            Story(story) => {
                story(&running, &mut client, limit).await;
                continue;
            }
            Elsewhere(..) => continue,
        };
        let good = sent(&mut client, &made(limit)).await;
        assert!((200..300).contains(&good.status), "{name} at {limit}: {}", good.text());
        let bad = sent(&mut client, &made(refused)).await;
        assert_eq!(bad.code(), *code, "{name} at {refused}: {}", bad.text());
        assert_eq!(bad.json()["effect"], "none", "{name}");
        if *code == "too_large" {
            names_the_limit(&bad, name);
        }
    }
}

/// What is refused as too large is told by the word of the list of limits.
fn names_the_limit(refusal: &Answer, name: &str) {
    let told = refusal.json();
    assert_eq!(told["limit"].as_str().map(|limit| format!("{limit}_max")).as_deref(), Some(name), "{told}");
}

/// A limit as a number; a duration in milliseconds.
fn number(name: &str, limit: &Value) -> u64 {
    match limit {
        Value::Number(number) => number.as_u64().unwrap(),
        Value::String(span) => span.parse::<Span>().unwrap().as_millis(),
        other => panic!("{name}: {other}"),
    }
}

async fn sent(client: &mut Client, Ask { method, path, headers, body }: &Ask) -> Answer {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    client.call(method, path, &headers, body).await
}

/// Many requests on one connection, each behind the other; their answers in turn.
async fn all(client: &mut Client, asks: impl Iterator<Item = Ask>) -> Vec<Answer> {
    let mut count = 0;
    for Ask { method, path, body, .. } in asks {
        client.send(&request(method, &path, &[], &body)).await;
        count += 1;
    }
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        answers.push(client.answer(false).await);
    }
    answers
}

async fn a_page(client: &mut Client, most: u64) {
    let puts = all(client, (0..most).map(|i| put(format!("/v1/kv/page/{i:03}"), "x"))).await;
    assert!(puts.iter().all(|answer| answer.status == 201));
    let page = client.get("/v1/kv?prefix=page/&keys_only=true").await.json();
    assert_eq!((page["items"].as_array().unwrap().len() as u64, &page["next_cursor"]), (most, &Value::Null));
    client.put("/v1/kv/page/last", b"x").await;
    let page = client.get("/v1/kv?prefix=page/&keys_only=true").await.json();
    assert_eq!(page["items"].as_array().unwrap().len() as u64, most);
    assert!(page["next_cursor"].is_string(), "the next one is on a page of its own");
}

async fn a_session(client: &mut Client, ttl: u64) {
    let session = client.post("/v1/sessions", b"{}").await.json();
    assert_eq!(number("ttl", &session["ttl"]), ttl);
}

async fn holds(client: &mut Client, most: u64) {
    let session = client.post("/v1/sessions", br#"{"ttl":"1h"}"#).await.json();
    let id = session["id"].as_str().unwrap();
    let hold = |i: u64| put(format!("/v1/kv/hold/{i}?session={id}"), "x");
    let taken = all(client, (0..most).map(hold)).await;
    assert!(taken.iter().all(|answer| answer.status == 201));
    let more = sent(client, &hold(most)).await;
    assert_eq!((more.status, more.code().as_str()), (413, "too_large"), "{}", more.text());
    names_the_limit(&more, "holds_per_session_max");
}

async fn waits(running: &Running, client: &mut Client, most: u64) {
    let mut parked = Vec::new();
    for _ in 0..most {
        let mut waiting = Client::connect(running.address).await;
        waiting.send(&request("GET", "/v1/kv/awaited?wait=20s", &[], b"")).await;
        parked.push(waiting);
    }
    // They are parked as soon as one more finds no place.
    let mut refused = None;
    for _ in 0..1000 {
        let answer = client.get("/v1/kv/awaited?wait=1ms").await;
        if answer.status == 429 {
            refused = Some(answer.code());
            break;
        }
    }
    assert_eq!(refused.as_deref(), Some("too_many_waiters"));
    client.put("/v1/kv/awaited", b"x").await;
    for mut waiting in parked {
        assert_eq!(waiting.answer(false).await.status, 200, "those within the limit were not refused");
    }
}

async fn a_large_receive(client: &mut Client, most: u64) {
    // The message that brings it to the limit is the last.
    for (queue, first, expected) in [("just", most, 1), ("almost", most - 1, 2)] {
        let messages =
            [put_message(queue, text(first)), put_message(queue, "x".into()), put_message(queue, "x".into())];
        for answer in all(client, messages.into_iter()).await {
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let received = client.post(&format!("/v1/queues/{queue}/receive?max=3"), b"").await.json();
        assert_eq!(received["items"].as_array().unwrap().len(), expected, "{queue}");
    }
}

fn put_message(queue: &str, value: String) -> Ask {
    post(format!("/v1/queues/{queue}/messages"), value)
}

async fn subscriptions(client: &mut Client, most: u64) {
    let subscribe = |i: u64| put(format!("/v1/topics/read.a.lot/subscriptions/s{i}"), "");
    let made = all(client, (0..most).map(subscribe)).await;
    assert!(made.iter().all(|answer| answer.status == 201));
    let more = sent(client, &subscribe(most)).await;
    assert_eq!((more.status, more.code().as_str()), (413, "too_large"), "{}", more.text());
    names_the_limit(&more, "subscriptions_per_topic_max");
}

async fn deliveries(client: &mut Client, most: u64) {
    sent(client, &put("/v1/topics/flood/subscriptions/s", r#"{"from":"first","visibility":"1h"}"#)).await;
    let items = list(1000, |_| r#"{"value":"x"}"#.to_owned());
    for _ in 0..=most / 1000 {
        let batch = post("/v1/topics/flood/messages?batch=true", format!(r#"{{"items":[{items}]}}"#));
        assert_eq!(sent(client, &batch).await.status, 201);
    }
    let receive = |_| post("/v1/topics/flood/subscriptions/s/receive?max=100", "");
    for answer in all(client, (0..most / 100).map(receive)).await {
        assert_eq!(answer.json()["items"].as_array().map(Vec::len), Some(100), "{}", answer.text());
    }
    let more = sent(client, &receive(0)).await;
    assert_eq!((more.status, more.code().as_str()), (429, "too_many_in_flight"), "{}", more.text());
}

async fn a_generation(client: &mut Client, most: u64) {
    let made = sent(client, &put("/v1/queues/full", barrier(r#""signals":["go"]"#))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let items = list(1000, |_| r#"{"value":""}"#.to_owned());
    for _ in 0..most / 1000 {
        let batch = post("/v1/queues/full/messages?batch=true", format!(r#"{{"items":[{items}]}}"#));
        let answer = sent(client, &batch).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let more = sent(client, &put_message("full", "one more".into())).await;
    assert_eq!((more.status, more.code().as_str()), (409, "queue_full"), "{}", more.text());
    for (size, status) in [(most, 201), (most + 1, 400)] {
        let body = barrier(&format!(r#""size":{size}"#));
        assert_eq!(client.put(&format!("/v1/queues/of{size}"), body.as_bytes()).await.status, status);
    }
}

async fn streams(running: &Running, most: u64) {
    let open = || Frames::open(running.address, "GET", "/v1/kv?watch=true", &[]);
    let mut held = Vec::new();
    for _ in 0..most {
        let stream = open().await;
        assert_eq!(stream.head.status, 200);
        held.push(stream);
    }
    let more = open().await;
    assert_eq!((more.head.status, more.head.header("retry-after")), (429, Some("1")));
}

/// To the byte, on a node of its own.
async fn a_full_store() {
    let quota = 20_000;
    let running = start(|config| config.quota.0 = quota).await;
    let mut client = Client::connect(running.address).await;
    // The leader writes its settings into the log once it leads.
    let end = std::time::Instant::now() + PATIENCE;
    while client.get("/v1/limits").await.json()["quota_bytes"] != quota {
        assert!(std::time::Instant::now() < end, "the quota is that of the node");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let live = async |client: &mut Client| -> u64 {
        let metrics = client.get("/metrics").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("coracle_state_bytes "));
        line.expect("the gauge").parse().unwrap()
    };
    let before = live(&mut client).await;
    client.put("/v1/kv/a", b"x").await;
    let one = live(&mut client).await - before;
    let room = text(quota - live(&mut client).await - one + 1);
    let over = client.put("/v1/kv/b", format!("{room}x").as_bytes()).await;
    assert_eq!((over.status, over.code().as_str()), (507, "quota_exceeded"));
    assert_eq!(client.put("/v1/kv/b", room.as_bytes()).await.status, 201);
    assert_eq!(live(&mut client).await, quota);
    assert_eq!(client.put("/v1/kv/b", format!("{room}x").as_bytes()).await.status, 507, "one byte more");
    assert_eq!(client.call("DELETE", "/v1/kv/a", &[], b"").await.status, 200, "what frees goes on");
}
