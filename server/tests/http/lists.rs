//! Lists: every page shows the revision of the first, whatever happens in between.

use serde_json::{Value, json};

use crate::client::{Client, Frames};
use crate::server::start;

/// All pages of a list; `between` happens after each.
async fn pages(client: &mut Client, path: &str, between: &mut dyn FnMut(u64) -> Vec<Change>) -> Vec<Value> {
    let (mut cursor, mut pages) = (String::new(), Vec::<Value>::new());
    loop {
        let page = client.get(&format!("{path}{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        if let Some(first) = pages.first() {
            assert_eq!(page["revision"], first["revision"], "all pages show one revision");
        }
        pages.push(page);
        for (method, path) in between(pages.len() as u64) {
            let answer = client.call(method, &path, &[], b"").await;
            assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
        }
        match pages.last().unwrap()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

type Change = (&'static str, String);

fn items(pages: &[Value]) -> Vec<Value> {
    pages.iter().flat_map(|page| page["items"].as_array().unwrap().clone()).collect()
}

/// Without how long sessions are good for, which is always of the present.
fn timeless(mut items: Vec<Value>) -> Vec<Value> {
    for item in &mut items {
        item.as_object_mut().unwrap().remove("valid_for");
        for holder in item["holders"].as_array_mut().into_iter().flatten() {
            holder.as_object_mut().unwrap().remove("valid_for");
        }
    }
    items
}

#[tokio::test]
async fn locks_and_sessions_page_at_one_revision_while_they_change() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let mut holders = Vec::new();
    for i in 0..10 {
        let held = client.post(&format!("/v1/locks/l{i}/acquire?ttl=1m&owner=o{i}"), b"").await.json();
        holders.push(held["session"].as_str().unwrap().to_owned());
        let wait = format!("/v1/locks/l{i}/acquire?ttl=1m&wait=1ms&keep=true&owner=w{i}");
        assert_eq!(client.post(&wait, b"").await.status, 202);
    }
    for family in ["locks", "sessions"] {
        let whole = client.get(&format!("/v1/{family}?limit=1000")).await.json();
        let revision = whole["revision"].as_u64().unwrap();
        // Between the pages a hold ends, the next in line gets it, and objects appear before and behind.
        let path = format!("/v1/{family}?limit=3");
        let shift = if family == "locks" { 0 } else { 5 };
        let shown = pages(&mut client, &path, &mut |n| {
            let i = usize::try_from(n).unwrap() - 1 + shift;
            if i >= 5 + shift {
                return Vec::new();
            }
            vec![
                ("POST", format!("/v1/locks/l{i}/release?session={}", holders[i])),
                ("POST", format!("/v1/locks/l{i}x/acquire?ttl=1m")),
                ("DELETE", format!("/v1/locks/l{i}x")),
            ]
        })
        .await;
        assert_eq!(shown[0]["revision"], revision);
        assert!(shown.len() > 3);
        assert_eq!(timeless(items(&shown)), timeless(whole["items"].as_array().unwrap().clone()));
        // The same list, asked for by its revision; and the present is another.
        let past = client.get(&format!("/v1/{family}?limit=1000&revision={revision}")).await.json();
        assert_eq!(timeless(items(&[past])), timeless(items(&shown)));
        let now = client.get(&format!("/v1/{family}?limit=1000")).await.json();
        assert_ne!(timeless(items(&[now])), timeless(items(&shown)));
    }
}

#[tokio::test]
async fn a_cursor_ends_with_its_revision_and_belongs_to_its_list() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    for i in 0..3 {
        assert_eq!(client.post(&format!("/v1/locks/l{i}/acquire?ttl=1m"), b"").await.status, 200);
    }
    for family in ["locks", "sessions"] {
        let page = client.get(&format!("/v1/{family}?limit=1")).await.json();
        let cursor = page["next_cursor"].as_str().unwrap().to_owned();
        let get = format!("/v1/{family}?cursor={cursor}");
        assert_eq!(client.get(&get).await.json()["items"].as_array().unwrap().len(), 2);
        for bad in ["&prefix=l1", "&revision=1", "&wait=1s", "&limit=0", "&limit=1001"] {
            let answer = client.get(&format!("{get}{bad}")).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{family} {bad}");
        }
        let other = if family == "locks" { "sessions" } else { "locks" };
        let answer = client.get(&format!("/v1/{other}?cursor={cursor}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"));

        client.put("/v1/kv/later", b"x").await;
        assert_eq!(client.post("/v1/maintenance/compact?keep=0", b"").await.status, 200);
        let expired = client.get(&get).await;
        assert_eq!((expired.status, expired.code().as_str()), (410, "cursor_expired"));
        let compacted = client.get(&format!("/v1/{family}?revision=1")).await;
        assert_eq!((compacted.status, compacted.code().as_str()), (410, "compacted"));
    }
}

#[tokio::test]
async fn sessions_are_listed_by_the_beginning_of_their_id() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(client.post("/v1/sessions", b"").await.json()["id"].as_str().unwrap().to_owned());
    }
    ids.sort_unstable();
    for prefix in ["", "0", "7", &ids[3], &ids[5][..1].to_ascii_uppercase(), &ids[7][..2], "8", "x", "é"] {
        let beginning = prefix.to_ascii_lowercase();
        let expected: Vec<&String> = ids.iter().filter(|id| id.starts_with(&beginning)).collect();
        let list = client.get(&format!("/v1/sessions?prefix={}", prefix.replace('é', "%C3%A9"))).await;
        assert_eq!(list.status, 200, "{}", list.text());
        let found = list.json()["items"].as_array().unwrap().iter().map(|i| i["id"].clone()).collect();
        assert_eq!(Value::Array(found), json!(expected), "{prefix}");
    }
    // A watch shows the same, and what happens to the same.
    let path = format!("/v1/sessions?prefix={}&watch=true", ids[3]);
    let mut watch = Frames::open(running.address, "GET", &path, &[]).await;
    let snapshot = watch.frame().await;
    assert_eq!(snapshot["items"].as_array().unwrap().len(), 1);
    assert_eq!(watch.frame().await["type"], "synced");
    for id in [&ids[2], &ids[3]] {
        assert_eq!(client.call("DELETE", &format!("/v1/sessions/{id}"), &[], b"").await.status, 200);
    }
    assert_eq!(watch.frame().await["events"][0]["name"], ids[3].as_str());
}

#[tokio::test]
async fn a_long_snapshot_comes_in_chunks_of_one_revision() {
    let running = start(|_| {}).await;
    let mut client = Client::connect(running.address).await;
    for i in 0..600 {
        let path = format!("/v1/locks/l{i:03}/acquire?ttl=1m");
        assert_eq!(client.post(&path, b"").await.status, 200);
    }
    let mut later = 0;
    for (family, count) in [("locks", 600), ("sessions", 600), ("locks?prefix=l1", 100), ("locks/l100", 1)] {
        let mark = if family.contains('?') { '&' } else { '?' };
        let path = format!("/v1/{family}{mark}watch=true");
        let mut frames = Frames::open(running.address, "GET", &path, &[]).await;
        let (mut items, mut chunks, mut revision) = (Vec::new(), 0, None);
        loop {
            let frame = frames.frame().await;
            assert_eq!(frame["type"], "snapshot");
            assert_eq!(revision.get_or_insert(frame["revision"].clone()), &frame["revision"]);
            items.extend(frame["items"].as_array().unwrap().clone());
            chunks += 1;
            // What changes meanwhile comes behind the snapshot.
            later += 1;
            let path = format!("/v1/locks/l{chunks:03}x-{later}/acquire?ttl=1m");
            assert_eq!(client.post(&path, b"").await.status, 200);
            if frame["more"] != true {
                break;
            }
        }
        assert!(items.len() >= count && chunks == items.len().div_ceil(256), "{family}: {chunks}");
        let name_of = |item: &Value| item["name"].as_str().or(item["id"].as_str()).unwrap().to_owned();
        let names: Vec<_> = items.iter().map(name_of).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "each once, in order");
        if family.starts_with("locks") {
            assert!(!names.iter().any(|name| name.ends_with(&format!("x-{later}"))));
        }
        // Then the changes, if any are within, and the mark behind them.
        while frames.frame().await["type"] != "synced" {}
    }
}
