//! ① Barriers: make, look, and the gates among them. Entering and leaving are in [`super::barrier_entry`].

use coracle_api::{self as api, BarrierKind, Code, Problem, Span};
use coracle_recipes as recipes;
use coracle_recipes::barrier::{self, Config, Create, Kind, PARTIES, TIMEOUT_MS, Why};
use coracle_store::{Millis, Revision, Selection, Store, View};
use http::StatusCode;

use super::call::Call;
use super::objects::{self, Applied, NAME, Objects};
use super::problem::{Answer, bad_body};
use super::{latch, respond, wire};

/// Parties and missing members named in one answer.
pub const SHOWN: usize = 100;

static BARRIERS: Objects<api::Barrier> =
    Objects { family: barrier::NAME, names: barrier::names, show: shown };

fn shown(view: View<'_>, name: &str) -> Option<api::Barrier> {
    let it = barrier::read(view, name)?;
    let Config { kind, parties, exact, timeout } = it.config;
    let party = |party: barrier::Party| api::Party {
        id: party.id,
        session: party.session.map(wire::session),
        since: api::Instant::from_unix_ms(party.since.0),
        inside: party.inside.is_some(),
    };
    Some(api::Barrier {
        name: name.to_owned(),
        kind: word(kind),
        open: (kind == Kind::Gate).then_some(it.open),
        parties: (kind != Kind::Gate).then_some(parties),
        exact: (kind == Kind::Double).then_some(exact),
        timeout: timeout.map(|timeout| Span::from_millis_saturating(timeout.0)),
        generation: it.generation,
        waiting: it.waiting,
        inside: it.inside,
        leaving: it.leaving,
        breaks: it.due.map(|due| api::Instant::from_unix_ms(due.0)),
        present: barrier::parties(view, name, SHOWN).into_iter().map(party).collect(),
        missing: barrier::missing(view, name, SHOWN),
    })
}

fn word(kind: Kind) -> BarrierKind {
    match kind {
        Kind::Gate => BarrierKind::Gate,
        Kind::Cyclic => BarrierKind::Cyclic,
        Kind::Double => BarrierKind::Double,
    }
}

/// `GET /v1/barriers`
pub async fn list(call: Call) -> Answer {
    BARRIERS.list(call).await
}

/// `GET /v1/barriers/{n}`
pub async fn show(call: Call) -> Answer {
    BARRIERS.one(call, not_found).await
}

/// `PUT /v1/barriers/{n}`
pub async fn create(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (config, bytes) = call.json::<api::BarrierConfig>().await?;
    let members = latch::members(config.members.clone())?;
    let config = checked(&config, members.len() as u64)?;
    let create = Create { barrier: name.as_str().into(), config, members };
    let applied = apply(&mut call, &bytes, barrier::Operation::Create(create)).await?;
    let recipes::Outcome::Barrier(barrier::Outcome::Barrier(made)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    call.edge.node.wait_revision(applied.revision, call.deadline).await?;
    let body = call.edge.node.read(|store| shown(store.view(), &name));
    Ok(applied.answer(if made { StatusCode::CREATED } else { StatusCode::OK }, &body))
}

/// What does not go together is an error, not ignored.
fn checked(given: &api::BarrierConfig, members: u64) -> Answer<Config> {
    let api::BarrierConfig { kind, parties, exact, timeout, .. } = *given;
    let parties = match (kind, parties) {
        (BarrierKind::Gate, None) if members == 0 => 0,
        (BarrierKind::Gate, _) => return Err(bad_body("a gate has no parties and no members")),
        (_, None) if members > 0 => members,
        (_, None) => return Err(bad_body("parties or members is required")),
        (_, Some(parties)) if !(1..=PARTIES).contains(&parties) => {
            return Err(bad_body(format!("parties: a whole number min=1 max={PARTIES}")));
        }
        (_, Some(parties)) if members > 0 && parties != members => {
            return Err(bad_body("parties is the number of members, if there are any"));
        }
        (_, Some(parties)) => parties,
    };
    if exact.is_some() && kind != BarrierKind::Double {
        return Err(bad_body("exact is only for double barriers"));
    }
    let longest = Span::from_millis_saturating(TIMEOUT_MS);
    let shortest = Span::from_millis_saturating(1);
    match timeout {
        Some(_) if kind != BarrierKind::Cyclic => {
            return Err(bad_body("timeout is only for cyclic barriers"));
        }
        Some(timeout) if !(shortest..=longest).contains(&timeout) => {
            return Err(bad_body(format!("timeout: min={shortest} max={longest}")));
        }
        _ => {}
    }
    let (kind, exact) = match kind {
        BarrierKind::Gate => (Kind::Gate, false),
        BarrierKind::Cyclic => (Kind::Cyclic, false),
        BarrierKind::Double => (Kind::Double, exact.unwrap_or(true)),
    };
    Ok(Config { kind, parties, exact, timeout: timeout.map(|timeout| Millis(timeout.as_millis())) })
}

/// `DELETE /v1/barriers/{n}`
pub async fn delete(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let bytes = call.no_body().await?;
    let applied = apply(&mut call, &bytes, barrier::Operation::Delete(name.into())).await?;
    let body = api::Deleted { deleted: 1, revision: applied.revision.0, previous: None };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// `POST /v1/barriers/{n}/open`
pub async fn open(call: Call) -> Answer {
    turn(call, true).await
}

/// `POST /v1/barriers/{n}/close`
pub async fn close(call: Call) -> Answer {
    turn(call, false).await
}

async fn turn(mut call: Call, open: bool) -> Answer {
    let name = call.name(NAME)?;
    let bytes = call.no_body().await?;
    let applied = apply(&mut call, &bytes, barrier::Operation::Turn(name.into(), open)).await?;
    let body = api::Gate { open, revision: applied.revision.0 };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// `POST /v1/barriers/{n}/await`: 200 if the gate is open, or was open at any time since the call (or since `after`);
/// otherwise 409, or 202 with `keep=true`. Nobody has a place in a line: to wait on is to ask again, on any node.
pub async fn wait(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let wait = call.wait()?.unwrap_or_default();
    let keep = call.query.flag("keep")?.unwrap_or(false);
    let after = call.query.number("after", 0..=u64::MAX)?.map(Revision);
    call.no_body().await?;
    call.query.done()?;
    call.barrier().await?;
    let begin = after.unwrap_or_else(|| call.edge.node.read(Store::revision));
    let gate = barrier::gate(&name);
    let opened = |store: &Store| {
        let open = barrier::read(store.view(), &name).is_some_and(|it| it.open);
        let mut since = store.key_history(&gate).take_while(|(revision, ..)| *revision > begin);
        (open || since.any(|(.., event)| barrier::opened(event))).then_some(())
    };
    let (opened, revision) = call.until(Selection::Key(gate.clone()), wait, opened).await?;
    let body = |open| api::Gate { open, revision: revision.0 };
    if opened.is_some() {
        return Ok(respond::json(StatusCode::OK, revision, &body(true)));
    }
    let problem = match call.edge.node.read(|store| barrier::read(store.view(), &name)) {
        None => not_found(&name),
        Some(it) if it.config.kind != Kind::Gate => {
            problem(&barrier::Refusal::OtherKind(it.config.kind)).with("barrier", name)
        }
        Some(_) if keep => return Ok(respond::json(StatusCode::ACCEPTED, revision, &body(false))),
        Some(_) => {
            let detail = format!("the gate is closed barrier={name}");
            Problem::new(Code::BarrierWaiting, detail).with("barrier", name)
        }
    };
    Err(problem.at_revision(revision.0).into())
}

pub async fn apply(call: &mut Call, body: &[u8], operation: barrier::Operation) -> Answer<Applied> {
    objects::apply(call, body, recipes::Operation::Barrier(operation)).await
}

fn not_found(name: &str) -> Problem {
    Problem::new(Code::BarrierNotFound, format!("no such barrier barrier={name}")).with("barrier", name)
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Lost => "lost",
        Why::GaveUp => "gave_up",
        Why::Timeout => "timeout",
        Why::Deleted => "deleted",
    }
}

/// That generation did not come to pass.
pub fn broken(generation: u64, why: Why) -> Problem {
    let reason = reason(why);
    let detail = format!("the generation did not come to pass generation={generation} reason={reason}");
    Problem::new(Code::BarrierBroken, detail).with("generation", generation).with("reason", reason)
}

/// Why a barrier was not changed, or not passed.
pub fn problem(refusal: &barrier::Refusal) -> Problem {
    use barrier::Refusal;
    match refusal {
        Refusal::NotFound => Problem::new(Code::BarrierNotFound, "no such barrier"),
        Refusal::OtherKind(kind) => {
            let detail = match kind {
                Kind::Gate => "it is a gate: it opens, closes and is awaited",
                Kind::Cyclic => "it is a cyclic barrier: one enters it",
                Kind::Double => "it is a double barrier: one enters and leaves it",
            };
            Problem::new(Code::AlreadyExists, detail).with("kind", word(*kind))
        }
        Refusal::InUse(config) => {
            let detail = "it is otherwise, and somebody is at it";
            let problem = Problem::new(Code::AlreadyExists, detail).with("kind", word(config.kind));
            problem.with("parties", config.parties)
        }
        Refusal::Waiting(waiting, parties) => {
            let detail = format!("not all have come waiting={waiting} parties={parties}");
            Problem::new(Code::BarrierWaiting, detail).with("waiting", waiting).with("parties", parties)
        }
        Refusal::Broken(generation, why) => broken(*generation, *why),
        Refusal::NotMember(id) => {
            Problem::new(Code::MemberNotFound, format!("not one of the declared members id={id}"))
                .with("id", id)
        }
        Refusal::NotInside => {
            Problem::new(Code::NotHolder, "it is not at the barrier, or in another session")
        }
        Refusal::TooManyWaiters(limit) => {
            Problem::new(Code::TooManyWaiters, format!("as many wait as may wait max={limit}"))
                .with("max", limit)
        }
        Refusal::NoSuchGeneration(current) => {
            let detail = format!("there was no such generation yet current={current}");
            Problem::invalid("query", "generation", detail).with("current", current)
        }
    }
}
