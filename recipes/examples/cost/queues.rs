//! Queues and barrier queues.

use coracle_recipes::queue::barrier::{Barrier, HandOut};
use coracle_recipes::queue::{
    self, Config, Kind, Message, MessageId, Nack, Operation, Outcome, Receipt, Receipts, Receive, Send, Terms,
};
use coracle_recipes::{Operation as Any, Outcome as Of};
use coracle_store::{Action, Attach, ContentType, Millis, Revision, SessionId};

use crate::claims::IN_LINE;
use crate::meter::Meter;
use crate::stage::{Stage, VALUE};

const FEW: usize = 5_000;
const HOUR: Millis = Millis(3_600_000);

struct Queue {
    stage: Stage,
}

impl Queue {
    fn run(&mut self, operation: Operation) -> Outcome {
        match self.stage.run(&Any::Queue(operation)) {
            Of::Queue(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, count: usize, group: Option<&str>, delay: Millis) {
        let message = Message {
            value: VALUE.into(),
            content_type: ContentType::Text,
            priority: 0,
            group: group.map(Into::into),
            delay,
            ttl: None,
            dedup_id: None,
            headers: Vec::new(),
            item: None,
        };
        let send = Send { queue: "q".into(), messages: vec![message; count], attach: Attach::None };
        self.run(Operation::Send(send));
    }

    /// So many, in batches, without their history.
    fn fill(&mut self, count: usize, group: Option<&str>, delay: Millis) {
        for begin in (0..count).step_by(1_000) {
            self.send(1_000.min(count - begin), group, delay);
        }
        self.stage.forget();
    }

    fn receive(&mut self, max: u32) -> Vec<Receipt> {
        let terms = Terms { max, visibility: Some(HOUR), bound: false, at_most_once: false };
        let (attach, acks) = (Attach::None, Vec::new());
        let receive = Receive { queue: "q".into(), terms, attach, wait: false, acks };
        let Outcome::Delivered(delivered) = self.run(Operation::Receive(receive)) else { panic!("refused") };
        let receipt = |message: &queue::Delivery| Receipt { id: message.id, delivery: message.delivery };
        delivered.messages.iter().map(receipt).collect()
    }

    fn settle(&mut self, receipt: Receipt, nack: Option<Nack>) {
        let receipts = Receipts { queue: "q".into(), receipts: vec![receipt], all: true };
        self.run(match nack {
            None => Operation::Ack(receipts),
            Some(nack) => Operation::Nack(receipts, nack),
        });
    }
}

/// A tenth each in flight, delayed, and behind one group; the rest is ready.
pub fn queues(count: usize, meter: &mut Meter) {
    let mut queue = Queue { stage: Stage::new() };
    let tenth = count / 10;
    queue.fill(tenth, None, Millis(0));
    for _ in 0..tenth.div_ceil(100) {
        queue.receive(100);
    }
    queue.fill(tenth, None, HOUR);
    queue.fill(tenth, Some("one"), Millis(0));
    queue.fill(count - 3 * tenth, None, Millis(0));
    meter.of("send", FEW, |_| queue.send(1, None, Millis(0)));
    meter.of("send to the group", FEW, |_| queue.send(1, Some("one"), Millis(0)));
    let mut receipts = Vec::new();
    meter.of("receive", FEW, |_| receipts.extend(queue.receive(1)));
    let half = meter.times(FEW) / 2;
    let mut given_back = receipts.split_off(half).into_iter();
    meter.of("acknowledge", half, |_| queue.settle(receipts.pop().expect("received"), None));
    meter.of("give back for later", half, |_| {
        let later = Nack { delay: Some(Millis(1_000)), ..Nack::default() };
        queue.settle(given_back.next().expect("received"), Some(later));
    });
    queue.stage.now += 2_000;
    let due = half.min(256);
    meter.of("come due", half / due, |_| drop(queue.stage.act(Action::Advance))).per(due);
    meter.of("send and receive a hundred", FEW / 100, |_| {
        queue.send(100, None, Millis(0));
        assert_eq!(queue.receive(100).len(), 100);
    });
    meter.figures.last_mut().expect("just measured").per(100);
    meter.of("statistics", FEW, |_| assert!(queue::statistics(queue.stage.view(), "q").is_some()));
}

/// Receivers that wait for an empty queue.
pub fn waiters(count: usize, meter: &mut Meter) {
    let mut queue = Queue { stage: Stage::new() };
    let wait = |session: u64, line: usize| {
        let terms = Terms { max: 1, visibility: Some(HOUR), bound: false, at_most_once: false };
        let (attach, acks) = (Attach::Session(SessionId(session)), Vec::new());
        let queue = if line == 0 { "q".into() } else { format!("q{line}").into() };
        Any::Queue(Operation::Receive(Receive { queue, terms, attach, wait: true, acks }))
    };
    queue.stage.often(count, |stage, number| {
        stage.open(number as u64 + 1);
        stage.run(&wait(number as u64 + 1, number / IN_LINE));
    });
    let few = meter.times(100);
    let extra = |number: usize| 1_000_000_000 + number as u64;
    (0..few).for_each(|number| queue.stage.open(extra(number)));
    meter.of("join the line", few, |number| drop(queue.stage.run(&wait(extra(number), 0))));
    let middle = count.min(IN_LINE) / 2;
    meter
        .of("expire in the middle", few, |number| queue.stage.expire([(middle + number) as u64].into_iter()));
    meter.of("send, the first is given it", few, |_| queue.send(1, None, Millis(0)));
}

/// Nothing looks at the items, not even the put that releases them all.
pub fn generations(count: usize, meter: &mut Meter) {
    let mut queue = Queue { stage: Stage::new() };
    let barrier = Barrier { size: Some(count as u64), hand_out: HandOut::Work, ..Barrier::default() };
    let config = Config { kind: Kind::Barrier, barrier: Some(barrier), ..Config::default() };
    queue.run(Operation::Configure("q".into(), Some(config)));
    let few = meter.times(100).min(count / 2);
    queue.fill(count - few - 1, None, Millis(0));
    meter.of("put", few, |_| queue.send(1, None, Millis(0)));
    meter.of("withdraw", 1, |_| {
        queue.run(Operation::Remove("q".into(), MessageId { revision: Revision(2), number: 0 }));
    });
    queue.send(1, None, Millis(0));
    meter.of("put that releases all", 1, |_| queue.send(1, None, Millis(0)));
    meter.of("receive", few, |_| assert_eq!(queue.receive(1).len(), 1, "released"));
}
