//! ① Semaphores: acquire so many permits, release, renew, transfer, break, configure, look.

use std::time::Instant;

use coracle_api::{self as api, Code, HoldFrame, Problem, Span};
use coracle_recipes::semaphore::{self, PERMITS};
use coracle_recipes::{self as recipes, Turn};
use coracle_store::{Key, Revision, SessionId, Store, View, limits};
use http::StatusCode;

use super::call::Call;
use super::claim::{self, Asked, Kind, Missed, Standing};
use super::frame::Frames;
use super::lock::{owner, stale, too_many};
use super::message::Response;
use super::objects::{self, NAME, Objects};
use super::problem::{Answer, Refused, bad_body, bad_query, session_expired};
use super::{respond, watch, wire};

/// Waiters shown of each semaphore in a list.
const WAITERS_SHOWN: usize = 100;

static SEMAPHORES: Objects<api::Semaphore> = Objects {
    family: semaphore::NAME,
    names: semaphore::names,
    show: |view, name| shown(view, name, WAITERS_SHOWN),
};

fn holder(hold: &semaphore::Hold) -> api::PermitHolder {
    api::PermitHolder {
        session: wire::session(hold.session),
        owner: wire::optional(&hold.owner),
        token: hold.token.0,
        permits: hold.terms.0,
        since: api::Instant::from_unix_ms(hold.since.0),
        valid_for: None,
    }
}

fn shown(view: View<'_>, name: &str, limit: usize) -> Option<api::Semaphore> {
    let seen = semaphore::show(view, name, limit)?;
    let waiter = |place: &semaphore::Place| api::PermitWaiter {
        session: wire::session(place.session),
        owner: wire::optional(&place.owner),
        permits: place.terms.0,
        since: api::Instant::from_unix_ms(place.since.0),
        position: place.position,
    };
    Some(api::Semaphore {
        name: name.to_owned(),
        limit: seen.limit,
        free: seen.free,
        holders: seen.holders.iter().map(holder).collect(),
        waiters: seen.waiters.iter().map(waiter).collect(),
        waiting: wire::rest(seen.waiting, seen.waiters.len()),
    })
}

fn not_found(name: &str) -> Problem {
    let detail = format!("no such semaphore; acquire with limit= makes one semaphore={name}");
    Problem::new(Code::SemaphoreNotFound, detail).with("semaphore", name)
}

/// `GET /v1/semaphores`
pub async fn list(call: Call) -> Answer {
    SEMAPHORES.list(call).await
}

/// `GET /v1/semaphores/{n}`
pub async fn show(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let selection = SEMAPHORES.selection(&name)?;
    if let Some(watching) = watch::asked(&mut call)? {
        let scope = SEMAPHORES.scope(selection, Some(name), String::new());
        return watch::open(call, watching, scope).await;
    }
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let (found, revision) =
        call.edge.node.read(|store| (shown(store.view(), &name, usize::MAX), store.revision()));
    let Some(mut found) = found else { return Err(not_found(&name).at_revision(revision.0).into()) };
    let sessions: Vec<_> = found.holders.iter().map(|h| SessionId(h.session.value())).collect();
    let valid = call.edge.validity(&sessions).await;
    for (holder, left) in found.holders.iter_mut().zip(valid) {
        holder.valid_for = left.map(Span::from);
    }
    Ok(respond::json(StatusCode::OK, revision, &found))
}

/// `POST /v1/semaphores/{n}/acquire`
pub async fn acquire(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    let permits = call.query.number("permits", 1..=PERMITS)?.unwrap_or(1);
    let limit = call.query.number("limit", 1..=PERMITS)?;
    let owner = owner(&mut call)?;
    let asked = Asked::of(&mut call, None)?;
    let bytes = call.no_body().await?;
    let kind = Acquiring(semaphore::Acquire {
        semaphore: name.into(),
        permits,
        limit,
        attach: asked.attach.clone(),
        owner,
        meta: "".into(),
        wait: asked.waits(),
    });
    claim::make(call, asked, &bytes, kind, received).await
}

/// The claim on permits.
struct Acquiring(semaphore::Acquire);

impl Kind for Acquiring {
    type Grant = semaphore::Hold;
    type Place = semaphore::Place;

    fn operation(&self) -> recipes::Operation {
        recipes::Operation::Semaphore(semaphore::Operation::Acquire(self.0.clone()))
    }

    fn withdrawal(&self, session: SessionId) -> recipes::Operation {
        let claim = semaphore::Claim { semaphore: self.0.semaphore.clone(), session, token: None };
        recipes::Operation::Semaphore(semaphore::Operation::Withdraw(claim))
    }

    fn turn(&self, outcome: recipes::Outcome) -> Option<semaphore::Turn> {
        let recipes::Outcome::Semaphore(outcome) = outcome else { return None };
        match outcome {
            semaphore::Outcome::Held(hold) => Some(Turn::Granted(hold)),
            semaphore::Outcome::Waiting(place) => Some(Turn::Waiting(place)),
            semaphore::Outcome::Freed(..) | semaphore::Outcome::Configured(..) => None,
        }
    }

    fn in_the_way(&self, refusal: recipes::Refusal) -> Option<Missed> {
        let recipes::Refusal::Semaphore(semaphore::Refusal::Exhausted(holders, _, waiting)) = refusal else {
            return None;
        };
        Some(Missed::now(waiting, holders.iter().map(blocker).collect()))
    }

    fn prefixes(&self) -> Vec<Vec<u8>> {
        vec![semaphore::prefix(&self.0.semaphore)]
    }

    fn poll(&self, store: &Store, session: SessionId, _: Option<&Key>) -> semaphore::Turn {
        semaphore::poll(store.view(), &self.0.semaphore, session)
    }

    fn holder(&self, hold: &semaphore::Hold) -> SessionId {
        hold.session
    }

    fn standing(&self, place: &semaphore::Place) -> Standing {
        Standing::of(place, blocker)
    }

    fn granted(&self, revision: Revision, hold: &semaphore::Hold, valid_for: Span) -> Response {
        let (session, token, permits) = (wire::session(hold.session), hold.token.0, hold.terms.0);
        respond::json(StatusCode::OK, revision, &api::PermitsAcquired { session, token, valid_for, permits })
    }

    fn missed(&self, revision: Revision, missed: Missed) -> Answer {
        let Self(semaphore::Acquire { semaphore, permits, .. }) = self;
        let what = format!("semaphore={semaphore} permits={permits}");
        let problem = missed.problem(Code::PermitsExhausted, &what, revision);
        Err(problem.with("semaphore", semaphore).with("permits", permits).into())
    }

    fn acquired(&self, frames: &mut Frames, hold: &semaphore::Hold, valid_for: Span) {
        let (session, token) = (wire::session(hold.session), hold.token.0);
        let granted = api::Granted::new(session, token, valid_for);
        frames.object("acquired", &HoldFrame::Acquired(granted));
    }
}

fn blocker(hold: &semaphore::Hold) -> api::Blocker {
    api::Blocker { permits: Some(hold.terms.0), ..claim::blocker(hold) }
}

/// `session=` and, if the caller knows it, `token=`.
fn claim_of(call: &mut Call, name: &str) -> Answer<semaphore::Claim> {
    let session = call.session("session")?;
    let token = call.query.number("token", 1..=u64::MAX)?.map(Revision);
    Ok(semaphore::Claim { semaphore: name.into(), session, token })
}

async fn run(call: &mut Call, body: &[u8], operation: semaphore::Operation) -> Answer<Applied> {
    let applied = objects::apply(call, body, recipes::Operation::Semaphore(operation)).await?;
    let recipes::Outcome::Semaphore(outcome) = &applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let outcome = outcome.clone();
    Ok((applied, outcome))
}

type Applied = (objects::Applied, semaphore::Outcome);

/// `POST /v1/semaphores/{n}/release`
pub async fn release(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim_of(&mut call, &name)?;
    let bytes = call.no_body().await?;
    let (applied, outcome) = run(&mut call, &bytes, semaphore::Operation::Release(claim)).await?;
    let semaphore::Outcome::Freed(_, granted) = outcome else { return Err(objects::odd(&applied.outcome)) };
    let released_to = granted.iter().map(|hold| wire::session(hold.session)).collect();
    let body = api::Released { released_to, revision: applied.revision.0, count: None };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// `POST /v1/semaphores/{n}/renew`: renews the session, if it holds permits.
pub async fn renew(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim_of(&mut call, &name)?;
    let token = |store: &Store| match semaphore::poll(store.view(), &name, claim.session) {
        Turn::Granted(hold) => Some(hold.token),
        Turn::Waiting(_) | Turn::Gone => None,
    };
    let holds = "the session (with that token) does not hold permits";
    renew_holder(&mut call, claim.session, claim.token, token, (Code::NotHolder, holds)).await
}

/// Renew a session if it has what it says: its token, if any, is found by `token`.
pub async fn renew_holder(
    call: &mut Call,
    session: SessionId,
    expected: Option<Revision>,
    token: impl Fn(&Store) -> Option<Revision>,
    (code, otherwise): (Code, &str),
) -> Answer {
    let received = Instant::now();
    call.no_body().await?;
    call.query.done()?;
    call.barrier().await?;
    let (held, alive, revision) =
        call.edge.node.read(|store| (token(store), store.session(session).is_some(), store.revision()));
    let token = match held {
        Some(token) if expected.is_none_or(|expected| expected == token) => token,
        _ if !alive => return Err(session_expired(session).into()),
        _ => {
            let detail = format!("{otherwise} session={session}");
            return Err(Problem::new(code, detail).at_revision(revision.0).into());
        }
    };
    let valid_for = call.edge.node.renew(session, call.deadline).await?;
    call.edge.renewals.note(session, received, valid_for);
    let body = api::Renewed { valid_for: valid_for.into(), token: token.0 };
    Ok(respond::json(StatusCode::OK, revision, &body))
}

/// `POST /v1/semaphores/{n}/transfer`
pub async fn transfer(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim_of(&mut call, &name)?;
    let to = call.session("to")?;
    let bytes = call.no_body().await?;
    let (applied, outcome) = run(&mut call, &bytes, semaphore::Operation::Transfer(claim, to)).await?;
    let granted = match &outcome {
        semaphore::Outcome::Freed(_, granted) => granted.iter().find(|hold| hold.session == to),
        _ => None,
    };
    let Some(hold) = granted else { return Err(objects::odd(&applied.outcome)) };
    let body = api::Renewed { valid_for: call.edge.valid_for(to).await, token: hold.token.0 };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// `reason=`, for those whose claims are broken.
pub fn reason(call: &mut Call) -> Answer<Box<str>> {
    let reason = call.query.text("reason")?.unwrap_or_default();
    if reason.len() > limits::NAME_BYTES {
        return Err(bad_query("reason", format!("at most {} bytes", limits::NAME_BYTES)));
    }
    Ok(reason.into())
}

/// `DELETE /v1/semaphores/{n}`: an operator ends every hold; the limit goes with the last waiter.
pub async fn break_holds(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let reason = reason(&mut call)?;
    let bytes = call.no_body().await?;
    let operation = semaphore::Operation::Break(name.into(), reason);
    let (applied, outcome) = run(&mut call, &bytes, operation).await?;
    let semaphore::Outcome::Freed(ended, _) = outcome else { return Err(objects::odd(&applied.outcome)) };
    let broken = ended.iter().map(holder).collect();
    Ok(applied.answer(StatusCode::OK, &api::PermitsBroken { broken, revision: applied.revision.0 }))
}

/// `PUT /v1/semaphores/{n}`
pub async fn configure(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (body, bytes) = call.json::<api::SemaphoreConfig>().await?;
    if !(1..=PERMITS).contains(&body.limit) {
        return Err(bad_body(format!("limit: 1 to {PERMITS} actual={}", body.limit)));
    }
    let operation = semaphore::Operation::Configure(name.as_str().into(), body.limit);
    let (applied, outcome) = run(&mut call, &bytes, operation).await?;
    let semaphore::Outcome::Configured(_, is_new, _) = outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    call.edge.node.wait_revision(applied.revision, call.deadline).await?;
    let body = call.edge.node.read(|store| shown(store.view(), &name, WAITERS_SHOWN));
    let body = body.ok_or_else(|| Refused::from(not_found(&name)))?;
    Ok(applied.answer(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &body))
}

/// Why a semaphore was not changed.
pub fn problem(refusal: &semaphore::Refusal) -> Problem {
    match refusal {
        semaphore::Refusal::Exhausted(holders, free, waiting) => {
            let blockers: Vec<_> = holders.iter().map(blocker).collect();
            let detail = format!("held by={} free={free} waiting={waiting}", claim::held_by(&blockers));
            Problem::new(Code::PermitsExhausted, detail)
                .with("blockers", blockers)
                .with("free", free)
                .with("waiting", waiting)
        }
        semaphore::Refusal::NotHolder => {
            Problem::new(Code::NotHolder, "the session (with that token) does not hold permits")
        }
        semaphore::Refusal::FenceStale(current) => stale(*current),
        semaphore::Refusal::LimitMismatch(limit) => {
            let detail =
                format!("the semaphore has another limit, or fewer permits than asked for limit={limit}");
            Problem::new(Code::LimitMismatch, detail).with("limit", limit)
        }
        semaphore::Refusal::OtherClaim(permits) => {
            let detail = format!("the session has a claim on another number of permits permits={permits}");
            Problem::new(Code::WouldDeadlock, detail).with("permits", permits)
        }
        semaphore::Refusal::TooManyWaiters(limit) => too_many(*limit),
        semaphore::Refusal::NotFound => {
            Problem::new(Code::SemaphoreNotFound, "no such semaphore; acquire with limit= makes one")
        }
    }
}
