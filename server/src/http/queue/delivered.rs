//! ⑦ What a receive answers.

use coracle_api::Span;
use coracle_api::queue as wire;
use coracle_recipes::queue::{self, Delivered, RECEIVE_BYTES, Receipt, Role};
use coracle_store::{Revision, Store};
use http::{HeaderValue, StatusCode, header};

use super::super::problem::Answer;
use super::super::{json, respond, wire as ids};
use super::{receipt_text, shown};
use crate::edge::Edge;
use crate::http::message::{Body, Response};

/// How a receive is answered.
pub struct Shape {
    pub queue: String,
    pub raw: bool,
    /// There is nothing to acknowledge.
    pub once: bool,
    pub acks: Vec<Receipt>,
}

impl Shape {
    /// The answer with these deliveries.
    ///
    /// # Errors
    /// A circumstance: this node does not get to what they stand for.
    pub async fn answer(
        &self,
        edge: &Edge,
        revision: Revision,
        delivered: Delivered,
        valid_for: Option<Span>,
        replayed: bool,
    ) -> Answer {
        let Delivered { messages, acked, session } = delivered;
        if self.raw {
            let response = match messages.first() {
                Some(message) => raw(revision, message, self.once),
                None => empty(revision),
            };
            return Ok(respond::replayed(response, replayed));
        }
        let mut items: Vec<_> = messages.iter().map(|message| shown::delivery(message, session)).collect();
        if self.once {
            for item in &mut items {
                item.receipt = None;
            }
        }
        if messages
            .iter()
            .any(|message| message.place.as_ref().is_some_and(|place| place.role == Role::Batch))
        {
            edge.node.wait_revision(revision, edge.deadline()).await?;
            edge.node.read(|store| items.iter_mut().for_each(|item| fill(store, &self.queue, item)));
        }
        let settled = self.acks.iter().zip(acked);
        let acks: Vec<_> = settled
            .map(|(receipt, ok)| coracle_api::Settled { receipt: receipt_text(receipt), ok })
            .collect();
        let body = wire::Received {
            items,
            acks,
            session: session.map(ids::session),
            valid_for,
            generation: None,
            more: false,
            revision: revision.0,
        };
        Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), replayed))
    }
}

/// The items that a message stands for, the first of them.
pub fn fill(store: &Store, queue: &str, message: &mut wire::Message) {
    if message.role != Some(wire::MessageRole::Batch) {
        return;
    }
    let slot = message.generation.and_then(|number| queue::slot_of(store.view(), queue, number));
    let items = slot.map(|slot| page(store, queue, slot).0).unwrap_or_default();
    message.items = Some(items);
}

/// Items of a generation from its beginning, as many as one answer holds, and whether there are more.
pub fn page(store: &Store, queue: &str, slot: u64) -> (Vec<wire::Message>, bool) {
    let limit = usize::try_from(super::super::list::ITEMS_MAX).unwrap_or(usize::MAX);
    let found = queue::items(store.view(), queue, slot, None, limit + 1);
    let mut bytes = 0;
    let mut items = Vec::new();
    for item in found.iter().take(limit) {
        if bytes >= RECEIVE_BYTES {
            break;
        }
        bytes += item.value.len();
        items.push(shown::item(item));
    }
    let more = items.len() < found.len();
    (items, more)
}

/// One message as it was sent.
fn raw(revision: Revision, message: &queue::Delivery, once: bool) -> Response {
    let mut response = Response::new(Body::from(message.value.as_bytes().to_vec()));
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_str(json::content_type(&message.content_type));
    headers.insert(
        header::CONTENT_TYPE,
        content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    respond::harmless(headers);
    headers.insert(respond::REVISION, respond::number(revision.0));
    let receipt = receipt_text(&Receipt { id: message.id, delivery: message.delivery });
    let own = [
        ("coracle-receipt", receipt),
        ("coracle-message-id", message.id.to_string()),
        ("coracle-deliveries", message.deliveries.to_string()),
    ];
    let sent = message
        .headers
        .iter()
        .map(|header| (format!("{}{}", super::send::META, header.name), &*header.value));
    for (name, value) in own
        .iter()
        .skip(usize::from(once))
        .map(|(name, value)| ((*name).to_owned(), value.as_str()))
        .chain(sent)
    {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    response
}

fn empty(revision: Revision) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(respond::REVISION, respond::number(revision.0));
    response
}
