//! ① Topics: publish, settings, delete.

use std::collections::BTreeMap;

use coracle_api::{self as api, Code, Problem, Span};
use coracle_recipes as recipes;
use coracle_recipes::topic::{self, Draft, Overflow, Publish, Retention};
use coracle_store::{ContentType, Millis, Value, View, limits};
use http::{HeaderMap, StatusCode};

use super::call::{Call, check_name, outcome};
use super::objects::{self, NAME, Objects};
use super::problem::{Answer, bad_body, bad_query, too_large};
use super::{body, respond};

/// Life of a message that has a ttl, shortest and longest.
pub const TTL_MIN: Span = Span::from_millis_saturating(1_000);
pub const TTL_MAX: Span = Span::from_millis_saturating(366 * 86_400_000);
/// Headers of a message begin with this.
const META: &str = "coracle-meta-";
/// Entries of one delete: more messages than a topic is ever likely to keep.
const DELETE_ENTRIES: u64 = 100_000;

static TOPICS: Objects<api::Topic> = Objects { family: topic::NAME, names: topic::names, show: shown };

fn shown(view: View<'_>, name: &str) -> Option<api::Topic> {
    let topic::Shown { log, retention, first, subscriptions } = topic::shown(view, name)?;
    let configured = retention.is_some();
    let bounds = log.as_ref().map(|_| config(&retention.unwrap_or_default()));
    let log = log.unwrap_or_default();
    Some(api::Topic {
        name: name.to_owned(),
        messages: log.count,
        bytes: log.bytes,
        last_seq: log.last_seq,
        first_seq: first.map(|(seq, _)| seq),
        first_time: first.map(|(_, time)| api::Instant::from_unix_ms(time.0)),
        subscriptions: subscriptions as u64,
        config: bounds,
        configured,
    })
}

/// The bounds as they are written; a bound that is absent is none.
fn config(retention: &Retention) -> api::TopicConfig {
    let Retention { max_age, max_bytes, max_messages, max_per_key, overflow } = retention;
    api::TopicConfig {
        max_age: max_age.map(|age| Span::from_millis_saturating(age.0)),
        max_bytes: *max_bytes,
        max_messages: *max_messages,
        max_per_key: *max_per_key,
        overflow: Some(match overflow {
            Overflow::DropOldest => api::Overflow::DropOldest,
            Overflow::Reject => api::Overflow::Reject,
        }),
    }
}

/// `GET /v1/topics`
pub async fn list(call: Call) -> Answer {
    TOPICS.list(call).await
}

/// `GET /v1/topics/{t}`
pub async fn show(call: Call) -> Answer {
    TOPICS.one(call, not_found).await
}

/// `PUT /v1/topics/{t}`
pub async fn configure(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (config, bytes) = call.json::<api::TopicConfig>().await?;
    let default = Retention::default();
    let max_per_key = config.max_per_key.filter(|most| *most > 0);
    if max_per_key.is_some_and(|most| most > topic::PER_KEY) {
        return Err(bad_body(format!("max_per_key: at most {}", topic::PER_KEY)));
    }
    // A table of current values is not forgotten by the clock, unless it is asked for.
    let age = if max_per_key.is_some() { None } else { default.max_age };
    let retention = Retention {
        max_age: config.max_age.map_or(age, |age| Some(Millis(age.as_millis())).filter(|age| age.0 > 0)),
        max_bytes: config.max_bytes.map_or(default.max_bytes, |most| Some(most).filter(|most| *most > 0)),
        max_messages: config.max_messages.filter(|most| *most > 0),
        max_per_key,
        overflow: match config.overflow.unwrap_or(api::Overflow::DropOldest) {
            api::Overflow::DropOldest => Overflow::DropOldest,
            api::Overflow::Reject => Overflow::Reject,
        },
    };
    let configure = topic::Operation::Configure(name.as_str().into(), Some(retention));
    let applied = objects::apply(&mut call, &bytes, recipes::Operation::Topic(configure)).await?;
    let recipes::Outcome::Topic(topic::Outcome::Configured(created, _)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    call.edge.node.wait_revision(applied.revision, call.deadline).await?;
    let body = call.edge.node.read(|store| shown(store.view(), &name)).ok_or_else(|| not_found(&name))?;
    Ok(applied.answer(if created { StatusCode::CREATED } else { StatusCode::OK }, &body))
}

/// `DELETE /v1/topics/{t}`
pub async fn delete(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let mut body = api::TopicDeleted { messages: 0, subscriptions: 0, revision: 0 };
    let mut was_replayed = false;
    for part in 0..DELETE_ENTRIES {
        let delete = recipes::Operation::Topic(topic::Operation::Delete(name.as_str().into()));
        let answer = outcome(call.propose(mutation.part(part), delete.encode()).await?);
        let (revision, replayed, outcome) = match answer {
            // Somebody else took the rest.
            Err(refused) if part > 0 && refused.0.code == Code::TopicNotFound => break,
            answer => answer?,
        };
        let topic::Outcome::Deleted(messages, subscriptions, more) = of_topic(&outcome)? else {
            return Err(super::call::unexpected(&outcome));
        };
        was_replayed |= replayed && part == 0;
        body.messages += messages;
        body.subscriptions += subscriptions;
        body.revision = revision.0;
        if !more {
            break;
        }
        call.deadline = call.fresh_deadline();
    }
    let revision = coracle_store::Revision(body.revision);
    Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), was_replayed))
}

/// `POST /v1/topics/{t}/messages`
pub async fn publish(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let batch = call.query.flag("batch")?.unwrap_or(false);
    let expect_last_seq = call.query.number("expect_last_seq", 0..=u64::MAX)?;
    let (messages, bytes) = if batch {
        let (batch, bytes) = call.json::<api::PublishBatch>().await?;
        let max = usize::try_from(call.edge.config.max_value.0).unwrap_or(usize::MAX);
        (batch.items.into_iter().map(|item| draft(item, max)).collect::<Answer<Vec<_>>>()?, bytes.to_vec())
    } else {
        let key = call.query.text("key")?;
        let ttl = call.query.span("ttl", TTL_MIN..=TTL_MAX)?;
        let headers = meta(&call.headers)?;
        let value = call.value().await?;
        let content_type = body::content_type(&call.headers, &value)?;
        // A retry is to repeat the headers as well.
        let mut bytes = value.to_vec();
        for (name, value) in &headers {
            bytes.extend(format!("\n{name}: {value}").into_bytes());
        }
        if let Some(key) = &key {
            check_name(key).map_err(|detail| bad_query("key", detail))?;
        }
        (vec![new(key, ttl, headers, content_type, &value)], bytes)
    };
    if messages.is_empty() {
        return Err(bad_body("items: at least one"));
    }
    let many = messages.len() > 1 || batch;
    let publish = Publish { topic: name.into(), messages, expect_last_seq };
    let publish = recipes::Operation::Topic(topic::Operation::Publish(publish));
    let applied = objects::apply(&mut call, &bytes, publish).await?;
    let recipes::Outcome::Topic(topic::Outcome::Published(first, seq)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    let first_seq = many.then_some(first);
    Ok(applied.answer(StatusCode::CREATED, &api::Published { first_seq, seq, revision: applied.revision.0 }))
}

/// The outcome of an operation on topics.
pub fn of_topic(outcome: &coracle_store::Outcome) -> Answer<topic::Outcome> {
    if let coracle_store::Outcome::Program(bytes) = outcome
        && let Ok(recipes::Outcome::Topic(outcome)) = recipes::Outcome::decode(bytes)
    {
        return Ok(outcome);
    }
    Err(super::call::unexpected(outcome))
}

fn draft(item: api::PublishItem, value_max: usize) -> Answer<Draft> {
    let api::PublishItem { key, ttl, headers, value } = item;
    if value.bytes.len() > value_max {
        return Err(too_large("value_bytes", value_max as u64, Some(value.bytes.len() as u64)));
    }
    if value.content_type.len() > limits::CONTENT_TYPE_BYTES
        || value.content_type.chars().any(char::is_control)
    {
        return Err(bad_body("content_type: at most 255 bytes, no control characters"));
    }
    if let Some(key) = &key {
        check_name(key).map_err(|detail| bad_body(format!("key: {detail}")))?;
    }
    if ttl.is_some_and(|ttl| !(TTL_MIN..=TTL_MAX).contains(&ttl)) {
        return Err(bad_body(format!("ttl: min={TTL_MIN} max={TTL_MAX}")));
    }
    if headers.iter().any(|(name, value)| !is_header(name, value)) {
        return Err(bad_body(
            "headers: names in small letters, digits and dashes; values without control characters",
        ));
    }
    check_meta(&headers)?;
    let content_type = body::named(&value.content_type, &value.bytes);
    Ok(new(key, ttl, headers, content_type, &value.bytes))
}

fn new(
    key: Option<String>,
    ttl: Option<Span>,
    headers: BTreeMap<String, String>,
    content_type: ContentType,
    body: &[u8],
) -> Draft {
    Draft {
        key: key.map(Into::into),
        ttl: ttl.map(|ttl| Millis(ttl.as_millis())),
        headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        content_type,
        body: Value::from(body),
        dead: None,
    }
}

/// The headers `Coracle-Meta-*`, without that.
fn meta(headers: &HeaderMap) -> Answer<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (name, value) in headers {
        let Some(word) = name.as_str().strip_prefix(META) else { continue };
        let value =
            value.to_str().map_err(|_| Problem::invalid("header", name.as_str(), "not visible ASCII"))?;
        if !is_header(word, value) {
            return Err(Problem::invalid("header", name.as_str(), "letters, digits and dashes").into());
        }
        if found.insert(word.to_owned(), value.to_owned()).is_some() {
            return Err(Problem::invalid("header", name.as_str(), "given twice").into());
        }
    }
    check_meta(&found)?;
    Ok(found)
}

fn is_header(name: &str, value: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.bytes().all(letter) && !value.chars().any(char::is_control)
}

fn check_meta(headers: &BTreeMap<String, String>) -> Answer<()> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits::META_BYTES {
        return Err(too_large("metadata_bytes", limits::META_BYTES as u64, Some(bytes as u64)));
    }
    Ok(())
}

fn not_found(name: &str) -> Problem {
    let detail = format!("no message, no settings and no subscription under this name topic={name}");
    Problem::new(Code::TopicNotFound, detail).with("topic", name)
}

/// Why a topic or subscription was not changed.
pub fn problem(refusal: &topic::Refusal) -> Problem {
    use topic::Refusal;
    match refusal {
        Refusal::NoSubject(text) => {
            let detail = format!("tokens with dots between them; * and > stand for tokens actual={text:?}");
            Problem::invalid("path", "name", detail)
        }
        Refusal::LastSeq(actual) => {
            let detail = format!("somebody has published since last_seq={actual}");
            Problem::new(Code::SeqMismatch, detail).with("last_seq", actual)
        }
        Refusal::Full(messages, bytes) => {
            let detail = format!("the topic would keep more than it may messages={messages} bytes={bytes}");
            Problem::new(Code::TopicFull, detail).with("messages", messages).with("bytes", bytes)
        }
        Refusal::TooLarge => {
            Problem::new(Code::TooLarge, "more in one publish than the topic keeps at all limit=retention")
                .with("limit", "retention")
        }
        Refusal::NoTopic => {
            Problem::new(Code::TopicNotFound, "no message, no settings and no subscription under this name")
        }
        Refusal::NoSubscription => Problem::new(Code::SubscriptionNotFound, "no such subscription"),
        Refusal::Consumed(session, since) => {
            let detail = format!("another session receives session={session} since={since}");
            Problem::new(Code::SubscriptionBusy, detail)
                .with("session", session.to_string())
                .with("since", since.0)
        }
        Refusal::NeedsSession => Problem::new(
            Code::SessionRequired,
            "an exclusive subscription is received from with session or ttl",
        ),
        Refusal::TooManyInFlight(most) => {
            let detail = format!("acknowledge or give back first max={most}");
            Problem::new(Code::TooManyInFlight, detail).with("max", most)
        }
        Refusal::TooManySubscriptions(most) => {
            let detail = format!("over a limit limit=subscriptions_per_topic max={most}");
            Problem::new(Code::TooLarge, detail).with("limit", "subscriptions_per_topic").with("max", most)
        }
    }
}
