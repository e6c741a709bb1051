//! ① ⑥ Receiving: at once, or after a wait in the line of receivers.
//!
//! A receiver that waits has a place in the replicated line. It is woken by what is assigned to it, and collects that by
//! an entry of its own before it answers: so nothing is lost if it dies in between, and nothing is delivered twice if the
//! call is retried with its Idempotency-Key.

use std::time::Instant;

use axum::response::Response;
use coracle_api::Span;
use coracle_api::queue as wire;
use coracle_recipes as recipes;
use coracle_recipes::queue::barrier::HandOut;
use coracle_recipes::queue::{
    self, Delivered, Operation, Outcome, RECEIVE, RECEIVE_BYTES, Receipt, Role, Terms, Ticket, Turn,
    VISIBILITY,
};
use coracle_store::{Attach, Millis, Reply, Revision, Selection, SessionId, Store};
use http::{HeaderValue, StatusCode, header};

use super::super::call::{Call, Mutation};
use super::super::hold;
use super::super::kv::{self, Ephemeral};
use super::super::objects::NAME;
use super::super::problem::{Answer, bad_query, session_expired};
use super::super::read::Format;
use super::super::turn::{Renewal, Renewed, Withdrawal};
use super::super::{json, respond, wire as ids};
use super::{odd, receipt_text, said, shown, spans, stream};
use crate::edge::{Admitted, Edge};

/// Lifetime of the session of a receiver that waits and named none.
const PARKED: Span = kv::TTL_DEFAULT;

/// How a receive is answered.
pub struct Shape {
    pub queue: String,
    raw: bool,
    /// There is nothing to acknowledge.
    once: bool,
    acks: Vec<Receipt>,
}

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
    if held.is_some() && raw {
        return Err(bad_query("format", "a stream is not raw"));
    }
    if held.is_some() && !acks.is_empty() {
        return Err(bad_query("acks", "not together with hold: acknowledge by requests of their own"));
    }
    let opening = held.map(|hold| hold::opening(&mut call, hold)).transpose()?;
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
        return Box::pin(stream::open(call, opening, open.clone(), mutation, name, terms, until)).await;
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
        renewal: private.map(|(_, ttl)| Renewal::new(session, ttl.as_duration(), received)),
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
        drop(Withdrawal::new(&edge, mutation, recipes::Operation::Queue(undo).encode()));
    });
    match answered.await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(Edge::shutting_down()),
    }
}

/// What takes the place in the line back if nobody is there to be answered.
fn withdrawal(
    edge: &Edge,
    mutation: &Mutation,
    private: Option<(SessionId, Span)>,
    queue: &str,
    ticket: Ticket,
) -> Withdrawal {
    let operation = match private {
        Some((session, _)) => coracle_store::Operation::CloseSession(session),
        None => recipes::Operation::Queue(Operation::Leave(queue.into(), ticket)).encode(),
    };
    Withdrawal::new(edge, mutation.unconditional(), operation)
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

/// A receiver in line whose caller waits.
struct Parked {
    edge: Edge,
    shape: Shape,
    receive: queue::Receive,
    ticket: Ticket,
    session: SessionId,
    bound: bool,
    mutation: Mutation,
    /// Of its private session.
    renewal: Option<Renewal>,
    withdrawal: Withdrawal,
    acked: Vec<bool>,
    end: Instant,
    replayed: bool,
    place: Option<Admitted>,
}

impl Parked {
    async fn answer(mut self) -> Answer {
        let answer = self.answered().await;
        if answer.is_ok() {
            self.withdrawal.settle();
        }
        answer
    }

    async fn answered(&mut self) -> Answer {
        loop {
            match self.wait().await? {
                Turn::Waiting => return self.time_is_up().await,
                Turn::Assigned => {
                    if let Some(answer) = Box::pin(self.collect()).await? {
                        return Ok(answer);
                    }
                }
                Turn::Gone if self.replayed => {
                    // Collected by the call that this one repeats, or given up by it.
                    if let Some(answer) = Box::pin(self.collect()).await? {
                        return Ok(answer);
                    }
                }
                Turn::Gone => {
                    if self.edge.node.read(|store| store.session(self.session).is_none()) {
                        return Err(session_expired(self.session).into());
                    }
                    if let Some(answer) = Box::pin(self.stand_again()).await? {
                        return Ok(answer);
                    }
                }
            }
        }
    }

    /// Wait until something is assigned, or the place is gone; `Waiting` at the end of the time.
    async fn wait(&mut self) -> Answer<Turn> {
        loop {
            let key = queue::watched(&self.shape.queue, self.ticket);
            let mut watch = self.edge.node.watch(Selection::Key(key));
            let turn = self.edge.node.read(|store| queue::turn(store.view(), &self.shape.queue, self.ticket));
            if turn != Turn::Waiting || Instant::now() >= self.end {
                return Ok(turn);
            }
            let alarm = self.renewal.as_ref().map_or(self.end, |renewal| self.end.min(renewal.next));
            tokio::select! {
                biased;
                () = self.edge.drained() => return Err(Edge::shutting_down()),
                _ = watch.changed() => {}
                () = tokio::time::sleep_until(alarm.into()) => {}
            }
            if let Some(renewal) = self.renewal.as_mut().filter(|renewal| Instant::now() >= renewal.next)
                && let Renewed::Lost(_) = Box::pin(renewal.renew(&self.edge)).await
            {
                return Err(session_expired(self.session).into());
            }
        }
    }

    /// Take what was assigned; `None` if it is not there any more, and the call stands in line again.
    async fn collect(&mut self) -> Answer<Option<Response>> {
        match collect(&self.edge, &self.mutation, &self.shape.queue, self.ticket).await {
            Ok((revision, _, Outcome::Delivered(mut delivered))) => {
                delivered.acked = std::mem::take(&mut self.acked);
                let valid_for = match (&mut self.renewal, self.bound) {
                    (Some(renewal), true) => {
                        renewal.renew(&self.edge).await;
                        Some(renewal.valid_for().into())
                    }
                    (None, true) => Some(self.edge.valid_for(self.session).await),
                    (_, false) => None,
                };
                self.shape.answer(&self.edge, revision, delivered, valid_for, self.replayed).await.map(Some)
            }
            Ok((revision, _, Outcome::Waiting(..))) => {
                self.edge.node.wait_revision(revision, self.edge.deadline()).await?;
                Ok(None)
            }
            Ok((_, _, other)) => Err(odd(other)),
            Err(refused) if refused.0.code == coracle_api::Code::SessionExpired => self.stand_again().await,
            Err(refused) => Err(refused),
        }
    }

    /// What was assigned came too late, or the call before this one gave its place up; answers if there is something.
    async fn stand_again(&mut self) -> Answer<Option<Response>> {
        let alive = self.edge.node.read(|store| store.session(self.session).is_some());
        let mut receive = self.receive.clone();
        receive.acks.clear();
        // Its own session goes with its last place.
        match (alive, &mut receive.attach, &self.renewal) {
            (true, attach, Some(_)) => *attach = Attach::Session(self.session),
            (false, Attach::Private(_), Some(renewal)) => {
                let ttl = renewal.ttl.into();
                let fresh = Ephemeral::private(ttl, None);
                receive.attach = fresh.attach;
            }
            (true, _, None) => {}
            (false, _, _) => return Err(session_expired(self.session).into()),
        }
        let mutation = self.mutation.unconditional();
        let deadline = self.edge.deadline();
        let (revision, _, outcome) = said(propose(&self.edge, &mutation, receive, deadline).await?)?;
        self.replayed = false;
        match outcome {
            Outcome::Waiting(ticket, session, _) => {
                (self.ticket, self.session) = (ticket, session);
                let ttl = self.renewal.as_ref().map(|renewal| renewal.ttl);
                self.renewal = ttl.map(|ttl| Renewal::new(session, ttl, Instant::now()));
                let private = ttl.map(|ttl| (session, Span::from(ttl)));
                self.withdrawal = withdrawal(&self.edge, &mutation, private, &self.shape.queue, ticket);
                self.mutation = mutation;
                self.edge.node.wait_revision(revision, deadline).await?;
                Ok(None)
            }
            Outcome::Delivered(delivered) => {
                let valid_for = if self.bound { Some(self.edge.valid_for(self.session).await) } else { None };
                self.shape.answer(&self.edge, revision, delivered, valid_for, false).await.map(Some)
            }
            other => Err(odd(other)),
        }
    }

    /// The wait is over, and there is nothing.
    async fn time_is_up(&mut self) -> Answer {
        self.place = None;
        let leave = Operation::Leave(self.shape.queue.as_str().into(), self.ticket);
        let command = self
            .mutation
            .unconditional()
            .command(coracle_store::Action::One(recipes::Operation::Queue(leave).encode()));
        let reply = self.edge.node.propose(&command, self.edge.deadline()).await?;
        self.withdrawal.settle();
        let nothing = Delivered { acked: std::mem::take(&mut self.acked), ..Delivered::default() };
        self.shape.answer(&self.edge, reply.revision, nothing, None, self.replayed).await
    }
}

impl Shape {
    async fn answer(
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
        let acks: Vec<_> =
            settled.map(|(receipt, ok)| wire::Settled { receipt: receipt_text(receipt), ok }).collect();
        let body = wire::Received {
            items,
            acks: (!acks.is_empty()).then_some(acks),
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
fn page(store: &Store, queue: &str, slot: u64) -> (Vec<wire::Message>, bool) {
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
    let mut response = Response::new(axum::body::Body::from(message.value.as_bytes().to_vec()));
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_str(json::content_type(&message.content_type));
    headers.insert(
        header::CONTENT_TYPE,
        content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    respond::harmless(headers);
    headers.insert(respond::REVISION, HeaderValue::from(revision.0));
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
    response.headers_mut().insert(respond::REVISION, HeaderValue::from(revision.0));
    response
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
