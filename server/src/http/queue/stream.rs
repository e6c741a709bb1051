//! ⑦ `receive?hold=true`: a stream of deliveries that lives with its connection.
//!
//! At most `max` messages are unsettled at a time; each one that is settled makes room for the next. They depend on the
//! session of the connection: when it goes, so do they, back to the queue.

use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_api::{ByeReason, HoldFrame, Problem, Span};
use coracle_recipes as recipes;
use coracle_recipes::queue::{self, Delivered, Operation, Outcome, Receive, Terms, Ticket, Turn};
use coracle_store::command::OpenSession;
use coracle_store::{Attach, Key, Revision, Selection, SessionId};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::super::call::{Call, Mutation, outcome};
use super::super::frame::{self, Frames};
use super::super::hold;
use super::super::problem::Answer;
use super::super::turn::{Renewal, Renewed, Withdrawal};
use super::super::wire as ids;
use super::{delivered, odd, receive, said, shown};
use crate::edge::{Admitted, Edge};

/// Open the session of the connection, then the stream.
pub async fn open(
    call: Call,
    opening: hold::Opening,
    open: OpenSession,
    mutation: Mutation,
    queue: String,
    terms: Terms,
    until: Option<Instant>,
) -> Answer {
    let received = Instant::now();
    let (session, ttl) = (open.id, Duration::from_millis(open.ttl.0));
    let (edge, unconditional) = (call.edge.clone(), mutation.unconditional());
    let reply = call.propose(mutation, coracle_store::Operation::OpenSession(open)).await?;
    let (revision, ..) = outcome(reply)?;
    drop(call);
    edge.renewals.note(session, received, ttl);
    let closing =
        Withdrawal::new(&edge, unconditional.clone(), coracle_store::Operation::CloseSession(session));
    let hold::Opened { sse, at_once, place } = opening.opened();
    let mut feed = Feed {
        edge,
        queue,
        terms,
        session,
        mutation: unconditional,
        until,
        renewal: Renewal::new(session, ttl, received),
        ticket: None,
        frames: Frames::new(sse),
        closing,
        ended: false,
        _place: place,
    };
    if !at_once {
        feed.closing.settle();
    }
    let (valid_for, ttl) = (feed.renewal.valid_for().into(), Span::from(ttl));
    let opened = HoldFrame::Opened { session: ids::session(session), ttl, valid_for };
    feed.frames.object("opened", &opened);
    let stream =
        futures::stream::unfold(feed, |mut feed| async move { feed.next().await.map(|bytes| (bytes, feed)) });
    Ok(frame::response(sse, revision, stream))
}

struct Feed {
    edge: Edge,
    queue: String,
    terms: Terms,
    session: SessionId,
    mutation: Mutation,
    /// How long to wait for the first message.
    until: Option<Instant>,
    renewal: Renewal,
    /// Its place in the line, while it is there.
    ticket: Option<Ticket>,
    frames: Frames,
    /// Closes the session when the stream is dropped, if asked for.
    closing: Withdrawal,
    ended: bool,
    _place: Admitted,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.frames.is_empty() {
                return Some(self.frames.take());
            }
            if self.ended {
                return None;
            }
            if let Err(refused) = self.step().await {
                self.fail(&refused.0);
            }
        }
    }

    async fn step(&mut self) -> Answer<()> {
        if let Some(ticket) = self.ticket {
            return match self.turn(ticket) {
                Turn::Waiting => self.pause(vec![queue::watched(&self.queue, ticket)]).await,
                Turn::Assigned | Turn::Gone => self.collect(ticket).await,
            };
        }
        let flights = self.flights();
        let room = (self.terms.max as usize).saturating_sub(flights.len());
        if room == 0 {
            return self.pause(flights).await;
        }
        let terms = Terms { max: u32::try_from(room).unwrap_or(1), ..self.terms };
        let receive = Receive {
            queue: self.queue.as_str().into(),
            terms,
            attach: Attach::Session(self.session),
            wait: true,
            acks: Vec::new(),
        };
        let deadline = self.edge.deadline();
        let reply = receive::propose(&self.edge, &self.mutation, receive, deadline).await?;
        let (revision, _, outcome) = said(reply)?;
        match outcome {
            Outcome::Delivered(delivered) => self.deliver(revision, delivered).await,
            Outcome::Waiting(ticket, ..) => {
                self.edge.node.wait_revision(revision, deadline).await?;
                self.ticket = Some(ticket);
                Ok(())
            }
            other => Err(odd(other)),
        }
    }

    fn turn(&self, ticket: Ticket) -> Turn {
        self.edge.node.read(|store| queue::turn(store.view(), &self.queue, ticket))
    }

    /// What it has in flight.
    fn flights(&self) -> Vec<Key> {
        self.edge.node.read(|store| queue::flights(store.view(), &self.queue, self.session))
    }

    async fn collect(&mut self, ticket: Ticket) -> Answer<()> {
        self.ticket = None;
        match receive::collect(&self.edge, &self.mutation, &self.queue, ticket).await {
            Ok((revision, _, Outcome::Delivered(delivered))) => self.deliver(revision, delivered).await,
            Ok((revision, _, Outcome::Waiting(..))) => {
                self.edge.node.wait_revision(revision, self.edge.deadline()).await?;
                self.ticket = Some(ticket);
                Ok(())
            }
            Ok((_, _, other)) => Err(odd(other)),
            // It came too late; or the session has ended, as the next renewal will tell.
            Err(refused) if refused.0.code == coracle_api::Code::SessionExpired => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    async fn deliver(&mut self, revision: Revision, got: Delivered) -> Answer<()> {
        self.edge.node.wait_revision(revision, self.edge.deadline()).await?;
        if got.messages.is_empty() {
            return Ok(());
        }
        self.until = None;
        let mut items: Vec<_> =
            got.messages.iter().map(|message| shown::delivery(message, got.session)).collect();
        self.edge.node.read(|store| {
            for item in &mut items {
                delivered::fill(store, &self.queue, item);
            }
        });
        let session = ids::session(self.session);
        self.frames.object("delivered", &HoldFrame::Delivered { session, items });
        Ok(())
    }

    /// Until one of these keys changes, or the session is to be renewed.
    async fn pause(&mut self, keys: Vec<Key>) -> Answer<()> {
        let watches: Vec<_> =
            keys.iter().map(|key| self.edge.node.watch(Selection::Key(key.clone()))).collect();
        // Something may have happened between the look and the registration.
        let stale = match self.ticket {
            Some(ticket) => self.turn(ticket) != Turn::Waiting,
            None => self.flights() != keys,
        };
        if stale {
            return Ok(());
        }
        let mut changes: FuturesUnordered<_> = watches
            .into_iter()
            .map(|mut watch| async move {
                watch.changed().await;
            })
            .collect();
        let alarm = self.until.map_or(self.renewal.next, |until| until.min(self.renewal.next));
        tokio::select! {
            biased;
            () = self.edge.drained() => {
                self.send("bye", &HoldFrame::Bye { reason: ByeReason::Shutdown });
                self.end();
                return Ok(());
            }
            _ = changes.next() => return Ok(()),
            () = tokio::time::sleep_until(alarm.into()) => {}
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            let leave = self.ticket.map(|ticket| Operation::Leave(self.queue.as_str().into(), ticket));
            if let Some(leave) = leave {
                let leave = recipes::Operation::Queue(leave).encode();
                drop(Withdrawal::new(&self.edge, self.mutation.clone(), leave));
            }
            self.lost("timeout");
            return Ok(());
        }
        match self.renewal.renew(&self.edge).await {
            Renewed::Good => {
                let valid_for = self.renewal.valid_for().into();
                self.send("held", &HoldFrame::Held { valid_for });
            }
            Renewed::Later => {}
            Renewed::Lost(reason) => self.lost(reason),
        }
        Ok(())
    }

    fn send(&mut self, kind: &'static str, frame: &HoldFrame) {
        self.frames.object(kind, frame);
    }

    fn lost(&mut self, reason: &str) {
        self.edge.renewals.forget(self.session);
        self.send("lost", &HoldFrame::Lost { reason: reason.to_owned(), detail: None });
        self.end();
    }

    fn fail(&mut self, problem: &Problem) {
        self.frames.error(problem);
        self.end();
    }

    /// The session keeps its grace.
    fn end(&mut self) {
        self.closing.settle();
        self.ended = true;
    }
}
