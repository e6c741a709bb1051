//! ① ⑦ Reading messages: a page from a position on, at once or when there is something.

use std::time::Instant;

use coracle_api::{self as api, Code, Problem};
use coracle_recipes::topic::{self, Found, Place, Reach};
use coracle_store::{Record, Revision, Store, Timestamp, View};
use http::StatusCode;

use super::call::Call;
use super::list::{ITEMS_DEFAULT, ITEMS_MAX};
use super::message::Response;
use super::objects::NAME;
use super::problem::{Answer, Refused, bad_query};
use super::read::Format;
use super::{json, query, respond, topic_stream};
use crate::edge::Edge;

/// Bodies of one page.
const PAGE_BYTES: usize = 1024 * 1024;
/// Messages and publishes looked at under one hold of the state's lock.
pub const LOOKS: usize = 2048;
/// Topics of a pattern looked at to tell of a loss; beyond that, any loss of any topic counts.
pub const TOPICS: usize = 4096;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    New,
    First,
    Last,
    /// With this one.
    Seq(u64),
    Time(Timestamp),
}

/// `new`, `first`, `last`, a seq, or a time; `name` is what it is called.
pub fn from(name: &str, text: &str, subject: &str) -> Result<From, String> {
    Ok(match text {
        "new" => From::New,
        "first" => From::First,
        "last" => From::Last,
        _ => {
            if let Some(seq) = query::number(text.as_bytes(), &(1..=u64::MAX)) {
                if topic::is_pattern(subject) {
                    return Err(format!("{name}: a pattern has no seqs: new, first, last, or a time"));
                }
                From::Seq(seq)
            } else if let Ok(time) = text.parse::<api::Instant>() {
                From::Time(Timestamp(time.unix_ms()))
            } else {
                return Err(format!(
                    "{name}: one of new, first, last, a seq, or a time such as 2026-11-22T05:40:11Z"
                ));
            }
        }
    })
}

impl From {
    /// The place just before.
    pub fn place(self, view: View<'_>, subject: &str) -> Place {
        match self {
            Self::New => topic::newest(view, subject),
            Self::First => topic::oldest(view, subject),
            Self::Last => topic::before_last(view, subject),
            Self::Seq(seq) => Place::after_seq(seq - 1),
            Self::Time(time) => topic::before_time(view, subject, time),
        }
    }
}

/// A place as readers know it: a seq of a topic, a revision of a pattern.
pub fn position(subject: &str, place: Place) -> u64 {
    if topic::is_pattern(subject) { place.revision.0 } else { place.seq }
}

/// The place behind a position.
pub fn behind(subject: &str, position: u64) -> Place {
    if topic::is_pattern(subject) { Place::after(Revision(position)) } else { Place::after_seq(position) }
}

/// The subject in the path.
pub fn subject(call: &Call) -> Answer<String> {
    let subject = call.name(NAME)?;
    if !topic::is_subject(&subject) {
        let detail = format!("tokens with dots between them; * and > stand for tokens actual={subject:?}");
        return Err(Problem::invalid("path", "name", detail).into());
    }
    Ok(subject)
}

/// `after`, or `from`; `None` if neither is given.
pub fn begin(call: &mut Call, subject: &str) -> Answer<Option<Begin>> {
    let after = call.twin("after", &super::call::LAST_EVENT_ID)?;
    let from_text = call.query.text("from")?;
    match (after, from_text) {
        (Some(_), Some(_)) => Err(bad_query("from", "not together with after")),
        (Some(text), None) => {
            let position = query::number(text.as_bytes(), &(0..=u64::MAX));
            position.map(|after| Some(Begin::After(after))).ok_or_else(|| bad_query("after", "a position"))
        }
        (None, Some(text)) => {
            from("from", &text, subject).map(|from| Some(Begin::From(from))).map_err(|d| bad_query("from", d))
        }
        (None, None) => Ok(None),
    }
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy)]
pub enum Begin {
    /// Whoever knows a position is told what was lost behind it.
    After(u64),
    From(From),
}

impl Begin {
    pub fn place(self, view: View<'_>, subject: &str) -> Place {
        match self {
            Self::After(position) => behind(subject, position),
            Self::From(from) => from.place(view, subject),
        }
    }
}

/// `GET /v1/topics/{t}/messages`
pub async fn messages(mut call: Call) -> Answer {
    let subject = subject(&call)?;
    if let Some(asked) = topic_stream::asked(&mut call, &subject)? {
        return topic_stream::open(call, subject, asked).await;
    }
    let begin = begin(&mut call, &subject)?;
    let limit = call.query.number("limit", 1..=ITEMS_MAX)?.unwrap_or(ITEMS_DEFAULT);
    let reading = call.reading()?;
    let wait = call.wait()?;
    call.format(&[("json", Format::Json)])?;
    call.query.done()?;
    let fallback = if wait.is_some() { From::New } else { From::First };
    let begin = begin.unwrap_or(Begin::From(fallback));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let edge = call.edge.clone();
    let mut watch = edge.node.watch(topic::messages(&subject));
    call.settle(reading).await?;
    let after = edge.node.read(|store| begin.place(store.view(), &subject));
    let told = matches!(begin, Begin::After(_));
    let mut page = Page::read(&edge, &subject, after, limit, told).await;
    let Some(wait) = wait.filter(|wait| page.is_empty() && !wait.is_zero()) else {
        return Ok(if wait.is_some() && page.is_empty() {
            respond::not_modified(page.revision)
        } else {
            page.answer(&subject)
        });
    };
    let place = edge.park()?;
    drop(call);
    let end = Instant::now() + wait.as_duration();
    Ok(respond::later(async move {
        let _place = place;
        while page.is_empty() {
            tokio::select! {
                biased;
                () = edge.drained() => return Err(Edge::shutting_down()),
                _ = watch.changed() => page = Page::read(&edge, &subject, page.upto, limit, told).await,
                () = tokio::time::sleep_until(end.into()) => return Ok(respond::not_modified(page.revision)),
            }
        }
        Ok(page.answer(&subject))
    }))
}

/// What is behind a place.
struct Page {
    found: Vec<Found>,
    gap: Option<(u64, u64)>,
    upto: Place,
    more: bool,
    revision: Revision,
}

impl Page {
    /// Read on until there are enough messages or no more. Pages of a pattern end with a revision.
    async fn read(edge: &Edge, subject: &str, after: Place, limit: usize, told: bool) -> Self {
        let mut page = Self { found: Vec::new(), gap: None, upto: after, more: false, revision: Revision(0) };
        let (mut bytes, mut first) = (0, true);
        loop {
            let messages = limit.saturating_sub(page.found.len());
            let reach = Reach {
                messages,
                bytes: PAGE_BYTES.saturating_sub(bytes),
                looks: LOOKS,
                whole: topic::is_pattern(subject),
            };
            let (ahead, gap, revision) = edge.node.read(|store: &Store| {
                let view = store.view();
                let gap = if first && told { topic::lost(view, subject, page.upto, TOPICS) } else { None };
                (topic::ahead(view, subject, page.upto, reach), gap, view.revision())
            });
            bytes += ahead.found.iter().map(|found| found.message.body.len()).sum::<usize>();
            page.gap = page.gap.or(gap);
            page.found.extend(ahead.found);
            page.upto = ahead.upto;
            page.revision = revision;
            first = false;
            if ahead.end {
                // Nothing happened up to now: the next look need not pass over it again.
                if topic::is_pattern(subject) {
                    page.upto = Place::after(revision);
                }
                break;
            }
            if page.found.len() >= limit || bytes >= PAGE_BYTES {
                page.more = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        page
    }

    fn is_empty(&self) -> bool {
        self.found.is_empty() && self.gap.is_none()
    }

    fn answer(self, subject: &str) -> Response {
        let body = api::TopicMessages {
            items: self.found.iter().map(message).collect(),
            after: position(subject, self.upto),
            more: self.more,
            gap: self.gap.map(|(from, to)| api::Gap { from, to }),
            revision: self.revision.0,
        };
        respond::json(StatusCode::OK, self.revision, &body)
    }
}

/// `GET /v1/topics/{t}/messages/{seq}`: the message in an envelope, or bare with `format=raw`.
pub async fn message_of(mut call: Call) -> Answer {
    let topic = subject(&call)?;
    let seq = call.uri.path().rsplit('/').next().unwrap_or_default();
    let seq = query::number(seq.as_bytes(), &(1..=u64::MAX))
        .ok_or_else(|| Refused::from(Problem::invalid("path", "seq", "a whole number from 1")))?;
    let reading = call.reading()?;
    let raw = call.format(&[("json", Format::Json), ("raw", Format::Raw)])? == Some(Format::Raw);
    call.query.done()?;
    call.settle(reading).await?;
    let (found, revision) =
        call.edge.node.read(|store| (topic::message(store.view(), &topic, seq), store.revision()));
    let Some(found) = found else {
        let problem = Problem::new(
            Code::MessageNotFound,
            format!("not there, or not any more topic={topic} seq={seq}"),
        );
        return Err(problem.with("topic", topic).with("seq", seq).at_revision(revision.0).into());
    };
    if raw {
        return Ok(bare(revision, &found));
    }
    Ok(respond::json(StatusCode::OK, revision, &message(&found)))
}

/// The body with its stored type.
pub fn bare(revision: Revision, found: &Found) -> Response {
    let record = Record {
        value: found.message.body.clone(),
        content_type: found.content_type.clone(),
        create_revision: found.place.revision,
        mod_revision: found.place.revision,
        version: 1,
        session: None,
    };
    respond::raw(revision, &record)
}

/// A message as readers see it.
pub fn message(found: &Found) -> api::TopicMessage {
    let Found { topic, place, content_type, message } = found;
    api::TopicMessage {
        topic: topic.to_string(),
        seq: place.seq,
        revision: place.revision.0,
        time: api::Instant::from_unix_ms(message.time.0),
        key: message.key.as_deref().map(str::to_owned),
        value: api::Value::new(message.body.to_vec(), json::content_type(content_type)),
        headers: message.headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        expires: message.expires.map(|at| api::Instant::from_unix_ms(at.0)),
        dead: message.dead.as_ref().map(|dead| api::DeadLetter {
            topic: dead.topic.to_string(),
            seq: dead.seq,
            subject: dead.of.subject.to_string(),
            subscription: dead.of.name.to_string(),
            deliveries: dead.deliveries,
            reason: dead.reason.to_string(),
        }),
    }
}
