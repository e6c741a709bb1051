//! ① All families on one stream: the dashboard, the audit tail.

use coracle_store::{Event, Family, Selection, session};

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
        let Some((of, name)) = subject(event) else { return false };
        family.is_none_or(|family| family == of)
            && name.starts_with(prefix.as_bytes())
            && frame::any_event(out, event)
    });
    watch::open(call, watching, watch::Scope::objects(selection, None, told)).await
}

/// The family an event belongs to and the name of its object; `None` for what is nobody's business.
fn subject(event: &Event) -> Option<(&'static str, Vec<u8>)> {
    match event.key.family() {
        Family::KV => Some(("kv", event.key.name().to_vec())),
        Family::SESSION => {
            let id = session::id_of(&event.key)?;
            Some(("sessions", id.to_string().into_bytes()))
        }
        _ => coracle_recipes::describe(event).map(|it| (it.family, it.name.into_bytes())),
    }
}
