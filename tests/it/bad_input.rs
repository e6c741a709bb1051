//! Whatever a client sends gets a problem with a stable code, changes nothing, and leaves the node healthy.

use std::time::Duration;

use coracle_tests::cluster::Cluster;
use coracle_tests::refusals::{all_are_refused, bad};
use coracle_tests::wait;

/// A node with something of each family, and a session.
async fn furnished() -> (Cluster, String) {
    let cluster = Cluster::start(1).await;
    let http = cluster.nodes[0].http();
    http.put("/v1/kv/a", "1").expect(201).await;
    let session = http.post("/v1/sessions?ttl=1h", "").expect(201).await.member("id");
    http.post(&format!("/v1/locks/l/acquire?session={session}"), "").expect(200).await;
    (cluster, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_keys() {
    let (cluster, _) = furnished().await;
    let long = "k".repeat(513);
    let session = "7000000000000001";
    let table = vec![
        bad("PUT", format!("/v1/kv/{long}"), "x", 400, "invalid_argument"),
        bad("GET", format!("/v1/kv/{long}"), "", 400, "invalid_argument"),
        bad("GET", format!("/v1/kv?key={long}"), "", 400, "invalid_argument"),
        bad("GET", "/v1/kv?key=", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?if_match=77&if_none_match=x", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/nothing?if_match=x", "", 400, "invalid_argument"),
        bad("PUT", "/v1/kv", "x", 405, "method_not_allowed"),
        bad("POST", "/v1/kv/a", "x", 405, "method_not_allowed"),
        bad("POST", "/v1/kv/", "x", 405, "method_not_allowed"),
        bad("PATCH", "/v1/kv/a", "x", 405, "method_not_allowed"),
        bad("PUT", "/v1/kv/a?if_match=x", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_match=-1", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_match=1.5", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_match=1,2", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_match=18446744073709551616", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_match=18446744073709551615", "2", 412, "revision_mismatch"),
        bad("PUT", "/v1/kv/a?if_match=9007199254740993", "2", 412, "revision_mismatch"),
        bad("PUT", "/v1/kv/a?if_match=9223372036854775808", "2", 412, "revision_mismatch"),
        bad("PUT", "/v1/kv/a", "2", 412, "revision_mismatch").with("if-match", "\"77\""),
        bad("PUT", "/v1/kv/a", "2", 412, "revision_mismatch").with("if-none-match", "*"),
        bad("PUT", "/v1/kv/a", "2", 400, "invalid_argument").with("if-none-match", "\"5\""),
        bad("PUT", "/v1/kv/a?if_match=2", "2", 400, "invalid_argument").with("if-match", "\"3\""),
        bad("PUT", "/v1/kv/a?if_match=2&if_none_match=*", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?whatever=1", "2", 400, "unknown_parameter"),
        bad("PUT", "/v1/kv/a?ttl=1s&ttl=2s", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?ttl=0", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?ttl=999ms", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?ttl=-5s", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?ttl=99999999999999999999h", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?ttl=1e9s", "2", 400, "invalid_argument"),
        bad("PUT", format!("/v1/kv/a?session={session}"), "2", 410, "session_expired"),
        bad("PUT", "/v1/kv/a?session=0", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?session=8000000000000001", "2", 400, "invalid_argument"),
        bad("PUT", format!("/v1/kv/a?session={session}&ttl=5s"), "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?on_disconnect=expire", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?return=everything", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?keep_session=maybe", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_held=nonsense", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_held=locks/l;token=x", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_held=queues/l;token=4", "2", 400, "invalid_argument"),
        bad("PUT", "/v1/kv/a?if_held=locks/l;token=999999", "2", 412, "fence_stale"),
        bad("PUT", "/v1/kv/a?if_held=locks/nobody;token=1", "2", 412, "fence_stale"),
        bad("PUT", "/v1/kv/a", vec![0; 1024 * 1024 + 1], 413, "too_large"),
        bad("DELETE", "/v1/kv", "", 400, "invalid_argument"),
        bad("DELETE", "/v1/kv?prefix=", "", 400, "invalid_argument"),
        bad("DELETE", "/v1/kv?prefix=a&start=b", "", 400, "invalid_argument"),
        bad("DELETE", "/v1/kv/a?if_match=7", "", 412, "revision_mismatch"),
        bad("DELETE", "/v1/kv/a?recursive=true", "", 400, "unknown_parameter"),
        bad("GET", "/v1/kv/absent", "", 404, "key_not_found"),
        bad("GET", "/v1/kv/a?revision=x", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?revision=99999", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?whatch=true", "", 400, "unknown_parameter"),
        bad("GET", "/v1/kv/a?watch=perhaps", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?watch=true&heartbeat=1ms", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?watch=true&limit=0", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?watch=true&after=-1", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?wait=11m", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?after=3", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?consistency=eventual", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?max_stale=5s", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a?format=xml", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv?limit=0", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv?limit=1001", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv?order=sideways", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv?delimiter=", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv?cursor=garbage", "", 400, "invalid_argument"),
        bad("GET", format!("/v1/kv?prefix={long}"), "", 400, "invalid_argument"),
        bad("GET", "/v1/kv?%FF=1", "", 400, "invalid_argument"),
        bad("GET", "/v1/kv/a", "", 412, "revision_mismatch").with("if-match", "\"99\""),
    ];
    all_are_refused(&cluster.nodes[0], table).await;
}

/// Bodies that are no transaction.
const MALFORMED: &[&str] = &[
    "{",
    "[]",
    "null",
    "7",
    "\"x\"",
    "{}{}",
    "{} x",
    "{\"then\":{}}",
    "{\"then\":null}",
    "{\"than\":[]}",
    "{\"then\":[],\"then\":[]}",
    "{\"then\":[7]}",
    "{\"then\":[{}]}",
    "{\"then\":[{\"op\":\"explode\",\"key\":\"a\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key\":\"a\"}]}",
    "{\"then\":[{\"op\":\"put\",\"value\":\"a\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key\":7,\"value\":\"a\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key\":\"\",\"value\":\"a\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key\":\"a\",\"key\":\"b\",\"value\":\"a\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key\":\"a\",\"value\":\"a\",\"value_base64\":\"YQ==\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key\":\"a\",\"value_base64\":\"!\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key_base64\":\"====\",\"value\":\"a\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key\":\"a\",\"value\":\"a\",\"lock\":\"l\"}]}",
    "{\"then\":[{\"op\":\"get\",\"key\":\"a\",\"value\":\"a\"}]}",
    "{\"then\":[{\"op\":\"delete\",\"key\":\"a\",\"prefix\":\"b\"}]}",
    "{\"then\":[{\"op\":\"release\",\"lock\":\"l\"}]}",
    "{\"then\":[{\"op\":\"release\",\"lock\":\"l\",\"session\":\"zz\"}]}",
    "{\"then\":[{\"op\":\"put\",\"key\":\"\\ud800\",\"value\":\"a\"}]}",
    "{\"if\":[{\"key\":\"a\"}]}",
    "{\"if\":[{\"key\":\"a\",\"value\":\"1\",\"exists\":true}]}",
    "{\"if\":[{\"key\":\"a\",\"mod_revision\":-1}]}",
    "{\"if\":[{\"key\":\"a\",\"mod_revision\":1.5}]}",
    "{\"if\":[{\"key\":\"a\",\"mod_revision\":18446744073709551616}]}",
    "{\"if\":[{\"key\":\"a\",\"mod_revision\":\"2\"}]}",
    "{\"if\":[{\"held\":\"locks/l\"}]}",
    "{\"if\":[{\"held\":\"nothing/l\",\"token\":1}]}",
    "{\"if\":[{\"session\":\"x\"}]}",
];

#[tokio::test(flavor = "multi_thread")]
async fn of_transactions() {
    let (cluster, _) = furnished().await;
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let nested = format!(
        "{{\"then\":[{{\"op\":\"put\",\"key\":\"x\",\"value\":{}1{}}}]}}",
        "{\"a\":".repeat(500),
        "}".repeat(500)
    );
    let put = |n: usize| format!(r#"{{"op":"put","key":"k{n}","value":"v"}}"#);
    let many = |n: usize| format!(r#"{{"then":[{}]}}"#, (0..n).map(put).collect::<Vec<_>>().join(","));
    let value = "v".repeat(1024 * 1024 + 1);
    let mut table = Vec::new();
    for body in MALFORMED {
        table.push(bad("POST", "/v1/txn", *body, 400, "invalid_argument"));
    }
    table.extend([
        bad("POST", "/v1/txn", deep, 400, "invalid_argument"),
        bad("POST", "/v1/txn", nested, 400, "invalid_argument"),
        bad("POST", "/v1/txn", vec![0xff, 0xfe, 0x00], 400, "invalid_argument"),
        bad("POST", "/v1/txn", many(129), 400, "too_many_ops"),
        bad(
            "POST",
            "/v1/txn",
            r#"{"then":[{"op":"put","key":"a","value":"1"},{"op":"delete","key":"a"}]}"#,
            400,
            "duplicate_key",
        ),
        bad(
            "POST",
            "/v1/txn",
            r#"{"then":[{"op":"put","key":"a/b","value":"1"},{"op":"delete","prefix":"a/"}]}"#,
            400,
            "duplicate_key",
        ),
        bad(
            "POST",
            "/v1/txn",
            format!(r#"{{"then":[{{"op":"put","key":"a","value":"{value}"}}]}}"#),
            413,
            "too_large",
        ),
        bad("POST", "/v1/txn", vec![b' '; 4 * 1024 * 1024 + 1], 413, "too_large"),
        bad("POST", "/v1/txn", "<txn/>", 415, "unsupported_media_type")
            .with("content-type", "application/xml"),
        bad("POST", "/v1/txn?whatever=1", "{}", 400, "unknown_parameter"),
        bad(
            "POST",
            "/v1/txn",
            r#"{"then":[{"op":"release","lock":"l","session":"7000000000000001"}]}"#,
            409,
            "not_holder",
        ),
        bad(
            "POST",
            "/v1/txn",
            r#"{"then":[{"op":"put","key":"b","value":"1","session":"7000000000000001"}]}"#,
            410,
            "session_expired",
        ),
        bad("GET", "/v1/txn", "", 405, "method_not_allowed"),
    ]);
    all_are_refused(&cluster.nodes[0], table).await;
    // And what is just within the limits is taken.
    let http = cluster.nodes[0].http();
    http.post("/v1/txn", many(128)).expect(200).await;
    http.put("/v1/kv/limit", vec![1; 1024 * 1024]).expect(201).await;
    http.put(&format!("/v1/kv/{}", "k".repeat(512)), "x").expect(201).await;
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "one table")]
async fn of_sessions_locks_members_and_the_rest() {
    let (cluster, session) = furnished().await;
    let long = "n".repeat(513);
    let big = "v".repeat(5000);
    let none = "7000000000000001";
    let mut table = vec![
        bad("POST", "/v1/sessions?ttl=1h", r#"{"ttl":"1h"}"#, 400, "invalid_argument"),
        bad("POST", "/v1/sessions", format!(r#"{{"meta":{{"a":"{big}"}}}}"#), 413, "too_large"),
        bad("POST", "/v1/sessions", format!(r#"{{"name":"{long}"}}"#), 400, "invalid_argument"),
        bad("POST", "/v1/sessions?hold=perhaps", "", 400, "invalid_argument"),
        bad("GET", "/v1/sessions/nonsense", "", 404, "session_not_found"),
        bad("GET", format!("/v1/sessions/{none}"), "", 404, "session_not_found"),
        bad("DELETE", format!("/v1/sessions/{none}"), "", 404, "session_not_found"),
        bad("POST", format!("/v1/sessions/{none}/renew"), "", 410, "session_expired"),
        bad("POST", format!("/v1/sessions/{none}/hold"), "", 410, "session_expired"),
        bad("POST", format!("/v1/sessions/{session}/explode"), "", 404, "route_not_found"),
        bad(
            "POST",
            format!("/v1/sessions/{session}/renew"),
            r#"{"progress":{"percent":101}}"#,
            400,
            "invalid_argument",
        ),
        bad(
            "POST",
            format!("/v1/sessions/{session}/renew"),
            r#"{"progress":{"percent":300}}"#,
            400,
            "invalid_argument",
        ),
        bad("POST", format!("/v1/sessions/{session}/renew?after=-1"), "", 400, "invalid_argument"),
        bad("POST", format!("/v1/sessions/{session}/hold?after=x"), "", 400, "invalid_argument"),
        bad("POST", format!("/v1/sessions/{session}/hold?on_disconnect=x"), "", 400, "invalid_argument"),
        bad("POST", "/v1/sessions", r#"{"stall_after":"999ms"}"#, 400, "invalid_argument"),
        bad("POST", "/v1/sessions", r#"{"stall_after":"25h"}"#, 400, "invalid_argument"),
        bad("POST", "/v1/sessions", r#"{"lock_delay":"61s"}"#, 400, "invalid_argument"),
        bad("GET", "/v1/sessions?limit=1001", "", 400, "invalid_argument"),
        bad("GET", "/v1/sessions?revision=x", "", 400, "invalid_argument"),
        bad("GET", "/v1/sessions?revision=1&wait=1s", "", 400, "invalid_argument"),
        bad("GET", "/v1/sessions?limit=0", "", 400, "invalid_argument"),
        bad("GET", "/v1/sessions?cursor=x", "", 400, "invalid_argument"),
        bad("POST", format!("/v1/locks/{long}/acquire?ttl=5s"), "", 400, "invalid_argument"),
        bad("POST", "/v1/locks/%00/acquire?ttl=5s", "", 400, "invalid_argument"),
        bad("POST", "/v1/locks/%1B%5B31m/acquire?ttl=5s", "", 400, "invalid_argument"),
        bad("POST", "/v1/locks/%FF/acquire?ttl=5s", "", 400, "invalid_argument"),
        bad("POST", "/v1/locks//acquire?ttl=5s", "", 400, "invalid_argument"),
        bad("POST", format!("/v1/locks/m/acquire?ttl=5s&owner={long}"), "", 400, "invalid_argument"),
        bad("POST", "/v1/locks/m/acquire?ttl=5s&keep=true&hold=true", "", 400, "invalid_argument"),
        bad("POST", "/v1/locks/l/acquire?ttl=5s", "", 409, "lock_held"),
        bad("GET", "/v1/locks/nobody", "", 404, "lock_not_found"),
        bad("GET", "/v1/locks/l/acquire", "", 405, "method_not_allowed"),
        bad("POST", "/v1/queues/q/messages?priority=10", "x", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/messages?priority=1", "x", 409, "queue_kind_mismatch"),
        bad("POST", "/v1/queues/q/messages?delay=-1s", "x", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/messages?ttl=0", "x", 400, "invalid_argument"),
        bad("POST", format!("/v1/queues/q/messages?group={long}"), "x", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/messages?id=one", "x", 409, "queue_kind_mismatch"),
        bad("POST", "/v1/queues/q/messages?session=7000000000000001", "x", 409, "queue_kind_mismatch"),
        bad("POST", "/v1/queues/q/messages?batch=true", r#"{"items":[]}"#, 400, "invalid_argument"),
        bad(
            "POST",
            "/v1/queues/q/messages?batch=true",
            r#"{"items":[{"valeu":1}]}"#,
            400,
            "invalid_argument",
        ),
        bad("POST", "/v1/queues/q/receive?max=0", "", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/receive?max=2&format=raw", "", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/receive?visibility=999ms", "", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/receive?acks=forged", "", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/receive?session=7000000000000001", "", 410, "session_expired"),
        bad("POST", "/v1/queues/q/ack?receipt=r1:1-0.2", "", 409, "receipt_stale"),
        bad("POST", "/v1/queues/q/ack?receipt=r1:01-0.2", "", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/nack?receipt=r1:1-0.2&fatal=true&delay=1s", "", 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/renew", r#"{"receipts":[]}"#, 400, "invalid_argument"),
        bad("POST", "/v1/queues/q/open?signal=go", "", 409, "queue_kind_mismatch"),
        bad("POST", "/v1/queues/q/open?signal=go&now=true", "", 400, "invalid_argument"),
        bad("GET", "/v1/queues/q/messages?state=lost", "", 400, "invalid_argument"),
        bad("GET", "/v1/queues/q/messages/1", "", 400, "invalid_argument"),
        bad("GET", "/v1/queues/q/messages/1-0", "", 404, "message_not_found"),
        bad("PUT", "/v1/queues/q", r#"{"kind":"lifo"}"#, 400, "invalid_argument"),
        bad("PUT", "/v1/queues/q", r#"{"dead_letter":"q"}"#, 400, "invalid_argument"),
        bad("PUT", "/v1/queues/q", r#"{"retry":{"min":"2s","max":"1s"}}"#, 400, "invalid_argument"),
        bad("DELETE", "/v1/queues/q", "", 404, "queue_not_found"),
        bad("GET", "/v1/events?family=nothing", "", 400, "invalid_argument"),
        bad("GET", "/v1/events?after=99999999999999999999", "", 400, "invalid_argument"),
        bad("POST", "/v1/maintenance/compact", "", 400, "invalid_argument"),
        bad("POST", "/v1/maintenance/compact?revision=999999", "", 400, "invalid_argument"),
        bad("POST", "/v1/maintenance/compact?revision=1&keep=1", "", 400, "invalid_argument"),
        bad("POST", "/v1/members", "{}", 400, "invalid_argument"),
        bad("DELETE", "/v1/members/1", "", 409, "would_lose_quorum"),
        bad("GET", "/v1/members/99", "", 404, "member_not_found"),
        bad("POST", "/v1/members/0/promote", "", 404, "member_not_found"),
        bad("GET", "/v1/limits?x=1", "", 400, "unknown_parameter"),
        bad("PUT", "/v1/limits", "", 405, "method_not_allowed"),
        bad("GET", "/", "", 404, "route_not_found"),
        bad("GET", "/v1", "", 404, "route_not_found"),
        bad("GET", "/v1/nothing/here", "", 404, "route_not_found"),
        bad("GET", "/v2/kv/a", "", 404, "route_not_found"),
        bad("GET", "/v1/kvx", "", 404, "route_not_found"),
        bad("GET", "/problems/nothing", "", 404, "route_not_found"),
        bad("GET", "/version?x=1", "", 400, "unknown_parameter"),
        // Browsers of other sites, and names that are not ours.
        bad("PUT", "/v1/kv/a", "2", 403, "cross_origin_denied").with("sec-fetch-site", "cross-site"),
        bad("DELETE", "/v1/kv/a", "", 403, "cross_origin_denied").with("origin", "http://evil.example"),
        bad("POST", "/v1/txn", "{}", 403, "cross_origin_denied").with("origin", "null"),
        bad("GET", "/v1/kv/a", "", 421, "host_not_allowed").with("host", "evil.example"),
        bad("PUT", "/v1/kv/a", "2", 421, "host_not_allowed").with("host", "evil.example:7070"),
    ];
    for body in [
        "{",
        "[]",
        "7",
        r#"{"ttl":1e99}"#,
        r#"{"ttl":-1}"#,
        r#"{"ttl":"0"}"#,
        r#"{"ttl":"25h"}"#,
        r#"{"tll":"5s"}"#,
        r#"{"ttl":"5s","ttl":"6s"}"#,
        r#"{"on_expire":"explode"}"#,
        r#"{"meta":[]}"#,
        r#"{"meta":{"a":1}}"#,
    ] {
        table.push(bad("POST", "/v1/sessions", body, 400, "invalid_argument"));
    }
    all_are_refused(&cluster.nodes[0], table).await;
}

/// A member of each list of limits says what it was.
#[tokio::test(flavor = "multi_thread")]
async fn problems_name_the_limit() {
    let (cluster, _) = furnished().await;
    let http = cluster.nodes[0].http();
    let limits = http.get("/v1/limits").expect(200).await.json();
    let max = limits["value_bytes_max"].as_u64().expect("a number");
    let size = usize::try_from(max).expect("small") + 1;
    let refused = http.put("/v1/kv/a", vec![0; size]).refused(413, "too_large").await;
    assert_eq!((refused.number("max"), refused.number("actual")), (max, max + 1), "{refused:?}");
    assert_eq!(refused.member("limit"), "value_bytes");
    let refused = http.get("/v1/kv/a?limit=7&whatch=1").send().await.expect("an answer");
    assert_eq!(refused.status, 400);
    let refused = http.get("/v1/kv?limit=5000").refused(400, "invalid_argument").await;
    assert_eq!(refused.json()["errors"][0]["name"], "limit", "{refused:?}");
    let current = http.get("/v1/kv/a").expect(200).await.header("etag").trim_matches('"').parse::<u64>();
    let refused = http.put("/v1/kv/a?if_match=999", "x").refused(412, "revision_mismatch").await;
    assert_eq!(Ok(refused.number("current_revision")), current);
    let allow = http.call(reqwest::Method::PATCH, "/v1/kv/a").refused(405, "method_not_allowed").await;
    assert!(allow.header("allow").contains("GET"), "{:?}", allow.headers);
}

/// A full store still gives back: reads, deletes, releases and renewals go on, and then there is space again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_still_drains() {
    let cluster = Cluster::start_with(1, &["--quota", "4MiB"]).await;
    let http = cluster.nodes[0].http();
    let session = http.post("/v1/sessions?ttl=1h", "").expect(201).await.member("id");
    http.post(&format!("/v1/locks/l/acquire?session={session}"), "").expect(200).await;
    // The leader proposes it when it begins to lead.
    wait::until("the quota is in force", Duration::from_secs(10), || async {
        let quota = http.get("/v1/limits").send().await?.number("quota_bytes");
        anyhow::ensure!(quota == 4 << 20, "{quota}");
        anyhow::Ok(())
    })
    .await;
    let value = vec![7; 256 * 1024];
    let mut stored = 0;
    let refused = loop {
        let reply =
            http.put(&format!("/v1/kv/q/{stored:03}"), value.clone()).send().await.expect("an answer");
        if reply.status != 201 {
            break reply;
        }
        stored += 1;
        assert!(stored < 40, "the quota does not bite");
    };
    assert_eq!((refused.status, refused.code().as_str()), (507, "quota_exceeded"), "{refused:?}");
    http.get("/v1/kv/q/000").expect(200).await;
    http.post(&format!("/v1/sessions/{session}/renew"), "").expect(200).await;
    http.post(&format!("/v1/locks/l/release?session={session}"), "").expect(200).await;
    http.delete("/v1/kv/q/000").expect(200).await;
    http.put("/v1/kv/q/small", "x").expect(201).await;
    http.delete("/v1/kv?prefix=q/").expect(200).await;
    http.put("/v1/kv/q/again", value).expect(201).await;
}
