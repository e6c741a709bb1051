//! ① Locks: acquire with and without waiting, release, renew, transfer, break, look.

use std::time::Instant;

use coracle_api::{self as api, Acquired, Broken, Code, HoldFrame, Problem, Released, Renewed, Span};
use coracle_recipes::lock::{self, Mode};
use coracle_recipes::{self as recipes, Turn};
use coracle_store::{Key, Outcome, Revision, SessionId, Store, limits};
use http::StatusCode;

use super::call::{Call, check_name, outcome, unexpected};
use super::claim::{self, Asked, Kind, Missed, Standing};
use super::frame::Frames;
use super::lock_list::holder;
use super::message::Response;
use super::problem::{Answer, Refused, bad_query, session_expired};
use super::{json, respond, wire};

/// Where the name is in `/v1/locks/{name}`.
pub const NAME: usize = 2;

/// `POST /v1/locks/{n}/acquire`
pub async fn acquire(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    let mode = call.query.word("mode", &[("exclusive", Mode::Exclusive), ("shared", Mode::Shared)])?;
    let reentrant = call.query.flag("reentrant")?.unwrap_or(false);
    let convert = call.query.flag("convert")?.unwrap_or(false);
    let owner = owner(&mut call)?;
    let asked = Asked::of(&mut call, None)?;
    if convert && reentrant {
        return Err(bad_query("convert", "not together with reentrant"));
    }
    let bytes = call.no_body().await?;
    let kind = Acquiring(lock::Acquire {
        lock: name.into(),
        mode: mode.unwrap_or(Mode::Exclusive),
        attach: asked.attach.clone(),
        owner,
        meta: "".into(),
        wait: asked.waits(),
        reentrant,
        convert,
    });
    claim::make(call, asked, &bytes, kind, received).await
}

/// `owner=`, for people.
pub fn owner(call: &mut Call) -> Answer<Box<str>> {
    let owner = call.query.text("owner")?.unwrap_or_default();
    if !owner.is_empty() {
        check_name(&owner).map_err(|detail| bad_query("owner", detail))?;
    }
    Ok(owner.into())
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
            _ => None,
        }
    }

    fn in_the_way(&self, refusal: recipes::Refusal) -> Option<Missed> {
        in_the_way(refusal)
    }

    fn prefixes(&self) -> Vec<Vec<u8>> {
        vec![lock::prefix(&self.0.lock)]
    }

    fn poll(&self, store: &Store, session: SessionId, _: Option<&Key>) -> lock::Turn {
        if self.0.convert {
            return lock::poll_convert(store.view(), &self.0.lock, session, self.0.mode);
        }
        lock::poll(store.view(), &self.0.lock, session)
    }

    fn holder(&self, hold: &lock::Hold) -> SessionId {
        hold.session
    }

    fn standing(&self, place: &lock::Place) -> Standing {
        Standing::of(place, blocker)
    }

    fn overdue(&self, hold: &lock::Hold) -> Option<api::Instant> {
        hold.overdue.then(|| api::Instant::from_unix_ms(hold.since.0))
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
        json::string(&mut out, wire::mode(hold.terms).as_str());
        json::number_member(&mut out, "ordinal", hold.ordinal);
        if hold.count > 1 {
            json::number_member(&mut out, "count", hold.count);
        }
        out.push(b'}');
        debug_assert!(serde_json::from_slice::<Acquired>(&out).is_ok());
        respond::json_bytes(StatusCode::OK, revision, out)
    }

    fn missed(&self, revision: Revision, missed: Missed) -> Answer {
        let lock = &*self.0.lock;
        Err(missed.problem(Code::LockHeld, &format!("lock={lock}"), revision).with("lock", lock).into())
    }

    fn acquired(&self, frames: &mut Frames, hold: &lock::Hold, valid_for: Span) {
        let granted = api::Granted::new(wire::session(hold.session), hold.token.0, valid_for);
        let mode = Some(wire::mode(hold.terms));
        frames.object("acquired", &HoldFrame::Acquired(api::Granted { mode, ..granted }));
    }
}

/// What stands in the way of a claim on one lock or on several.
pub fn in_the_way(refusal: recipes::Refusal) -> Option<Missed> {
    match refusal {
        recipes::Refusal::Lock(lock::Refusal::Held(holders, waiting)) => {
            Some(Missed::now(waiting, holders.iter().map(blocker).collect()))
        }
        recipes::Refusal::Lock(lock::Refusal::Closed(until, waiting)) => {
            Some(Missed { closed_until: Some(until), ..Missed::now(waiting, Vec::new()) })
        }
        _ => None,
    }
}

/// A holder in the way, as JSON.
pub fn blocker(hold: &lock::Hold) -> api::Blocker {
    api::Blocker { mode: Some(wire::mode(hold.terms)), ..claim::blocker(hold) }
}

/// Why a lock was not changed.
pub fn problem(refusal: &lock::Refusal) -> Problem {
    match refusal {
        lock::Refusal::Held(holders, waiting) => {
            let missed = Missed::now(*waiting, holders.iter().map(blocker).collect());
            let detail = format!("held by={} waiting={waiting}", claim::held_by(&missed.blockers));
            Problem::new(Code::LockHeld, detail).with("blockers", missed.blockers).with("waiting", waiting)
        }
        lock::Refusal::Closed(until, waiting) => {
            let until = api::Instant::from_unix_ms(until.0);
            Problem::new(
                Code::LockHeld,
                format!("nothing is granted before closed_until={until} waiting={waiting}"),
            )
            .with("closed_until", until)
            .with("waiting", waiting)
        }
        lock::Refusal::NotHolder => {
            Problem::new(Code::NotHolder, "the session (with that token) does not hold the lock")
        }
        lock::Refusal::FenceStale(current) => stale(*current),
        lock::Refusal::ModeMismatch(mode) => {
            let mode = wire::mode(*mode).as_str();
            let detail = format!("the session has a claim on the lock in another mode mode={mode}");
            Problem::new(Code::WouldDeadlock, detail).with("mode", mode)
        }
        lock::Refusal::OtherClaim(lock) => {
            let detail = format!("the session has another claim on the lock lock={lock}");
            Problem::new(Code::WouldDeadlock, detail).with("lock", lock)
        }
        lock::Refusal::WouldDeadlock(cycle) => {
            let step = |link: &lock::Link| api::WaitsFor {
                session: wire::session(link.session),
                owner: wire::optional(&link.owner),
                lock: link.lock.to_string(),
            };
            let cycle: Vec<_> = cycle.iter().map(step).collect();
            let names = cycle.iter().map(|step| step.lock.as_str()).collect::<Vec<_>>().join(", ");
            Problem::new(Code::WouldDeadlock, format!("each waits for the next one's lock locks={names}"))
                .with("cycle", cycle)
        }
        lock::Refusal::TooManyWaiters(limit) => too_many(*limit),
        lock::Refusal::NotFound => Problem::new(Code::LockNotFound, "nobody holds or waits for the lock"),
    }
}

/// A guard whose token is of no current grant.
pub fn stale(current: Option<Revision>) -> Problem {
    let current = current.map(|r| r.0);
    let shown = current.map_or("none".to_owned(), |c| c.to_string());
    let detail = format!("the token is not of a current hold current_token={shown}");
    Problem::new(Code::FenceStale, detail).with("current_token", current)
}

/// A line is full.
pub fn too_many(limit: u64) -> Problem {
    Problem::new(Code::TooManyWaiters, format!("the line is as long as a line may be max={limit}"))
        .with("max", limit)
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
    let (granted, count) = match outcome {
        lock::Outcome::Freed(_, granted) => (granted, None),
        lock::Outcome::StillHeld(hold) => (Vec::new(), Some(hold.count)),
        _ => return Err(odd()),
    };
    let mut released_to: Vec<_> = granted.iter().map(|h| wire::session(h.session)).collect();
    // One that waited for several locks got them all.
    released_to.dedup();
    let body = Released { released_to, revision: revision.0, count };
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
        _ => return Err(odd()),
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
