//! Topics and their subscriptions.

use coracle_recipes::topic::{
    self, Draft, Name, Operation, Outcome, Place, Publish, Reach, Receipt, Receive, Retention, Settings,
    Settle, Start,
};
use coracle_recipes::{Operation as Any, Outcome as Of};
use coracle_store::{Attach, ContentType, Revision, Timestamp};

use crate::kept::somewhere;
use crate::meter::Meter;
use crate::stage::{Stage, VALUE};

const FEW: usize = 5_000;
const PAGE: usize = 20;
const REACH: Reach = Reach { messages: PAGE, bytes: usize::MAX, looks: 2_048, whole: false };

fn run(stage: &mut Stage, operation: Operation) -> Outcome {
    match stage.run(&Any::Topic(operation)) {
        Of::Topic(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

fn publish(stage: &mut Stage, topic: &str, count: usize) {
    let (content_type, body) = (ContentType::Text, VALUE.into());
    let draft = Draft { key: None, ttl: None, headers: Vec::new(), content_type, body, dead: None };
    let messages = vec![draft; count];
    run(stage, Operation::Publish(Publish { topic: topic.into(), messages, expect_last_seq: None }));
}

fn keep(stage: &mut Stage, max_messages: Option<u64>) {
    let retention = Retention { max_bytes: None, max_messages, ..Retention::default() };
    run(stage, Operation::Configure("orders.paid".into(), Some(retention)));
}

fn subscribe(stage: &mut Stage, subject: &str, name: &str) -> Name {
    let name = Name { subject: subject.into(), name: name.into() };
    run(stage, Operation::Subscribe(name.clone(), Settings::default(), Start::First));
    name
}

fn receive(stage: &mut Stage, from: &Name) -> Vec<Receipt> {
    let (from, attach, acks) = (from.clone(), Attach::None, Vec::new());
    let receive = Receive { from, attach, max: 1, visibility: None, acks, ack: false };
    let Outcome::Received(received) = run(stage, Operation::Receive(receive)) else { panic!("nothing") };
    received.deliveries.iter().map(|delivery| delivery.receipt).collect()
}

pub fn topics(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    let (half, few) = (count / 2, meter.times(FEW).min(count / 10));
    keep(&mut stage, None);
    // In batches of fifty, and so many batches a topic of the others.
    let batch = half.min(50);
    stage.often(half / batch, |stage, number| {
        publish(stage, "orders.paid", batch);
        publish(stage, &format!("other.{}", number / 20), batch);
    });
    meter.of("publish", few, |_| publish(&mut stage, "orders.paid", 1));
    stage.forget();
    let kept = topic::newest(stage.view(), "orders.paid").seq;
    keep(&mut stage, Some(kept));
    meter.of("publish, and drop the oldest", few, |_| publish(&mut stage, "orders.paid", 1));
    stage.forget();
    let view = stage.view();
    let (last, newest) = (topic::newest(view, "orders.paid").seq, view.revision().0);
    meter.of("read 20 messages", few / 5, |number| {
        let after = Place::after_seq(last - somewhere(number, half - PAGE) as u64 - PAGE as u64);
        assert_eq!(topic::ahead(view, "orders.paid", after, REACH).found.len(), PAGE);
    });
    meter
        .of("find a time", few, |_| {
            assert!(topic::before_time(view, "orders.*", Timestamp(1)).revision < view.revision());
        })
        .grows("halves what is left, step by step");
    let name = subscribe(&mut stage, "orders.*", "s");
    let start = Start::After(Place::after(Revision(newest - 2 * few as u64 + 1)));
    run(&mut stage, Operation::Seek(name.clone(), start));
    let mut receipts = Vec::new();
    meter
        .of("receive from a subscription to a pattern", few, |_| receipts.extend(receive(&mut stage, &name)));
    meter.of("acknowledge", few, |_| {
        let receipts = vec![receipts.pop().expect("received")];
        run(&mut stage, Operation::Settle(name.clone(), receipts, Settle::Ack));
    });
}

/// A hundredth of them cover the topic.
pub fn subscriptions(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    stage.often(count, |stage, number| {
        let subject = if number % 100 == 0 { "orders.>".into() } else { format!("other.{number}.>") };
        subscribe(stage, &subject, &format!("s{number}"));
    });
    meter.of("publish", FEW, |_| publish(&mut stage, "orders.1.paid", 1));
    let name = Name { subject: "orders.>".into(), name: "s0".into() };
    meter.of("receive", FEW, |_| assert_eq!(receive(&mut stage, &name).len(), 1));
    meter.of("subscribe", FEW.min(100), |number| {
        subscribe(&mut stage, "new.>", &format!("n{number}"));
    });
}
