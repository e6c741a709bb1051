//! ① Groups: join, leave, and whose share of the work is what.

use std::time::Instant;

use bytes::Bytes;
use coracle_api::{self as api, Code, Problem};
use coracle_recipes as recipes;
use coracle_recipes::group::{self, Join, Leave, MEMBERS, SLOTS, Seen};
use coracle_store::{Attach, Revision, SessionId, Store, Value, View, limits};
use http::StatusCode;

use super::call::{Call, name_of};
use super::objects::{self, NAME, Objects};
use super::problem::{Answer, Refused, too_large};
use super::read::Format;
use super::{body, held, hold, json, kv, respond, watch, wire};

/// Where the id is in `/v1/groups/{name}/members/{id}`.
const ID: usize = 4;

static GROUPS: Objects<api::Group> = Objects {
    family: group::NAME,
    names: group::names,
    show: |view, name| {
        let Seen { size, view } = group::seen(view, name);
        Some(api::Group { name: name.to_owned(), size, view: view.0, members: None })
    },
};

/// `GET /v1/groups`
pub async fn list(call: Call) -> Answer {
    GROUPS.list(call).await
}

/// `GET /v1/groups/{g}`: also one where nobody is. `wait=30s&min=3` waits until three are there, 304 if they are not in
/// time; `slots=N` says whose each of N slots is.
pub async fn show(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let selection = GROUPS.selection(&name)?;
    if let Some(watching) = watch::asked(&mut call)? {
        let shown = |store: &Store, name: Option<&str>, _: &str| {
            let mut out = Vec::new();
            json::to_json(&mut out, &whole(store.view(), name.unwrap_or_default()));
            vec![out]
        };
        return watch::open(
            call,
            watching,
            watch::Scope::recipe(selection, Some(name), String::new(), shown),
        )
        .await;
    }
    let slots = slots(&mut call)?;
    if let Some(min) = call.query.number("min", 1..=MEMBERS)? {
        let wait = call.wait()?.unwrap_or_default();
        call.format(&[("json", Format::Json)])?;
        call.query.done()?;
        let enough = |store: &Store| {
            (group::seen(store.view(), &name).size >= min).then(|| whole(store.view(), &name))
        };
        let (found, revision) = call.until(group::turning_points(&name), wait, enough).await?;
        let Some(group) = found else { return Ok(respond::not_modified(revision)) };
        return answer(group, slots, revision).await;
    }
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let (group, revision) = call.edge.node.read(|store| (whole(store.view(), &name), store.revision()));
    answer(group, slots, revision).await
}

/// `GET /v1/groups/{g}/members/{id}`
pub async fn member(mut call: Call) -> Answer {
    let (name, id) = (call.name(NAME)?, id(&call)?);
    let slots = slots(&mut call)?;
    // Whose share is what changes with every member.
    let selection =
        if slots.is_some() { group::turning_points(&name) } else { group::selection_of(&name, &id) };
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let read = |store: &Store| {
        let view = store.view();
        let member = group::member(view, &name, &id);
        let ids = slots.map(|_| group::members(view, &name).map(|(id, ..)| id).collect::<Vec<_>>());
        (member, ids, store.revision())
    };
    let (member, ids, revision) = call.edge.node.read(read);
    let Some((session, member)) = member else {
        let problem = Problem::new(Code::MemberNotFound, format!("no such member group={name} id={id}"));
        return Err(problem.with("group", name).with("id", id).at_revision(revision.0).into());
    };
    let mut shown = shown(id, session, member);
    if let (Some(slots), Some(ids)) = (slots, ids) {
        let position = ids.iter().position(|other| *other == shown.id);
        let owners = divided(ids, slots).await?;
        shown.slots =
            Some((0..).zip(owners).filter(|(_, at)| Some(*at) == position).map(|(n, _)| n).collect());
    }
    Ok(respond::json(StatusCode::OK, revision, &shown))
}

/// `PUT /v1/groups/{g}/members/{id}`: come, or say something new; the latter needs no session.
pub async fn join(mut call: Call) -> Answer {
    let received = Instant::now();
    let (name, id) = (call.name(NAME)?, id(&call)?);
    let progress = call.query.number("progress", 0..=100)?.and_then(|done| u8::try_from(done).ok());
    let ephemeral = kv::ephemeral(&mut call)?;
    let bytes: Bytes = call.value().await?;
    if bytes.len() > limits::META_BYTES {
        return Err(too_large("metadata_bytes", limits::META_BYTES as u64, Some(bytes.len() as u64)));
    }
    let content_type = body::content_type(&call.headers, &bytes)?;
    let (attach, private, hold) =
        ephemeral.map_or((Attach::Keep, None, None), |e| (e.attach, e.private, e.hold));
    let opening = hold.map(|hold| hold::opening(&mut call, hold)).transpose()?;
    let payload = Value::from(&*bytes);
    let group = name.into();
    let join = Join { group, id: id.as_str().into(), attach, payload, content_type, progress };
    let operation = recipes::Operation::Group(group::Operation::Join(join));
    let applied = objects::apply(&mut call, &bytes, operation).await?;
    let recipes::Outcome::Group(group::Outcome::Joined(seen, session, new)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let revision = applied.revision;
    if let Some(opening) = opening {
        return Ok(held::written(call, opening, session, revision, received));
    }
    let valid_for = super::claim::first_validity(&call.edge, private, session, received).await;
    let session = wire::session(session);
    let Seen { size, view } = seen;
    let body = api::Joined { id, session, valid_for, size, view: view.0, revision: revision.0 };
    Ok(applied.answer(if new { StatusCode::CREATED } else { StatusCode::OK }, &body))
}

/// `DELETE /v1/groups/{g}/members/{id}`
pub async fn leave(mut call: Call) -> Answer {
    let (name, id) = (call.name(NAME)?, id(&call)?);
    let session = call.optional_session("session")?;
    let bytes = call.no_body().await?;
    let leave = group::Operation::Leave(Leave { group: name.into(), id: id.into(), session });
    let applied = objects::apply(&mut call, &bytes, recipes::Operation::Group(leave)).await?;
    let recipes::Outcome::Group(group::Outcome::Left(Seen { size, view }, was)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let body = api::Left { deleted: was.into(), size, view: view.0, revision: applied.revision.0 };
    Ok(applied.answer(StatusCode::OK, &body))
}

fn id(call: &Call) -> Answer<String> {
    let raw = call.uri.path().split('/').nth(ID + 1).unwrap_or_default();
    name_of(raw)
}

fn slots(call: &mut Call) -> Answer<Option<u64>> {
    call.query.number("slots", 1..=SLOTS)
}

fn shown(id: String, session: SessionId, member: group::Member) -> api::GroupMember {
    let group::Member { payload, content_type, progress, since } = member;
    api::GroupMember {
        id,
        session: wire::session(session),
        since: api::Instant::from_unix_ms(since.0),
        progress,
        payload: api::Value::new(payload.as_bytes().to_vec(), json::content_type(&content_type)),
        slots: None,
    }
}

fn whole(view: View<'_>, name: &str) -> api::Group {
    let Seen { size, view: seen } = group::seen(view, name);
    let members = group::members(view, name).map(|(id, session, member)| shown(id, session, member));
    api::Group { name: name.to_owned(), size, view: seen.0, members: Some(members.collect()) }
}

async fn answer(mut group: api::Group, slots: Option<u64>, revision: Revision) -> Answer {
    if let (Some(slots), Some(members)) = (slots, &mut group.members) {
        let ids = members.iter().map(|member| member.id.clone()).collect();
        let owners = divided(ids, slots).await?;
        for member in members.iter_mut() {
            member.slots = Some(Vec::new());
        }
        for (slot, at) in (0..).zip(owners) {
            members[at].slots.get_or_insert_default().push(slot);
        }
    }
    Ok(respond::json(StatusCode::OK, revision, &group))
}

/// Owners of the slots, as positions; aside if it takes long.
async fn divided(ids: Vec<String>, slots: u64) -> Answer<Vec<usize>> {
    const AT_ONCE: u64 = 100_000;
    if ids.len() as u64 * slots < AT_ONCE {
        return Ok(group::shares(&ids, slots));
    }
    let dividing = tokio::task::spawn_blocking(move || group::shares(&ids, slots));
    dividing.await.map_err(|_| Refused::from(Problem::new(Code::Internal, "dividing the slots stopped")))
}

/// Why a group was not changed.
pub fn problem(refusal: &group::Refusal) -> Problem {
    match refusal {
        group::Refusal::NotMember => Problem::new(
            Code::MemberNotFound,
            "no such member (in that session); to join takes one of session, ttl and hold=true",
        ),
        group::Refusal::Full(limit) => {
            let detail = format!("as many as may be are in the group limit=members_per_group max={limit}");
            Problem::new(Code::TooLarge, detail).with("limit", "members_per_group").with("max", limit)
        }
    }
}
