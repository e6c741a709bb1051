//! ⑦ The messages of a queue, looked at without effect: a page as of one revision, or followed.

use coracle_recipes::describe;
use coracle_recipes::queue::{self, Kind, MessageId, Messages, State};
use coracle_store::{Event, Selection, Store, View};

use super::super::call::Call;
use super::super::list::Listing;
use super::super::objects::NAME;
use super::super::problem::{Answer, bad_query};
use super::super::{frame, json, watch};
use super::read::QUEUES;
use super::shown;

/// Which messages of which queue.
struct Wanted {
    queue: String,
    state: Option<State>,
    /// Items of this generation of a barrier queue, in their order.
    generation: Option<u64>,
}

const STATES: [(&str, Option<State>); 6] = [
    ("ready", Some(State::Ready)),
    ("blocked", Some(State::Blocked)),
    ("delayed", Some(State::Delayed)),
    ("in_flight", Some(State::InFlight)),
    ("held", Some(State::Held)),
    // All of another queue.
    ("dead", None),
];

/// `GET /v1/queues/{q}/messages`
pub async fn messages(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let words = STATES.map(|(word, state)| (word, (word, state)));
    let asked = call.query.word("state", &words)?;
    let generation = call.query.number("generation", 1..=u64::MAX)?;
    if asked.is_some() && generation.is_some() {
        return Err(bad_query("generation", "not together with state"));
    }
    let (word, state) = asked.unwrap_or_default();
    let watching = watch::asked(&mut call)?;
    let queue = if word == "dead" { dead_letters(&mut call, &name).await? } else { name.clone() };
    let wanted = Wanted { queue, state, generation };
    let selection = QUEUES.selection(&wanted.queue)?;
    if let Some(watching) = watching {
        wanted.is_told(&call)?;
        let told: watch::Told = Box::new(move |out, event| tell(out, event, state));
        let scope = watch::Scope::family(selection, wanted.positions(), wanted.show(), told);
        return watch::open(call, watching, scope).await;
    }
    let number = generation.map(u64::to_be_bytes).unwrap_or_default();
    let listing = Listing::of(&mut call, &[b"messages", name.as_bytes(), word.as_bytes(), &number])?;
    if let Some(unchanged) = listing.ready(&mut call, selection).await? {
        return Ok(unchanged);
    }
    Ok(listing.page(&call, wanted.positions(), wanted.show())?.answer())
}

/// One message, followed: an event says what became of it.
pub fn following(selection: Selection, name: String, id: MessageId) -> watch::Scope {
    let snapshot = move |store: &Store| {
        let shown = queue::message(store.view(), &name, id).map(|item| {
            let mut out = Vec::new();
            json::to_json(&mut out, &shown::item(&item));
            out
        });
        shown.into_iter().collect()
    };
    let item = id.to_string();
    let told = move |out: &mut Vec<u8>, event: &Event| {
        describe(event).is_some_and(|it| it.item.as_ref() == Some(&item)) && tell(out, event, None)
    };
    watch::Scope::objects(selection, Some(Box::new(snapshot)), Box::new(told))
}

/// The queue of the dead letters of a queue.
async fn dead_letters(call: &mut Call, name: &str) -> Answer<String> {
    call.barrier().await?;
    let known = call.edge.node.read(|store| queue::statistics(store.view(), name));
    let plain = format!("{name}{}", queue::DEAD);
    Ok(known.and_then(|known| known.dead_letter).unwrap_or(plain))
}

impl Wanted {
    /// A release moves all items of a generation in one step, whatever their number: nothing is told of each.
    fn is_told(&self, call: &Call) -> Answer<()> {
        if self.generation.is_some() {
            return Err(bad_query(
                "generation",
                "not together with watch: a released generation only shrinks",
            ));
        }
        let kind = || call.edge.node.read(|store| queue::config(store.view(), &self.queue)).kind;
        match self.state {
            Some(State::Held) => Err(bad_query("state", "held items are not followed: watch all messages")),
            Some(State::Ready) if kind() == Kind::Barrier => Err(bad_query(
                "state",
                "items become ready by generations: watch all messages of a barrier queue",
            )),
            _ => Ok(()),
        }
    }

    /// The positions behind a position.
    fn positions(&self) -> impl Fn(View<'_>, Option<&str>, usize) -> Vec<String> + Send + Sync + 'static {
        let (queue, state, generation) = (self.queue.clone(), self.state, self.generation);
        move |view, after, limit| {
            let after = after.map(unhex);
            let items = match generation {
                Some(number) => {
                    let Some(slot) = queue::slot_of(view, &queue, number) else { return Vec::new() };
                    let after = after.as_deref().and_then(MessageId::from_end);
                    queue::items(view, &queue, slot, after, limit)
                }
                None => queue::messages(view, &queue, &Messages { state, after, limit }),
            };
            items.iter().map(|item| hex(&item.position)).collect()
        }
    }

    /// The message at a position.
    fn show(&self) -> impl Fn(View<'_>, &str) -> Option<coracle_api::queue::Message> + Send + Sync + 'static {
        let queue = self.queue.clone();
        move |view, position| {
            let id = MessageId::from_end(&unhex(position))?;
            queue::message(view, &queue, id).map(|item| shown::item(&item))
        }
    }
}

/// All that happens to messages, a new one with its value; or only which come to be in a state and which leave it.
fn tell(out: &mut Vec<u8>, event: &Event, state: Option<State>) -> bool {
    let Some(state) = state else {
        if !queue::of_messages(event) || !frame::any_event(out, event) {
            return false;
        }
        if let (Some(value), Some(record)) = (queue::said(event), event.record.as_deref()) {
            out.pop();
            json::typed_members(out, value.as_bytes(), &record.content_type);
            out.push(b'}');
        }
        return true;
    };
    match queue::moved(event) {
        Some((described, of)) if of == state => {
            frame::named_event(out, event, &described);
            true
        }
        _ => false,
    }
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
