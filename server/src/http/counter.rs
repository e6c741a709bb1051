//! ① Counters: add, set, read.

use coracle_api::{self as api, Code, Problem};
use coracle_recipes as recipes;
use coracle_recipes::counter::{self, MAX, MIN};
use coracle_store::View;
use http::{HeaderValue, StatusCode, header};

use super::call::Call;
use super::objects::{self, NAME, Objects};
use super::problem::{Answer, bad_body};
use super::read::Format;
use super::{kv, query, respond, watch};

static COUNTERS: Objects<api::Counter> =
    Objects { family: counter::NAME, names: counter::names, show: |view, name| Some(shown(view, name)) };

fn shown(view: View<'_>, name: &str) -> api::Counter {
    let counter = counter::read(view, name);
    api::Counter { name: name.to_owned(), value: counter.value, mod_revision: counter.revision.0 }
}

/// `GET /v1/counters`
pub async fn list(call: Call) -> Answer {
    COUNTERS.list(call).await
}

/// `GET /v1/counters/{n}`: also one that was never written, which is 0; `format=raw` is the bare number.
pub async fn show(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let selection = COUNTERS.selection(&name)?;
    if let Some(watching) = watch::asked(&mut call)? {
        let scope = COUNTERS.scope(selection, Some(name), String::new());
        return watch::open(call, watching, scope).await;
    }
    let raw = call.format(&[("json", Format::Json), ("raw", Format::Raw)])? == Some(Format::Raw);
    if let Some(revision) = call.ready(selection).await? {
        return Ok(respond::not_modified(revision));
    }
    let (counter, revision) = call.edge.node.read(|store| (shown(store.view(), &name), store.revision()));
    let mut response = if raw {
        let mut bare = respond::json_bytes(StatusCode::OK, revision, counter.value.to_string().into());
        bare.headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        bare
    } else {
        respond::json(StatusCode::OK, revision, &counter)
    };
    if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", counter.mod_revision)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// `POST /v1/counters/{n}/add`
pub async fn add(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let delta = call.query.integer("delta", MIN..=MAX)?.unwrap_or(1);
    let min = call.query.integer("min", MIN..=MAX)?;
    let max = call.query.integer("max", MIN..=MAX)?;
    let bytes = call.no_body().await?;
    write(call, &bytes, counter::add(&name, delta, min, max)).await
}

/// `PUT /v1/counters/{n}`
pub async fn set(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let precondition = kv::precondition(&mut call)?;
    let bytes = call.value().await?;
    let value = query::integer(bytes.trim_ascii()).filter(|value| (MIN..=MAX).contains(value));
    let Some(value) = value else {
        return Err(bad_body(format!("a whole number min={MIN} max={MAX}")));
    };
    let set = counter::Set { counter: name.into(), value, precondition };
    write(call, &bytes, recipes::Operation::Counter(counter::Operation::Set(set))).await
}

/// `DELETE /v1/counters/{n}`
pub async fn delete(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let precondition = kv::precondition(&mut call)?;
    let bytes = call.no_body().await?;
    let delete = counter::Operation::Delete(name.into(), precondition);
    write(call, &bytes, recipes::Operation::Counter(delete)).await
}

async fn write(mut call: Call, body: &[u8], operation: recipes::Operation) -> Answer {
    let applied = objects::apply(&mut call, body, operation).await?;
    let recipes::Outcome::Counter(counter::Outcome::Value(value, previous)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let body = api::Counted { value, previous, revision: applied.revision.0 };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// Why a counter was not changed.
pub fn problem(refusal: &counter::Refusal) -> Problem {
    match refusal {
        counter::Refusal::OutOfRange(value, min, max) => {
            let detail = format!("the counter stays as it is value={value} min={min} max={max}");
            Problem::new(Code::OutOfRange, detail).with("value", value).with("min", min).with("max", max)
        }
        counter::Refusal::Changed(value, revision) => {
            let detail = format!("the counter is otherwise value={value} current_revision={revision}");
            Problem::new(Code::RevisionMismatch, detail)
                .with("value", value)
                .with("current_revision", revision.0)
        }
    }
}
