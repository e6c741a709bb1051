//! ① Fences: check a token for a store that cannot do so itself.

use coracle_api::{self as api, Code, Problem};
use coracle_recipes as recipes;
use coracle_recipes::fence;
use coracle_store::{Revision, View};
use http::StatusCode;

use super::call::Call;
use super::objects::{self, NAME, Objects};
use super::problem::{Answer, bad_query};

static FENCES: Objects<api::Fence> =
    Objects { family: fence::NAME, names: fence::names, show: |view, name| Some(shown(view, name)) };

/// Tokens are revisions; what no reader of JSON has exactly would shut the resource for good.
pub const TOKEN_MAX: u64 = (1 << 53) - 1;

fn shown(view: View<'_>, name: &str) -> api::Fence {
    let (token, revision) = fence::read(view, name).map_or((0, 0), |fence| (fence.token.0, fence.revision.0));
    api::Fence { name: name.to_owned(), token, mod_revision: revision }
}

/// `GET /v1/fences`
pub async fn list(call: Call) -> Answer {
    FENCES.list(call).await
}

/// `GET /v1/fences/{resource}`: also one that was never checked.
pub async fn show(call: Call) -> Answer {
    FENCES.one(call, |_| Problem::new(Code::Internal, "every fence can be shown")).await
}

/// `POST /v1/fences/{resource}/check`
pub async fn check(mut call: Call) -> Answer {
    let resource = call.name(NAME)?;
    let token = call.query.number("token", 1..=TOKEN_MAX)?.ok_or_else(|| bad_query("token", "required"))?;
    let bytes = call.no_body().await?;
    let check = fence::Operation::Check(resource.into(), Revision(token));
    let applied = objects::apply(&mut call, &bytes, recipes::Operation::Fence(check)).await?;
    let recipes::Outcome::Fence(fence::Outcome::Passed(token, previous)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let (token, previous, revision) = (token.0, previous.map(|it| it.0), applied.revision.0);
    Ok(applied.answer(StatusCode::OK, &api::FencePassed { token, previous, revision }))
}

/// `DELETE /v1/fences/{resource}`
pub async fn delete(mut call: Call) -> Answer {
    let resource = call.name(NAME)?;
    let bytes = call.no_body().await?;
    let delete = recipes::Operation::Fence(fence::Operation::Delete(resource.into()));
    let applied = objects::apply(&mut call, &bytes, delete).await?;
    let recipes::Outcome::Fence(fence::Outcome::Deleted(seen)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let deleted = u64::from(seen.is_some());
    let body = api::Deleted { deleted, revision: applied.revision.0, previous: None };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// Why a token may not pass.
pub fn problem(refusal: &fence::Refusal) -> Problem {
    let fence::Refusal::Stale(Revision(current)) = refusal;
    Problem::new(Code::FenceStale, format!("a newer token was seen current_token={current}"))
        .with("current_token", current)
}
