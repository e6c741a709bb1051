//! ⑥ A producer that waits for its own item of a barrier queue: released, with its ordinal, and with `strict` its turn.

use std::time::Instant;

use coracle_api::Span;
use coracle_recipes::queue::{self, MessageId, Own, Sent};
use coracle_store::Store;
use http::StatusCode;

use super::super::call::Call;
use super::super::objects::Applied;
use super::super::problem::Answer;
use super::super::respond;
use super::super::turn::{any_changed, watches};
use super::{send, shown};
use crate::edge::{Admitted, Edge};

/// Wait for it, at most so long. 201 with the ordinal; 202 if the generation still fills, or it is not its turn yet: the
/// item stays, and `GET` of it or the same request with its Idempotency-Key waits on. 404 if it has gone.
pub async fn wait(call: Call, queue: String, sent: Sent, applied: Applied, wait: Span) -> Answer {
    let edge = call.edge.clone();
    edge.node.wait_revision(applied.revision, call.deadline).await?;
    let place = edge.park()?;
    drop(call);
    let end = Instant::now() + wait.as_duration();
    Ok(respond::later(answered(edge, queue, sent, applied, end, place)))
}

async fn answered(
    edge: Edge,
    queue: String,
    sent: Sent,
    applied: Applied,
    end: Instant,
    place: Admitted,
) -> Answer {
    let own = turn(&edge, &queue, sent.id, end).await?;
    drop(place);
    let mut body = send::answer(sent, applied.revision.0);
    let status = match own {
        Own::Released { generation, ordinal, size, delivery, turn } => {
            (body.generation, body.ordinal, body.size) = (Some(generation), Some(ordinal), Some(size));
            body.receipt = turn.then(|| shown::own_receipt(sent.id, delivery));
            if turn { StatusCode::CREATED } else { StatusCode::ACCEPTED }
        }
        Own::Filling(generation, _) => {
            body.generation = Some(generation);
            StatusCode::ACCEPTED
        }
        Own::Gone => {
            let revision = edge.node.read(Store::revision);
            let refusal = queue::Refusal::MessageNotFound(sent.id);
            return Err(super::problem(&refusal).at_revision(revision.0).into());
        }
    };
    let revision = edge.node.read(Store::revision);
    Ok(respond::replayed(respond::json(status, revision, &body), applied.replayed))
}

/// How the item stands when it may go, is gone, or the time is up.
async fn turn(edge: &Edge, queue: &str, id: MessageId, end: Instant) -> Answer<Own> {
    loop {
        let look = |store: &Store| {
            (queue::own(store.view(), queue, id), queue::watched_own(store.view(), queue, id))
        };
        let (_, keys) = edge.node.read(look);
        let watches = watches(edge, &keys);
        // It may have changed between the look and the registration.
        let (own, again) = edge.node.read(look);
        match own {
            Own::Gone | Own::Released { turn: true, .. } => return Ok(own),
            _ if Instant::now() >= end => return Ok(own),
            _ if again != keys => continue,
            Own::Filling(..) | Own::Released { .. } => {}
        }
        tokio::select! {
            biased;
            () = edge.drained() => return Err(Edge::shutting_down()),
            () = any_changed(watches) => {}
            () = tokio::time::sleep_until(end.into()) => {}
        }
    }
}
