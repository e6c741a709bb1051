//! ① A claim with a line behind it: try, wait, keep, hold. The same for locks, semaphores, elections, receives, entries.
//!
//! A kind of claim says how it is proposed, found in the store and answered ([`Kind`]); all else is here. A request
//! has two lives: [`make`] reads and proposes; if it then has to wait, what is left of it is a [`Parked`], which
//! knows neither the query, nor the headers, nor the body.

use std::time::Instant;

use coracle_api::{self as api, HoldFrame, Span};
use coracle_recipes::{self as recipes, Turn};
use coracle_store::{Attach, Key, Outcome, Refusal, Revision, SessionId, Store, Timestamp};
use http::StatusCode;

use super::call::{Call, Mutation, outcome, unexpected};
use super::frame::Frames;
use super::held::InLine;
use super::hold::{self, Claimed, Hold};
use super::kv;
use super::message::Response;
use super::parked::Parked;
use super::problem::{Answer, Refused, bad_query};
use super::turn::{Following, Renewal, TurnOf, Undo, Withdrawal};
use super::{respond, wire};
use crate::edge::Edge;

/// A kind of claim, with what this one asks for.
///
/// The claim is one or several keys attached to its session. What happens to them wakes who waits; that they are gone
/// does not have to mean that the claim is: [`Kind::poll`] says what is so.
pub trait Kind: Send + Sync + 'static {
    /// What is granted.
    type Grant: Send + Sync + 'static;
    /// A place in the line.
    type Place: Send + Sync + 'static;

    /// What makes the claim. Made again by the same session it is the same claim, however it stands by then.
    fn operation(&self) -> recipes::Operation;

    /// What takes the claim back if it is still in the line, and does nothing otherwise.
    fn withdrawal(&self, session: SessionId) -> recipes::Operation;

    /// How the claim stands by the answer of the log; `None` for an answer to something else. [`Turn::Gone`] is for kinds
    /// that answer a try that got nothing with an outcome and not with a refusal.
    fn turn(&self, outcome: recipes::Outcome) -> Option<TurnOf<Self>>
    where
        Self: Sized;

    /// The refusal of a try that has somebody in its way; `None` for any other refusal.
    fn in_the_way(&self, refusal: recipes::Refusal) -> Option<Missed>;

    /// What the keys of the claim begin with, family byte first: one for each object that it is about.
    fn prefixes(&self) -> Vec<Vec<u8>>;

    /// How the session's claim stands. `last` is the first key that it had, perhaps no more.
    fn poll(&self, store: &Store, session: SessionId, last: Option<&Key>) -> TurnOf<Self>
    where
        Self: Sized;

    /// Whose the grant is.
    fn holder(&self, grant: &Self::Grant) -> SessionId;

    /// Whether a grant that is found after the claim was taken back is one. Not if taking it back is what decided it.
    fn holds_good(&self, _: &Self::Grant) -> bool {
        true
    }

    /// Since when it is held, if that is longer than it should be.
    fn overdue(&self, _: &Self::Grant) -> Option<api::Instant> {
        None
    }

    /// Whether the claim is over with its grant: nothing is held that has to be kept alive.
    fn ends(&self, _: &Self::Grant) -> bool {
        false
    }

    /// What is to say about a place.
    fn standing(&self, place: &Self::Place) -> Standing;

    /// The answer with the grant, from a state at a revision.
    fn granted(&self, revision: Revision, grant: &Self::Grant, valid_for: Span) -> Response;

    /// The 202: the place is kept.
    fn kept(&self, revision: Revision, standing: Standing, valid_for: Span) -> Response {
        let Standing { session, position, blockers, closed_until } = standing;
        let session = wire::session(session);
        let closed_until = closed_until.map(|Timestamp(at)| api::Instant::from_unix_ms(at));
        let body = api::Waiting { session, position, valid_for, blockers, closed_until };
        respond::json(StatusCode::ACCEPTED, revision, &body)
    }

    /// The answer of one that did not get it.
    ///
    /// # Errors
    /// The problem, where it is one.
    fn missed(&self, revision: Revision, missed: Missed) -> Answer;

    /// The frame of a stream whose claim was granted.
    fn acquired(&self, frames: &mut Frames, grant: &Self::Grant, valid_for: Span);

    /// The frame of a stream that is in the line.
    fn waiting(&self, frames: &mut Frames, standing: Standing) {
        let Standing { position, blockers, .. } = standing;
        frames.object("waiting", &HoldFrame::Waiting { position, blockers });
    }
}

/// A place in the line.
#[derive(Debug, Clone)]
pub struct Standing {
    pub session: SessionId,
    /// 1 is next.
    pub position: u64,
    /// Without the time they are good for: that is filled in where somebody will read it.
    pub blockers: Vec<api::Blocker>,
    /// Nothing is granted before this moment.
    pub closed_until: Option<Timestamp>,
}

impl Standing {
    /// The place in a line; `blocker` shows a holder in its way.
    pub fn of<T: recipes::Terms>(
        place: &recipes::Place<T>,
        blocker: impl Fn(&recipes::Hold<T>) -> api::Blocker,
    ) -> Self {
        let blockers = place.blockers.iter().map(blocker).collect();
        let (session, position, closed_until) = (place.session, place.position, place.closed_until);
        Self { session, position, blockers, closed_until }
    }
}

/// Somebody in the way, as far as all kinds of lines know.
pub fn blocker<T: recipes::Terms>(hold: &recipes::Hold<T>) -> api::Blocker {
    api::Blocker {
        session: wire::session(hold.session),
        owner: wire::optional(&hold.owner),
        token: (hold.token.0 > 0).then_some(hold.token.0),
        since: api::Instant::from_unix_ms(hold.since.0),
        valid_for: None,
        mode: None,
        permits: None,
    }
}

/// The one consumer in the way.
pub fn consumer(session: SessionId, token: Revision, since: Timestamp) -> api::Blocker {
    api::Blocker {
        session: wire::session(session),
        owner: None,
        token: Some(token.0),
        since: api::Instant::from_unix_ms(since.0),
        valid_for: None,
        mode: None,
        permits: None,
    }
}

/// Who is in the way, as a detail says it.
pub fn held_by(blockers: &[api::Blocker]) -> String {
    let name = |by: &api::Blocker| by.owner.clone().unwrap_or_else(|| by.session.to_string());
    blockers.first().map(name).unwrap_or_default()
}

/// Why it was not granted.
#[derive(Debug, Clone, Default)]
pub struct Missed {
    /// Where it stood when the wait ran out; `None` of a try.
    pub position: Option<u64>,
    /// How many waited, this one not counted.
    pub waiting: u64,
    pub blockers: Vec<api::Blocker>,
    /// Nothing is granted before this moment.
    pub closed_until: Option<Timestamp>,
}

impl Missed {
    /// A try.
    pub fn now(waiting: u64, blockers: Vec<api::Blocker>) -> Self {
        Self { position: None, waiting, blockers, closed_until: None }
    }

    /// What all problems of lines tell; `code`'s detail is made of what is held, such as `lock=deploy`.
    pub fn problem(self, code: api::Code, what: &str, revision: Revision) -> api::Problem {
        let Self { position, waiting, blockers, closed_until } = self;
        let detail = match closed_until {
            Some(_) if blockers.is_empty() => format!("{what} closed for now waiting={waiting}"),
            _ if blockers.first().is_some_and(|by| by.token.is_none()) => {
                format!("{what} behind={} waiting={waiting}", held_by(&blockers))
            }
            _ => format!("{what} held by={} waiting={waiting}", held_by(&blockers)),
        };
        let mut problem = api::Problem::new(code, detail)
            .with("blockers", blockers)
            .with("waiting", waiting)
            .at_revision(revision.0);
        if let Some(position) = position {
            problem = problem.with("position", position);
        }
        if let Some(Timestamp(at)) = closed_until {
            problem = problem.with("closed_until", api::Instant::from_unix_ms(at));
        }
        problem
    }
}

/// What every claim may ask for: its session, and how long to wait.
pub struct Asked {
    pub attach: Attach,
    /// The private session and its ttl, if one is opened.
    private: Option<(SessionId, Span)>,
    hold: Option<Hold>,
    wait: Option<Span>,
    keep: bool,
}

impl Asked {
    /// The parameters `wait`, `keep`, `session`, `ttl`, `hold`, `on_disconnect`. `private` is the ttl of the private
    /// session of one that names none; `None` requires one of `session`, `ttl` and `hold=true`.
    ///
    /// # Errors
    /// Those of the parameters.
    pub fn of(call: &mut Call, private: Option<Span>) -> Answer<Self> {
        let wait = call.wait()?;
        let keep = call.query.flag("keep")?.unwrap_or(false);
        let ephemeral = match (kv::ephemeral(call)?, private) {
            (Some(ephemeral), _) => ephemeral,
            (None, Some(ttl)) => kv::Ephemeral::private(ttl, None),
            (None, None) => {
                return Err(bad_query("session", "one of session, ttl and hold=true is required"));
            }
        };
        if keep && ephemeral.hold.is_some() {
            return Err(bad_query("keep", "not together with hold: the connection keeps the place"));
        }
        let kv::Ephemeral { attach, private, hold } = ephemeral;
        Ok(Self { attach, private, hold, wait, keep })
    }

    /// Whether the claim shall join the line if it is not granted at once.
    pub fn waits(&self) -> bool {
        self.keep || self.wait.map_or(self.hold.is_some(), |wait| !wait.is_zero())
    }

    fn claimant(&self) -> SessionId {
        match &self.attach {
            Attach::Session(id) => *id,
            Attach::Private(open) => open.id,
            Attach::None | Attach::Keep => SessionId(0),
        }
    }
}

/// Make a claim by a request received at `received`, and answer it when that can be done.
///
/// # Errors
/// The problem of a claim that is not granted, and all that can go wrong.
pub async fn make<K: Kind>(mut call: Call, asked: Asked, body: &[u8], kind: K, received: Instant) -> Answer {
    let opening = asked.hold.map(|hold| hold::opening(&mut call, hold)).transpose()?;
    let mutation = call.mutation(body)?;
    // Whoever goes away while the answer of the log is under way leaves no ghost in the line either.
    let mut withdrawal = withdrawal(&call.edge, &asked, &mutation, &kind);
    let proposed = propose(&call.edge, &kind, mutation.clone(), call.deadline).await;
    let Proposed { revision, replayed, turn } = match proposed {
        Ok(proposed) => proposed,
        Err(NotMade::Missed(missed, revision)) => {
            withdrawal.settle();
            return answer_missed(&call.edge, &kind, revision, missed).await;
        }
        Err(NotMade::Refused(refused)) => {
            if refused.0.effect == api::Effect::None || asked.keep {
                withdrawal.settle();
            }
            return Err(refused);
        }
    };
    let session = match &turn {
        Turn::Granted(grant) => kind.holder(grant),
        Turn::Waiting(place) => kind.standing(place).session,
        Turn::Gone => asked.claimant(),
    };
    if let Some(opening) = opening {
        let (edge, deadline) = (call.edge.clone(), call.fresh_deadline());
        let following = Following::new(edge, kind, session, revision, None, deadline).await?;
        withdrawal.settle();
        let until = asked.wait.map(|wait| received + wait.as_duration());
        let claimed = Claimed { session, revision, received, until };
        return Ok(hold::stream(call, opening, claimed, InLine::new(following)));
    }
    let place = match turn {
        Turn::Granted(grant) => {
            withdrawal.settle();
            let valid_for = if kind.ends(&grant) {
                Span::ZERO
            } else {
                first_validity(&call.edge, asked.private, session, received).await
            };
            return Ok(respond::replayed(kind.granted(revision, &grant, valid_for), replayed));
        }
        Turn::Gone => {
            withdrawal.settle();
            let answer = kind.missed(revision, Missed::default())?;
            return Ok(respond::replayed(answer, replayed));
        }
        Turn::Waiting(_) => call.edge.park()?,
    };
    let renewal = asked.private.map(|(_, ttl)| Renewal::new(session, ttl.as_duration(), received));
    let renewal = renewal.map(|renewal| renewal.found_again(replayed));
    let deadline = call.fresh_deadline();
    let edge = call.edge.clone();
    drop(call);
    let parked = Parked {
        following: Following::new(edge, kind, session, revision, renewal, deadline).await?,
        withdrawal,
        mutation: Mutation { idempotency: None, ..mutation },
        private: asked.private,
        received,
        end: received + asked.wait.unwrap_or_default().as_duration(),
        keep: asked.keep,
        replayed,
        place: Some(place),
    };
    Ok(respond::later(parked.answer()))
}

/// What takes the claim back if nobody is there to be answered.
fn withdrawal<K: Kind>(edge: &Edge, asked: &Asked, mutation: &Mutation, kind: &K) -> Withdrawal {
    let undo = match asked.private {
        // Nobody knows the session's id yet.
        Some((session, _)) => Undo::Close(session),
        None => Undo::Program(kind.withdrawal(asked.claimant()).into()),
    };
    let mut withdrawal = Withdrawal::new(edge, mutation.unconditional(), undo);
    // A kept place stays; a private session with an Idempotency-Key is found again by the retry, or runs out.
    if asked.keep || (asked.private.is_some() && mutation.idempotency.is_some()) {
        withdrawal.settle();
    }
    withdrawal
}

/// What the log answered to a claim.
pub struct Proposed<T> {
    pub revision: Revision,
    pub replayed: bool,
    pub turn: T,
}

/// Why there is no claim.
pub enum NotMade {
    /// Somebody is in the way, and the claim was not to wait.
    Missed(Missed, Revision),
    Refused(Refused),
}

/// Make the claim, or ask how it stands.
///
/// # Errors
/// See [`NotMade`].
pub async fn propose<K: Kind>(
    edge: &Edge,
    kind: &K,
    mutation: Mutation,
    deadline: Instant,
) -> Result<Proposed<TurnOf<K>>, NotMade> {
    let command = mutation.command(coracle_store::Action::One(kind.operation().encode()));
    let reply =
        edge.node.propose(&command, deadline).await.map_err(|error| NotMade::Refused(error.into()))?;
    if let Err(Refusal::Program(bytes)) = &reply.result
        && let Ok(refusal) = recipes::Refusal::decode(bytes)
        && let Some(missed) = kind.in_the_way(refusal)
    {
        return Err(NotMade::Missed(missed, reply.revision));
    }
    let (revision, replayed, outcome) = outcome(reply).map_err(NotMade::Refused)?;
    let Outcome::Program(bytes) = &outcome else { return Err(NotMade::Refused(unexpected(&outcome))) };
    match recipes::Outcome::decode(bytes).ok().and_then(|outcome| kind.turn(outcome)) {
        Some(turn) => Ok(Proposed { revision, replayed, turn }),
        None => Err(NotMade::Refused(unexpected(&outcome))),
    }
}

/// How long the session of a claim that was granted at once is good for.
pub async fn first_validity(
    edge: &Edge,
    private: Option<(SessionId, Span)>,
    session: SessionId,
    received: Instant,
) -> Span {
    match private {
        Some((id, ttl)) if id == session => {
            edge.renewals.note(session, received, ttl.as_duration());
            ttl
        }
        _ => edge.valid_for(session).await,
    }
}

/// The answer of one that did not get it, with the time for which those in the way are good.
pub async fn answer_missed<K: Kind>(edge: &Edge, kind: &K, revision: Revision, mut missed: Missed) -> Answer {
    fill_in_validity(edge, &mut missed.blockers).await;
    kind.missed(revision, missed)
}

/// Fill in how long the sessions in the way are good for.
pub async fn fill_in_validity(edge: &Edge, blockers: &mut [api::Blocker]) {
    let sessions: Vec<_> = blockers.iter().map(|blocker| SessionId(blocker.session.value())).collect();
    let valid = edge.validity(&sessions).await;
    for (blocker, left) in blockers.iter_mut().zip(valid) {
        blocker.valid_for = left.map(Span::from);
    }
}
