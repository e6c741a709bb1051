//! ① All families on one stream: the dashboard, the audit tail.

use coracle_store::{Event, Family, Selection, Session, session};

use super::call::Call;
use super::problem::{Answer, bad_query};
use super::{frame, watch};

/// What `family=` takes.
pub fn families() -> impl Iterator<Item = &'static str> {
    ["kv", "sessions"].iter().chain(coracle_recipes::FAMILIES).copied()
}

/// `GET /v1/events`
pub async fn stream(mut call: Call) -> Answer {
    let family = match call.query.text("family")? {
        None => None,
        Some(asked) => Some(
            families()
                .find(|family| *family == asked)
                .ok_or_else(|| bad_query("family", "no such family"))?,
        ),
    };
    let prefix = call.query.text("prefix")?.unwrap_or_default();
    // It is a stream with or without saying so.
    call.query.flag("watch")?;
    let watching = watch::parameters(&mut call)?;
    let selection = match family {
        None => Selection::All,
        Some("kv") => Selection::Prefix([&[Family::KV.0], prefix.as_bytes()].concat()),
        Some("sessions") => Selection::Prefix(vec![Family::SESSION.0]),
        Some(family) => coracle_recipes::selection(family, "").unwrap_or(Selection::All),
    };
    let told: watch::Told = Box::new(move |out, event| {
        family_of(event, prefix.as_bytes()).is_some_and(|of| family.is_none_or(|family| family == of))
            && frame::any_event(out, event)
    });
    watch::open(call, watching, watch::Scope::objects(selection, None, told)).await
}

/// The family of an event whose object has a name that starts with `prefix`; `None` for the others, and for what is
/// nobody's business.
fn family_of(event: &Event, prefix: &[u8]) -> Option<&'static str> {
    let (family, within) = match event.key.family() {
        Family::KV => ("kv", event.key.name().starts_with(prefix)),
        Family::SESSION => ("sessions", session_within(event, prefix)),
        _ => {
            let it = coracle_recipes::describe(event)?;
            (it.family, it.name.as_bytes().starts_with(prefix))
        }
    };
    within.then_some(family)
}

/// Sessions go by the name they were given as well as by their id: the programs of one name are followed with what they
/// say of their progress.
fn session_within(event: &Event, prefix: &[u8]) -> bool {
    let id = session::id_of(&event.key).is_some_and(|id| id.to_string().as_bytes().starts_with(prefix));
    let record = event.record.as_ref().or(event.previous.as_ref());
    let given = record.and_then(|record| Session::decode(&record.value).ok());
    id || given.is_some_and(|session| session.name.as_bytes().starts_with(prefix))
}
