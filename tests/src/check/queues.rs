//! Q1–Q5: what was sent is delivered and acknowledged, once; nothing else is; and nobody has what is somebody else's.
//!
//! The queue must have been drained, so that everything sent was acknowledged in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
}

/// Clocks of two processes on one machine, and how log time is counted, differ by less.
const EPSILON: Duration = Duration::from_millis(100);

impl QueueHistory {
    pub fn extend(&mut self, other: Self) {
        self.sends.extend(other.sends);
        self.deliveries.extend(other.deliveries);
        self.settled.extend(other.settled);
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

#[cfg(test)]
mod tests {
    use super::*;

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
