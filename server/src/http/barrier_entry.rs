//! ① Entering a barrier and leaving it: a claim that is granted when all have come.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use coracle_api::{self as api, Code, HoldFrame, Problem, Span};
use coracle_recipes::barrier::{self, Claim, Enter, Passed, Place, Turn, Why};
use coracle_recipes::{self as recipes, Turn as TurnOf};
use coracle_store::{Attach, Key, Revision, Selection, SessionId, Store, Timestamp};
use http::StatusCode;

use super::barrier::{SHOWN, apply, broken};
use super::call::{Call, Mutation, check_name};
use super::claim::{self, Asked, Kind, Missed, Standing};
use super::frame::Frames;
use super::message::Response;
use super::objects::{self, Applied, NAME};
use super::problem::{Answer, Refused, bad_query, session_expired};
use super::turn::{Undo, Withdrawal};
use super::{respond, wire};
use crate::edge::Edge;

/// `POST /v1/barriers/{n}/enter`: with `session`, `ttl` or `hold=true` an arrival that lives with its session; without,
/// one that stays until its generation is over.
pub async fn enter(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    let id = id(&mut call)?;
    let generation = call.query.number("generation", 1..=u64::MAX)?;
    if !call.query.has(&["session", "ttl", "hold"]) {
        let Some(id) = id else {
            return Err(bad_query("id", "required without session, ttl and hold=true"));
        };
        return for_good(call, name, id, generation).await;
    }
    let asked = Asked::of(&mut call, None)?;
    let bytes = call.no_body().await?;
    let attach = asked.attach.clone();
    let session = match &attach {
        Attach::Session(id) => *id,
        Attach::Private(open) => open.id,
        Attach::None | Attach::Keep => SessionId(0),
    };
    let (named, id) = (id.is_some(), id.unwrap_or_else(|| session.to_string()));
    let enter = Enter { barrier: name.into(), id: id.into(), attach, wait: asked.waits(), generation };
    let entering = Entering { edge: call.edge.clone(), enter, session, named, told: Mutex::new(None) };
    claim::make(call, asked, &bytes, entering, received).await
}

fn id(call: &mut Call) -> Answer<Option<String>> {
    let id = call.query.text("id")?;
    if let Some(id) = &id {
        check_name(id).map_err(|detail| bad_query("id", detail))?;
    }
    Ok(id)
}

/// An arrival with a session.
struct Entering {
    edge: Edge,
    enter: Enter,
    /// The session as asked for; a repeated call may have another.
    session: SessionId,
    /// The caller chose the id. Otherwise it is that of the session.
    named: bool,
    /// What it was told last.
    told: Mutex<Option<Place>>,
}

/// All have come, or they never will; and the session.
struct Grant(Result<Passed, (u64, Why)>, SessionId);

impl Entering {
    fn told(&self) -> Option<Place> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, turn: Turn) -> TurnOf<Grant, Place> {
        match turn {
            TurnOf::Granted(granted) => {
                if let Ok(passed) = &granted {
                    self.passed(passed);
                }
                let session = granted.as_ref().ok().and_then(|passed| passed.session);
                let told = self.told().and_then(|place| place.session);
                TurnOf::Granted(Grant(granted, session.or(told).unwrap_or(self.session)))
            }
            TurnOf::Waiting(place) => {
                *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
                TurnOf::Waiting(place)
            }
            TurnOf::Gone => TurnOf::Gone,
        }
    }

    /// The last to come never waited: it is told its place as if it had.
    fn passed(&self, passed: &Passed) {
        let Passed { id, session, generation, index } = passed.clone();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_or_insert(Place {
            id,
            session,
            generation: Some(generation),
            position: index.map_or(1, |index| index + 1),
            waiting: 0,
            parties: 0,
            since: Timestamp(0),
        });
    }

    fn waiting_problem(&self, waiting: u64, parties: Option<u64>) -> Problem {
        let name = &*self.enter.barrier;
        let (now, missing) = self.edge.node.read(|store| {
            let view = store.view();
            (barrier::read(view, name), barrier::missing(view, name, SHOWN))
        });
        let parties = parties.or(now.map(|it| it.config.parties)).unwrap_or_default();
        waiting_problem(name, waiting, parties, missing)
    }
}

fn waiting_problem(name: &str, waiting: u64, parties: u64, missing: Vec<String>) -> Problem {
    let detail = format!("not all have come barrier={name} waiting={waiting} parties={parties}");
    let problem = Problem::new(Code::BarrierWaiting, detail)
        .with("barrier", name)
        .with("waiting", waiting)
        .with("parties", parties);
    if missing.is_empty() { problem } else { problem.with("missing", missing) }
}

impl Kind for Entering {
    type Grant = Grant;
    type Place = Place;

    fn operation(&self) -> recipes::Operation {
        recipes::Operation::Barrier(barrier::Operation::Enter(self.enter.clone()))
    }

    fn withdrawal(&self, session: SessionId) -> recipes::Operation {
        let id = self.told().map_or_else(|| self.enter.id.clone(), |place| place.id);
        let barrier = self.enter.barrier.clone();
        let claim = Claim { barrier, id, session: Some(session), generation: None };
        recipes::Operation::Barrier(barrier::Operation::Withdraw(claim))
    }

    fn turn(&self, outcome: recipes::Outcome) -> Option<TurnOf<Grant, Place>> {
        match outcome {
            recipes::Outcome::Barrier(barrier::Outcome::Passed(passed)) => {
                Some(self.tell(TurnOf::Granted(Ok(passed))))
            }
            recipes::Outcome::Barrier(barrier::Outcome::Waiting(place)) => {
                Some(self.tell(TurnOf::Waiting(place)))
            }
            _ => None,
        }
    }

    fn in_the_way(&self, refusal: recipes::Refusal) -> Option<Missed> {
        let recipes::Refusal::Barrier(barrier::Refusal::Waiting(waiting, _)) = refusal else { return None };
        Some(Missed { position: None, waiting, blockers: Vec::new(), closed_until: None })
    }

    fn prefixes(&self) -> Vec<Vec<u8>> {
        let name = &self.enter.barrier;
        vec![if self.named {
            barrier::prefix_of(name, &self.enter.id)
        } else {
            barrier::prefix_of_members(name)
        }]
    }

    fn poll(&self, store: &Store, _: SessionId, _: Option<&Key>) -> TurnOf<Grant, Place> {
        let Some(told) = self.told() else { return TurnOf::Gone };
        self.tell(barrier::poll(store.view(), &self.enter.barrier, &told.id, &told))
    }

    fn holder(&self, grant: &Grant) -> SessionId {
        grant.1
    }

    /// Whoever gives up breaks the generation itself.
    fn holds_good(&self, grant: &Grant) -> bool {
        grant.0.is_ok()
    }

    /// A cyclic barrier keeps nothing of those who passed, and what did not come to pass has nobody inside.
    fn ends(&self, grant: &Grant) -> bool {
        let cyclic = || {
            let it = self.edge.node.read(|store| barrier::read(store.view(), &self.enter.barrier));
            it.is_none_or(|it| it.config.kind == barrier::Kind::Cyclic)
        };
        grant.0.as_ref().map_or(true, |passed| passed.index.is_none() || cyclic())
    }

    fn standing(&self, place: &Place) -> Standing {
        let session = place.session.unwrap_or(self.session);
        Standing { session, position: place.position, blockers: Vec::new(), closed_until: None }
    }

    fn granted(&self, revision: Revision, grant: &Grant, valid_for: Span) -> Response {
        match &grant.0 {
            Ok(passed) => {
                let inside = (!valid_for.is_zero()).then_some(grant.1);
                respond::json(StatusCode::OK, revision, &entered(passed, inside, valid_for))
            }
            Err((generation, why)) => {
                let problem = broken(*generation, *why).with("barrier", &*self.enter.barrier);
                Refused::from(problem.at_revision(revision.0)).into_response()
            }
        }
    }

    fn kept(&self, revision: Revision, standing: Standing, valid_for: Span) -> Response {
        let Some(place) = self.told() else {
            return Refused::from(session_expired(standing.session)).into_response();
        };
        let missing = self.edge.node.read(|store| barrier::missing(store.view(), &self.enter.barrier, SHOWN));
        let body = entering(&place, Some(valid_for), missing);
        respond::json(StatusCode::ACCEPTED, revision, &body)
    }

    fn missed(&self, revision: Revision, missed: Missed) -> Answer {
        // Of a wait that ran out: those who waited with it, as it was told.
        let told = self.told().filter(|_| missed.position.is_some());
        let waiting = told.as_ref().map_or(missed.waiting, |place| place.waiting.saturating_sub(1));
        let problem = self.waiting_problem(waiting, told.map(|place| place.parties));
        Err(problem.at_revision(revision.0).into())
    }

    fn acquired(&self, frames: &mut Frames, grant: &Grant, valid_for: Span) {
        match &grant.0 {
            Ok(Passed { id, generation, index, .. }) => {
                let granted = api::Granted::new(wire::session(grant.1), *generation, valid_for);
                let (id, index) = (Some(id.to_string()), *index);
                frames.object("acquired", &HoldFrame::Acquired(api::Granted { id, index, ..granted }));
            }
            Err((generation, why)) => {
                let (reason, detail) = ("broken".to_owned(), Some(broken(*generation, *why).detail));
                frames.object("lost", &HoldFrame::Lost { reason, detail });
            }
        }
    }
}

fn entered(passed: &Passed, inside: Option<SessionId>, valid_for: Span) -> api::Entered {
    api::Entered {
        id: passed.id.to_string(),
        generation: passed.generation,
        index: passed.index,
        session: inside.map(wire::session),
        valid_for: inside.map(|_| valid_for),
    }
}

fn entering(place: &Place, valid_for: Option<Span>, missing: Vec<String>) -> api::Entering {
    api::Entering {
        id: place.id.to_string(),
        session: place.session.map(wire::session),
        valid_for,
        generation: place.generation,
        position: place.position,
        waiting: place.waiting,
        parties: place.parties,
        missing,
    }
}

/// An arrival without a session: nobody's end takes it back, only its caller that gives up.
async fn for_good(mut call: Call, name: String, id: String, generation: Option<u64>) -> Answer {
    let wait = call.wait()?.unwrap_or_default();
    let keep = call.query.flag("keep")?.unwrap_or(false);
    let bytes = call.no_body().await?;
    let barrier: Box<str> = name.as_str().into();
    let claim = Claim { barrier: barrier.clone(), id: id.as_str().into(), session: None, generation: None };
    let withdraw = recipes::Operation::Barrier(barrier::Operation::Withdraw(claim));
    let waits = keep || !wait.is_zero();
    let enter = Enter { barrier, id: id.as_str().into(), attach: Attach::None, wait: waits, generation };
    let mutation = Mutation { principal: call.peer.principal.clone(), guards: Vec::new(), idempotency: None };
    // Whoever goes away while the answer of the log is under way leaves no ghost in the line either.
    let mut withdrawal =
        Withdrawal::new(&call.edge, mutation.clone(), Undo::Program(withdraw.clone().into()));
    if keep {
        withdrawal.settle();
    }
    let applied = match apply(&mut call, &bytes, barrier::Operation::Enter(enter)).await {
        Ok(applied) => applied,
        Err(refused) => {
            if refused.0.effect == api::Effect::None {
                withdrawal.settle();
            }
            return Err(refused);
        }
    };
    let Applied { revision, replayed, outcome } = applied;
    let mut place = match outcome {
        recipes::Outcome::Barrier(barrier::Outcome::Waiting(place)) => place,
        recipes::Outcome::Barrier(barrier::Outcome::Passed(passed)) => {
            withdrawal.settle();
            let body = entered(&passed, None, Span::ZERO);
            return Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), replayed));
        }
        other => return Err(objects::odd(&other)),
    };
    call.edge.node.wait_revision(revision, call.deadline).await?;
    let key = Key::from_bytes(&barrier::prefix_of(&name, &id)).expect("a key of a family");
    let told = place.clone();
    let find = |store: &Store| match barrier::poll(store.view(), &name, &id, &told) {
        TurnOf::Waiting(_) => None,
        turn => Some(turn),
    };
    let (turn, mut revision) = call.until(Selection::Key(key), wait, find).await?;
    let mut turn = match turn {
        Some(turn) => turn,
        None => call.edge.node.read(|store| barrier::poll(store.view(), &name, &id, &told)),
    };
    if let (TurnOf::Waiting(now), false) = (&turn, keep) {
        place = now.clone();
        revision = call.propose(mutation, withdraw.encode()).await?.revision;
        call.edge.node.wait_revision(revision, call.deadline).await?;
        withdrawal.settle();
        // It may have come to pass in the last moment.
        let last = call.edge.node.read(|store| barrier::poll(store.view(), &name, &id, &told));
        turn = if matches!(last, TurnOf::Granted(Ok(_))) { last } else { TurnOf::Gone };
    }
    withdrawal.settle();
    let missing = || call.edge.node.read(|store| barrier::missing(store.view(), &name, SHOWN));
    let response = match turn {
        TurnOf::Granted(Ok(passed)) => {
            respond::json(StatusCode::OK, revision, &entered(&passed, None, Span::ZERO))
        }
        TurnOf::Granted(Err((generation, why))) => {
            return Err(broken(generation, why).with("barrier", name).at_revision(revision.0).into());
        }
        TurnOf::Waiting(place) => {
            respond::json(StatusCode::ACCEPTED, revision, &entering(&place, None, missing()))
        }
        TurnOf::Gone => {
            let waiting = place.waiting.saturating_sub(1);
            let problem = waiting_problem(&name, waiting, place.parties, missing());
            return Err(problem.at_revision(revision.0).into());
        }
    };
    Ok(respond::replayed(response, replayed))
}

/// `POST /v1/barriers/{n}/leave`: out at once, and 200 when all are; 202 as long as others are inside.
pub async fn leave(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let id = id(&mut call)?;
    let session = call.optional_session("session")?;
    let wait = call.wait()?.unwrap_or_default();
    let generation = call.query.number("generation", 1..=u64::MAX)?;
    let Some(id) = id.or_else(|| session.map(|session| session.to_string())) else {
        return Err(bad_query("id", "id or session is required"));
    };
    let bytes = call.no_body().await?;
    let claim = Claim { barrier: name.as_str().into(), id: id.as_str().into(), session, generation };
    let applied = apply(&mut call, &bytes, barrier::Operation::Leave(claim)).await?;
    let generation = match applied.outcome {
        recipes::Outcome::Barrier(barrier::Outcome::Withdrawn) => {
            return Ok(applied.answer(StatusCode::OK, &api::Leaving { generation: None, inside: 0 }));
        }
        recipes::Outcome::Barrier(barrier::Outcome::Left(generation, 0)) => {
            let body = api::Leaving { generation: Some(generation), inside: 0 };
            return Ok(applied.answer(StatusCode::OK, &body));
        }
        recipes::Outcome::Barrier(barrier::Outcome::Left(generation, _)) => generation,
        other => return Err(objects::odd(&other)),
    };
    call.edge.node.wait_revision(applied.revision, call.deadline).await?;
    let way_out = barrier::way_out(&name, &id);
    let gone = |store: &Store| store.get(&way_out).is_none().then_some(());
    let (_, revision) = call.until(Selection::Key(way_out.clone()), wait, gone).await?;
    let now = call.edge.node.read(|store| barrier::read(store.view(), &name));
    let response = match now {
        // Of a barrier that is gone all are out.
        Some(it) if it.generation == generation => {
            if call.edge.node.read(|store| store.get(&way_out).is_none()) {
                return Err(session_expired(session.unwrap_or(SessionId(0))).at_revision(revision.0).into());
            }
            let body = api::Leaving { generation: Some(generation), inside: it.inside };
            respond::json(StatusCode::ACCEPTED, revision, &body)
        }
        Some(_) | None => {
            let body = api::Leaving { generation: Some(generation), inside: 0 };
            respond::json(StatusCode::OK, revision, &body)
        }
    };
    Ok(respond::replayed(response, applied.replayed))
}
