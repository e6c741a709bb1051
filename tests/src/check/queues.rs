//! Q1–Q6, Q8: what was sent is delivered and acknowledged, once, in order; nothing else is; nobody has what is somebody
//! else's; and the queue counts as the log does.
//!
//! The queue must have been drained, so that everything sent was acknowledged in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::log::{Event, Log};

/// One message as its sender knows it. Values are unique. Times are of one monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub value: String,
    /// `None`: it is not known whether it was taken.
    pub id: Option<String>,
    pub call: Duration,
    pub ret: Duration,
}

/// One delivery that a worker was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub id: String,
    pub receipt: String,
    pub value: String,
    /// 1 is the first of this message.
    pub number: u64,
    pub call: Duration,
    pub ret: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Ack,
    Nack,
}

/// What became of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub id: String,
    pub receipt: String,
    pub verb: Verb,
    /// `Some(false)` is stale; `None` is not known.
    pub good: Option<bool>,
    pub call: Duration,
    pub ret: Duration,
}

/// All that happened to one queue, in no order.
#[derive(Clone, Debug, Default)]
pub struct QueueHistory {
    /// How long a delivery is nobody else's.
    pub visibility: Duration,
    pub sends: Vec<Sent>,
    pub deliveries: Vec<Delivery>,
    pub settled: Vec<Settled>,
    /// Revisions, and how many messages the queue said it had.
    pub lengths: Vec<(u64, u64)>,
}

/// Clocks of two processes on one machine, and how log time is counted, differ by less.
const EPSILON: Duration = Duration::from_millis(100);

impl QueueHistory {
    pub fn extend(&mut self, other: Self) {
        self.sends.extend(other.sends);
        self.deliveries.extend(other.deliveries);
        self.settled.extend(other.settled);
        self.lengths.extend(other.lengths);
    }

    /// What is wrong between this and the log, which must begin with the first revision.
    #[must_use]
    pub fn against(&self, log: &Log, queue: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut newest = (0, 0);
        let (mut seen, mut there) = (BTreeSet::new(), BTreeSet::new());
        // Its length from each revision on.
        let mut lengths = BTreeMap::from([(0, 0)]);
        for change in &log.changes {
            let of_queue = |event: &&Event| event.family == "queues" && event.name == queue;
            let mut received = Vec::new();
            for event in change.events.iter().filter(of_queue) {
                let Some(id) = event.item.as_deref().and_then(number) else { continue };
                match event.op.as_str() {
                    "sent" => drop(there.insert(id)),
                    "removed" => drop(there.remove(&id)),
                    "received" => received.push(id),
                    _ => {}
                }
            }
            received.sort_unstable();
            for id in received.into_iter().filter(|id| seen.insert(*id)) {
                if id < newest {
                    wrong.push(format!("Q6: {id:?} first at {} after {newest:?}", change.revision));
                }
                newest = newest.max(id);
            }
            lengths.insert(change.revision, there.len() as u64);
        }
        for (revision, said) in &self.lengths {
            let length = lengths.range(..=revision).next_back().map_or(0, |(_, length)| *length);
            if length != *said {
                wrong.push(format!("Q8: {said} messages at {revision}, and {length} in the log"));
            }
        }
        let known = self.sends.iter().filter_map(|sent| Some((sent, number(sent.id.as_deref()?)?)));
        let known: Vec<_> = known.collect();
        let mut by_return = known.clone();
        by_return.sort_by_key(|(sent, _)| sent.ret);
        let mut by_call = known;
        by_call.sort_by_key(|(sent, _)| sent.call);
        let (mut before, mut last) = (by_return.into_iter().peekable(), (0, 0));
        for (sent, id) in by_call {
            while let Some((_, earlier)) = before.next_if(|(earlier, _)| earlier.ret < sent.call) {
                last = last.max(earlier);
            }
            if id < last {
                wrong.push(format!("Q6: {sent:?} was sent after {last:?} was there"));
            }
        }
        wrong
    }

    /// Settlements of a kind that were answered so.
    #[must_use]
    pub fn count(&self, verb: Verb, good: Option<bool>) -> usize {
        self.settled.iter().filter(|settled| settled.verb == verb && settled.good == good).count()
    }

    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} sent ({} in doubt), {} deliveries ({} not the first), acks {} good, {} stale, {} in doubt, nacks {} good",
            self.sends.len(),
            self.sends.iter().filter(|sent| sent.id.is_none()).count(),
            self.deliveries.len(),
            self.deliveries.iter().filter(|delivery| delivery.number > 1).count(),
            self.count(Verb::Ack, Some(true)),
            self.count(Verb::Ack, Some(false)),
            self.count(Verb::Ack, None),
            self.count(Verb::Nack, Some(true)),
        )
    }

    /// What is wrong; nothing if all is well.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut by_message: BTreeMap<&str, Vec<&Delivery>> = BTreeMap::new();
        for delivery in &self.deliveries {
            by_message.entry(&delivery.id).or_default().push(delivery);
        }
        self.nothing_lost(&by_message, &mut wrong);
        self.nothing_made_up(&by_message, &mut wrong);
        self.settled_once(&by_message, &mut wrong);
        for (id, deliveries) in &mut by_message {
            deliveries.sort_by_key(|delivery| (delivery.number, delivery.call));
            self.nobody_elses(id, deliveries, &mut wrong);
        }
        wrong
    }

    /// Q1: of a queue that is empty, each message is acknowledged, as far as is known.
    fn nothing_lost(&self, by_message: &BTreeMap<&str, Vec<&Delivery>>, wrong: &mut Vec<String>) {
        let maybe: BTreeSet<&str> = self
            .settled
            .iter()
            .filter(|settled| settled.verb == Verb::Ack && settled.good != Some(false))
            .map(|settled| &*settled.id)
            .collect();
        for sent in &self.sends {
            let Some(id) = &sent.id else { continue };
            if !by_message.contains_key(id.as_str()) {
                wrong.push(format!("Q1: never delivered: {sent:?}"));
            } else if !maybe.contains(id.as_str()) {
                wrong.push(format!("Q1: gone without an acknowledgement: {sent:?}"));
            }
        }
    }

    /// Q2: what is delivered was sent, as it was sent, as one message.
    fn nothing_made_up(&self, by_message: &BTreeMap<&str, Vec<&Delivery>>, wrong: &mut Vec<String>) {
        let sent: BTreeMap<&str, &Sent> = self.sends.iter().map(|sent| (&*sent.value, sent)).collect();
        let mut messages: BTreeMap<&str, &str> = BTreeMap::new();
        for (id, deliveries) in by_message {
            for delivery in deliveries {
                match sent.get(&*delivery.value) {
                    None => wrong.push(format!("Q2: nobody sent {delivery:?}")),
                    Some(sent) if sent.id.as_ref().is_some_and(|known| known != id) => {
                        wrong.push(format!("Q2: {sent:?} is not {delivery:?}"));
                    }
                    Some(sent) if delivery.ret < sent.call => {
                        wrong.push(format!("Q2: {delivery:?} before {sent:?}"));
                    }
                    Some(_) => {}
                }
                if messages.insert(&delivery.value, id).is_some_and(|other| other != *id) {
                    wrong.push(format!("Q1: sent once, there twice: {delivery:?}"));
                }
            }
        }
    }

    /// Q3: an acknowledgement is final, and there is one.
    fn settled_once(&self, by_message: &BTreeMap<&str, Vec<&Delivery>>, wrong: &mut Vec<String>) {
        let mut acked: BTreeMap<&str, &Settled> = BTreeMap::new();
        for settled in self.settled.iter().filter(|it| it.verb == Verb::Ack && it.good == Some(true)) {
            if let Some(other) = acked.insert(&settled.id, settled)
                && other.receipt != settled.receipt
            {
                wrong.push(format!("Q3: acknowledged twice: {other:?} {settled:?}"));
            }
            for delivery in by_message.get(&*settled.id).into_iter().flatten() {
                if delivery.call > settled.ret {
                    wrong.push(format!("Q3: delivered after {settled:?}: {delivery:?}"));
                }
            }
        }
    }

    /// Q4, Q5: deliveries of one message are counted, and none begins while another surely lasts.
    fn nobody_elses(&self, id: &str, deliveries: &[&Delivery], wrong: &mut Vec<String>) {
        for (position, delivery) in deliveries.iter().enumerate() {
            for later in &deliveries[position + 1..] {
                // A retry of the same receive is told the same.
                if later.receipt == delivery.receipt {
                    if later.number != delivery.number {
                        wrong.push(format!("Q5: one receipt, two numbers: {delivery:?} {later:?}"));
                    }
                    continue;
                }
                if later.number == delivery.number {
                    wrong.push(format!("Q5: {id} delivered twice as number {}", later.number));
                }
                if later.ret < delivery.call {
                    wrong.push(format!("Q5: number {} before {}: {id}", later.number, delivery.number));
                }
                let given_back = self.settled.iter().any(|settled| {
                    settled.receipt == delivery.receipt
                        && settled.good != Some(false)
                        && settled.call <= later.ret
                });
                let surely = delivery.call + self.visibility;
                if later.number == delivery.number + 1 && !given_back && later.ret + EPSILON < surely {
                    wrong.push(format!(
                        "Q4: {id} is somebody else's until {surely:?}: {delivery:?} {later:?}"
                    ));
                }
            }
        }
    }
}

/// The order of a message, from its id.
fn number(id: &str) -> Option<(u64, u64)> {
    let (revision, number) = id.split_once('-')?;
    Some((revision.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Change;

    /// Two are sent, both received in order, one acknowledged.
    fn log() -> Log {
        let event = |op: &str, item: &str| Event {
            family: "queues".into(),
            op: op.into(),
            name: "q".into(),
            item: Some(item.into()),
            ..Event::default()
        };
        let change = |revision, op: &str, item: &str| Change { revision, events: vec![event(op, item)] };
        let first = change(9, "sent", "9-0");
        let later =
            [change(10, "sent", "10-0"), change(11, "received", "9-0"), change(12, "received", "10-0")];
        let changes = [first].into_iter().chain(later).chain([change(13, "removed", "9-0")]).collect();
        Log { changes }
    }

    #[test]
    fn what_the_log_does_not_say_is_found() {
        let sent = |value: &str, id: &str, call| Sent {
            value: value.into(),
            id: Some(id.into()),
            call: at(call),
            ret: at(call + 10),
        };
        let history = || QueueHistory {
            sends: vec![sent("a", "9-0", 0), sent("b", "10-0", 20)],
            lengths: vec![(8, 0), (10, 2), (12, 2), (20, 1)],
            ..QueueHistory::default()
        };
        assert_eq!(history().against(&log(), "q"), Vec::<String>::new());
        let counted = QueueHistory { lengths: vec![(12, 1)], ..history() };
        assert!(counted.against(&log(), "q")[0].contains("Q8: 1 messages at 12, and 2"));
        let mut overtaken = log();
        overtaken.changes[2..4].reverse();
        assert!(history().against(&overtaken, "q")[0].contains("Q6: (9, 0) first at 11 after (10, 0)"));
        let late = QueueHistory { sends: vec![sent("b", "10-0", 0), sent("a", "9-0", 20)], ..history() };
        assert!(late.against(&log(), "q")[0].contains("Q6: "));
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn delivery(number: u64, call: u64) -> Delivery {
        let receipt = format!("r{number}");
        Delivery { id: "1-0".into(), receipt, value: "a".into(), number, call: at(call), ret: at(call + 10) }
    }

    fn settled(number: u64, verb: Verb, good: Option<bool>, call: u64) -> Settled {
        let receipt = format!("r{number}");
        Settled { id: "1-0".into(), receipt, verb, good, call: at(call), ret: at(call + 10) }
    }

    /// Sent, delivered and left lying, delivered again and given back, delivered and acknowledged.
    fn sound() -> QueueHistory {
        QueueHistory {
            visibility: at(2000),
            sends: vec![Sent { value: "a".into(), id: Some("1-0".into()), call: at(0), ret: at(10) }],
            deliveries: vec![delivery(1, 20), delivery(2, 2100), delivery(3, 2300)],
            settled: vec![settled(2, Verb::Nack, Some(true), 2200), settled(3, Verb::Ack, Some(true), 2400)],
            lengths: Vec::new(),
        }
    }

    fn found(break_it: impl FnOnce(&mut QueueHistory)) -> String {
        let mut history = sound();
        break_it(&mut history);
        history.violations().join("\n")
    }

    #[test]
    fn a_sound_history_is_sound() {
        assert_eq!(found(|_| {}), "");
        assert_eq!(found(|it| it.sends[0].id = None), "", "it was taken after all");
        assert_eq!(found(|it| it.settled[1].good = None), "", "an answer was lost");
        assert_eq!(found(|it| it.deliveries.push(delivery(3, 2310))), "", "a retry is told the same");
        assert_eq!(found(|it| drop(it.deliveries.remove(0))), "", "nobody was told of the first");
    }

    #[test]
    fn whatever_breaks_is_found() {
        for (invariant, break_it) in [
            ("Q1", (|it| it.deliveries.clear()) as fn(&mut QueueHistory)),
            ("Q1", |it| it.settled[1].good = Some(false)),
            ("Q1", |it| it.deliveries[0].id = "2-0".into()),
            ("Q2", |it| it.deliveries[0].value = "b".into()),
            ("Q2", |it| it.sends[0].call = at(5000)),
            ("Q3", |it| it.deliveries.push(delivery(4, 4500))),
            ("Q3", |it| it.settled.push(settled(2, Verb::Ack, Some(true), 2250))),
            ("Q4", |it| it.deliveries[1].ret = at(1000)),
            ("Q4", |it| it.settled[0].good = Some(false)),
            ("Q5", |it| it.deliveries[1].number = 1),
            ("Q5", |it| it.deliveries[2] = delivery(3, 0)),
        ] {
            let wrong = found(break_it);
            assert!(wrong.contains(invariant), "{invariant}: {wrong}");
        }
    }
}
