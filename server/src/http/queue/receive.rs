//! ① ⑥ Receiving: at once, or after a wait in the line of receivers.
//!
//! A receiver that waits has a place in the replicated line. It is woken by what is assigned to it, and collects that by
//! an entry of its own before it answers: so nothing is lost if it dies in between, and nothing is delivered twice if the
//! call is retried with its Idempotency-Key.

use std::time::Instant;

use coracle_api::Span;
use coracle_api::queue as wire;
use coracle_recipes as recipes;
use coracle_recipes::queue::barrier::HandOut;
use coracle_recipes::queue::{self, Operation, Outcome, RECEIVE, Receipt, Terms, Ticket, VISIBILITY};
use coracle_store::{Attach, Millis, Reply, Revision, SessionId, Store};
use http::StatusCode;

use super::super::call::{Call, Mutation};
use super::super::kv::{self, Ephemeral};
use super::super::objects::NAME;
use super::super::problem::{Answer, bad_query};
use super::super::read::Format;
use super::super::respond;
use super::super::turn::{Renewal, Undo, Withdrawal};
use super::super::{held, hold};
use super::delivered::{Shape, page};
use super::parked::Parked;
use super::stream::Consuming;
use super::{odd, said, spans};
use crate::edge::Edge;

/// Lifetime of the session of a receiver that waits and named none.
const PARKED: Span = kv::TTL_DEFAULT;

/// `POST /v1/queues/{q}/receive`
pub async fn receive(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    let after = call.query.number("after", 0..=u64::MAX)?;
    let barrier = call.edge.node.read(|store| queue::config(store.view(), &name).barrier);
    if barrier.is_some_and(|barrier| barrier.hand_out == HandOut::Broadcast) {
        return Box::pin(broadcast(call, name, after.unwrap_or(0))).await;
    }
    if after.is_some() {
        let kind = call.edge.node.read(|store| queue::config(store.view(), &name).kind);
        let what = "after (only with barrier.delivery=broadcast)";
        return Err(super::problem(&queue::Refusal::WrongKind(kind, what.into())).into());
    }
    let format = call.format(&[("json", Format::Json), ("raw", Format::Raw)])?;
    let raw = format == Some(Format::Raw);
    let max = call.query.number("max", 1..=RECEIVE as u64)?.unwrap_or(1);
    if raw && max > 1 {
        return Err(bad_query("max", "one message with format=raw"));
    }
    let wait = call.wait()?;
    let visibility = call.query.span("visibility", spans(VISIBILITY))?;
    let at_most_once = call.query.flag("ack")?.unwrap_or(false);
    let acks = acks(&mut call)?;
    let ephemeral = kv::ephemeral(&mut call)?;
    let bytes = call.no_body().await?;
    let held = ephemeral.as_ref().and_then(|ephemeral| ephemeral.hold);
    let opening = hold::deliveries(&mut call, held, raw, !acks.is_empty())?;
    let waits = wait.is_some_and(|wait| !wait.is_zero());
    let bound = ephemeral.is_some();
    let Ephemeral { attach, private, .. } = match ephemeral {
        Some(ephemeral) => ephemeral,
        None if waits => Ephemeral::private(PARKED, None),
        None => Ephemeral { attach: Attach::None, private: None, hold: None },
    };
    let terms = Terms {
        max: u32::try_from(max).unwrap_or(1),
        visibility: visibility.map(|span| Millis(span.as_millis())),
        bound,
        at_most_once,
    };
    let mutation = call.mutation(&bytes)?;
    if let (Some(opening), Attach::Private(open)) = (opening, &attach) {
        let until = wait.map(|wait| received + wait.as_duration());
        let consuming = move |edge, session, revision| Consuming::new(edge, name, terms, session, revision);
        return Box::pin(held::opened(call, opening, open.clone(), mutation, until, consuming)).await;
    }
    let shape = Shape { queue: name, raw, once: at_most_once, acks: acks.clone() };
    let receive = queue::Receive { queue: shape.queue.as_str().into(), terms, attach, wait: waits, acks };
    let reply = propose(&call.edge, &mutation, receive.clone(), call.deadline).await?;
    let (revision, replayed, outcome) = said(reply)?;
    let (ticket, session, acked) = match outcome {
        Outcome::Delivered(delivered) => {
            let valid_for = validity(&call.edge, private, delivered.session, received).await;
            return shape.answer(&call.edge, revision, delivered, valid_for, replayed).await;
        }
        Outcome::Waiting(ticket, session, acked) => (ticket, session, acked),
        other => return Err(odd(other)),
    };
    let place = call.edge.park()?;
    let edge = call.edge.clone();
    let deadline = call.fresh_deadline();
    drop(call);
    edge.node.wait_revision(revision, deadline).await?;
    let mut parked = Parked {
        withdrawal: withdrawal(&edge, &mutation, private, &shape.queue, ticket),
        renewal: private
            .map(|(_, ttl)| Renewal::new(session, ttl.as_duration(), received).found_again(replayed)),
        bound,
        edge,
        shape,
        receive,
        ticket,
        session,
        mutation,
        acked,
        end: received + wait.unwrap_or_default().as_duration(),
        replayed,
        place: Some(place),
    };
    // A retry finds the place by its key.
    if parked.mutation.idempotency.is_some() {
        parked.withdrawal.settle();
    }
    Ok(respond::later(parked.answer()))
}

/// `acks=RECEIPT`, perhaps several times.
fn acks(call: &mut Call) -> Answer<Vec<Receipt>> {
    let mut acks = Vec::new();
    while let Some(text) = call.query.text("acks")? {
        acks.push(super::receipt(&text).map_err(|detail| bad_query("acks", detail))?);
    }
    Ok(acks)
}

/// Propose a receive, and give back what it got if nobody waits for the answer any more: a caller that is gone has
/// neither a ghost in the line nor a message that waits for its visibility to end.
pub async fn propose(
    edge: &Edge,
    mutation: &Mutation,
    receive: queue::Receive,
    deadline: Instant,
) -> Answer<Reply> {
    let queue = receive.queue.clone();
    let operation = recipes::Operation::Queue(Operation::Receive(receive)).encode();
    let command = mutation.clone().command(coracle_store::Action::One(operation));
    if mutation.idempotency.is_some() {
        // The retry will have it.
        return Ok(edge.node.propose(&command, deadline).await?);
    }
    let (answer, answered) = tokio::sync::oneshot::channel();
    let (edge, mutation) = (edge.clone(), mutation.unconditional());
    tokio::spawn(async move {
        let reply = edge.node.propose(&command, deadline).await;
        let Err(Ok(reply)) = answer.send(reply) else { return };
        let Ok((_, _, outcome)) = said(reply) else { return };
        let undo = match outcome {
            Outcome::Waiting(ticket, ..) => Operation::Leave(queue, ticket),
            Outcome::Delivered(delivered) if !delivered.messages.is_empty() => {
                let receipt =
                    |message: &queue::Delivery| Receipt { id: message.id, delivery: message.delivery };
                let receipts = delivered.messages.iter().map(receipt).collect();
                let nack = queue::Nack { uncounted: true, ..queue::Nack::default() };
                Operation::Nack(queue::Receipts { queue, receipts, all: false }, nack)
            }
            _ => return,
        };
        drop(Withdrawal::new(&edge, mutation, Undo::Program(Box::new(recipes::Operation::Queue(undo)))));
    });
    match answered.await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(Edge::shutting_down()),
    }
}

/// What takes the place in the line back if nobody is there to be answered.
pub fn withdrawal(
    edge: &Edge,
    mutation: &Mutation,
    private: Option<(SessionId, Span)>,
    queue: &str,
    ticket: Ticket,
) -> Withdrawal {
    let undo = match private {
        Some((session, _)) => Undo::Close(session),
        None => Undo::Program(Box::new(recipes::Operation::Queue(Operation::Leave(queue.into(), ticket)))),
    };
    Withdrawal::new(edge, mutation.unconditional(), undo)
}

async fn validity(
    edge: &Edge,
    private: Option<(SessionId, Span)>,
    session: Option<SessionId>,
    received: Instant,
) -> Option<Span> {
    let session = session?;
    Some(super::super::claim::first_validity(edge, private, session, received).await)
}

/// Take what was assigned; with the client's key, so that a retry is given the same.
pub async fn collect(
    edge: &Edge,
    mutation: &Mutation,
    queue: &str,
    ticket: Ticket,
) -> Answer<(Revision, bool, Outcome)> {
    let mut mutation = mutation.part(1);
    mutation.guards.clear();
    let operation = recipes::Operation::Queue(Operation::Collect(queue.into(), ticket)).encode();
    let command = mutation.command(coracle_store::Action::One(operation));
    said(edge.node.propose(&command, edge.deadline()).await?)
}

/// A generation that everybody may read: the newest behind `after`, or the next.
async fn broadcast(mut call: Call, name: String, after: u64) -> Answer {
    let wait = call.wait()?.unwrap_or_default();
    call.format(&[("json", Format::Json)])?;
    call.query.done()?;
    call.no_body().await?;
    let find = |store: &Store| {
        let (generation, slot) = queue::broadcast(store.view(), &name, after)?;
        Some((generation.number, page(store, &name, slot)))
    };
    let (found, revision) = call.until(queue::watched_releases(&name), wait, find).await?;
    let mut body = wire::Received { revision: revision.0, ..wire::Received::default() };
    if let Some((number, (items, more))) = found {
        (body.generation, body.items, body.more) = (Some(number), items, more);
    }
    Ok(respond::json(StatusCode::OK, revision, &body))
}
