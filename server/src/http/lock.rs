//! ① Locks: acquire with and without waiting, release, renew, transfer, break, look.

use std::time::Instant;

use axum::response::Response;
use coracle_api::{Acquired, Broken, Code, HoldFrame, Problem, Released, Renewed, Span};
use coracle_recipes::lock::{self, Mode};
use coracle_recipes::{self as recipes, Turn};
use coracle_store::{Key, Outcome, Revision, SessionId, Store, limits};
use http::StatusCode;

use super::call::{Call, check_name, outcome, unexpected};
use super::claim::{self, Asked, Kind, Missed, Standing};
use super::frame::Frames;
use super::lock_list::holder;
use super::problem::{Answer, Refused, bad_query, blocker, session_expired};
use super::{json, respond, wire};

/// Where the name is in `/v1/locks/{name}`.
pub const NAME: usize = 2;

/// `POST /v1/locks/{n}/acquire`
pub async fn acquire(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    let mode = call.query.word("mode", &[("exclusive", Mode::Exclusive), ("shared", Mode::Shared)])?;
    let owner = call.query.text("owner")?.unwrap_or_default();
    if !owner.is_empty() {
        check_name(&owner).map_err(|detail| bad_query("owner", detail))?;
    }
    let asked = Asked::of(&mut call, None)?;
    let bytes = call.no_body().await?;
    let kind = Acquiring(lock::Acquire {
        lock: name.into(),
        mode: mode.unwrap_or(Mode::Exclusive),
        attach: asked.attach.clone(),
        owner: owner.into(),
        meta: "".into(),
        wait: asked.waits(),
    });
    claim::make(call, asked, &bytes, kind, received).await
}

/// The claim on one lock.
struct Acquiring(lock::Acquire);

impl Kind for Acquiring {
    type Grant = lock::Hold;
    type Place = lock::Place;

    fn operation(&self) -> recipes::Operation {
        recipes::Operation::Lock(lock::Operation::Acquire(self.0.clone()))
    }

    fn withdrawal(&self, session: SessionId) -> recipes::Operation {
        let claim = lock::Claim { lock: self.0.lock.clone(), session, token: None };
        recipes::Operation::Lock(lock::Operation::Withdraw(claim))
    }

    fn turn(&self, outcome: recipes::Outcome) -> Option<lock::Turn> {
        let recipes::Outcome::Lock(outcome) = outcome else { return None };
        match outcome {
            lock::Outcome::Held(hold) => Some(Turn::Granted(hold)),
            lock::Outcome::Waiting(place) => Some(Turn::Waiting(place)),
            lock::Outcome::Freed(..) => None,
        }
    }

    fn in_the_way(&self, refusal: recipes::Refusal) -> Option<Missed> {
        let recipes::Refusal::Lock(lock::Refusal::Held(holders, waiting)) = refusal else { return None };
        Some(Missed { position: None, waiting, blockers: holders.iter().map(blocker).collect() })
    }

    fn prefixes(&self) -> Vec<Vec<u8>> {
        vec![lock::prefix(&self.0.lock)]
    }

    fn poll(&self, store: &Store, session: SessionId, _: Option<&Key>) -> lock::Turn {
        lock::poll(store.view(), &self.0.lock, session)
    }

    fn holder(&self, hold: &lock::Hold) -> SessionId {
        hold.session
    }

    fn standing(&self, place: &lock::Place) -> Standing {
        let blockers = place.blockers.iter().map(blocker).collect();
        Standing { session: place.session, position: place.position, blockers }
    }

    fn granted(&self, revision: Revision, hold: &lock::Hold, valid_for: Span) -> Response {
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
        respond::json_bytes(StatusCode::OK, revision, out)
    }

    fn missed(&self, revision: Revision, missed: Missed) -> Answer {
        let Missed { position, waiting, blockers } = missed;
        let by = blockers.first().map(|by| by.owner.clone().unwrap_or_else(|| by.session.to_string()));
        let lock = &*self.0.lock;
        let detail = format!("lock={lock} held by={} waiting={waiting}", by.unwrap_or_default());
        let problem = Problem::new(Code::LockHeld, detail)
            .with("lock", lock)
            .with("blockers", blockers)
            .with("waiting", waiting)
            .at_revision(revision.0);
        match position {
            Some(position) => Err(problem.with("position", position).into()),
            None => Err(problem.into()),
        }
    }

    fn acquired(&self, frames: &mut Frames, hold: &lock::Hold, valid_for: Span) {
        let frame = HoldFrame::Acquired {
            session: wire::session(hold.session),
            token: hold.token.0,
            valid_for,
            mode: wire::mode(hold.mode),
        };
        frames.object("acquired", &frame);
    }
}

fn lock_outcome(outcome: &Outcome) -> Answer<lock::Outcome> {
    let Outcome::Program(bytes) = outcome else { return Err(unexpected(outcome)) };
    match recipes::Outcome::decode(bytes) {
        Ok(recipes::Outcome::Lock(outcome)) => Ok(outcome),
        _ => Err(unexpected(outcome)),
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
        Turn::Granted(hold) if claim.token.is_none_or(|token| token == hold.token) => hold,
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
