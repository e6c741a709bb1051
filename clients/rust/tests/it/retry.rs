//! When a call is repeated, where, and with which key.

use std::time::{Duration, Instant};

use coracle_client::api::{Code, Effect};
use coracle_client::{Coracle, Error, Fence};

use crate::fake::{Fake, Reply, nobody};

const PUT: &str = r#"{"key":"a","revision":7,"version":1}"#;

fn client(endpoints: &[&str]) -> Coracle {
    Coracle::builder()
        .endpoints(endpoints.iter().copied())
        .deadline(Duration::from_secs(5))
        .attempt_timeout(Duration::from_millis(500))
        .build()
        .unwrap()
}

/// Answers with the items of `replies` in turn.
fn in_turn(replies: Vec<Reply>) -> impl FnMut(&crate::fake::Request) -> Reply + Send + 'static {
    let mut replies = replies.into_iter();
    move |_| replies.next().expect("no more requests were expected")
}

#[tokio::test]
async fn a_lost_connection_is_retried_with_the_same_key() {
    let server = Fake::start(in_turn(vec![Reply::Cut, Reply::Cut, Reply::json(201, PUT)])).await;
    let put = client(&[&server.url]).kv().put("a", "1").await.unwrap();
    assert_eq!((put.revision, put.version), (7, 1));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    let key = seen[0].header("idempotency-key").unwrap();
    assert_eq!(key.len(), 36);
    assert!(seen.iter().all(|request| request.header("idempotency-key") == Some(key)));
    assert!(seen.iter().all(|request| request.body == b"1"));
}

#[tokio::test]
async fn two_calls_have_two_keys() {
    let server = Fake::start(in_turn(vec![Reply::json(201, PUT), Reply::json(200, PUT)])).await;
    let kv = client(&[&server.url]).kv();
    kv.put("a", "1").await.unwrap();
    kv.put("a", "1").await.unwrap();
    let seen = server.seen();
    assert_ne!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let busy = Reply::problem(Code::Overloaded).header("retry-after", "1");
    let server = Fake::start(in_turn(vec![busy, Reply::json(201, PUT)])).await;
    let start = Instant::now();
    client(&[&server.url]).kv().put("a", "1").await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn the_next_endpoint_takes_over_and_stays() {
    let dead = nobody().await;
    let server = Fake::start(|_| Reply::json(201, PUT)).await;
    let client = client(&[&dead, &server.url]);
    assert_eq!(client.endpoint(), dead);
    client.kv().put("a", "1").await.unwrap();
    assert_eq!(client.endpoint(), server.url);
    client.kv().put("a", "1").await.unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_node_without_a_leader_is_left() {
    let lonely = Fake::start(|_| Reply::problem(Code::NoLeader)).await;
    let server = Fake::start(|_| Reply::json(201, PUT)).await;
    client(&[&lonely.url, &server.url]).kv().put("a", "1").await.unwrap();
    assert_eq!((lonely.seen().len(), server.seen().len()), (1, 1));
    assert_eq!(lonely.seen()[0].header("idempotency-key"), server.seen()[0].header("idempotency-key"));
}

#[tokio::test]
async fn a_silent_node_is_left_after_the_attempt_timeout() {
    let silent = Fake::start(|_| Reply::Hang).await;
    let server = Fake::start(|_| Reply::json(201, PUT)).await;
    client(&[&silent.url, &server.url]).kv().put("a", "1").await.unwrap();
    assert_eq!((silent.seen().len(), server.seen().len()), (1, 1));
}

#[tokio::test]
async fn refusals_are_not_retried() {
    for code in [Code::LockHeld, Code::RevisionMismatch, Code::FenceStale, Code::TooLarge, Code::Compacted] {
        let server = Fake::start(in_turn(vec![Reply::problem(code)])).await;
        let error = client(&[&server.url]).kv().put("a", "1").if_match(41).await.unwrap_err();
        assert_eq!((error.code(), error.effect()), (Some(code), Effect::None));
        assert_eq!(server.seen().len(), 1);
        assert_eq!(server.seen()[0].header("if-match"), Some("\"41\""));
    }
}

#[tokio::test]
async fn the_deadline_ends_it_and_the_effect_is_told_honestly() {
    let short = |endpoint: &str| client(&[endpoint]).with_deadline(Duration::from_millis(700));
    let error = short(&nobody().await).kv().put("a", "1").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { effect: Effect::None, .. }), "{error:?}");

    let server = Fake::start(|_| Reply::Cut).await;
    let error = short(&server.url).kv().put("a", "1").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { effect: Effect::Unknown, .. }), "{error:?}");

    // The last answer says "nothing happened", but an earlier attempt may have got through.
    let mut first = true;
    let server =
        Fake::start(
            move |_| if std::mem::take(&mut first) { Reply::Cut } else { Reply::problem(Code::NoLeader) },
        )
        .await;
    let error = short(&server.url).kv().put("a", "1").await.unwrap_err();
    assert_eq!((error.code(), error.effect()), (Some(Code::NoLeader), Effect::Unknown));
}

#[tokio::test]
async fn what_cannot_be_repeated_is_not() {
    let server = Fake::start(in_turn(vec![Reply::Cut])).await;
    let id = "7587d8aa00000001".parse().unwrap();
    let error = client(&[&server.url]).sessions().renew(id).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { effect: Effect::Unknown, .. }), "{error:?}");
}

#[tokio::test]
async fn keys_and_values_are_bytes() {
    let server = Fake::start(|request| match request.method.as_str() {
        "GET" => Reply::json(200, "\u{0}x")
            .header("etag", "\"43\"")
            .header("coracle-create-revision", "41")
            .header("coracle-version", "2")
            .header("content-type", "application/octet-stream"),
        _ => Reply::json(201, PUT),
    })
    .await;
    let kv = client(&[&server.url]).kv();
    for key in [&b"a/../b"[..], b"..", b"\xff\0 ?#%2F", b"."] {
        kv.put(key, &b"\xff\xfe\0"[..]).await.unwrap();
    }
    let entry = kv.get("x").await.unwrap().unwrap();
    assert_eq!((entry.mod_revision, entry.create_revision, entry.version), (43, 41, 2));
    assert_eq!(&entry.value.unwrap().bytes[..], b"\0x");
    kv.delete("x").fence(Fence::new("locks/a b", 8)).await.unwrap_err();
    assert_eq!(
        server.lines(),
        [
            "PUT /v1/kv/a%2F..%2Fb",
            "PUT /v1/kv?key=..",
            "PUT /v1/kv/%FF%00%20%3F%23%252F",
            "PUT /v1/kv?key=.",
            "GET /v1/kv/x",
            "DELETE /v1/kv/x"
        ]
    );
    assert_eq!(server.seen()[0].body, b"\xff\xfe\0");
    assert_eq!(server.seen()[5].header("if-held"), Some("locks/a%20b; token=8"));
}

#[tokio::test]
async fn a_missing_key_is_no_error() {
    let server = Fake::start(|_| Reply::problem(Code::KeyNotFound)).await;
    assert_eq!(client(&[&server.url]).kv().get("x").await.unwrap(), None);
}

#[tokio::test]
async fn lists_follow_the_cursor() {
    let page = |key: &str, next: &str| {
        format!(
            r#"{{"items":[{{"key":"{key}","create_revision":1,"mod_revision":1,"version":1}}],"next_cursor":{next},"revision":9}}"#
        )
    };
    let replies = vec![Reply::json(200, page("a", r#""c&1""#)), Reply::json(200, page("b", "null"))];
    let server = Fake::start(in_turn(replies)).await;
    let (entries, _) = client(&[&server.url]).kv().list("x/").keys_only().limit(1).entries().await.unwrap();
    assert_eq!(entries.iter().map(|e| e.key.as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        server.lines(),
        [
            "GET /v1/kv?prefix=x%2F&keys_only=true&limit=1",
            "GET /v1/kv?prefix=x%2F&keys_only=true&limit=1&cursor=c%261"
        ]
    );
}

#[tokio::test]
async fn a_client_that_only_shows_sends_nothing() {
    let client = Coracle::builder().endpoints(["http://h:1"]).show_only(true).build().unwrap();
    let Err(Error::Shown(line)) = client.kv().put("app/color", "blue").await else { panic!() };
    assert_eq!(
        line,
        "curl -X PUT http://h:1/v1/kv/app%2Fcolor -H 'content-type: text/plain; charset=utf-8' --data-raw blue"
    );
}
