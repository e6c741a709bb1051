//! ⑥ A receiver that waits in the line: what is left of its request, and how it is answered.

use std::time::Instant;

use coracle_api::Span;
use coracle_recipes as recipes;
use coracle_recipes::queue::{self, Delivered, Operation, Outcome, Ticket, Turn};
use coracle_store::{Attach, Selection, SessionId};

use super::super::call::Mutation;
use super::super::kv::Ephemeral;
use super::super::problem::{Answer, session_expired};
use super::super::turn::{Renewal, Renewed, Withdrawal};
use super::delivered::Shape;
use super::receive::{collect, propose, withdrawal};
use super::{odd, said};
use crate::edge::{Admitted, Edge};
use crate::http::message::Response;

/// A receiver in line whose caller waits.
pub struct Parked {
    pub edge: Edge,
    pub shape: Shape,
    pub receive: queue::Receive,
    pub ticket: Ticket,
    pub session: SessionId,
    pub bound: bool,
    pub mutation: Mutation,
    /// Of its private session.
    pub renewal: Option<Renewal>,
    pub withdrawal: Withdrawal,
    pub acked: Vec<bool>,
    pub end: Instant,
    pub replayed: bool,
    pub place: Option<Admitted>,
}

impl Parked {
    /// Wait for something or the end, and answer.
    ///
    /// # Errors
    /// All that can go wrong while it waits; nothing to be had is none of it.
    pub async fn answer(mut self) -> Answer {
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
