//! ① Queues.

use coracle_api::{Code, Problem};
use coracle_recipes::queue::{Kind, Receipt, Refusal};
use coracle_store::Revision;

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

/// A receipt as clients have it: `r1:812-0.830`, the message and the entry that delivered it.
#[allow(dead_code, reason = "deliveries over HTTP are on their way")]
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
