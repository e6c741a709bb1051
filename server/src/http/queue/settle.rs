//! ① Settling deliveries by their receipts: ack, nack, renew.

use coracle_api::{self as api, Span};
use coracle_recipes::queue::{self, Nack, Operation, Outcome, Receipt, VISIBILITY};
use coracle_store::{Millis, limits};
use http::StatusCode;

use super::super::call::Call;
use super::super::objects::{Applied, NAME};
use super::super::problem::{Answer, bad_query};
use super::{apply, odd, receipt_text, receipts, spans};
use crate::http::message::Response;

/// `POST /v1/queues/{q}/ack`
pub async fn ack(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (receipts, bytes) = receipts(&mut call, "receipt").await?;
    let operation = Operation::Ack(named(name, &receipts));
    settle(&mut call, &bytes, operation, &receipts).await
}

/// `POST /v1/queues/{q}/nack`
pub async fn nack(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let delay = call.query.span("delay", spans(Millis(0)))?;
    let counted = call.query.flag("count")?.unwrap_or(true);
    let fatal = call.query.flag("fatal")?.unwrap_or(false);
    let reason = call.query.text("reason")?.unwrap_or_default();
    if reason.len() > limits::NAME_BYTES {
        return Err(bad_query("reason", format!("at most {} bytes", limits::NAME_BYTES)));
    }
    if fatal && delay.is_some() {
        return Err(bad_query("delay", "not together with fatal"));
    }
    let (receipts, bytes) = receipts(&mut call, "receipt").await?;
    let nack = Nack {
        delay: delay.map(|delay| Millis(delay.as_millis())),
        uncounted: !counted,
        fatal,
        reason: reason.into(),
    };
    let operation = Operation::Nack(named(name, &receipts), nack);
    settle(&mut call, &bytes, operation, &receipts).await
}

/// `POST /v1/queues/{q}/renew`
pub async fn renew(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let visibility = call.query.span("visibility", spans(VISIBILITY))?;
    let (receipts, bytes) = receipts(&mut call, "receipt").await?;
    let visibility = visibility.map(|span| Millis(span.as_millis()));
    let operation = Operation::Renew(named(name, &receipts), visibility);
    settle(&mut call, &bytes, operation, &receipts).await
}

/// One receipt that is stale is a problem; of several each has its own result.
fn named(queue: String, receipts: &[Receipt]) -> queue::Receipts {
    queue::Receipts { queue: queue.into(), receipts: receipts.to_vec(), all: receipts.len() == 1 }
}

async fn settle(call: &mut Call, body: &[u8], operation: Operation, receipts: &[Receipt]) -> Answer {
    let (applied, outcome) = apply(call, body, operation).await?;
    let Outcome::Settled(settled, visibility) = outcome else { return Err(odd(outcome)) };
    Ok(answer(&applied, receipts, settled, visibility))
}

fn answer(
    applied: &Applied,
    receipts: &[Receipt],
    settled: Vec<bool>,
    visibility: Option<Millis>,
) -> Response {
    let item = |(receipt, ok): (&Receipt, bool)| api::Settled { receipt: receipt_text(receipt), ok };
    let body = api::SettledMany {
        items: receipts.iter().zip(settled).map(item).collect(),
        visibility: visibility.map(|span| Span::from_millis_saturating(span.0)),
        revision: applied.revision.0,
    };
    applied.answer(StatusCode::OK, &body)
}
