//! ① Elections: campaign, proclaim, resign, renew, transfer, observe.

use std::time::Instant;

use coracle_api::{self as api, Code, HoldFrame, Problem, Span};
use coracle_recipes::election::{self, Candidacy, VALUE_BYTES};
use coracle_recipes::{self as recipes, Turn};
use coracle_store::{Event, Key, Revision, SessionId, Store, Value, View};
use http::{HeaderValue, StatusCode, header};

use super::call::Call;
use super::claim::{self, Asked, Kind, Missed, Standing};
use super::frame::Frames;
use super::lock::{owner, stale, too_many};
use super::message::Response;
use super::objects::{self, NAME, Objects};
use super::problem::{Answer, too_large};
use super::read::Format;
use super::semaphore::renew_holder;
use super::{body, json, respond, watch, wire};

/// Candidates shown of each election in a list.
const CANDIDATES_SHOWN: usize = 100;

static ELECTIONS: Objects<api::Election> = Objects {
    family: election::NAME,
    names: election::names,
    show: |view, name| Some(shown(view, name, CANDIDATES_SHOWN)),
};

fn value(candidacy: &Candidacy) -> api::Value {
    api::Value::new(candidacy.value.as_bytes().to_vec(), json::content_type(&candidacy.content_type))
}

fn leader(leader: &election::Leader) -> api::Leader {
    api::Leader {
        session: wire::session(leader.session),
        owner: wire::optional(&leader.owner),
        token: leader.token.0,
        since: api::Instant::from_unix_ms(leader.since.0),
        priority: leader.candidacy.priority,
        ordinal: leader.ordinal,
        valid_for: None,
        value: value(&leader.candidacy),
    }
}

fn shown(view: View<'_>, name: &str, limit: usize) -> api::Election {
    let seen = election::show(view, name, limit);
    let candidate = |place: &election::Place| api::Candidate {
        session: wire::session(place.session),
        owner: wire::optional(&place.owner),
        priority: place.terms.priority,
        since: api::Instant::from_unix_ms(place.since.0),
        position: place.position,
    };
    api::Election {
        name: name.to_owned(),
        leader: seen.leader.as_ref().map(leader),
        candidates: seen.candidates.iter().map(candidate).collect(),
        waiting: wire::rest(seen.waiting, seen.candidates.len()),
    }
}

/// `GET /v1/elections`
pub async fn list(call: Call) -> Answer {
    ELECTIONS.list(call).await
}

/// `GET /v1/elections/{n}`: also one in which nobody stands, which is vacant; `format=raw` is what the leader says.
pub async fn show(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let selection = ELECTIONS.selection(&name)?;
    if let Some(watching) = watch::asked(&mut call)? {
        let scope = ELECTIONS.scope(selection, Some(name), String::new());
        return watch::open(call, watching, scope).await;
    }
    let raw = call.format(&[("json", Format::Json), ("raw", Format::Raw)])? == Some(Format::Raw);
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    if raw {
        let (said, revision) =
            call.edge.node.read(|store| (election::said(store.view(), &name), store.revision()));
        let Some((candidacy, at)) = said else {
            let problem = Problem::new(Code::ElectionVacant, format!("nobody leads election={name}"));
            return Err(problem.with("election", name).at_revision(revision.0).into());
        };
        return Ok(bare(revision, &candidacy, at));
    }
    let (mut found, revision) =
        call.edge.node.read(|store| (shown(store.view(), &name, usize::MAX), store.revision()));
    if let Some(leader) = &mut found.leader {
        let valid = call.edge.validity(&[SessionId(leader.session.value())]).await;
        leader.valid_for = valid.first().copied().flatten().map(Span::from);
    }
    Ok(respond::json(StatusCode::OK, revision, &found))
}

/// What a leader says, as it said it, and nothing a browser could be talked into running.
fn bare(revision: Revision, candidacy: &Candidacy, at: Revision) -> Response {
    let mut response = respond::json_bytes(StatusCode::OK, revision, candidacy.value.as_bytes().to_vec());
    let given = HeaderValue::from_str(json::content_type(&candidacy.content_type));
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, given.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    headers.insert(header::ETAG, respond::etag(at));
    respond::harmless(headers);
    response
}

/// `POST /v1/elections/{n}/campaign`: the body is what the candidate says as the leader.
pub async fn campaign(mut call: Call) -> Answer {
    let received = Instant::now();
    let name = call.name(NAME)?;
    let priority = call.query.number("priority", 0..=255)?.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    let owner = owner(&mut call)?;
    let asked = Asked::of(&mut call, None)?;
    let bytes = said(&mut call).await?;
    let content_type = body::content_type(&call.headers, &bytes)?;
    let kind = Campaigning(election::Campaign {
        election: name.into(),
        candidacy: Candidacy { priority, value: Value::from(&*bytes), content_type },
        attach: asked.attach.clone(),
        owner,
        wait: asked.waits(),
    });
    claim::make(call, asked, &bytes, kind, received).await
}

async fn said(call: &mut Call) -> Answer<bytes::Bytes> {
    let bytes = call.value().await?;
    if bytes.len() > VALUE_BYTES {
        return Err(too_large("election_value_bytes", VALUE_BYTES as u64, Some(bytes.len() as u64)));
    }
    Ok(bytes)
}

/// The claim on the lead.
struct Campaigning(election::Campaign);

impl Kind for Campaigning {
    type Grant = election::Leader;
    type Place = election::Place;

    fn operation(&self) -> recipes::Operation {
        recipes::Operation::Election(election::Operation::Campaign(self.0.clone()))
    }

    fn withdrawal(&self, session: SessionId) -> recipes::Operation {
        let claim = election::Claim { election: self.0.election.clone(), session, token: None };
        recipes::Operation::Election(election::Operation::Withdraw(claim))
    }

    fn turn(&self, outcome: recipes::Outcome) -> Option<election::Turn> {
        let recipes::Outcome::Election(outcome) = outcome else { return None };
        match outcome {
            election::Outcome::Elected(leader) => Some(Turn::Granted(leader)),
            election::Outcome::Waiting(place) => Some(Turn::Waiting(place)),
            election::Outcome::Resigned(_) => None,
        }
    }

    fn in_the_way(&self, refusal: recipes::Refusal) -> Option<Missed> {
        let recipes::Refusal::Election(election::Refusal::NotElected(leader, waiting)) = refusal else {
            return None;
        };
        Some(Missed::now(waiting, vec![blocker(&leader)]))
    }

    fn prefixes(&self) -> Vec<Vec<u8>> {
        vec![election::prefix(&self.0.election)]
    }

    fn poll(&self, store: &Store, session: SessionId, _: Option<&Key>) -> election::Turn {
        election::poll(store.view(), &self.0.election, session)
    }

    fn holder(&self, leader: &election::Leader) -> SessionId {
        leader.session
    }

    fn standing(&self, place: &election::Place) -> Standing {
        Standing::of(place, claim::blocker)
    }

    fn granted(&self, revision: Revision, leader: &election::Leader, valid_for: Span) -> Response {
        let (token, leader) = (leader.token.0, wire::session(leader.session));
        respond::json(StatusCode::OK, revision, &api::Elected { leader, token, valid_for })
    }

    fn missed(&self, revision: Revision, missed: Missed) -> Answer {
        let election = &*self.0.election;
        let problem = missed.problem(Code::NotElected, &format!("election={election}"), revision);
        Err(problem.with("election", election).into())
    }

    fn acquired(&self, frames: &mut Frames, leader: &election::Leader, valid_for: Span) {
        let (session, token) = (wire::session(leader.session), leader.token.0);
        let granted = api::Granted::new(session, token, valid_for);
        frames.object("acquired", &HoldFrame::Acquired(granted));
    }
}

fn blocker(leader: &election::Leader) -> api::Blocker {
    api::Blocker {
        session: wire::session(leader.session),
        owner: wire::optional(&leader.owner),
        token: Some(leader.token.0),
        since: api::Instant::from_unix_ms(leader.since.0),
        valid_for: None,
        mode: None,
        permits: None,
    }
}

/// `session=` and, if the caller knows it, `token=`.
fn claim_of(call: &mut Call, name: &str) -> Answer<election::Claim> {
    let session = call.session("session")?;
    let token = call.query.number("token", 1..=u64::MAX)?.map(Revision);
    Ok(election::Claim { election: name.into(), session, token })
}

async fn run(
    call: &mut Call,
    body: &[u8],
    operation: election::Operation,
) -> Answer<(objects::Applied, election::Outcome)> {
    let applied = objects::apply(call, body, recipes::Operation::Election(operation)).await?;
    let recipes::Outcome::Election(outcome) = &applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let outcome = outcome.clone();
    Ok((applied, outcome))
}

/// The answer with a term: of a proclamation, or of the one that was handed to somebody.
async fn term(call: &Call, (applied, outcome): (objects::Applied, election::Outcome)) -> Answer {
    let election::Outcome::Elected(leader) = outcome else { return Err(objects::odd(&applied.outcome)) };
    let valid_for = call.edge.valid_for(leader.session).await;
    Ok(applied.answer(StatusCode::OK, &api::Renewed { valid_for, token: leader.token.0 }))
}

/// `POST /v1/elections/{n}/proclaim`: say something else; the token is required.
pub async fn proclaim(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim_of(&mut call, &name)?;
    if claim.token.is_none() {
        return Err(super::problem::bad_query("token", "required"));
    }
    let bytes = said(&mut call).await?;
    let content_type = body::content_type(&call.headers, &bytes)?;
    let operation = election::Operation::Proclaim(claim, Value::from(&*bytes), content_type);
    let done = run(&mut call, &bytes, operation).await?;
    term(&call, done).await
}

/// `POST /v1/elections/{n}/resign`: also leaves the line; `rejoin=true` stands again, at the tail.
pub async fn resign(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim_of(&mut call, &name)?;
    let again = call.query.flag("rejoin")?.unwrap_or(false);
    let bytes = call.no_body().await?;
    let (applied, outcome) = run(&mut call, &bytes, election::Operation::Resign(claim, again)).await?;
    let election::Outcome::Resigned(leader) = outcome else { return Err(objects::odd(&applied.outcome)) };
    let leader = leader.map(|leader| wire::session(leader.session));
    Ok(applied.answer(StatusCode::OK, &api::Resigned { leader, revision: applied.revision.0 }))
}

/// `POST /v1/elections/{n}/renew`: renews the session, if it leads.
pub async fn renew(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim_of(&mut call, &name)?;
    let token = |store: &Store| {
        election::leader(store.view(), &name)
            .filter(|leader| leader.session == claim.session)
            .map(|leader| leader.token)
    };
    let leads = "the session (with that token) does not lead";
    renew_holder(&mut call, claim.session, claim.token, token, (Code::NotLeader, leads)).await
}

/// `POST /v1/elections/{n}/transfer`
pub async fn transfer(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let claim = claim_of(&mut call, &name)?;
    let to = call.session("to")?;
    let bytes = call.no_body().await?;
    let done = run(&mut call, &bytes, election::Operation::Transfer(claim, to)).await?;
    term(&call, done).await
}

/// What an event of a leader tells beside its name: who, and what it says. The JSON object is still open.
pub fn tell(out: &mut Vec<u8>, event: &Event) {
    if let Some(Some(led)) = election::led(event) {
        let election::Leader { owner, candidacy, .. } = led;
        if !owner.is_empty() {
            json::member(out, "owner");
            json::string(out, &owner);
        }
        json::number_member(out, "priority", u64::from(candidacy.priority));
        json::typed_members(out, &candidacy.value, &candidacy.content_type);
    }
}

/// Why an election was not changed.
pub fn problem(refusal: &election::Refusal) -> Problem {
    match refusal {
        election::Refusal::NotElected(leader, waiting) => {
            let blockers = vec![blocker(leader)];
            let detail = format!("held by={} waiting={waiting}", claim::held_by(&blockers));
            Problem::new(Code::NotElected, detail).with("blockers", blockers).with("waiting", waiting)
        }
        election::Refusal::NotLeader => {
            Problem::new(Code::NotLeader, "the session (with that token) does not lead")
        }
        election::Refusal::FenceStale(current) => stale(*current),
        election::Refusal::OtherClaim(priority) => {
            let detail = format!("the session stands or leads with another priority priority={priority}");
            Problem::new(Code::WouldDeadlock, detail).with("priority", priority)
        }
        election::Refusal::TooManyWaiters(limit) => too_many(*limit),
    }
}
