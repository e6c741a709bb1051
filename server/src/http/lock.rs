//! ① Locks: acquire with and without waiting, release, renew, transfer, break, look.

use std::time::Instant;

use axum::response::Response;
use coracle_api::{self as api, Acquired, Broken, Code, Problem, Released, Renewed, Span, Waiting};
use coracle_recipes as recipes;
use coracle_recipes::lock::{self, Mode, Turn};
use coracle_store::{Outcome, Refusal, Revision, SessionId, Store, limits};
use http::StatusCode;

use super::call::{Call, Mutation, check_name, outcome, unexpected};
use super::lock_list::holder;
use super::problem::{Answer, Refused, bad_query, blocker, session_expired};
use super::turn::{Following, Renewal, Renewed as Renewing, Step, Withdrawal};
use super::{hold, json, kv, respond, wire};

/// Where the name is in `/v1/locks/{name}`.
pub const NAME: usize = 2;

/// `POST /v1/locks/{n}/acquire`
pub async fn acquire(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    let mode = call.query.word("mode", &[("exclusive", Mode::Exclusive), ("shared", Mode::Shared)])?;
    let wait = call.wait()?;
    let keep = call.query.flag("keep")?.unwrap_or(false);
    let owner = call.query.text("owner")?.unwrap_or_default();
    if !owner.is_empty() {
        check_name(&owner).map_err(|detail| bad_query("owner", detail))?;
    }
    let Some(ephemeral) = kv::ephemeral(&mut call)? else {
        return Err(bad_query("session", "one of session, ttl and hold=true is required"));
    };
    if keep && ephemeral.hold.is_some() {
        return Err(bad_query("keep", "not together with hold: the connection keeps the place"));
    }
    let bytes = call.no_body().await?;
    let opening = ephemeral.hold.map(|hold| hold::opening(&mut call, hold)).transpose()?;
    let mutation = call.mutation(&bytes)?;
    let waits = keep || wait.map_or(opening.is_some(), |wait| !wait.is_zero());
    let acquire = lock::Acquire {
        lock: name.as_str().into(),
        mode: mode.unwrap_or(Mode::Exclusive),
        attach: ephemeral.attach,
        owner: owner.into(),
        meta: "".into(),
        wait: waits,
    };
    let mut acquiring = Acquiring {
        call,
        name,
        acquire,
        mutation,
        keep,
        received,
        private: ephemeral.private,
        was_replayed: false,
    };
    // Whoever goes away while the answer of the log is under way leaves no ghost in the line either.
    let mut withdrawal = acquiring.withdrawal(acquiring.claimant());
    let (revision, turn) = match acquiring.propose().await {
        Ok(turned) => turned,
        Err(refused) => {
            if refused.0.effect == api::Effect::None || acquiring.keep {
                withdrawal.settle();
            }
            return Err(refused);
        }
    };
    if let Some(opening) = opening {
        withdrawal.settle();
        let session = session_of(&turn).unwrap_or_else(|| acquiring.claimant());
        let until = wait.map(|wait| received + wait.as_duration());
        let claim = hold::Claim::Lock { session, lock: acquiring.name, revision, until };
        return Ok(hold::stream(acquiring.call, opening, claim, received));
    }
    let answer = acquiring.answer(revision, turn, wait.unwrap_or_default(), &mut withdrawal).await;
    // An error of unknown effect leaves the withdrawal armed: the claim may be in the line.
    match answer {
        Ok(response) => {
            withdrawal.settle();
            Ok(response)
        }
        Err(refused) => Err(refused),
    }
}

/// One acquire on its way.
struct Acquiring {
    call: Call,
    name: String,
    acquire: lock::Acquire,
    mutation: Mutation,
    keep: bool,
    received: Instant,
    /// The private session that was proposed, and its ttl.
    private: Option<(SessionId, Span)>,
    was_replayed: bool,
}

impl Acquiring {
    fn claimant(&self) -> SessionId {
        match &self.acquire.attach {
            coracle_store::Attach::Session(id) => *id,
            coracle_store::Attach::Private(open) => open.id,
            coracle_store::Attach::None | coracle_store::Attach::Keep => SessionId(0),
        }
    }

    /// What takes the claim back if nobody is there to be answered.
    fn withdrawal(&self, session: SessionId) -> Withdrawal {
        let mutation =
            Mutation { principal: self.mutation.principal.clone(), guards: Vec::new(), idempotency: None };
        let operation = if self.private.is_some() {
            // Nobody knows the session's id yet.
            coracle_store::Operation::CloseSession(session)
        } else {
            withdraw(&self.name, session)
        };
        let mut withdrawal = Withdrawal::new(&self.call.edge, mutation, operation);
        // A kept place stays; a private session with an Idempotency-Key is found again by the retry, or runs out.
        if self.keep || (self.private.is_some() && self.mutation.idempotency.is_some()) {
            withdrawal.settle();
        }
        withdrawal
    }

    async fn propose(&mut self) -> Answer<(Revision, Turn)> {
        let operation = recipes::Operation::Lock(lock::Operation::Acquire(self.acquire.clone())).encode();
        let reply = self.call.propose(self.mutation.clone(), operation).await?;
        if let Err(Refusal::Program(bytes)) = &reply.result
            && let Ok(recipes::Refusal::Lock(lock::Refusal::Held(holders, waiting))) =
                recipes::Refusal::decode(bytes)
        {
            return Err(self.held_by(&holders, None, waiting, reply.revision).await);
        }
        let (revision, replayed, outcome) = outcome(reply)?;
        self.was_replayed |= replayed;
        match lock_outcome(&outcome)? {
            lock::Outcome::Held(hold) => Ok((revision, Turn::Held(hold))),
            lock::Outcome::Waiting(place) => Ok((revision, Turn::Waiting(place))),
            lock::Outcome::Freed(..) => Err(unexpected(&outcome)),
        }
    }

    async fn answer(
        &mut self,
        revision: Revision,
        turn: Turn,
        wait: Span,
        withdrawal: &mut Withdrawal,
    ) -> Answer {
        if let Turn::Held(hold) = &turn {
            let valid_for = self.first_validity(hold.session).await;
            return Ok(self.held(revision, hold, valid_for));
        }
        let end = self.received + wait.as_duration();
        let place = self.call.edge.park()?;
        self.call.admitted = None;
        let mut session = session_of(&turn).unwrap_or_else(|| self.claimant());
        let mut revision = revision;
        loop {
            let renewal =
                self.private.map(|(_, ttl)| Renewal::new(session, ttl.as_duration(), self.received));
            let (edge, name) = (self.call.edge.clone(), self.name.clone());
            let mut following =
                Following::new(edge, name, session, revision, renewal, self.call.fresh_deadline()).await?;
            let mut turn = following.turn();
            while let Turn::Waiting(_) = turn {
                if Instant::now() >= end {
                    drop(place);
                    return self.time_is_up(&mut following, withdrawal).await;
                }
                match following.step(Some(end)).await {
                    Step::Turn(now) => turn = now,
                    Step::Time | Step::Renewed => {}
                    Step::Lost(_) => return Err(session_expired(session).into()),
                    Step::Draining => return Err(crate::edge::Edge::shutting_down()),
                }
            }
            match turn {
                Turn::Held(hold) => return self.granted(&mut following, &hold).await,
                Turn::Waiting(_) => {}
                Turn::Gone => {
                    // Somebody took the claim back: a retry's forerunner that timed out, or the session itself. As
                    // long as the session lives the call stands in line again.
                    let alive = following.edge.node.read(|store| store.session(session).is_some());
                    let may_begin_anew = self.was_replayed && self.private.is_some();
                    if !alive && !may_begin_anew {
                        return Err(session_expired(session).into());
                    }
                    self.mutation.idempotency = None;
                    self.call.deadline = self.call.fresh_deadline();
                    let (at, again) = self.propose().await?;
                    (revision, session) = (at, session_of(&again).unwrap_or(session));
                    if let Turn::Held(hold) = &again {
                        let valid_for = self.first_validity(hold.session).await;
                        return Ok(self.held(revision, hold, valid_for));
                    }
                }
            }
        }
    }

    /// The turn came while waiting.
    async fn granted(&mut self, following: &mut Following, hold: &lock::Hold) -> Answer {
        let revision = self.call.edge.node.read(Store::revision);
        let edge = self.call.edge.clone();
        let valid_for = match following.renewal() {
            Some(renewal) => match renewal.renew(&edge).await {
                Renewing::Lost(_) => return Err(session_expired(hold.session).into()),
                Renewing::Good | Renewing::Later => renewal.valid_for().into(),
            },
            None => edge.valid_for(hold.session).await,
        };
        Ok(self.held(revision, hold, valid_for))
    }

    /// The wait is over and it is still somebody else's turn.
    async fn time_is_up(&mut self, following: &mut Following, withdrawal: &mut Withdrawal) -> Answer {
        self.call.deadline = self.call.fresh_deadline();
        let revision = self.call.edge.node.read(Store::revision);
        let Turn::Waiting(place) = following.turn() else {
            return self.settled_late(following).await;
        };
        if self.keep {
            let valid_for = match following.renewal() {
                Some(renewal) => renewal.valid_for().into(),
                None => self.call.edge.valid_for(place.session).await,
            };
            let body = Waiting {
                session: wire::session(place.session),
                position: place.position,
                valid_for,
                blockers: self.blockers(&place.blockers).await,
            };
            let response = respond::json(StatusCode::ACCEPTED, revision, &body);
            return Ok(respond::replayed(response, self.was_replayed));
        }
        let mutation =
            Mutation { principal: self.mutation.principal.clone(), guards: Vec::new(), idempotency: None };
        let reply = self.call.propose(mutation, withdraw(&self.name, place.session)).await?;
        withdrawal.settle();
        self.call.edge.node.wait_revision(reply.revision, self.call.deadline).await?;
        if let Turn::Held(_) = following.turn() {
            return self.settled_late(following).await;
        }
        let waiting = place.position - 1;
        Err(self.held_by(&place.blockers, Some(place.position), waiting, reply.revision).await)
    }

    /// Who is in the way: the answer of a try, and of a wait that ran out at a position.
    async fn held_by(
        &self,
        holders: &[lock::Hold],
        position: Option<u64>,
        waiting: u64,
        at: Revision,
    ) -> Refused {
        let by = holders
            .first()
            .map(|h| if h.owner.is_empty() { h.session.to_string() } else { h.owner.to_string() });
        let detail = format!("lock={} held by={} waiting={waiting}", self.name, by.unwrap_or_default());
        let problem = Problem::new(Code::LockHeld, detail)
            .with("lock", &self.name)
            .with("blockers", self.blockers(holders).await)
            .with("waiting", waiting)
            .at_revision(at.0);
        match position {
            Some(position) => problem.with("position", position).into(),
            None => problem.into(),
        }
    }

    /// The turn came in the last moment.
    async fn settled_late(&mut self, following: &mut Following) -> Answer {
        match following.turn() {
            Turn::Held(hold) => self.granted(following, &hold).await,
            Turn::Waiting(_) | Turn::Gone => Err(session_expired(following.session).into()),
        }
    }

    /// How long the session of a claim that was granted at once is good for.
    async fn first_validity(&self, session: SessionId) -> Span {
        match self.private {
            Some((id, ttl)) if id == session => {
                self.call.edge.renewals.note(session, self.received, ttl.as_duration());
                ttl
            }
            _ => self.call.edge.valid_for(session).await,
        }
    }

    fn held(&self, revision: Revision, hold: &lock::Hold, valid_for: Span) -> Response {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(b"{\"session\":\"");
        out.extend_from_slice(hold.session.to_string().as_bytes());
        out.push(b'"');
        json::number_member(&mut out, "token", hold.token.0);
        json::member(&mut out, "valid_for");
        json::string(&mut out, &valid_for.to_string());
        json::member(&mut out, "mode");
        json::string(&mut out, wire::mode(hold.mode).as_str());
        out.push(b'}');
        debug_assert!(serde_json::from_slice::<Acquired>(&out).is_ok());
        respond::replayed(respond::json_bytes(StatusCode::OK, revision, out), self.was_replayed)
    }

    async fn blockers(&self, holds: &[lock::Hold]) -> Vec<api::Blocker> {
        let sessions: Vec<_> = holds.iter().map(|h| h.session).collect();
        let valid = self.call.edge.validity(&sessions).await;
        let mut blockers: Vec<_> = holds.iter().map(blocker).collect();
        for (blocker, left) in blockers.iter_mut().zip(valid) {
            blocker.valid_for = left.map(Span::from);
        }
        blockers
    }
}

fn withdraw(lock: &str, session: SessionId) -> coracle_store::Operation {
    let claim = lock::Claim { lock: lock.into(), session, token: None };
    recipes::Operation::Lock(lock::Operation::Withdraw(claim)).encode()
}

fn session_of(turn: &Turn) -> Option<SessionId> {
    match turn {
        Turn::Held(hold) => Some(hold.session),
        Turn::Waiting(place) => Some(place.session),
        Turn::Gone => None,
    }
}

fn lock_outcome(outcome: &Outcome) -> Answer<lock::Outcome> {
    let Outcome::Program(bytes) = outcome else { return Err(unexpected(outcome)) };
    match recipes::Outcome::decode(bytes) {
        Ok(recipes::Outcome::Lock(outcome)) => Ok(outcome),
        Err(_) => Err(unexpected(outcome)),
    }
}

/// `session=` and, if the caller knows it, `token=`.
fn claim(call: &mut Call, name: &str) -> Answer<lock::Claim> {
    let session = call.session("session")?;
    let token = call.query.number("token", 1..=u64::MAX)?.map(Revision);
    Ok(lock::Claim { lock: name.into(), session, token })
}

async fn run(call: &mut Call, operation: lock::Operation) -> Answer<(Revision, bool, lock::Outcome)> {
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let reply = call.propose(mutation, recipes::Operation::Lock(operation).encode()).await?;
    let (revision, replayed, outcome) = outcome(reply)?;
    Ok((revision, replayed, lock_outcome(&outcome)?))
}

/// `POST /v1/locks/{n}/release`
pub async fn release(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim(&mut call, &name)?;
    let (revision, replayed, outcome) = run(&mut call, lock::Operation::Release(claim)).await?;
    let lock::Outcome::Freed(_, granted) = outcome else { return Err(odd()) };
    let body = Released {
        released_to: granted.iter().map(|h| wire::session(h.session)).collect(),
        revision: revision.0,
    };
    Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), replayed))
}

/// `POST /v1/locks/{n}/renew`: renews the session, if it holds the lock.
pub async fn renew(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    let claim = claim(&mut call, &name)?;
    call.no_body().await?;
    call.query.done()?;
    call.barrier().await?;
    let (turn, revision) =
        call.edge.node.read(|store| (lock::poll(store.view(), &name, claim.session), store.revision()));
    let alive = call.edge.node.read(|store| store.session(claim.session).is_some());
    let hold = match turn {
        Turn::Held(hold) if claim.token.is_none_or(|token| token == hold.token) => hold,
        _ if !alive => return Err(session_expired(claim.session).into()),
        _ => {
            let detail =
                format!("the session (with that token) does not hold the lock session={}", claim.session);
            return Err(Problem::new(Code::NotHolder, detail).at_revision(revision.0).into());
        }
    };
    let valid_for = call.edge.node.renew(claim.session, call.deadline).await?;
    call.edge.renewals.note(claim.session, received, valid_for);
    let body = Renewed { valid_for: valid_for.into(), token: hold.token.0 };
    Ok(respond::json(StatusCode::OK, revision, &body))
}

/// `POST /v1/locks/{n}/transfer`
pub async fn transfer(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim(&mut call, &name)?;
    let to = call.session("to")?;
    let (revision, replayed, outcome) = run(&mut call, lock::Operation::Transfer(claim, to)).await?;
    let token = match &outcome {
        lock::Outcome::Held(hold) => hold.token,
        lock::Outcome::Freed(_, granted) => {
            granted.iter().find(|hold| hold.session == to).map(|hold| hold.token).ok_or_else(odd)?
        }
        lock::Outcome::Waiting(_) => return Err(odd()),
    };
    let body = Renewed { valid_for: call.edge.valid_for(to).await, token: token.0 };
    Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), replayed))
}

/// `DELETE /v1/locks/{n}`: an operator ends every hold.
pub async fn break_holds(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let reason = call.query.text("reason")?.unwrap_or_default();
    if reason.len() > limits::NAME_BYTES {
        return Err(bad_query("reason", format!("at most {} bytes", limits::NAME_BYTES)));
    }
    let operation = lock::Operation::Break(name.as_str().into(), reason.into());
    let (revision, replayed, outcome) = run(&mut call, operation).await?;
    let lock::Outcome::Freed(ended, _) = outcome else { return Err(odd()) };
    let body = Broken { broken: ended.iter().map(holder).collect(), revision: revision.0 };
    Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), replayed))
}

pub fn odd() -> Refused {
    Problem::new(Code::Internal, "the log answered something unexpected").into()
}
