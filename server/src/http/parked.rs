//! ⑥ A claim that waits in its line: what is left of its request, and how it is answered.

use std::time::Instant;

use coracle_api::Span;
use coracle_recipes::Turn;
use coracle_store::{Revision, SessionId, Store};

use super::call::Mutation;
use super::claim::{self, Kind, Missed, NotMade, Proposed, Standing};
use super::message::Response;
use super::problem::{Answer, session_expired};
use super::respond;
use super::turn::{Following, Renewed, Step, TurnOf, Withdrawal};
use crate::edge::{Admitted, Edge};

/// A claim in the line whose caller waits.
///
/// Thousands of these are there at once: what is rarely needed is boxed where it is called.
pub struct Parked<K: Kind> {
    pub following: Following<K>,
    /// Armed until the caller is answered, or as long as the claim may be in the line after an error.
    pub withdrawal: Withdrawal,
    /// To stand in line again.
    pub mutation: Mutation,
    /// The private session that was proposed, and its ttl.
    pub private: Option<(SessionId, Span)>,
    pub received: Instant,
    /// Until when to wait.
    pub end: Instant,
    pub keep: bool,
    pub replayed: bool,
    pub place: Option<Admitted>,
}

impl<K: Kind> Parked<K> {
    /// Wait for the turn or the end, and answer.
    ///
    /// # Errors
    /// The problem of a wait that ran out, and all that can go wrong.
    pub async fn answer(mut self) -> Answer {
        let turn = self.wait().await;
        let answer = Box::pin(self.answered(turn)).await;
        // An error of unknown effect leaves the withdrawal armed: the claim may be in the line.
        if answer.is_ok() {
            self.withdrawal.settle();
        }
        answer
    }

    /// Wait until it is no longer somebody else's turn; `Ok(None)` at the end of the time.
    async fn wait(&mut self) -> Answer<Option<TurnOf<K>>> {
        // It may have changed since the log answered.
        let mut turn = self.following.turn();
        loop {
            match turn {
                Turn::Waiting(_) if Instant::now() >= self.end => return Ok(None),
                Turn::Waiting(_) => {}
                Turn::Granted(_) | Turn::Gone => return Ok(Some(turn)),
            }
            turn = loop {
                match self.following.step(Some(self.end)).await {
                    Step::Turn(now) => break now,
                    Step::Time => return Ok(None),
                    Step::Renewed => {}
                    Step::Lost(_) => return Err(session_expired(self.following.session).into()),
                    Step::Draining => return Err(Edge::shutting_down()),
                }
            };
        }
    }

    async fn answered(&mut self, mut turn: Answer<Option<TurnOf<K>>>) -> Answer {
        loop {
            match turn? {
                None => {
                    self.place = None;
                    return self.time_is_up().await;
                }
                Some(Turn::Granted(grant)) => return self.granted(&grant).await,
                Some(Turn::Waiting(_)) => {}
                Some(Turn::Gone) => {
                    if let Some(answer) = self.stand_again().await? {
                        return Ok(answer);
                    }
                }
            }
            turn = self.wait().await;
        }
    }

    /// Somebody took the claim back: a retry's forerunner that timed out, or the session itself. As long as the session
    /// lives the call stands in line again; answers if it is granted at once.
    async fn stand_again(&mut self) -> Answer<Option<Response>> {
        let (edge, session) = (self.following.edge.clone(), self.following.session);
        let alive = edge.node.read(|store| store.session(session).is_some());
        let may_begin_anew = self.replayed && self.private.is_some();
        if !alive && !may_begin_anew {
            return Err(session_expired(session).into());
        }
        let deadline = edge.deadline();
        let kind = &self.following.kind;
        let Proposed { revision, replayed, turn } =
            match claim::propose(&edge, kind, self.mutation.clone(), deadline).await {
                Ok(proposed) => proposed,
                Err(NotMade::Refused(refused)) => return Err(refused),
                Err(NotMade::Missed(missed, revision)) => {
                    return claim::answer_missed(&edge, kind, revision, missed).await.map(Some);
                }
            };
        self.replayed |= replayed;
        match turn {
            Turn::Granted(grant) => {
                let holder = kind.holder(&grant);
                let valid_for = if kind.ends(&grant) {
                    Span::ZERO
                } else {
                    claim::first_validity(&edge, self.private, holder, self.received).await
                };
                Ok(Some(respond::replayed(kind.granted(revision, &grant, valid_for), self.replayed)))
            }
            Turn::Waiting(place) => {
                let session = kind.standing(&place).session;
                self.following.resume(session, revision, deadline).await?;
                Ok(None)
            }
            Turn::Gone => kind.missed(revision, Missed::default()).map(Some),
        }
    }

    /// The turn came while waiting.
    async fn granted(&mut self, grant: &K::Grant) -> Answer {
        let edge = self.following.edge.clone();
        let holder = self.following.kind.holder(grant);
        let revision = edge.node.read(Store::revision);
        let ends = self.following.kind.ends(grant);
        let valid_for = match self.following.renewal() {
            _ if ends => Span::ZERO,
            Some(renewal) => match renewal.renew(&edge).await {
                Renewed::Lost(_) => return Err(session_expired(holder).into()),
                Renewed::Good | Renewed::Later => renewal.valid_for().into(),
            },
            None => edge.valid_for(holder).await,
        };
        Ok(respond::replayed(self.following.kind.granted(revision, grant, valid_for), self.replayed))
    }

    /// The wait is over and it is still somebody else's turn.
    async fn time_is_up(&mut self) -> Answer {
        let edge = self.following.edge.clone();
        let revision = edge.node.read(Store::revision);
        let Turn::Waiting(place) = self.following.turn() else { return self.settled_late().await };
        let mut standing = self.following.kind.standing(&place);
        if self.keep {
            return Ok(self.kept(revision, standing).await);
        }
        let withdraw = self.following.kind.withdrawal(standing.session).encode();
        let command = self.mutation.unconditional().command(coracle_store::Action::One(withdraw));
        let deadline = edge.deadline();
        let reply = edge.node.propose(&command, deadline).await?;
        self.withdrawal.settle();
        edge.node.wait_revision(reply.revision, deadline).await?;
        if let Turn::Granted(grant) = self.following.turn()
            && self.following.kind.holds_good(&grant)
        {
            return self.settled_late().await;
        }
        claim::fill_in_validity(&edge, &mut standing.blockers).await;
        let missed = Missed {
            position: Some(standing.position),
            waiting: standing.position - 1,
            blockers: standing.blockers,
            closed_until: standing.closed_until,
        };
        self.following.kind.missed(reply.revision, missed)
    }

    async fn kept(&mut self, revision: Revision, mut standing: Standing) -> Response {
        let edge = self.following.edge.clone();
        let valid_for = match self.following.renewal() {
            Some(renewal) => renewal.valid_for().into(),
            None => edge.valid_for(standing.session).await,
        };
        claim::fill_in_validity(&edge, &mut standing.blockers).await;
        respond::replayed(self.following.kind.kept(revision, standing, valid_for), self.replayed)
    }

    /// The turn came in the last moment.
    async fn settled_late(&mut self) -> Answer {
        match self.following.turn() {
            Turn::Granted(grant) => self.granted(&grant).await,
            Turn::Waiting(_) | Turn::Gone => Err(session_expired(self.following.session).into()),
        }
    }
}
