//! ① Queues: what their handlers share. Each verb is in a file of its own.

mod admin;
mod control;
mod delivered;
mod item;
mod messages;
mod own;
mod parked;
mod read;
mod receive;
mod send;
mod settle;
mod shown;
mod stream;

use bytes::Bytes;
use coracle_api::{self as api, Code, Problem, Span};
use coracle_recipes as recipes;
use coracle_recipes::queue::{Kind, Operation, Outcome, RECEIVE, Receipt, Refusal, SPAN};
use coracle_store::{Millis, Reply, Revision};

pub use self::admin::{configure, delete, purge, redrive, transfer};
pub use self::control::{break_generation, close, open};
pub use self::messages::messages;
pub use self::read::{list, message, remove, show};
pub use self::receive::receive;
pub use self::send::send;
pub use self::settle::{ack, nack, renew};
use super::call::{Call, Mutation, outcome, unexpected};
use super::objects::{self, Applied};
use super::problem::{Answer, Refused, bad_query};

/// Why a queue did not do it. The receipts of a refusal name no queue, so they are given as ids.
pub fn problem(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Full(length, max) => {
            let detail = format!("the queue takes no more length={length} max={max}");
            Problem::new(Code::QueueFull, detail).with("length", length).with("max", max)
        }
        Refusal::ReceiptStale(receipt) => {
            let detail = format!("the delivery is settled, timed out or never was id={}", receipt.id);
            Problem::new(Code::ReceiptStale, detail)
                .with("id", receipt.id.to_string())
                .with("delivery", receipt.delivery.0)
        }
        Refusal::MessageNotFound(id) => {
            Problem::new(Code::MessageNotFound, format!("the queue has no such message id={id}"))
                .with("id", id.to_string())
        }
        Refusal::WrongKind(kind, what) => {
            let kind = kind_word(*kind);
            let detail = format!("{what} is not for this kind of queue kind={kind}");
            Problem::new(Code::QueueKindMismatch, detail).with("kind", kind).with("what", what)
        }
        Refusal::SessionRequired => {
            Problem::new(Code::SessionRequired, "the queue has one consumer, known by its session")
        }
        Refusal::TooManyWaiters(max) => {
            Problem::new(Code::TooManyWaiters, format!("the line is as long as a line may be max={max}"))
                .with("max", max)
        }
        Refusal::NotEmpty(length) => {
            let detail = format!("the kind changes while the queue is empty length={length}");
            Problem::new(Code::QueueNotEmpty, detail).with("length", length)
        }
        Refusal::TicketGone => Problem::new(
            Code::SessionExpired,
            "the receiver has left the line, with its session or by itself",
        ),
        Refusal::NotActive(active) => {
            let active = active.map(|session| session.to_string());
            let shown = active.as_deref().unwrap_or("none");
            Problem::new(Code::NotConsumer, format!("the session is not the consumer consumer={shown}"))
                .with("consumer", active)
        }
        Refusal::SignalUnknown(name) => {
            Problem::invalid("query", "signal", format!("the queue waits for no such signal signal={name}"))
        }
        Refusal::NotInCharge(claim) => {
            let detail = format!("only the holder of a claim controls the queue claim={claim}");
            Problem::new(Code::FenceStale, detail).with("claim", claim)
        }
        Refusal::NotFound => Problem::new(Code::QueueNotFound, "there is nothing of that name"),
    }
}

/// As in the wire's words.
fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Fifo => "fifo",
        Kind::Priority => "priority",
        Kind::Barrier => "barrier",
    }
}

/// Spans that a queue knows.
fn spans(least: Millis) -> std::ops::RangeInclusive<Span> {
    Span::from_millis_saturating(least.0)..=Span::from_millis_saturating(SPAN.0)
}

/// `receipt=`, perhaps several times, and `{"receipts":[..]}`.
async fn receipts(call: &mut Call, parameter: &'static str) -> Answer<(Vec<Receipt>, Bytes)> {
    let mut texts = Vec::new();
    while let Some(text) = call.query.text(parameter)? {
        texts.push(text);
    }
    let (body, bytes) = call.json::<api::Receipts>().await?;
    texts.extend(body.receipts);
    if texts.is_empty() || texts.len() > RECEIVE {
        return Err(bad_query(parameter, format!("1 to {RECEIVE} receipts actual={}", texts.len())));
    }
    let receipts = texts.iter().map(|text| receipt(text)).collect::<Result<_, _>>();
    Ok((receipts.map_err(|detail| bad_query(parameter, detail))?, bytes))
}

/// What the log answered to an operation of a queue.
async fn apply(call: &mut Call, body: &[u8], operation: Operation) -> Answer<(Applied, Outcome)> {
    let mut applied = objects::apply(call, body, recipes::Operation::Queue(operation)).await?;
    match std::mem::replace(&mut applied.outcome, recipes::Outcome::Queue(Outcome::Done)) {
        recipes::Outcome::Queue(outcome) => Ok((applied, outcome)),
        other => Err(objects::odd(&other)),
    }
}

/// The same after the parameters are read: for work of several entries.
async fn run(call: &Call, mutation: Mutation, operation: Operation) -> Answer<(Revision, bool, Outcome)> {
    let operation = recipes::Operation::Queue(operation).encode();
    let command = mutation.command(coracle_store::Action::One(operation));
    said(call.edge.node.propose(&command, call.fresh_deadline()).await?)
}

/// The queue's outcome in a reply of the log.
fn said(reply: Reply) -> Answer<(Revision, bool, Outcome)> {
    let (revision, replayed, outcome) = outcome(reply)?;
    let coracle_store::Outcome::Program(bytes) = &outcome else { return Err(unexpected(&outcome)) };
    match recipes::Outcome::decode(bytes) {
        Ok(recipes::Outcome::Queue(outcome)) => Ok((revision, replayed, outcome)),
        Ok(other) => Err(objects::odd(&other)),
        Err(_) => Err(unexpected(&outcome)),
    }
}

/// Another outcome than that of the operation.
fn odd(outcome: Outcome) -> Refused {
    objects::odd(&recipes::Outcome::Queue(outcome))
}

/// A receipt as clients have it: `r1:812-0.830`, the message and the entry that delivered it.
pub fn receipt_text(receipt: &Receipt) -> String {
    format!("r1:{}.{}", receipt.id, receipt.delivery)
}

/// What [`receipt_text`] wrote.
///
/// # Errors
/// What is wrong with it.
pub fn receipt(text: &str) -> Result<Receipt, String> {
    let parsed = text.strip_prefix("r1:").and_then(|rest| {
        let (id, delivery) = rest.split_once('.')?;
        Some(Receipt { id: id.parse().ok()?, delivery: Revision(delivery.parse().ok()?) })
    });
    let wrong = || format!("receipt: not one of this server, such as r1:812-0.830 actual={text:?}");
    parsed.filter(|receipt| receipt_text(receipt) == text).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_read_as_they_were_written_and_nothing_else_is() {
        let text = "r1:812-0.830";
        assert_eq!(receipt(text).map(|receipt| receipt_text(&receipt)), Ok(text.to_owned()));
        for forged in
            ["", "r1:", "r2:812-0.830", "r1:812.830", "r1:812-0.", "r1:812-00.830", "r1:+812-0.830", "x"]
        {
            assert!(receipt(forged).is_err(), "{forged}");
        }
    }
}
