//! The session keeper: renewing, being suspended, being lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_client::api::Code;
use coracle_client::{Coracle, LossReason, SessionState};
use futures::StreamExt;

use crate::fake::{Fake, Reply, Request};

pub const ID: &str = "7587d8aa00000001";

fn client(url: &str) -> Coracle {
    Coracle::builder()
        .endpoints([url])
        .deadline(Duration::from_secs(2))
        .attempt_timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

/// A server whose sessions have a ttl of 900 ms; `renew` answers renewals.
pub fn sessions(
    mut renew: impl FnMut() -> Reply + Send + 'static,
) -> impl FnMut(&Request) -> Reply + Send + 'static {
    move |request| {
        if request.target.split('?').next().is_some_and(|path| path.ends_with("/renew")) {
            renew()
        } else if request.method == "POST" {
            Reply::json(201, format!(r#"{{"id":"{ID}","ttl":"900ms","valid_for":"900ms","revision":1}}"#))
        } else {
            Reply::json(200, r#"{"released":[],"revision":2}"#)
        }
    }
}

pub fn renewed() -> Reply {
    Reply::json(200, r#"{"valid_for":"900ms"}"#)
}

fn renewals(server: &Fake) -> usize {
    server.lines().iter().filter(|line| line.contains("/renew")).count()
}

#[tokio::test]
async fn it_renews_every_third_of_the_ttl_and_closes() {
    let server = Fake::start(sessions(renewed)).await;
    let session =
        client(&server.url).session().ttl(Duration::from_millis(900)).name("w").open().await.unwrap();
    assert_eq!(server.seen()[0].body, br#"{"ttl":"900ms","name":"w"}"#);
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert_eq!(session.state(), SessionState::Active);
    assert!(session.valid_for() > Duration::from_millis(300));
    assert!((3..=5).contains(&renewals(&server)), "{}", renewals(&server));
    session.report(40, Some("half".into()));
    let reported = || server.seen().iter().any(|r| r.body == br#"{"progress":{"percent":40,"note":"half"}}"#);
    let end = Instant::now() + Duration::from_millis(250);
    while !reported() {
        assert!(Instant::now() < end, "progress is told at once");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    session.close().await.unwrap();
    assert_eq!(server.lines().last().unwrap(), &format!("DELETE /v1/sessions/{ID}"));
}

#[tokio::test]
async fn what_is_taken_is_told_once() {
    let mut round = 0;
    let server = Fake::start(sessions(move || {
        round += 1;
        let lost = |name: &str, revision: u64| {
            format!(r#"{{"family":"kv","name":"{name}","reason":"deleted","revision":{revision}}}"#)
        };
        let (lost, revision) = match round {
            1 => (String::new(), 7),
            // The second answer comes from a node that lags behind.
            2 => (format!("{},{}", lost("a", 8), lost("b", 9)), 9),
            3 => (String::new(), 8),
            _ => (lost("c", 10), 10),
        };
        let stalled = round == 3;
        Reply::json(
            200,
            format!(r#"{{"valid_for":"900ms","stalled":{stalled},"lost":[{lost}],"revision":{revision}}}"#),
        )
    }))
    .await;
    let session = client(&server.url).session().stall_after(Duration::from_mins(1)).open().await.unwrap();
    assert_eq!(server.seen()[0].body, br#"{"stall_after":"1m"}"#);
    let mut losses = Box::pin(session.losses());
    let mut names = Vec::new();
    for _ in 0..2 {
        names.push(losses.next().await.unwrap().name);
    }
    let mut stalled = false;
    while names.len() < 3 {
        tokio::select! {
            lost = losses.next() => names.push(lost.unwrap().name),
            () = tokio::time::sleep(Duration::from_millis(20)) => stalled |= session.stalled(),
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    assert!(stalled && !session.stalled());
    assert_eq!(session.state(), SessionState::Active, "the session itself is well");
    let asked: Vec<_> = server.lines().into_iter().filter(|line| line.contains("/renew")).collect();
    let after: Vec<_> =
        asked.iter().map(|line| line.split_once('?').map_or("", |(_, query)| query)).collect();
    assert_eq!(after[..4], ["", "after=7", "after=9", "after=9"]);
    let late = Box::pin(session.losses());
    session.close().await.unwrap();
    assert_eq!(losses.next().await, None);
    assert_eq!(late.map(|lost| lost.revision).collect::<Vec<_>>().await, [8, 9, 10]);
}

#[tokio::test]
async fn trouble_suspends_and_the_end_of_validity_is_final() {
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let server =
        Fake::start(sessions(move || if switch.load(Ordering::Relaxed) { Reply::Cut } else { renewed() }))
            .await;
    let session = client(&server.url).session().open().await.unwrap();
    let mut states = Box::pin(session.states());
    assert_eq!(states.next().await, Some(SessionState::Active));

    broken.store(true, Ordering::Relaxed);
    assert_eq!(states.next().await, Some(SessionState::Suspended));
    broken.store(false, Ordering::Relaxed);
    assert_eq!(states.next().await, Some(SessionState::Active));

    broken.store(true, Ordering::Relaxed);
    let left = session.valid_for();
    let start = Instant::now();
    assert_eq!(states.next().await, Some(SessionState::Suspended));
    assert_eq!(session.lost().await, LossReason::OutOfTime);
    assert!(start.elapsed() <= left + Duration::from_secs(10), "{:?} {left:?}", start.elapsed());
    assert_eq!(session.valid_for(), Duration::ZERO);
    assert_eq!(states.next().await, Some(SessionState::Lost(LossReason::OutOfTime)));
    assert_eq!(states.next().await, None);

    broken.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(session.state(), SessionState::Lost(LossReason::OutOfTime), "never revived");
}

#[tokio::test]
async fn the_server_has_the_last_word() {
    for code in [Code::SessionExpired, Code::SessionNotFound] {
        let server = Fake::start(sessions(move || Reply::problem(code))).await;
        let session = client(&server.url).session().open().await.unwrap();
        assert_eq!(session.lost().await, LossReason::Expired);
    }
}

#[tokio::test]
async fn validity_counts_from_sending() {
    let server = Fake::start(move |_| {
        std::thread::sleep(Duration::from_millis(250));
        Reply::json(201, format!(r#"{{"id":"{ID}","ttl":"900ms","valid_for":"900ms","revision":1}}"#))
    })
    .await;
    let session = client(&server.url).session().open().await.unwrap();
    assert!(session.valid_for() <= Duration::from_millis(650), "{:?}", session.valid_for());
}

#[tokio::test]
async fn dropping_the_last_handle_closes() {
    let server = Fake::start(sessions(renewed)).await;
    let session = client(&server.url).session().open().await.unwrap();
    let clone = session.clone();
    drop(session);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(renewals(&server), 1, "still kept for the clone");
    drop(clone);
    let end = Instant::now() + Duration::from_secs(2);
    while server.lines().last().unwrap() != &format!("DELETE /v1/sessions/{ID}") {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
