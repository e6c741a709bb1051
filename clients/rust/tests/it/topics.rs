//! Topics: streams that resume at a position, and consumers that acknowledge on the way.

use std::time::Duration;

use coracle_client::api::Code;
use coracle_client::{Consume, Coracle, MessageUpdate, Messages};
use futures::StreamExt;

use crate::fake::{Fake, Reply, Request, Then};

fn client(url: &str) -> Coracle {
    let builder = Coracle::builder().endpoints([url]).deadline(Duration::from_millis(800));
    builder.attempt_timeout(Duration::from_millis(500)).build().unwrap()
}

fn message(seq: u64) -> String {
    format!(
        r#"{{"topic":"news","seq":{seq},"revision":{seq},"time":"2026-11-22T05:40:11Z","value":"n{seq}","content_type":"text/plain; charset=utf-8"}}"#
    )
}

fn change(seq: u64) -> String {
    format!(r#"{{"type":"change","revision":{seq},"after":{seq},"events":[{}]}}"#, message(seq)) + "\n"
}

fn stream(chunks: &[&str], then: Then) -> Reply {
    Reply::Stream { chunks: chunks.iter().map(|chunk| (*chunk).to_owned()).collect(), then }
}

fn in_turn(replies: Vec<Reply>) -> impl FnMut(&Request) -> Reply + Send + 'static {
    let mut replies = replies.into_iter();
    move |_| replies.next().unwrap_or(Reply::Stream { chunks: Vec::new(), then: Then::Silence })
}

async fn told(messages: &mut Messages, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        let update = tokio::time::timeout(Duration::from_secs(5), messages.next()).await.expect("silence");
        told.push(match update.expect("the stream ended").expect("the stream failed") {
            MessageUpdate::Messages { messages, .. } => {
                let texts = messages.iter().map(|message| message.value.as_str().unwrap());
                texts.collect::<Vec<_>>().join(" ")
            }
            MessageUpdate::Synced { after, .. } => format!("synced {after}"),
            MessageUpdate::Gap { from, to } => format!("gap {from}..{to}"),
            MessageUpdate::Lagged => "lagged".to_owned(),
            MessageUpdate::Bye { .. } => "bye".to_owned(),
            MessageUpdate::Reconnecting { .. } => "reconnecting".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    told
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_last_message_and_tells_each_once() {
    let (one, two, three) = (change(1), change(2), change(3));
    let (head, _) = three.split_at(30);
    let server = Fake::start(in_turn(vec![
        stream(&[&one, "{\"type\":\"synced\",\"revision\":1,\"after\":1}\n", &two, head], Then::Cut),
        // A server that repeats itself does not make us repeat it.
        stream(&[&two, &three, "{\"type\":\"lagged\",\"after\":3}\n"], Then::Silence),
        stream(&["{\"type\":\"gap\",\"from\":3,\"to\":7}\n", &change(8)], Then::Silence),
    ]))
    .await;
    let mut messages = client(&server.url).topic("news").subscribe().from_first();
    let expected = ["n1", "synced 1", "n2", "reconnecting", "n3", "lagged", "gap 3..7", "n8"];
    assert_eq!(told(&mut messages, expected.len()).await, expected);
    assert_eq!(
        server.lines(),
        [
            "GET /v1/topics/news/messages?watch=true&heartbeat=5s&from=first",
            "GET /v1/topics/news/messages?watch=true&heartbeat=5s&after=2",
            "GET /v1/topics/news/messages?watch=true&heartbeat=5s&after=3"
        ]
    );
}

/// An answer to a receive with these messages.
fn received(seqs: &[u64], more: &str) -> Reply {
    let item = |seq: &u64| {
        let message = message(*seq);
        format!(r#"{{"receipt":"r1:{seq}","deliveries":1,{}"#, &message[1..])
    };
    let items: Vec<String> = seqs.iter().map(item).collect();
    Reply::json(200, format!(r#"{{"items":[{}]{more},"revision":9}}"#, items.join(",")))
}

fn consume(server: &Fake, max: u32) -> Consume {
    client(&server.url).topic("news").subscription("mailer").receive().max(max).consume()
}

const RECEIVE: &str = "POST /v1/topics/news/subscriptions/mailer/receive";

#[tokio::test]
async fn what_is_done_is_acknowledged_with_the_next_receive() {
    let replies = vec![received(&[1, 2], ""), received(&[], ""), received(&[3], "")];
    let server = Fake::start(in_turn(replies)).await;
    let mut consume = consume(&server, 2);
    for text in ["n1", "n2", "n3"] {
        let delivery = consume.next().await.unwrap();
        assert_eq!(delivery.bytes(), text.as_bytes());
        consume.done(delivery);
    }
    assert_eq!(
        server.lines(),
        [
            format!("{RECEIVE}?max=2&wait=20s"),
            format!("{RECEIVE}?max=2&acks=r1%3A1&acks=r1%3A2"),
            format!("{RECEIVE}?max=2&wait=20s")
        ]
    );
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_acknowledgements() {
    let replies = vec![received(&[1], ""), Reply::Cut, received(&[2], "")];
    let server = Fake::start(in_turn(replies)).await;
    let mut consume = consume(&server, 1);
    let first = consume.next().await.unwrap();
    consume.done(first);
    assert_eq!(consume.next().await.unwrap().bytes(), b"n2");
    let asked = server.seen();
    assert_eq!(asked[1].target, asked[2].target);
    assert!(asked[1].target.ends_with("acks=r1%3A1"));
    let key = |at: usize| asked[at].header("idempotency-key").unwrap();
    assert_eq!(key(1), key(2), "one request: acknowledged once, and no message skipped");
    assert_ne!(key(0), key(1));
}

#[tokio::test]
async fn a_receipt_that_came_too_late_is_no_error_and_a_loss_is_told() {
    let replies = vec![
        received(&[1], r#","gap":{"from":0,"to":7}"#),
        Reply::problem(Code::ReceiptStale),
        received(&[8], ""),
    ];
    let server = Fake::start(in_turn(replies)).await;
    let mut consume = consume(&server, 1);
    let first = consume.next().await.unwrap();
    assert_eq!(consume.gap().map(|gap| (gap.from, gap.to)), Some((0, 7)));
    assert_eq!(consume.gap(), None, "told once");
    consume.done(first);
    consume.flush().await.unwrap();
    assert_eq!(server.lines()[1], "POST /v1/topics/news/subscriptions/mailer/ack");
    assert_eq!(consume.next().await.unwrap().bytes(), b"n8");
}

#[tokio::test]
async fn a_consumer_that_is_not_the_one_is_told_so() {
    let server = Fake::start(in_turn(vec![Reply::problem(Code::SubscriptionBusy)])).await;
    let error = consume(&server, 1).next().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::SubscriptionBusy));
    assert_eq!(server.lines().len(), 1, "no is an answer");
}
