//! ① For operators: configure, delete, purge, redrive, transfer.

use std::time::{Duration, Instant};

use coracle_api::queue as wire;
use coracle_recipes::queue::{Operation, Outcome, SLICE};
use coracle_store::{Revision, SessionId, Store};
use http::StatusCode;

use super::super::call::{Call, Mutation, check_name};
use super::super::objects::NAME;
use super::super::problem::{Answer, Refused, bad_query};
use super::super::{respond, wire as ids};
use super::{apply, odd, run, shown};

/// `PUT /v1/queues/{q}`
pub async fn configure(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (wanted, bytes) = call.json::<wire::QueueConfig>().await?;
    let config = shown::configured(&name, wanted)?;
    let operation = Operation::Configure(name.as_str().into(), Some(config));
    let (applied, outcome) = apply(&mut call, &bytes, operation).await?;
    let Outcome::Configured(fresh) = outcome else { return Err(odd(outcome)) };
    call.edge.node.wait_revision(applied.revision, call.deadline).await?;
    let Some(body) = call.edge.node.read(|store| shown::queue(store.view(), &name)) else {
        // Somebody was faster to delete it.
        return Err(super::problem(&coracle_recipes::queue::Refusal::NotFound).into());
    };
    Ok(applied.answer(if fresh { StatusCode::CREATED } else { StatusCode::OK }, &body))
}

/// `DELETE /v1/queues/{q}`: its messages, those in flight too, and its configuration.
pub async fn delete(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let known = {
        call.barrier().await?;
        call.edge.node.read(|store| coracle_recipes::queue::statistics(store.view(), &name))
    };
    let Some(known) = known else {
        return Err(super::problem(&coracle_recipes::queue::Refusal::NotFound).into());
    };
    let (deleted, mut revision, entries) = sliced_purge(&call, &mutation, &name, true).await?;
    if known.configured {
        let operation = Operation::Configure(name.into(), None);
        match run(&call, mutation.part(entries), operation).await {
            Ok((at, ..)) => revision = at,
            Err(Refused(problem)) if problem.code == coracle_api::Code::QueueNotFound => {}
            Err(refused) => return Err(refused),
        }
    }
    let body = coracle_api::Deleted { deleted, revision: revision.0, previous: None };
    Ok(respond::json(StatusCode::OK, revision, &body))
}

/// `POST /v1/queues/{q}/purge`
pub async fn purge(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let in_flight = call.query.flag("in_flight")?.unwrap_or(false);
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    call.barrier().await?;
    let (count, revision, _) = sliced_purge(&call, &mutation, &name, in_flight).await?;
    Ok(respond::json(StatusCode::OK, revision, &wire::Count { count, revision: revision.0 }))
}

/// Remove what was sent before now, a slice an entry: how many, the last revision, how many entries.
async fn sliced_purge(
    call: &Call,
    mutation: &Mutation,
    name: &str,
    in_flight: bool,
) -> Answer<(u64, Revision, u64)> {
    let until = call.edge.node.read(Store::revision);
    let mut count = 0;
    for part in 0.. {
        let operation = Operation::Purge(name.into(), until, in_flight);
        let (revision, _, outcome) = run(call, mutation.part(part), operation).await?;
        let Outcome::Moved(moved, more) = outcome else { return Err(odd(outcome)) };
        count += moved;
        if !more {
            return Ok((count, revision, part + 1));
        }
    }
    Ok((count, until, 0))
}

/// `POST /v1/queues/{q}/redrive`: bring dead letters back.
pub async fn redrive(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let to = call.query.text("to")?;
    if let Some(to) = &to {
        check_name(to).map_err(|detail| bad_query("to", detail))?;
    }
    let rate = call.query.number("rate", 1..=100_000)?;
    let most = call.query.number("limit", 1..=u64::MAX)?.unwrap_or(u64::MAX);
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let (began, mut count) = (Instant::now(), 0);
    for part in 0.. {
        // Ten slices a second, or as large ones as there are.
        let slice = rate.map_or(SLICE as u64, |rate| rate.div_ceil(10)).min(SLICE as u64).min(most - count);
        let slice = u32::try_from(slice).unwrap_or(1);
        let operation = Operation::Redrive(name.as_str().into(), to.as_deref().map(Into::into), slice);
        let (revision, _, outcome) = run(&call, mutation.part(part), operation).await?;
        let Outcome::Moved(moved, more) = outcome else { return Err(odd(outcome)) };
        count += moved;
        if !more || count >= most {
            return Ok(respond::json(StatusCode::OK, revision, &wire::Count { count, revision: revision.0 }));
        }
        if let Some(rate) = rate {
            let due = began + Duration::from_millis(count.saturating_mul(1_000) / rate);
            tokio::time::sleep_until(due.into()).await;
        }
    }
    Err(odd(Outcome::Done))
}

/// `POST /v1/queues/{q}/transfer`: the part of the one consumer to another session.
pub async fn transfer(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (from, to): (SessionId, SessionId) = (call.session("session")?, call.session("to")?);
    let bytes = call.no_body().await?;
    let (applied, outcome) = apply(&mut call, &bytes, Operation::Transfer(name.into(), from, to)).await?;
    let Outcome::Done = outcome else { return Err(odd(outcome)) };
    let valid_for = call.edge.valid_for(to).await;
    let body = wire::Consuming { consumer: ids::session(to), valid_for, revision: applied.revision.0 };
    Ok(applied.answer(StatusCode::OK, &body))
}
