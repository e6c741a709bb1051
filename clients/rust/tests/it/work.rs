//! Queue workers: waits that go on, answers that are lost, deliveries that are kept and that are not.

use std::time::Duration;

use coracle_client::api::Code;
use coracle_client::{Coracle, Job, LossReason, Nack};

use crate::fake::{Fake, Reply, Request, nobody};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn client(endpoints: &[&str]) -> Coracle {
    Coracle::builder()
        .endpoints(endpoints.iter().copied())
        .deadline(Duration::from_secs(5))
        .attempt_timeout(Duration::from_millis(500))
        .build()
        .unwrap()
}

/// An answer with one message whose delivery has these members of its own.
fn received(delivery: &str) -> Reply {
    let message = r#""id":"7-0","receipt":"r1:7-0.9","value":"hello","content_type":"text/plain; charset=utf-8","deliveries":1,"sent":"2026-11-22T05:40:11Z""#;
    Reply::json(200, format!(r#"{{"items":[{{{message}{delivery}}}],"revision":9}}"#))
}

fn nothing() -> Reply {
    Reply::json(200, r#"{"items":[],"revision":9}"#)
}

fn settled(ok: bool) -> Reply {
    Reply::json(
        200,
        format!(r#"{{"items":[{{"receipt":"r1:7-0.9","ok":{ok}}}],"visibility":"3s","revision":9}}"#),
    )
}

/// A delivery of three seconds, by the clock of the server.
const THREE_SECONDS: &str = r#","since":"2026-11-22T05:40:11Z","until":"2026-11-22T05:40:14Z""#;

/// Receives are answered in turn, renewals as `renew` says, the rest with success.
fn queue(
    receives: Vec<Reply>,
    mut renew: impl FnMut() -> Reply + Send + 'static,
) -> impl FnMut(&Request) -> Reply + Send + 'static {
    let mut receives = receives.into_iter();
    move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        match path.rsplit('/').next() {
            Some("receive") => receives.next().unwrap_or_else(nothing),
            Some("renew") => renew(),
            _ => settled(true),
        }
    }
}

async fn one_job(client: &Coracle) -> Job {
    client.queue("mail").receive().await.unwrap().pop().expect("a message")
}

fn keys(server: &Fake) -> Vec<String> {
    server.seen().iter().map(|request| request.header("idempotency-key").unwrap().to_owned()).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let server = Fake::start(queue(vec![Reply::Cut, received("")], || settled(true))).await;
    let dead = nobody().await;
    let job = one_job(&client(&[&server.url, &dead])).await;
    assert_eq!((job.bytes(), job.receipt()), (&b"hello"[..], "r1:7-0.9"));
    let keys = keys(&server);
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]), "the messages of the lost answer, not the next ones");
    job.ack().await.unwrap();
    assert_eq!(server.lines().last().unwrap(), "POST /v1/queues/mail/ack");
    assert_eq!(server.seen().last().unwrap().body, br#"{"receipts":["r1:7-0.9"]}"#);
}

#[tokio::test]
async fn a_wait_goes_on_until_there_is_something() {
    let server = Fake::start(queue(
        vec![nothing(), Reply::problem(Code::ShuttingDown), nothing(), received("")],
        || settled(true),
    ))
    .await;
    let jobs = client(&[&server.url]).queue("mail").receive().max(10).wait(Duration::MAX).await.unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(server.lines(), vec!["POST /v1/queues/mail/receive?max=10&wait=20s"; 4]);
    let keys = keys(&server);
    assert_eq!(keys[1], keys[2], "asked elsewhere, it is the same request");
    assert!(keys[0] != keys[1] && keys[2] != keys[3], "after an answer it is another");
}

#[tokio::test]
async fn a_wait_that_is_over_is_no_error() {
    let server = Fake::start(queue(Vec::new(), || settled(true))).await;
    let client = client(&[&server.url]);
    assert!(client.queue("mail").receive().await.unwrap().is_empty());
    assert!(client.queue("mail").receive().wait(Duration::from_millis(50)).await.unwrap().is_empty());
    assert!(!server.lines()[0].contains("wait="));
}

#[tokio::test]
async fn a_delivery_is_renewed_by_what_the_queue_gives_it() {
    let server = Fake::start(queue(vec![received(THREE_SECONDS)], || settled(true))).await;
    let job = one_job(&client(&[&server.url])).await;
    // The queue has three seconds; half a minute, which others have, would be too late.
    until("it is renewed", || server.lines().iter().any(|line| line == "POST /v1/queues/mail/renew")).await;
    job.ack().await.unwrap();
}

#[tokio::test]
async fn a_delivery_that_is_settled_or_let_go_is_renewed_no_more() {
    let server =
        Fake::start(queue(vec![received(THREE_SECONDS), received(THREE_SECONDS)], || settled(true))).await;
    let client = client(&[&server.url]);
    one_job(&client).await.nack(&Nack { uncounted: true, ..Nack::default() }).await.unwrap();
    drop(one_job(&client).await);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let lines = server.lines();
    assert!(!lines.iter().any(|line| line.contains("/renew")), "{lines:?}");
    assert!(lines.contains(&"POST /v1/queues/mail/nack?count=false".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn a_delivery_that_is_somebody_elses_is_lost() {
    let stale: [fn() -> Reply; 2] = [|| Reply::problem(Code::ReceiptStale), || settled(false)];
    for renew in stale {
        let server = Fake::start(queue(vec![received(THREE_SECONDS)], renew)).await;
        let job = one_job(&client(&[&server.url])).await;
        assert_eq!(tokio::time::timeout(PATIENCE, job.lost()).await, Ok(LossReason::Expired));
    }
}

#[tokio::test]
async fn a_delivery_that_cannot_be_renewed_is_lost_in_time() {
    let start = std::time::Instant::now();
    let server = Fake::start(queue(vec![received(THREE_SECONDS)], || Reply::Hang)).await;
    let job = one_job(&client(&[&server.url])).await;
    assert_eq!(tokio::time::timeout(PATIENCE, job.lost()).await, Ok(LossReason::OutOfTime));
    assert!(start.elapsed() >= Duration::from_secs(3), "not before its time is over");
}

#[tokio::test]
async fn a_delivery_of_a_session_lives_with_that() {
    let server =
        Fake::start(queue(vec![received(r#","session":"7587d8aa00000001""#)], || settled(true))).await;
    let session = "7587d8aa00000001".parse().unwrap();
    let jobs = client(&[&server.url]).queue("mail").receive().session(session).await.unwrap();
    assert_eq!(server.lines(), ["POST /v1/queues/mail/receive?max=1&session=7587d8aa00000001"]);
    tokio::select! {
        reason = jobs[0].lost() => panic!("{reason}"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
}
