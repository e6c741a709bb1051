//! ① Open, close, break: pausing a queue, and the control of a barrier queue.

use coracle_api::queue as wire;
use coracle_recipes::queue::barrier::{Act, Control, OnBreak};
use coracle_recipes::queue::{Operation, Outcome};
use coracle_store::{Revision, limits};
use http::StatusCode;

use super::super::call::{Call, check_name};
use super::super::objects::NAME;
use super::super::problem::{Answer, bad_query};
use super::{apply, odd};

/// `POST /v1/queues/{q}/open`: go on delivering; with `signal=NAME` or `now=true` what the generation of a barrier queue
/// waits for.
pub async fn open(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let signal = call.query.text("signal")?;
    let now = call.query.flag("now")?.unwrap_or(false);
    let act = match (signal, now) {
        (Some(_), true) => return Err(bad_query("now", "not together with signal")),
        (Some(signal), false) => {
            check_name(&signal).map_err(|detail| bad_query("signal", detail))?;
            Some(Act::Signal(signal.into()))
        }
        (None, true) => Some(Act::Open),
        (None, false) => None,
    };
    match act {
        Some(act) => control(call, name, act).await,
        None => pause(call, name, false).await,
    }
}

/// `POST /v1/queues/{q}/close`: take, but deliver nothing.
pub async fn close(call: Call) -> Answer {
    let name = call.name(NAME)?;
    pause(call, name, true).await
}

/// `POST /v1/queues/{q}/break`: the generation that fills ends without being released.
pub async fn break_generation(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let reason = call.query.text("reason")?.unwrap_or_default();
    if reason.len() > limits::NAME_BYTES {
        return Err(bad_query("reason", format!("at most {} bytes", limits::NAME_BYTES)));
    }
    let words =
        [("carry_over", OnBreak::CarryOver), ("dead_letter", OnBreak::DeadLetter), ("drop", OnBreak::Drop)];
    let items = call.query.word("items", &words)?;
    control(call, name, Act::Break(reason.into(), items)).await
}

async fn pause(mut call: Call, name: String, paused: bool) -> Answer {
    let bytes = call.no_body().await?;
    let (applied, outcome) = apply(&mut call, &bytes, Operation::Pause(name.into(), paused)).await?;
    let Outcome::Done = outcome else { return Err(odd(outcome)) };
    let revision = applied.revision.0;
    let body = wire::Controlled { paused, generation: None, released: None, count: None, revision };
    Ok(applied.answer(StatusCode::OK, &body))
}

async fn control(mut call: Call, name: String, act: Act) -> Answer {
    let token = call.query.number("token", 1..=u64::MAX)?.map(Revision);
    let bytes = call.no_body().await?;
    let control = Control { queue: name.as_str().into(), token, act };
    let (applied, outcome) = apply(&mut call, &bytes, Operation::Control(control)).await?;
    let Outcome::Controlled(generation, released, count) = outcome else { return Err(odd(outcome)) };
    let paused = call.edge.node.read(|store| coracle_recipes::queue::config(store.view(), &name).paused);
    let body = wire::Controlled {
        paused,
        generation: Some(generation),
        released: Some(released),
        count: Some(count),
        revision: applied.revision.0,
    };
    Ok(applied.answer(StatusCode::OK, &body))
}
