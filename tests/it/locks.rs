//! Locks over nodes, kills and disconnects: one holder, in order, rising tokens, no ghosts.

use std::time::{Duration, Instant};

use coracle_tests::cluster::Cluster;
use coracle_tests::http::{Http, Reply};
use coracle_tests::wait;
use serde_json::{Value, json};

/// See `sessions`.
const SLACK: Duration = Duration::from_secs(5);

async fn open(http: &Http) -> String {
    http.post("/v1/sessions?ttl=5m", "").expect(201).await.member("id")
}

async fn lock(http: &Http, name: &str) -> Value {
    let reply = http.get(&format!("/v1/locks/{name}")).send().await.expect("an answer");
    if reply.status == 404 { json!({"holders": [], "waiters": []}) } else { reply.json() }
}

/// Waits until so many stand in line.
async fn waiters(http: &Http, name: &str, count: usize) {
    wait::until(&format!("{count} in line for {name}"), Duration::from_secs(15), || async {
        let lock = lock(http, name).await;
        let found = lock["waiters"].as_array().map_or(0, Vec::len);
        if found == count { Ok(()) } else { Err(lock.to_string()) }
    })
    .await;
}

/// Stands in line on its own task.
fn wait_for(http: &Http, name: &str, session: &str) -> tokio::task::JoinHandle<anyhow::Result<Reply>> {
    let call = http
        .post(&format!("/v1/locks/{name}/acquire?session={session}&wait=1m"), "")
        .patience(Duration::from_secs(50));
    tokio::spawn(call.send())
}

#[tokio::test(flavor = "multi_thread")]
async fn are_granted_in_the_order_of_arrival_over_all_nodes() {
    let cluster = Cluster::start(3).await;
    let http = cluster.nodes[0].http().clone();
    let first = open(&http).await;
    let mut token =
        http.post(&format!("/v1/locks/l/acquire?session={first}"), "").expect(200).await.number("token");
    let mut line = Vec::new();
    for n in 0..6 {
        let node = cluster.nodes[n % 3].http();
        let session = open(node).await;
        line.push((session.clone(), wait_for(node, "l", &session), n % 3));
        waiters(&http, "l", n + 1).await;
    }
    let shown = lock(&http, "l").await;
    let order: Vec<&str> =
        shown["waiters"].as_array().expect("waiters").iter().filter_map(|w| w["session"].as_str()).collect();
    assert_eq!(order, line.iter().map(|(session, ..)| session.as_str()).collect::<Vec<_>>());
    let mut holder = (first, 0);
    for (session, waiting, node) in line {
        let release = format!("/v1/locks/l/release?session={}", holder.0);
        let released = cluster.nodes[holder.1].http().post(&release, "").expect(200).await;
        assert_eq!(released.json()["released_to"], json!([session]), "{released:?}");
        let granted = waiting.await.expect("no panic").expect("an answer");
        assert_eq!(granted.status, 200, "{granted:?}");
        assert_eq!(granted.json()["session"], session);
        assert!(granted.number("token") > token, "{granted:?} after {token}");
        assert_eq!(granted.number("token"), released.number("revision"));
        (token, holder) = (granted.number("token"), (session, node));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_rise_over_release_deletion_and_restart() {
    let mut cluster = Cluster::start(1).await;
    let mut newest = 0;
    for round in 0..4 {
        let http = cluster.nodes[0].http().clone();
        let session = open(&http).await;
        for _ in 0..2 {
            let token = http
                .post(&format!("/v1/locks/l/acquire?session={session}"), "")
                .expect(200)
                .await
                .number("token");
            assert!(token > newest);
            // Asked again, the same grant.
            let again = http.post(&format!("/v1/locks/l/acquire?session={session}"), "").expect(200).await;
            assert_eq!(again.number("token"), token);
            newest = token;
            http.post(&format!("/v1/locks/l/release?session={session}"), "").expect(200).await;
            http.get("/v1/locks/l").refused(404, "lock_not_found").await;
        }
        if round % 2 == 0 {
            cluster.nodes[0].kill9();
        } else {
            cluster.nodes[0].terminate().await;
        }
        cluster.nodes[0].restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pass_on_when_the_holder_dies() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (http, other) =
        (cluster.nodes[(leader + 1) % 3].http().clone(), cluster.nodes[(leader + 2) % 3].http().clone());
    let ttl = Duration::from_secs(2);
    let start = Instant::now();
    let held = http.post("/v1/locks/l/acquire?ttl=2s&owner=mortal", "").expect(200).await;
    let refused = other.post("/v1/locks/l/acquire?ttl=2s", "").refused(409, "lock_held").await;
    let blocker = &refused.json()["blockers"][0];
    assert_eq!((&blocker["owner"], &blocker["token"]), (&json!("mortal"), &json!(held.number("token"))));
    let next = open(&other).await;
    let granted = wait_for(&other, "l", &next).await.expect("no panic").expect("an answer");
    let waited = start.elapsed();
    assert_eq!(granted.status, 200, "{granted:?}");
    assert!(waited >= ttl, "while the other was sure to hold: {waited:?}");
    assert!(waited < ttl + SLACK, "{waited:?}");
    // What the dead one still sends is refused by its token.
    let stale = format!("locks/l; token={}", held.number("token"));
    let refused =
        http.put("/v1/kv/guarded", "late").header("if-held", &stale).refused(412, "fence_stale").await;
    assert_eq!(refused.number("current_token"), granted.number("token"), "{refused:?}");
    let fresh = format!("locks/l; token={}", granted.number("token"));
    http.put("/v1/kv/guarded", "good").header("if-held", &fresh).expect(201).await;
    http.put(&format!("/v1/kv/guarded?if_held=locks/l;%20token={}", granted.number("token")), "good")
        .expect(200)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_no_ghost_in_the_line() {
    let cluster = Cluster::start(3).await;
    let http = cluster.nodes[0].http().clone();
    let holder = open(&http).await;
    http.post(&format!("/v1/locks/l/acquire?session={holder}"), "").expect(200).await;
    for n in 0..3 {
        let node = cluster.nodes[n].http();
        let session = open(node).await;
        let waiting = wait_for(node, "l", &session);
        waiters(&http, "l", 1).await;
        waiting.abort();
        waiters(&http, "l", 0).await;
        // The same with a private session: nobody knows it, so it goes too.
        let call = node.post("/v1/locks/l/acquire?ttl=5m&wait=1m", "");
        let waiting = tokio::spawn(call.send());
        waiters(&http, "l", 1).await;
        waiting.abort();
        waiters(&http, "l", 0).await;
    }
    // A wait that runs out leaves none either.
    let refused = http.post("/v1/locks/l/acquire?ttl=5m&wait=300ms", "").refused(409, "lock_held").await;
    assert_eq!(refused.number("position"), 1);
    waiters(&http, "l", 0).await;
    http.post(&format!("/v1/locks/l/release?session={holder}"), "").expect(200).await;
    http.get("/v1/locks/l").refused(404, "lock_not_found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_place_is_resumed_on_another_node() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (one, two) =
        (cluster.nodes[(leader + 1) % 3].http().clone(), cluster.nodes[(leader + 2) % 3].http().clone());
    let holder = open(&one).await;
    one.post(&format!("/v1/locks/l/acquire?session={holder}"), "").expect(200).await;
    let (early, late) = (open(&one).await, open(&one).await);
    let kept =
        one.post(&format!("/v1/locks/l/acquire?session={early}&keep=true&wait=100ms"), "").expect(202).await;
    assert_eq!((kept.number("position"), kept.member("session")), (1, early.clone()));
    let kept = one.post(&format!("/v1/locks/l/acquire?session={late}&keep=true"), "").expect(202).await;
    assert_eq!(kept.number("position"), 2);
    // The node that knew of it dies, and the leader too.
    cluster.nodes[(leader + 1) % 3].kill9();
    let again =
        two.post(&format!("/v1/locks/l/acquire?session={early}&keep=true&wait=100ms"), "").expect(202).await;
    assert_eq!(again.number("position"), 1);
    cluster.nodes[(leader + 1) % 3].restart().await;
    cluster.nodes[leader].kill9();
    let waiting = wait::until("in line again", Duration::from_secs(20), || async {
        let reply = two.post(&format!("/v1/locks/l/acquire?session={late}&keep=true"), "").send().await?;
        anyhow::ensure!(reply.status == 202, "{reply:?}");
        anyhow::Ok(reply)
    })
    .await;
    assert_eq!(waiting.number("position"), 2);
    one.post(&format!("/v1/locks/l/release?session={holder}"), "").expect(200).await;
    two.post(&format!("/v1/locks/l/acquire?session={early}&keep=true"), "").expect(200).await;
    two.post(&format!("/v1/locks/l/release?session={early}"), "").expect(200).await;
    two.post(&format!("/v1/locks/l/acquire?session={late}&keep=true"), "").expect(200).await;
}

/// With twenty contenders for fifty turns each nobody is ever inside with another.
#[tokio::test(flavor = "multi_thread")]
async fn exclude() {
    let cluster = Cluster::start(3).await;
    let inside = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let contenders: Vec<_> = (0..12)
        .map(|n| {
            let (http, inside) = (cluster.nodes[n % 3].http().clone(), inside.clone());
            tokio::spawn(async move {
                let session = open(&http).await;
                let mut tokens = Vec::new();
                for _ in 0..8 {
                    let path = format!("/v1/locks/busy/acquire?session={session}&wait=1m");
                    let granted = http.post(&path, "").patience(Duration::from_mins(1)).expect(200).await;
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "two are inside");
                    tokens.push(granted.number("token"));
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    http.post(&format!("/v1/locks/busy/release?session={session}"), "").expect(200).await;
                }
                tokens
            })
        })
        .collect();
    let mut tokens = Vec::new();
    for contender in contenders {
        let of_one = contender.await.expect("no panic");
        assert!(of_one.is_sorted());
        tokens.extend(of_one);
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 12 * 8);
}
