//! ⑦ Reading queues, and single messages, without effect; and taking one message out.

use coracle_api::queue as wire;
use coracle_api::{Code, Problem};
use coracle_recipes::queue::{self, MessageId, Operation, Outcome, Own};
use http::StatusCode;

use super::super::call::Call;
use super::super::objects::{NAME, Objects};
use super::super::problem::{Answer, Refused};
use super::super::{respond, watch};
use super::{apply, odd, shown};

/// Where the id is in `/v1/queues/{name}/messages/{id}`.
const ID: usize = 4;

pub(super) static QUEUES: Objects<wire::Queue> =
    Objects { family: queue::NAME, names: queue::list, show: shown::queue };
/// With the line of receivers.
static WHOLE: Objects<wire::Queue> = Objects { family: queue::NAME, names: queue::list, show: shown::whole };

/// `GET /v1/queues`
pub async fn list(call: Call) -> Answer {
    QUEUES.list(call).await
}

/// `GET /v1/queues/{q}`
pub async fn show(call: Call) -> Answer {
    WHOLE
        .one(call, |name| {
            let detail = format!("the queue has nothing and is not configured queue={name}");
            Problem::new(Code::QueueNotFound, detail).with("queue", name)
        })
        .await
}

fn id(call: &Call) -> Answer<MessageId> {
    let raw = call.uri.path().split('/').nth(ID + 1).unwrap_or_default();
    raw.parse().map_err(|()| Refused::from(Problem::invalid("path", "id", "a message's id, such as 812-0")))
}

/// `GET /v1/queues/{q}/messages/{id}`
pub async fn message(mut call: Call) -> Answer {
    let (name, id) = (call.name(NAME)?, id(&call)?);
    if let Some(watching) = watch::asked(&mut call)? {
        let scope = super::messages::following(QUEUES.selection(&name)?, name, id);
        return watch::open(call, watching, scope).await;
    }
    if let Some(revision) = call.ready(QUEUES.selection(&name)?).await? {
        return Ok(respond::not_modified(revision));
    }
    let (found, own, revision) = call.edge.node.read(|store| {
        let view = store.view();
        (queue::message(view, &name, id), queue::own(view, &name, id), store.revision())
    });
    let Some(found) = found else {
        return Err(super::problem(&queue::Refusal::MessageNotFound(id)).at_revision(revision.0).into());
    };
    let mut body = shown::item(&found);
    let config = call.edge.node.read(|store| queue::config(store.view(), &name));
    let mine = config.barrier.is_some_and(|barrier| barrier.hand_out == queue::barrier::HandOut::Own);
    if let Own::Released { delivery, turn: true, .. } = own
        && mine
    {
        body.receipt = Some(shown::own_receipt(id, delivery));
    }
    Ok(respond::json(StatusCode::OK, revision, &body))
}

/// `DELETE /v1/queues/{q}/messages/{id}`
pub async fn remove(mut call: Call) -> Answer {
    let (name, id) = (call.name(NAME)?, id(&call)?);
    let bytes = call.no_body().await?;
    let (applied, outcome) = apply(&mut call, &bytes, Operation::Remove(name.into(), id)).await?;
    let Outcome::Moved(deleted, _) = outcome else { return Err(odd(outcome)) };
    let body = coracle_api::Deleted { deleted, revision: applied.revision.0, previous: None };
    Ok(applied.answer(StatusCode::OK, &body))
}
