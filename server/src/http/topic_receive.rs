//! ① ⑥ Receiving from a durable subscription: at once, or when there is something.
//!
//! A receiver that waits is a watch on the messages and on what comes back, and no key: so a publish costs the same
//! whoever waits. Of the receivers of one node only the first in line looks and asks; the others are woken when it
//! has its answer. An entry is proposed only if there is something to hand out, and each entry hands out to one.

use std::time::Instant;

use coracle_api::{self as api, Span};
use coracle_raft::node::Circumstance;
use coracle_recipes as recipes;
use coracle_recipes::topic::{
    self, Delivery, Found, Nack, Name, Place, Receipt, Receive, Received, Settle, Subscription,
};
use coracle_store::{Action, Attach, Millis, Refusal, Reply, Revision, SessionId, View};
use http::{HeaderName, HeaderValue, StatusCode};

use super::call::{Call, Mutation, outcome};
use super::message::Response;
use super::problem::{Answer, Refused, bad_query, session_expired};
use super::read::Format;
use super::subscription::{VISIBILITY_MAX, VISIBILITY_MIN, receipt, receipt_text, results, texts};
use super::topic::of_topic;
use super::topic_hold::Consuming;
use super::turn::{Renewal, Renewed};
use super::{held, hold, kv};
use super::{respond, subscription, topic_read, wire};
use crate::edge::Edge;

/// Messages looked at before the cursor is moved past those that are for nobody.
const PASSED: usize = 1_024;

const RECEIPT: HeaderName = HeaderName::from_static("coracle-receipt");
const TOPIC: HeaderName = HeaderName::from_static("coracle-topic");
const SEQ: HeaderName = HeaderName::from_static("coracle-seq");
const DELIVERIES: HeaderName = HeaderName::from_static("coracle-deliveries");

/// `POST /v1/topics/{t}/subscriptions/{s}/receive`
pub async fn receive(mut call: Call) -> Answer {
    let received = Instant::now();
    let from = subscription::name(&call)?;
    let max = call.query.number("max", 1..=topic::RECEIVE as u64)?;
    let wait = call.wait()?;
    let visibility = call.query.span("visibility", VISIBILITY_MIN..=VISIBILITY_MAX)?;
    let ack = call.query.flag("ack")?.unwrap_or(false);
    let acks = texts(&mut call, "acks")?;
    let receipts = acks.iter().map(|text| receipt(text)).collect::<Answer<Vec<_>>>()?;
    let raw = call.format(&[("json", Format::Json), ("raw", Format::Raw)])? == Some(Format::Raw);
    if raw && max.is_some_and(|max| max > 1) {
        return Err(bad_query("max", "1 with format=raw: a bare body is one message"));
    }
    let ephemeral = kv::ephemeral(&mut call)?;
    let held = ephemeral.as_ref().and_then(|ephemeral| ephemeral.hold);
    let opening = hold::deliveries(&mut call, held, raw, !acks.is_empty())?;
    let (attach, private) = ephemeral.map_or((Attach::None, None), |it| (it.attach, it.private));
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let visibility = visibility.map(|it| Millis(it.as_millis()));
    let receive = Receive { from, attach, max: max.unwrap_or(1), visibility, acks: receipts, ack };
    if let (Some(opening), Attach::Private(open)) = (opening, &receive.attach) {
        // A stream of nothing would be open before it is told so.
        call.barrier().await?;
        if call.edge.node.read(|store| topic::show(store.view(), &receive.from).is_none()) {
            let revision = call.edge.node.read(coracle_store::Store::revision).0;
            return Err(super::topic::problem(&topic::Refusal::NoSubscription).at_revision(revision).into());
        }
        let (open, until) = (open.clone(), wait.map(|wait| received + wait.as_duration()));
        let caller = mutation.unconditional();
        let consuming = move |edge: Edge, session, revision| {
            let receive = Receive { attach: Attach::Session(session), ..receive };
            Consuming::new(Receiving::new(edge, receive, caller, received), session, revision)
        };
        return Box::pin(held::opened(call, opening, open, mutation, until, consuming)).await;
    }
    let wait = wait.unwrap_or_default();
    let receiving = Receiving::new(call.edge.clone(), receive, mutation, received);
    let mut receiving = Receiving { acks, private, raw, ..receiving };
    let mut answered = receiving.ask().await?;
    while answered.goes_on(wait, received) {
        answered = receiving.ask().await?;
    }
    if answered.is_final() || wait.is_zero() {
        return receiving.answer(answered).await;
    }
    let place = call.edge.park()?;
    drop(call);
    let end = received + wait.as_duration();
    Ok(respond::later(async move {
        let _place = place;
        receiving.wait(answered, end).await
    }))
}

/// One receive on its way.
pub struct Receiving {
    pub edge: Edge,
    pub receive: Receive,
    mutation: Mutation,
    /// How many entries were proposed. Each is a part of the call under its idempotency key, so that a retry finds what
    /// the call was given.
    part: u64,
    /// The receipts to acknowledge, as they were given.
    acks: Vec<String>,
    settled: Vec<bool>,
    private: Option<(SessionId, Span)>,
    /// Of the private session, once something hangs on it.
    renewal: Option<Renewal>,
    received: Instant,
    raw: bool,
    replayed: bool,
}

/// What the log answered.
pub enum Answered {
    Received(Revision, Received),
    /// Another session receives.
    Busy(Refused),
}

impl Answered {
    /// There is something to say.
    fn is_final(&self) -> bool {
        matches!(self, Self::Received(_, got) if !got.deliveries.is_empty() || got.gap.is_some())
    }

    /// There is more to look at, in another entry.
    fn goes_on(&self, wait: Span, received: Instant) -> bool {
        matches!(self, Self::Received(_, got) if got.more && got.gap.is_none())
            && (wait.is_zero() || received.elapsed() < wait.as_duration())
    }
}

impl Receiving {
    pub fn new(edge: Edge, receive: Receive, mutation: Mutation, received: Instant) -> Self {
        Self {
            edge,
            receive,
            mutation,
            part: 0,
            acks: Vec::new(),
            settled: Vec::new(),
            private: None,
            renewal: None,
            received,
            raw: false,
            replayed: false,
        }
    }

    /// Propose the receive.
    pub async fn ask(&mut self) -> Answer<Answered> {
        let operation = recipes::Operation::Topic(topic::Operation::Receive(self.receive.clone()));
        let mutation = self.mutation.part(self.part);
        self.part += 1;
        let given_back = GivenBack {
            edge: self.edge.clone(),
            name: self.receive.from.clone(),
            mutation: self.mutation.unconditional(),
            // A retry under the same key finds the deliveries, and wants to settle them.
            keep: self.mutation.idempotency.is_some() || self.receive.ack,
        };
        let command = mutation.command(Action::One(operation.encode()));
        let reply = given_back.propose(command).await?;
        if let Err(Refusal::Program(bytes)) = &reply.result
            && let Ok(recipes::Refusal::Topic(topic::Refusal::Consumed(..))) = recipes::Refusal::decode(bytes)
        {
            let refusal =
                super::problem::refused(reply.result.as_ref().expect_err("a refusal"), reply.revision);
            return Ok(Answered::Busy(refusal));
        }
        let (revision, replayed, outcome) = outcome(reply)?;
        let topic::Outcome::Received(got) = of_topic(&outcome)? else {
            return Err(super::call::unexpected(&outcome));
        };
        self.replayed |= replayed;
        // Acknowledged once, in the first entry that was not refused.
        if !self.receive.acks.is_empty() {
            self.receive.acks.clear();
            self.settled.clone_from(&got.acks);
        }
        if let Some((own, ttl)) = &mut self.private
            && let Some(session) = got.session
        {
            // A repeated call has the session of the one before it. It lives if something hangs on it: the place of
            // the one consumer, what was delivered.
            *own = session;
            self.edge.node.wait_revision(revision, self.edge.deadline()).await?;
            if self.edge.node.read(|store| store.session(session).is_some()) {
                self.receive.attach = Attach::Session(session);
                let renewal = Renewal::new(session, ttl.as_duration(), self.received);
                self.renewal.get_or_insert(renewal.found_again(replayed));
            } else {
                self.receive.attach = kv::Ephemeral::private(*ttl, None).attach;
                self.renewal = None;
            }
        }
        Ok(Answered::Received(revision, got))
    }

    /// Wait until there is something, at most until `end`.
    async fn wait(mut self, mut answered: Answered, end: Instant) -> Answer {
        let edge = self.edge.clone();
        let name = self.receive.from.clone();
        let line = edge.receivers.first(line_of(&name));
        let mut line = std::pin::pin!(line);
        let first = loop {
            tokio::select! {
                biased;
                () = edge.drained() => return Err(Edge::shutting_down()),
                first = &mut line => break first,
                () = at(self.renewal_at(end)) => {}
            }
            self.renew().await?;
            if Instant::now() >= end {
                return self.answer(answered).await;
            }
        };
        let mut messages = edge.node.watch(topic::messages(&name.subject));
        let mut back = edge.node.watch(topic::wake(&name));
        let mut seen = Seen::default();
        loop {
            let ready = edge.node.read(|store| seen.look(store.view(), &name, &self.receive.attach));
            match ready {
                Ready::Gone | Ready::Yes => {
                    answered = self.ask().await?;
                    if answered.is_final() {
                        drop(first);
                        return self.answer(answered).await;
                    }
                    if matches!(ready, Ready::Yes) {
                        continue;
                    }
                }
                Ready::More => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ready::No => {}
            }
            tokio::select! {
                biased;
                () = edge.drained() => return Err(Edge::shutting_down()),
                _ = messages.changed() => {}
                _ = back.changed() => {}
                () = at(self.renewal_at(end)) => {}
            }
            self.renew().await?;
            if Instant::now() >= end {
                return self.answer(answered).await;
            }
        }
    }

    /// When there is something to do beside waiting.
    fn renewal_at(&self, end: Instant) -> Instant {
        self.renewal.as_ref().map_or(end, |renewal| end.min(renewal.next))
    }

    /// Keep the private session alive, if it is.
    async fn renew(&mut self) -> Answer<()> {
        let Some(renewal) = &mut self.renewal else { return Ok(()) };
        if Instant::now() < renewal.next {
            return Ok(());
        }
        let session = renewal.session;
        if self.edge.node.read(|store| store.session(session).is_none()) {
            // Nothing hung on it, and it went with the entry that opened it.
            self.renewal = None;
            return Ok(());
        }
        match renewal.renew(&self.edge).await {
            Renewed::Good | Renewed::Later => Ok(()),
            Renewed::Lost(_) => Err(session_expired(session).into()),
        }
    }

    async fn answer(self, answered: Answered) -> Answer {
        let (revision, got) = match answered {
            Answered::Received(revision, got) => (revision, got),
            Answered::Busy(refused) => return Err(refused),
        };
        // Also of one that has become the one consumer, and got nothing yet.
        let own = self.private.is_some() && matches!(self.receive.attach, Attach::Session(_));
        let holds = got.session.filter(|_| own || !got.deliveries.is_empty());
        let valid_for = match (holds, self.private) {
            (None, _) => None,
            (Some(session), Some((_, ttl))) if self.received.elapsed() < ttl.as_duration() / 3 => {
                self.edge.renewals.note(session, self.received, ttl.as_duration());
                Some(ttl)
            }
            (Some(session), _) => Some(self.edge.valid_for(session).await),
        };
        let response = if self.raw {
            bare(revision, got.deliveries.first(), holds)
        } else {
            let body = api::TopicReceived {
                items: got.deliveries.iter().map(delivery).collect(),
                acks: results(self.acks, &self.settled),
                gap: got.gap.map(|(from, to)| api::Gap { from, to }),
                session: holds.map(wire::session),
                valid_for,
                revision: revision.0,
            };
            respond::json(StatusCode::OK, revision, &body)
        };
        Ok(respond::replayed(response, self.replayed))
    }
}

/// The name of the line of those who receive through this node.
pub fn line_of(name: &Name) -> String {
    format!("{}\n{}", name.subject, name.name)
}

async fn at(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}

/// Whether to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Yes,
    No,
    /// There is more to look at.
    More,
    /// The subscription: the log will say so.
    Gone,
}

/// How far a waiting receiver has looked.
#[derive(Default)]
pub struct Seen {
    cursor: Place,
    upto: Place,
    passed: usize,
}

impl Seen {
    /// Look whether a receive would get something: each message is looked at once.
    pub fn look(&mut self, view: View<'_>, name: &Name, attach: &Attach) -> Ready {
        let Some(it) = topic::show(view, name) else { return Ready::Gone };
        let session = match attach {
            Attach::Session(id) => Some(*id),
            Attach::Private(open) => Some(open.id),
            Attach::None | Attach::Keep => None,
        };
        if topic::consumer(view, name).is_some_and(|(consumer, ..)| Some(consumer) != session) {
            return Ready::No;
        }
        self.follow(&it);
        let pending = topic::pending(view, name, &it, self.upto, PASSED);
        self.upto = pending.upto;
        self.passed += pending.looked;
        if pending.ready || self.passed >= PASSED {
            // Either there is something, or the cursor is to be moved past what is for nobody.
            self.passed = 0;
            return Ready::Yes;
        }
        if pending.end { Ready::No } else { Ready::More }
    }

    fn follow(&mut self, it: &Subscription) {
        if it.cursor != self.cursor || self.upto == Place::default() {
            *self = Self { cursor: it.cursor, upto: it.cursor, passed: 0 };
        }
    }
}

/// Gives back what was handed out if nobody is there any more to be told.
struct GivenBack {
    edge: Edge,
    name: Name,
    mutation: Mutation,
    keep: bool,
}

impl GivenBack {
    async fn propose(self, command: coracle_store::Command) -> Answer<Reply> {
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let reply = self.edge.node.propose(&command, self.edge.deadline()).await;
            if let Err(Ok(reply)) = tell.send(reply)
                && !self.keep
            {
                self.give_back(reply).await;
            }
        });
        match told.await {
            Ok(reply) => Ok(reply?),
            Err(_) => Err(Circumstance::ShuttingDown.into()),
        }
    }

    async fn give_back(self, reply: Reply) {
        let Ok(topic::Outcome::Received(got)) =
            reply.result.map_err(|_| ()).and_then(|it| of_topic(&it).map_err(|_| ()))
        else {
            return;
        };
        let receipts: Vec<Receipt> = got.deliveries.iter().map(|delivery| delivery.receipt).collect();
        if receipts.is_empty() {
            return;
        }
        let nack = Settle::Nack(Nack { uncounted: true, ..Nack::default() });
        let settle = recipes::Operation::Topic(topic::Operation::Settle(self.name, receipts, nack)).encode();
        let command = self.mutation.command(Action::One(settle));
        if self.edge.node.propose(&command, self.edge.deadline()).await.is_err() {
            tracing::warn!("deliveries of a receiver that went away come back after their visibility");
        }
    }
}

pub fn delivery(delivery: &Delivery) -> api::TopicDelivery {
    api::TopicDelivery {
        receipt: receipt_text(delivery.receipt),
        deliveries: delivery.deliveries,
        until: delivery.until.map(|at| api::Instant::from_unix_ms(at.0)),
        message: topic_read::message(&found(delivery)),
    }
}

fn found(delivery: &Delivery) -> Found {
    Found {
        topic: (*delivery.topic).into(),
        place: delivery.receipt.place,
        content_type: delivery.content_type.clone(),
        message: delivery.message.clone(),
    }
}

/// One message without an envelope; 204 if there is none.
fn bare(revision: Revision, got: Option<&Delivery>, session: Option<SessionId>) -> Response {
    let Some(got) = got else {
        let mut response = respond::not_modified(revision);
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    };
    let mut response = topic_read::bare(revision, &found(got));
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, text: String| {
        // A topic may have a name that no header can carry.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    set(RECEIPT, receipt_text(got.receipt));
    set(TOPIC, percent_encoding::utf8_percent_encode(&got.topic, NOT_IN_A_HEADER).to_string());
    set(SEQ, got.receipt.place.seq.to_string());
    set(DELIVERIES, got.deliveries.to_string());
    if let Some(session) = session {
        set(HeaderName::from_static("coracle-session"), session.to_string());
    }
    response
}

const NOT_IN_A_HEADER: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
