//! ① Durable subscriptions: make, look, move, remove; settle what was received, by receipt.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use coracle_api::{self as api, Code, Problem, Span};
use coracle_recipes as recipes;
use coracle_recipes::topic::{self, Mode, Nack, Name, Receipt, Settings, Settle, Start};
use coracle_store::{Millis, View, limits};
use http::StatusCode;

use super::call::{Call, check_name};
use super::list::Listing;
use super::objects;
use super::problem::{Answer, bad_body, bad_query};
use super::{respond, topic_read, wire};

/// Where the name is in `/v1/topics/{topic}/subscriptions/{name}`.
const SUBSCRIPTION: usize = 4;
/// Messages counted to tell how far a subscription is behind.
const LAG: usize = 10_000;
/// Before every receipt: the version of its form.
const RECEIPT: &str = "r1:";

/// Shortest and longest visibility; a delay is at most the longest.
pub const VISIBILITY_MIN: Span = Span::from_millis_saturating(*topic::VISIBILITY_MS.start());
pub const VISIBILITY_MAX: Span = Span::from_millis_saturating(*topic::VISIBILITY_MS.end());

/// The subscription in the path.
pub fn name(call: &Call) -> Answer<Name> {
    let subject = topic_read::subject(call)?;
    let name = call.name(SUBSCRIPTION)?;
    if !topic::is_topic(&name) {
        return Err(Problem::invalid("path", "name", "tokens with dots between them, without * and >").into());
    }
    Ok(Name { subject: subject.into(), name: name.into() })
}

fn shown(view: View<'_>, name: &Name) -> Option<api::Subscription> {
    let it = topic::show(view, name)?;
    let (lag, oldest) = topic::lag(view, name, &it, LAG);
    let Settings { mode, visibility, max_deliveries, dead_letter, filter } = &it.settings;
    Some(api::Subscription {
        name: name.name.to_string(),
        topic: name.subject.to_string(),
        mode: match mode {
            Mode::Shared => api::SubscriptionMode::Shared,
            Mode::Exclusive => api::SubscriptionMode::Exclusive,
        },
        filter: filter.as_deref().map(str::to_owned),
        visibility: Span::from_millis_saturating(visibility.0),
        max_deliveries: *max_deliveries,
        dead_letter: dead_letter.as_deref().map_or_else(|| topic::dead_letter(name), str::to_owned),
        after: topic_read::position(&name.subject, it.cursor),
        lag: lag as u64,
        lag_is_more: lag == LAG,
        oldest: oldest.map(|at| api::Instant::from_unix_ms(at.0)),
        in_flight: it.in_flight,
        returned: it.returned,
        delivered: it.delivered,
        acked: it.acked,
        dead: it.dead,
        gaps: it.gaps,
        consumer: topic::consumer(view, name).map(|(session, ..)| wire::session(session)),
        created: api::Instant::from_unix_ms(it.created.0),
    })
}

/// `GET /v1/topics/{t}/subscriptions`
pub async fn list(mut call: Call) -> Answer {
    let subject = topic_read::subject(&call)?;
    let listing = Listing::of(&mut call, &[b"subscriptions", subject.as_bytes()])?;
    let selection = recipes::selection(topic::NAME, &subject)
        .ok_or_else(|| Problem::new(Code::Internal, "the recipe is not in the list"))?;
    if let Some(unchanged) = listing.ready(&mut call, selection).await? {
        return Ok(unchanged);
    }
    let of = |name: &str| Name { subject: subject.as_str().into(), name: name.into() };
    let names =
        |view: View<'_>, after: Option<&str>, limit| topic::subscriptions(view, &subject, after, limit);
    Ok(listing.page(&call, names, |view, name| shown(view, &of(name)))?.answer())
}

/// `GET /v1/topics/{t}/subscriptions/{s}`
pub async fn show(mut call: Call) -> Answer {
    let name = name(&call)?;
    let reading = call.reading()?;
    call.query.done()?;
    call.settle(reading).await?;
    let (shown, revision) = call.edge.node.read(|store| (shown(store.view(), &name), store.revision()));
    match shown {
        Some(shown) => Ok(respond::json(StatusCode::OK, revision, &shown)),
        None => Err(not_found(&name).at_revision(revision.0).into()),
    }
}

/// `PUT /v1/topics/{t}/subscriptions/{s}`
pub async fn subscribe(mut call: Call) -> Answer {
    let name = name(&call)?;
    let (config, bytes) = call.json::<api::SubscriptionConfig>().await?;
    let default = Settings::default();
    let range = VISIBILITY_MIN..=VISIBILITY_MAX;
    if config.visibility.is_some_and(|visibility| !range.contains(&visibility)) {
        return Err(bad_body(format!("visibility: min={VISIBILITY_MIN} max={VISIBILITY_MAX}")));
    }
    if config.max_deliveries.is_some_and(|most| most > topic::DELIVERIES) {
        return Err(bad_body(format!("max_deliveries: at most {}", topic::DELIVERIES)));
    }
    if let Some(dead) = &config.dead_letter
        && (check_name(dead).is_err() || !topic::is_topic(dead))
    {
        return Err(bad_body("dead_letter: a name of a topic"));
    }
    if let Some(filter) = &config.filter
        && (check_name(filter).is_err() || !topic::is_subject(filter))
    {
        return Err(bad_body("filter: tokens with dots between them; * and > stand for tokens"));
    }
    let start = start(&mut call, &name, "from", config.from.as_deref()).await?.map_err(bad_body)?;
    let settings = Settings {
        mode: match config.mode.unwrap_or_default() {
            api::SubscriptionMode::Shared => Mode::Shared,
            api::SubscriptionMode::Exclusive => Mode::Exclusive,
        },
        visibility: config.visibility.map_or(default.visibility, |it| Millis(it.as_millis())),
        max_deliveries: config.max_deliveries.unwrap_or(default.max_deliveries),
        dead_letter: config.dead_letter.map(Into::into),
        filter: config.filter.map(Into::into),
    };
    let subscribe = topic::Operation::Subscribe(name.clone(), settings, start);
    let applied = objects::apply(&mut call, &bytes, recipes::Operation::Topic(subscribe)).await?;
    let recipes::Outcome::Topic(topic::Outcome::Subscribed(created, _)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let body = look(&call, &name, applied.revision).await?;
    Ok(applied.answer(if created { StatusCode::CREATED } else { StatusCode::OK }, &body))
}

/// `DELETE /v1/topics/{t}/subscriptions/{s}`
pub async fn unsubscribe(mut call: Call) -> Answer {
    let name = name(&call)?;
    let bytes = call.no_body().await?;
    let unsubscribe = recipes::Operation::Topic(topic::Operation::Unsubscribe(name));
    let applied = objects::apply(&mut call, &bytes, unsubscribe).await?;
    let body = api::Deleted { deleted: 1, revision: applied.revision.0, previous: None };
    Ok(applied.answer(StatusCode::OK, &body))
}

/// `POST /v1/topics/{t}/subscriptions/{s}/seek`
pub async fn seek(mut call: Call) -> Answer {
    let name = name(&call)?;
    let to = call.query.text("to")?.ok_or_else(|| bad_query("to", "required"))?;
    let bytes = call.no_body().await?;
    let start = start(&mut call, &name, "to", Some(&to)).await?.map_err(|detail| bad_query("to", detail))?;
    let seek = recipes::Operation::Topic(topic::Operation::Seek(name.clone(), start));
    let applied = objects::apply(&mut call, &bytes, seek).await?;
    let body = look(&call, &name, applied.revision).await?;
    Ok(applied.answer(StatusCode::OK, &body))
}

/// Where to begin. What depends on what is kept is looked up here, so that the entry costs the same for every place.
async fn start(
    call: &mut Call,
    name: &Name,
    word: &str,
    text: Option<&str>,
) -> Answer<Result<Start, String>> {
    let from = match text {
        None | Some("new") => return Ok(Ok(Start::New)),
        Some("first") => return Ok(Ok(Start::First)),
        Some(text) => match topic_read::from(word, text, &name.subject) {
            Ok(from) => from,
            Err(detail) => return Ok(Err(detail)),
        },
    };
    call.barrier().await?;
    let place = call.edge.node.read(|store| from.place(store.view(), &name.subject));
    Ok(Ok(Start::After(place)))
}

/// The subscription as it is on this node at a revision.
async fn look(call: &Call, name: &Name, revision: coracle_store::Revision) -> Answer<api::Subscription> {
    call.edge.node.wait_revision(revision, call.deadline).await?;
    let shown = call.edge.node.read(|store| shown(store.view(), name));
    Ok(shown.ok_or_else(|| not_found(name))?)
}

/// `POST /v1/topics/{t}/subscriptions/{s}/ack`
pub async fn ack(call: Call) -> Answer {
    settle(call, |_| Ok(Settle::Ack)).await
}

/// `POST /v1/topics/{t}/subscriptions/{s}/nack`
pub async fn nack(call: Call) -> Answer {
    settle(call, |call| {
        let delay = call.query.span("delay", Span::ZERO..=VISIBILITY_MAX)?.unwrap_or_default();
        let count = call.query.flag("count")?.unwrap_or(true);
        let fatal = call.query.flag("fatal")?.unwrap_or(false);
        let reason = call.query.text("reason")?.unwrap_or_default();
        if reason.len() > limits::NAME_BYTES {
            return Err(bad_query("reason", format!("at most {} bytes", limits::NAME_BYTES)));
        }
        let delay = Millis(delay.as_millis());
        Ok(Settle::Nack(Nack { delay, uncounted: !count, fatal, reason: reason.into() }))
    })
    .await
}

/// `POST /v1/topics/{t}/subscriptions/{s}/renew`
pub async fn renew(call: Call) -> Answer {
    settle(call, |call| {
        let visibility = call.query.span("visibility", VISIBILITY_MIN..=VISIBILITY_MAX)?;
        Ok(Settle::Renew(visibility.map(|span| Millis(span.as_millis()))))
    })
    .await
}

async fn settle(mut call: Call, how: impl FnOnce(&mut Call) -> Answer<Settle>) -> Answer {
    let name = name(&call)?;
    let mut texts = texts(&mut call, "receipt")?;
    let how = how(&mut call)?;
    let (more, bytes) = call.json::<api::Receipts>().await?;
    texts.extend(more.receipts);
    if texts.is_empty() {
        return Err(bad_query("receipt", "required, here or as receipts in the body"));
    }
    if texts.len() > topic::RECEIPTS {
        return Err(bad_body(format!("receipts: at most {} actual={}", topic::RECEIPTS, texts.len())));
    }
    let receipts = texts.iter().map(|text| receipt(text)).collect::<Answer<Vec<_>>>()?;
    let settle = recipes::Operation::Topic(topic::Operation::Settle(name, receipts, how));
    let applied = objects::apply(&mut call, &bytes, settle).await?;
    let recipes::Outcome::Topic(topic::Outcome::Settled(settled, visibility)) = &applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let items = results(texts, settled);
    let visibility = visibility.map(|span| Span::from_millis_saturating(span.0));
    if settled.contains(&true) {
        let body = api::SettledMany { items, visibility, revision: applied.revision.0 };
        return Ok(applied.answer(StatusCode::OK, &body));
    }
    let detail = format!("settled before, or handed out again since receipts={}", items.len());
    let problem = Problem::new(Code::ReceiptStale, detail).with("items", items);
    Err(problem.at_revision(applied.revision.0).into())
}

/// What became of each receipt.
pub fn results(texts: Vec<String>, settled: &[bool]) -> Vec<api::Settled> {
    let one = |(receipt, settled): (String, &bool)| api::Settled { receipt, ok: *settled };
    texts.into_iter().zip(settled).map(one).collect()
}

/// All values of a parameter that may be given several times.
pub fn texts(call: &mut Call, name: &'static str) -> Answer<Vec<String>> {
    let mut texts = Vec::new();
    while let Some(text) = call.query.text(name)? {
        texts.push(text);
    }
    Ok(texts)
}

/// A receipt from its text.
pub fn receipt(text: &str) -> Answer<Receipt> {
    let bytes = text.strip_prefix(RECEIPT).and_then(|text| BASE64.decode(text).ok());
    let receipt = bytes.and_then(|bytes| Receipt::decode(&bytes));
    receipt.ok_or_else(|| bad_query("receipt", "not a receipt of this server"))
}

/// A receipt as text.
pub fn receipt_text(receipt: Receipt) -> String {
    format!("{RECEIPT}{}", BASE64.encode(receipt.encode()))
}

fn not_found(name: &Name) -> Problem {
    let Name { subject, name } = name;
    let detail = format!("no such subscription topic={subject} subscription={name}");
    Problem::new(Code::SubscriptionNotFound, detail).with("topic", subject).with("subscription", name)
}

#[cfg(test)]
mod tests {
    use coracle_recipes::topic::Place;
    use coracle_store::Revision;

    use super::*;

    #[test]
    fn receipts_come_back_as_they_were() {
        let place = Place { revision: Revision(u64::MAX), number: 0, seq: 7 };
        let one = Receipt { place, delivered: Revision(812) };
        assert_eq!(receipt(&receipt_text(one)).unwrap(), one);
        for bad in ["", "r1:", "r1:AAAA", "r2:x", &receipt_text(one)[3..]] {
            assert!(receipt(bad).is_err(), "{bad}");
        }
    }
}
