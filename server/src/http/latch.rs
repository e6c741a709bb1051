//! ① Latches: make, count down, await.

use coracle_api::{self as api, Code, Problem};
use coracle_recipes as recipes;
use coracle_recipes::latch::{self, COUNT_MAX, CountDown, Create, Latch};
use coracle_store::{Revision, Store, View};
use http::StatusCode;

use super::call::{Call, check_name, check_names};
use super::message::Response;
use super::objects::{self, Applied, NAME, Objects};
use super::problem::{Answer, bad_body, bad_query};
use super::respond;

/// Members named as missing in one answer.
const MISSING: usize = 100;

static LATCHES: Objects<api::Latch> = Objects {
    family: latch::NAME,
    names: latch::names,
    show: |view, name| latch::read(view, name).map(|(latch, _)| shown(view, name, latch)),
};

fn shown(view: View<'_>, name: &str, latch: Latch) -> api::Latch {
    let Latch { count, left } = latch;
    let missing = latch::missing(view, name, MISSING);
    api::Latch { name: name.to_owned(), count, left, open: left == 0, missing }
}

/// `GET /v1/latches`
pub async fn list(call: Call) -> Answer {
    LATCHES.list(call).await
}

/// `GET /v1/latches/{n}`
pub async fn show(call: Call) -> Answer {
    LATCHES.one(call, not_found).await
}

/// `PUT /v1/latches/{n}`
pub async fn create(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (config, bytes) = call.json::<api::LatchConfig>().await?;
    let members = members(config.members)?;
    let count = match config.count {
        None if members.is_empty() => return Err(bad_body("count or members is required")),
        None => members.len() as u64,
        Some(count) if !members.is_empty() && count != members.len() as u64 => {
            return Err(bad_body("count is the number of members, if there are any"));
        }
        Some(count) if !(1..=COUNT_MAX).contains(&count) => {
            return Err(bad_body(format!("count: a whole number min=1 max={COUNT_MAX}")));
        }
        Some(count) => count,
    };
    let create = Create { latch: name.as_str().into(), count, members };
    let applied = apply(&mut call, &bytes, latch::Operation::Create(create)).await?;
    let recipes::Outcome::Latch(latch::Outcome::Latch(latch, made)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let body = call.edge.node.read(|store| shown(store.view(), &name, latch));
    Ok(applied.answer(if made { StatusCode::CREATED } else { StatusCode::OK }, &body))
}

/// Declared members, in order.
pub fn members(names: Vec<String>) -> Answer<Vec<Box<str>>> {
    let mut members = check_names("members", names, recipes::MEMBERS)?;
    members.sort();
    Ok(members)
}

/// `POST /v1/latches/{n}/count_down`
pub async fn count_down(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let id = call.query.text("id")?.ok_or_else(|| bad_query("id", "required"))?;
    check_name(&id).map_err(|detail| bad_query("id", detail))?;
    let bytes = call.no_body().await?;
    let down = latch::Operation::CountDown(CountDown { latch: name.into(), id: id.into() });
    let applied = apply(&mut call, &bytes, down).await?;
    let recipes::Outcome::Latch(latch::Outcome::Counted(Latch { count, left }, counted)) = applied.outcome
    else {
        return Err(objects::odd(&applied.outcome));
    };
    let body = api::CountedDown { count, left, counted, revision: applied.revision.0 };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// `DELETE /v1/latches/{n}`
pub async fn delete(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let bytes = call.no_body().await?;
    let applied = apply(&mut call, &bytes, latch::Operation::Delete(name.into())).await?;
    let body = api::Deleted { deleted: 1, revision: applied.revision.0, previous: None };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// `POST /v1/latches/{n}/await`: 200 once it is open, also if it was deleted right after; otherwise 409, or 202 with
/// `keep=true`. Nobody has a place in a line: to wait on is to ask again, on any node.
pub async fn wait(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let wait = call.wait()?.unwrap_or_default();
    let keep = call.query.flag("keep")?.unwrap_or(false);
    call.no_body().await?;
    call.query.done()?;
    call.barrier().await?;
    let begin = call.edge.node.read(Store::revision);
    let (opened, revision) =
        call.until(latch::turning_points(&name), wait, |store| opened(store, &name, begin)).await?;
    if let Some(latch) = opened {
        return Ok(answer(StatusCode::OK, revision, name, latch, Vec::new()));
    }
    let found = call.edge.node.read(|store| {
        let view = store.view();
        latch::read(view, &name).map(|(latch, _)| (latch, latch::missing(view, &name, MISSING)))
    });
    let Some((latch, missing)) = found else { return Err(not_found(&name).at_revision(revision.0).into()) };
    if keep {
        return Ok(answer(StatusCode::ACCEPTED, revision, name, latch, missing));
    }
    let Latch { count, left } = latch;
    let problem = Problem::new(Code::LatchClosed, format!("the latch is closed latch={name} left={left}"))
        .with("latch", name)
        .with("count", count)
        .with("left", left)
        .at_revision(revision.0);
    Err(if missing.is_empty() { problem } else { problem.with("missing", missing) }.into())
}

/// The latch, if it is open, or was deleted after it had opened.
fn opened(store: &Store, name: &str, begin: Revision) -> Option<Latch> {
    let latch = if let Some((latch, _)) = latch::read(store.view(), name) {
        latch
    } else {
        let newest = store.key_history(&latch::whole(name)).next();
        let (.., event) = newest.filter(|(revision, ..)| *revision > begin)?;
        latch::told(event)?
    };
    (latch.left == 0).then_some(latch)
}

fn answer(
    status: StatusCode,
    revision: Revision,
    name: String,
    latch: Latch,
    missing: Vec<String>,
) -> Response {
    let Latch { count, left } = latch;
    respond::json(status, revision, &api::Latch { name, count, left, open: left == 0, missing })
}

async fn apply(call: &mut Call, body: &[u8], operation: latch::Operation) -> Answer<Applied> {
    objects::apply(call, body, recipes::Operation::Latch(operation)).await
}

fn not_found(name: &str) -> Problem {
    Problem::new(Code::LatchNotFound, format!("no such latch latch={name}")).with("latch", name)
}

/// Why a latch was not changed.
pub fn problem(refusal: &latch::Refusal) -> Problem {
    match refusal {
        latch::Refusal::NotFound => Problem::new(Code::LatchNotFound, "no such latch"),
        latch::Refusal::Exists(Latch { count, left }) => {
            let detail = format!("it exists with another count or other members count={count} left={left}");
            Problem::new(Code::AlreadyExists, detail).with("count", count).with("left", left)
        }
        latch::Refusal::NotMember(id) => {
            Problem::new(Code::MemberNotFound, format!("not one of the declared members id={id}"))
                .with("id", id)
        }
    }
}
