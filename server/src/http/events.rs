//! ① All families on one stream: the dashboard, the audit tail.

use coracle_store::{Family, Selection};

use super::call::Call;
use super::problem::Answer;
use super::watch;

/// `GET /v1/events`
pub async fn stream(mut call: Call) -> Answer {
    let family = call.query.word("family", &[("kv", "kv"), ("sessions", "sessions"), ("locks", "locks")])?;
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
    watch::open(call, watching, watch::Scope::events(selection, family, prefix)).await
}
