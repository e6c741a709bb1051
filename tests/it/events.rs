//! History, paging and the stream of all families.

use std::collections::BTreeSet;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::wait;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_revision_while_writes_go_on() {
    let cluster = Cluster::start(3).await;
    let http = cluster.nodes[0].http();
    for n in 0..40 {
        http.put(&format!("/v1/kv/page/{n:02}"), "old").expect(201).await;
    }
    for (query, descending) in
        [("prefix=page/", false), ("prefix=page/&order=desc", true), ("start=page/&end=page0", false)]
    {
        let (mut seen, mut cursor, mut revisions, mut pages) =
            (Vec::new(), String::new(), BTreeSet::new(), 0);
        loop {
            // Each page from another node, and a change before each.
            let node = cluster.nodes[pages % 3].http();
            let page = node.get(&format!("/v1/kv?{query}&limit=7{cursor}")).expect(200).await.json();
            let items = page["items"].as_array().expect("items");
            seen.extend(items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()));
            assert!(items.iter().all(|item| item["value"] == "old"), "{page}");
            revisions.insert(page["revision"].as_u64());
            http.delete(&format!("/v1/kv/page/{:02}", 39 - pages)).expect(200).await;
            http.put(&format!("/v1/kv/page/{:02}-new", 10 + pages), "new").send().await.expect("an answer");
            pages += 1;
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let mut expected: Vec<String> = (0..40).map(|n| format!("page/{n:02}")).collect();
        if descending {
            expected.reverse();
        }
        assert_eq!(seen, expected, "{query}");
        assert_eq!(revisions.len(), 1);
        assert_eq!(pages, 6);
        http.delete("/v1/kv?prefix=page/").expect(200).await;
        for n in 0..40 {
            http.put(&format!("/v1/kv/page/{n:02}"), "old").expect(201).await;
        }
    }
    let page = http.get("/v1/kv?prefix=page/&limit=7").expect(200).await;
    let cursor = page.member("next_cursor");
    // A cursor of another list, and one that nobody gave.
    for path in [
        format!("/v1/kv?prefix=other/&cursor={cursor}"),
        format!("/v1/kv?prefix=page/&cursor={cursor}x"),
        "/v1/kv?prefix=page/&cursor=AAAA".to_owned(),
        format!("/v1/kv?prefix=page/&cursor={cursor}&revision=3"),
    ] {
        http.get(&path).refused(400, "invalid_argument").await;
    }
    http.put("/v1/kv/page/x", "y").expect(201).await;
    http.post("/v1/maintenance/compact?keep=0", "").expect(200).await;
    // This node may be one that has not applied it yet, and still has the page as it was.
    wait::until("the page is forgotten", Duration::from_secs(20), || async {
        let reply = http.get(&format!("/v1/kv?prefix=page/&limit=7&cursor={cursor}")).send().await?;
        anyhow::ensure!(reply.status == 410 && reply.code() == "cursor_expired", "{reply:?}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_a_key_can_be_read() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let one = http.put("/v1/kv/h", "one").expect(201).await.revision();
    let two = http.put("/v1/kv/h", "two").expect(200).await.revision();
    let gone = http.delete("/v1/kv/h").expect(200).await.revision();
    let back = http.put("/v1/kv/h", "back").expect(201).await.revision();
    let at = |revision: u64| http.get(&format!("/v1/kv/h?revision={revision}"));
    at(one - 1).refused(404, "key_not_found").await;
    assert_eq!(at(one).expect(200).await.text(), "one");
    assert_eq!(at(two).expect(200).await.text(), "two");
    at(gone).refused(404, "key_not_found").await;
    assert_eq!(at(back).expect(200).await.text(), "back");
    let list = http.get(&format!("/v1/kv?prefix=h&revision={two}")).expect(200).await.json();
    assert_eq!(list["items"][0]["value"], "two");
    let history = http.get("/v1/kv?key=h&history=true").expect(200).await.json();
    let told: Vec<_> = history["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| (item["revision"].as_u64(), item["entry"]["value"].clone()))
        .collect();
    assert_eq!(
        told,
        [
            (Some(one), json!("one")),
            (Some(two), json!("two")),
            (Some(gone), json!(null)),
            (Some(back), json!("back"))
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_families_are_on_one_stream() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let mut all = http.watch("/v1/events?initial=false").await;
    let mut locks = http.watch("/v1/events?family=locks&prefix=dep").await;
    all.until("synced", Duration::from_secs(5)).await;
    locks.until("synced", Duration::from_secs(5)).await;
    http.put("/v1/kv/deploy", "x").expect(201).await;
    let session = http.post("/v1/sessions?ttl=1m", "").expect(201).await.member("id");
    http.post(&format!("/v1/locks/other/acquire?session={session}"), "").expect(200).await;
    http.post(&format!("/v1/locks/deploy/acquire?session={session}"), "").expect(200).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let change = all.until("change", Duration::from_secs(5)).await;
        for event in change["events"].as_array().expect("events") {
            told.push(format!(
                "{} {}",
                event["family"].as_str().unwrap_or(""),
                event["op"].as_str().unwrap_or("")
            ));
        }
    }
    assert_eq!(told, ["kv put", "sessions opened", "locks acquired", "locks acquired"]);
    let change = locks.until("change", Duration::from_secs(5)).await;
    assert_eq!(change["events"][0]["name"], "deploy", "{change}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_any_bytes() {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    let keys = [
        "a%2Fb",
        "a//b",
        "%00",
        "%FF%FE",
        "..%2F..%2Fetc",
        "%F0%9F%98%80",
        "%D7%A9%D7%9C%D7%95%D7%9D",
        "%3Cscript%3E",
        "%1B%5B31m",
        "a%20b",
        "a+b",
        "%25",
    ];
    for key in keys {
        http.put(&format!("/v1/kv/{key}"), key).expect(201).await;
    }
    for key in keys {
        assert_eq!(http.get(&format!("/v1/kv/{key}")).expect(200).await.text(), key);
        let query = key.replace('+', "%2B");
        assert_eq!(http.get(&format!("/v1/kv?key={query}")).expect(200).await.text(), key, "?key=");
    }
    // The escaped slash and the plain one are the same byte.
    assert_eq!(http.get("/v1/kv/a/b").expect(200).await.text(), "a%2Fb");
    assert_eq!(http.get("/v1/kv?count_only=true").expect(200).await.number("count"), keys.len() as u64);
    let list = http.get("/v1/kv?limit=1000").expect(200).await;
    assert!(!list.text().contains('\u{1b}') && !list.text().contains('\0'), "control characters in JSON");
    let metrics = http.get("/metrics").expect(200).await.text();
    assert!(!metrics.contains("script"), "a key in the metrics");
    // Values of any bytes come back as they were.
    let value: Vec<u8> = (0..=255).collect();
    http.put("/v1/kv/bytes", value.clone()).expect(201).await;
    let raw = http.get("/v1/kv/bytes").expect(200).await;
    assert_eq!(raw.body, value);
    assert_eq!(raw.header("content-type"), "application/octet-stream");
    assert!(http.get("/v1/kv/bytes?format=json").expect(200).await.json()["value_base64"].is_string());
}
