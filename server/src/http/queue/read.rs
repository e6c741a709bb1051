//! ⑦ Reading queues and their messages, without effect; and taking one message out.

use coracle_api::queue as wire;
use coracle_api::{Code, Problem};
use coracle_recipes::queue::{self, MessageId, Messages, Operation, Outcome, Own, State};
use coracle_store::View;
use http::StatusCode;

use super::super::call::Call;
use super::super::list::Listing;
use super::super::objects::{NAME, Objects};
use super::super::problem::{Answer, Refused, bad_query};
use super::super::respond;
use super::{apply, odd, shown};

/// Where the id is in `/v1/queues/{name}/messages/{id}`.
const ID: usize = 4;

static QUEUES: Objects<wire::Queue> = Objects { family: queue::NAME, names: queue::list, show: shown::queue };
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

/// `GET /v1/queues/{q}/messages`: a page, as of one revision.
pub async fn messages(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let words = [
        ("ready", "ready"),
        ("blocked", "blocked"),
        ("delayed", "delayed"),
        ("in_flight", "in_flight"),
        ("held", "held"),
        ("dead", "dead"),
    ];
    let word = call.query.word("state", &words)?;
    let generation = call.query.number("generation", 1..=u64::MAX)?;
    if word.is_some() && generation.is_some() {
        return Err(bad_query("generation", "not together with state"));
    }
    let (mut name, mut state) = (name, None);
    match word {
        Some("ready") => state = Some(State::Ready),
        Some("blocked") => state = Some(State::Blocked),
        Some("delayed") => state = Some(State::Delayed),
        Some("in_flight") => state = Some(State::InFlight),
        Some("held") => state = Some(State::Held),
        Some(_) => {
            call.barrier().await?;
            let known = call.edge.node.read(|store| queue::statistics(store.view(), &name));
            let plain = format!("{name}{}", queue::DEAD);
            name = known.and_then(|known| known.dead_letter).unwrap_or(plain);
        }
        None => {}
    }
    let number = generation.map(u64::to_be_bytes).unwrap_or_default();
    let parts = [b"messages", name.as_bytes(), word.unwrap_or_default().as_bytes(), &number];
    let listing = Listing::of(&mut call, &parts)?;
    if let Some(unchanged) = listing.ready(&mut call, QUEUES.selection(&name)?).await? {
        return Ok(unchanged);
    }
    let names = |view: View<'_>, after: Option<&str>, limit: usize| {
        let after = after.map(unhex);
        let items = match generation {
            Some(number) => {
                let Some(slot) = queue::slot_of(view, &name, number) else { return Vec::new() };
                let after = after.as_deref().and_then(MessageId::from_end);
                queue::items(view, &name, slot, after, limit)
            }
            None => queue::messages(view, &name, &Messages { state, after, limit }),
        };
        items.iter().map(|item| hex(&item.position)).collect()
    };
    let show = |view: View<'_>, position: &str| {
        let id = MessageId::from_end(&unhex(position))?;
        queue::message(view, &name, id).map(|item| shown::item(&item))
    };
    Ok(listing.page(&call, names, show)?.answer())
}

/// Positions in a cursor are text.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).filter_map(pair).collect()
}

fn id(call: &Call) -> Answer<MessageId> {
    let raw = call.uri.path().split('/').nth(ID + 1).unwrap_or_default();
    raw.parse().map_err(|()| Refused::from(Problem::invalid("path", "id", "a message's id, such as 812-0")))
}

/// `GET /v1/queues/{q}/messages/{id}`
pub async fn message(mut call: Call) -> Answer {
    let (name, id) = (call.name(NAME)?, id(&call)?);
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
    let body = wire::QueueDeleted { deleted, revision: applied.revision.0 };
    Ok(applied.answer(StatusCode::OK, &body))
}
