//! Watches: resuming, and telling what happened.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_client::api::{ByeReason, Code, Entry};
use coracle_client::{Coracle, Error, Update, Watch};
use futures::StreamExt;

use crate::fake::{Fake, Reply, Request, Then};

fn client(endpoints: &[&str]) -> Coracle {
    Coracle::builder()
        .endpoints(endpoints.iter().copied())
        .deadline(Duration::from_millis(800))
        .attempt_timeout(Duration::from_millis(500))
        .build()
        .unwrap()
}

fn change(revision: u64) -> String {
    format!(
        r#"{{"type":"change","revision":{revision},"time":"2026-11-22T05:40:11Z","events":[{{"family":"kv","op":"put","key":"a","value":"{revision}"}}]}}"#
    ) + "\n"
}

fn stream(chunks: &[&str], then: Then) -> Reply {
    Reply::Stream { chunks: chunks.iter().map(|chunk| (*chunk).to_owned()).collect(), then }
}

fn in_turn(replies: Vec<Reply>) -> impl FnMut(&Request) -> Reply + Send + 'static {
    let mut replies = replies.into_iter();
    move |_| replies.next().unwrap_or(Reply::Stream { chunks: Vec::new(), then: Then::Silence })
}

/// The next updates in short: `change 3`, `synced 2`, ... Reconnects as one word.
async fn told(watch: &mut Watch<Entry>, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        let update = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("silence");
        told.push(match update.expect("the watch ended").expect("the watch failed") {
            Update::Snapshot { revision, items, first, more } => {
                let keys: Vec<_> = items.iter().map(|entry| entry.key.as_str().unwrap().to_owned()).collect();
                format!("snapshot {revision} {} first={first} more={more}", keys.join(","))
            }
            Update::Synced { revision } => format!("synced {revision}"),
            Update::Change { revision, .. } => format!("change {revision}"),
            Update::Progress { revision } => format!("progress {revision}"),
            Update::Gap { from, to } => format!("gap {from}..{to}"),
            Update::Lagged { revision } => format!("lagged {revision}"),
            Update::Bye { reason: ByeReason::Shutdown } => "bye".to_owned(),
            Update::Reconnecting { .. } => "reconnecting".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    told
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_frame_costs_nothing() {
    let (three, four) = (change(3), change(4));
    let (head, _) = four.split_at(20);
    let server = Fake::start(in_turn(vec![
        stream(&["{\"type\":\"synced\",\"revision\":2}\n", &three, head], Then::Cut),
        stream(&[&three, &four], Then::Silence),
    ]))
    .await;
    let mut watch = client(&[&server.url]).kv().watch_prefix("a/").from_now();
    // Revision 3 comes twice from the server and once from the watch.
    assert_eq!(told(&mut watch, 4).await, ["synced 2", "change 3", "reconnecting", "change 4"]);
    assert_eq!(
        server.lines(),
        [
            "GET /v1/kv?prefix=a%2F&watch=true&heartbeat=5s&initial=false",
            "GET /v1/kv?prefix=a%2F&watch=true&heartbeat=5s&after=3"
        ]
    );
    assert_eq!(server.seen()[0].header("accept"), Some("application/x-ndjson"));
}

#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let text = change(3) + "\r\n" + &change(4);
    let pieces: Vec<String> =
        text.as_bytes().chunks(7).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect();
    let server = Fake::start(in_turn(vec![Reply::Stream { chunks: pieces, then: Then::Silence }])).await;
    let mut watch = client(&[&server.url]).kv().watch("a").after(2);
    assert_eq!(told(&mut watch, 2).await, ["change 3", "change 4"]);
}

#[tokio::test]
async fn silence_counts_as_a_cut() {
    let three = change(3);
    let server = Fake::start(in_turn(vec![stream(&[&three], Then::Silence)])).await;
    let other =
        Fake::start(in_turn(vec![stream(&["{\"type\":\"progress\",\"revision\":9}\n"], Then::Silence)]))
            .await;
    let kv = client(&[&server.url, &other.url]).kv();
    let mut watch = kv.watch("a").heartbeat(Duration::from_millis(400)).after(2);
    assert_eq!(told(&mut watch, 3).await, ["change 3", "reconnecting", "progress 9"]);
    assert_eq!(other.lines(), ["GET /v1/kv/a?watch=true&heartbeat=400ms&after=3"]);
}

#[tokio::test]
async fn half_a_snapshot_is_started_anew() {
    let chunk = |key: &str, more: &str| {
        format!(
            r#"{{"type":"snapshot","revision":5,"items":[{{"key":"{key}","create_revision":1,"mod_revision":1,"version":1}}]{more}}}"#
        ) + "\n"
    };
    let (first, last) = (chunk("a", r#","more":true"#), chunk("b", ""));
    let server = Fake::start(in_turn(vec![
        stream(&[&first], Then::Cut),
        stream(&[&first, &last, "{\"type\":\"synced\",\"revision\":5}\n"], Then::End),
        stream(&[&change(6)], Then::Silence),
    ]))
    .await;
    let mut watch = client(&[&server.url]).kv().watch_prefix("").from_snapshot();
    assert_eq!(
        told(&mut watch, 7).await,
        [
            "snapshot 5 a first=true more=true",
            "reconnecting",
            "snapshot 5 a first=true more=true",
            "snapshot 5 b first=false more=false",
            "synced 5",
            "reconnecting",
            "change 6"
        ]
    );
    assert!(server.lines()[1].ends_with("heartbeat=5s"));
    assert!(server.lines()[2].ends_with("after=5"));
}

#[tokio::test]
async fn gap_lagged_and_bye_are_told_and_survived() {
    let server = Fake::start(in_turn(vec![
        stream(
            &[
                "{\"type\":\"gap\",\"from\":2,\"to\":40}\n",
                "{\"type\":\"snapshot\",\"revision\":44,\"items\":[]}\n",
                "{\"type\":\"of_the_future\",\"x\":1}\n",
                "{\"type\":\"lagged\",\"revision\":44}\n",
            ],
            Then::End,
        ),
        stream(&["{\"type\":\"bye\",\"reason\":\"shutdown\",\"revision\":45}\n"], Then::End),
        stream(&[&change(46)], Then::Silence),
    ]))
    .await;
    let mut watch = client(&[&server.url]).kv().watch_prefix("").after(2);
    assert_eq!(
        told(&mut watch, 5).await,
        ["gap 2..40", "snapshot 44  first=true more=false", "lagged 44", "bye", "change 46"]
    );
    assert!(server.lines()[1].ends_with("after=44"));
    assert!(server.lines()[2].ends_with("after=45"));
}

#[tokio::test]
async fn a_refusal_ends_the_watch_and_trouble_does_not() {
    let server = Fake::start(|_| Reply::problem(Code::Compacted)).await;
    let mut watch = client(&[&server.url]).kv().watch("a").error_on_gap().after(2);
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(Code::Compacted));
    assert!(watch.next().await.is_none());

    let calls = Arc::new(Mutex::new(0));
    let count = Arc::clone(&calls);
    let server = Fake::start(move |_| {
        *count.lock().unwrap() += 1;
        if *count.lock().unwrap() == 1 {
            Reply::problem(Code::NotReady)
        } else {
            stream(&[&change(3)], Then::Silence)
        }
    })
    .await;
    let mut watch = client(&[&server.url]).kv().watch("a").after(2);
    assert_eq!(told(&mut watch, 2).await, ["reconnecting", "change 3"]);
}

#[tokio::test]
async fn a_watch_that_never_stood_gives_up() {
    let dead = crate::fake::nobody().await;
    let mut watch = client(&[&dead]).kv().watch("a").from_now();
    loop {
        match watch.next().await.unwrap() {
            Ok(Update::Reconnecting { .. }) => {}
            Err(Error::Unreachable { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
}
