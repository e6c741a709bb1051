//! The words of the topics' conversations. In the arguments, `ANY` and `REST` stand for `*` and `>`.

use std::fmt::Write as _;

use coracle_recipes::topic::{
    self, Dead, Delivery, Draft, Found, Mode, Nack, Name, Overflow, Place, Publish, Reach, Receipt, Receive,
    Received, Retention, Settings, Settle, Start, Subscription,
};
use coracle_recipes::{Condition, Operation, Outcome, Refusal};
use coracle_store::{Attach, ContentType, Millis, Revision, Timestamp};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        let view = script.store.view();
        if words.verb == "topics" {
            let prefix = words.maybe("prefix").unwrap_or_default();
            return Some(format!("{:?}", topic::names(view, &prefix, None, 100)));
        }
        if !words.has("topic") {
            return None;
        }
        Some(match words.verb.as_str() {
            "read" => {
                let subject = subject(words);
                let after = start(view, &subject, words);
                let messages =
                    words.number("limit").map_or(100, |limit| usize::try_from(limit).expect("small"));
                let looks =
                    words.number("looks").map_or(1_000, |looks| usize::try_from(looks).expect("small"));
                let reach = Reach { messages, bytes: 1_000, looks, whole: words.flag("whole") };
                let mut text = String::new();
                if let Some((from, to)) = topic::lost(view, &subject, after, usize::MAX) {
                    let _ = writeln!(text, "gap from={from} to={to}");
                }
                let ahead = topic::ahead(view, &subject, after, reach);
                ahead.found.iter().for_each(|found| line(&mut text, found));
                let _ = match (ahead.end, topic::is_pattern(&subject)) {
                    (true, _) => writeln!(text, "end"),
                    (false, true) => writeln!(text, "more after={}", ahead.upto.revision),
                    (false, false) => writeln!(text, "more after={}", ahead.upto.seq),
                };
                text
            }
            "show" => {
                let Some(shown) = topic::shown(view, &subject(words)) else {
                    return Some("none".into());
                };
                let mut text = String::new();
                if let Some(log) = &shown.log {
                    let first =
                        shown.first.map_or_else(|| "-".into(), |(seq, at)| format!("{seq} at={}ms", at.0));
                    let _ = write!(
                        text,
                        "last={} count={} bytes={} first={first}",
                        log.last_seq, log.count, log.bytes
                    );
                }
                let own = if shown.retention.is_some() { " configured" } else { "" };
                let _ = write!(text, "{own} subscriptions={}", shown.subscriptions);
                text
            }
            "subscription" => {
                let name = name(words);
                let Some(shown) = topic::show(view, &name) else { return Some("none".into()) };
                let (lag, oldest) = topic::lag(view, &name, &shown, 1_000);
                let oldest = oldest.map(|at| format!(" oldest={}ms", at.0)).unwrap_or_default();
                let consumer = topic::consumer(view, &name);
                let consumer =
                    consumer.map(|(id, since, _)| format!(" consumer={} since=@{since}", script.who(id)));
                format!("{} lag={lag}{oldest}{}", subscription(&shown), consumer.unwrap_or_default())
            }
            "subscriptions" => format!("{:?}", topic::subscriptions(view, &subject(words), None, 100)),
            _ => return None,
        })
    }

    fn operation(&self, script: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("topic") {
            return None;
        }
        Some(Operation::Topic(match words.verb.as_str() {
            "publish" => topic::Operation::Publish(Publish {
                topic: subject(words).into(),
                expect_last_seq: words.number("expect"),
                messages: {
                    let (key, ttl) = (words.maybe("key"), words.number("ttl").map(|s| Millis(s * 1_000)));
                    let draft = |body: &String| draft(key.as_deref(), ttl, body);
                    words.list("body").iter().map(draft).collect()
                },
            }),
            "configure" => topic::Operation::Configure(subject(words).into(), retention(words)),
            "delete" => topic::Operation::Delete(subject(words).into()),
            "subscribe" => {
                let default = Settings::default();
                let settings = Settings {
                    mode: if words.flag("exclusive") { Mode::Exclusive } else { Mode::Shared },
                    visibility: words.number("visibility").map_or(default.visibility, |s| Millis(s * 1_000)),
                    max_deliveries: words.number("max_deliveries").unwrap_or(default.max_deliveries),
                    dead_letter: words.maybe("dead_letter").map(Into::into),
                    filter: words.maybe("filter").map(|filter| wild(&filter).into()),
                };
                let start = place(script, words);
                topic::Operation::Subscribe(name(words), settings, start)
            }
            "unsubscribe" => topic::Operation::Unsubscribe(name(words)),
            "seek" => {
                let start = place(script, words);
                topic::Operation::Seek(name(words), start)
            }
            "receive" => topic::Operation::Receive(Receive {
                attach: if words.has("session") || words.has("private") {
                    script.attach(words)
                } else {
                    Attach::None
                },
                max: words.number("max").unwrap_or(1),
                visibility: words.number("visibility").map(|s| Millis(s * 1_000)),
                acks: receipts(words, "acks"),
                ack: words.flag("at_most_once"),
                from: name(words),
            }),
            "ack" => topic::Operation::Settle(name(words), receipts(words, "receipt"), Settle::Ack),
            "nack" => {
                let nack = Nack {
                    delay: Millis(words.number("delay").unwrap_or(0) * 1_000),
                    uncounted: words.flag("uncounted"),
                    fatal: words.flag("fatal"),
                    reason: words.maybe("reason").unwrap_or_default().into(),
                };
                topic::Operation::Settle(name(words), receipts(words, "receipt"), Settle::Nack(nack))
            }
            "renew" => {
                let visibility = words.number("visibility").map(|seconds| Millis(seconds * 1_000));
                topic::Operation::Settle(name(words), receipts(words, "receipt"), Settle::Renew(visibility))
            }
            _ => return None,
        }))
    }

    fn outcome(&self, script: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Topic(outcome) = outcome else { return None };
        Some(match outcome {
            topic::Outcome::Published(first, last) if first == last => format!("published seq={first}"),
            topic::Outcome::Published(first, last) => format!("published seq={first}..{last}"),
            topic::Outcome::Configured(created, _) => if *created { "configured" } else { "changed" }.into(),
            topic::Outcome::Deleted(messages, subscriptions, more) => {
                let more = if *more { " and there is more" } else { "" };
                format!("deleted messages={messages} subscriptions={subscriptions}{more}")
            }
            topic::Outcome::Subscribed(true, shown) => format!("subscribed {}", subscription(shown)),
            topic::Outcome::Subscribed(false, shown) => subscription(shown),
            topic::Outcome::Unsubscribed => "unsubscribed".into(),
            topic::Outcome::Received(received) => got(script, received),
            topic::Outcome::Settled(settled, _) => {
                let one = |current: &bool| if *current { "ok" } else { "stale" };
                settled.iter().map(one).collect::<Vec<_>>().join(" ")
            }
        })
    }

    fn refusal(&self, script: &Script, refusal: &Refusal) -> Option<String> {
        let Refusal::Topic(refusal) = refusal else { return None };
        Some(match refusal {
            topic::Refusal::Consumed(by, since) => format!("consumed by={} since=@{since}", script.who(*by)),
            other => format!("{other:?}"),
        })
    }

    fn condition(&self, _: &[&str]) -> Option<Condition> {
        None
    }
}

fn line(text: &mut String, found: &Found) {
    let Found { topic, place, message, .. } = found;
    let _ = write!(text, "@{} {topic} {}", place.revision, place.seq);
    if let Some(key) = &message.key {
        let _ = write!(text, " key={key}");
    }
    let _ = write!(text, " {}", String::from_utf8_lossy(&message.body));
    if let Some(dead) = &message.dead {
        let Dead { of, topic, seq, deliveries, reason } = dead;
        let _ = write!(
            text,
            " (dead: {} of {}, {topic} {seq} after {deliveries}: {reason})",
            of.name, of.subject
        );
    }
    text.push('\n');
}

fn got(script: &Script, received: &Received) -> String {
    let Received { deliveries, acks, more, gap, session } = received;
    let mut text = String::new();
    for current in acks {
        text.push_str(if *current { "acked\n" } else { "stale\n" });
    }
    if let Some((from, to)) = gap {
        let _ = writeln!(text, "gap from={from} to={to}");
    }
    for Delivery { receipt, topic, deliveries, message, until, .. } in deliveries {
        let body = String::from_utf8_lossy(&message.body);
        let until = match (until, session) {
            (Some(at), _) => format!("until={}ms", at.0),
            (None, Some(id)) => format!("as long as {}", script.who(*id)),
            (None, None) => "for ever".into(),
        };
        let Place { revision, number, seq } = receipt.place;
        let receipt = format!("{revision}-{number}-{seq}-{}", receipt.delivered);
        let _ = writeln!(text, "{topic} {seq} {body} receipt={receipt} deliveries={deliveries} {until}");
    }
    if deliveries.is_empty() {
        text.push_str(if *more { "nothing so far" } else { "nothing" });
    }
    text.trim_end().to_owned()
}

fn subscription(shown: &Subscription) -> String {
    let Subscription { cursor, in_flight, returned, delivered, acked, dead, gaps, .. } = shown;
    let place = |number: u64| if number == u64::MAX { "*".into() } else { number.to_string() };
    let seq = place(cursor.seq);
    format!(
        "after=@{}/{}/{seq} in_flight={in_flight} returned={returned} delivered={delivered} acked={acked} dead={dead} gaps={gaps}",
        cursor.revision,
        place(cursor.number),
    )
}

fn subject(words: &mut script::Words) -> String {
    wild(&words.text("topic"))
}

fn wild(subject: &str) -> String {
    subject.replace("ANY", "*").replace("REST", ">")
}

fn name(words: &mut script::Words) -> Name {
    Name { subject: subject(words).into(), name: words.text("name").into() }
}

fn draft(key: Option<&str>, ttl: Option<Millis>, body: &str) -> Draft {
    // `key-body` in a batch of several keys.
    let (key, body) = match body.split_once('-') {
        Some((key, body)) => (Some(key), body),
        None => (key, body),
    };
    let (content_type, body) = (ContentType::Text, body.as_bytes().into());
    Draft { key: key.map(Into::into), ttl, headers: Vec::new(), content_type, body, dead: None }
}

fn retention(words: &mut script::Words) -> Option<Retention> {
    if words.flag("reset") {
        return None;
    }
    let overflow = if words.flag("reject") { Overflow::Reject } else { Overflow::DropOldest };
    Some(Retention {
        max_age: words.number("max_age").map(|seconds| Millis(seconds * 1_000)),
        max_bytes: words.number("max_bytes"),
        max_messages: words.number("max_messages"),
        max_per_key: words.number("max_per_key"),
        overflow,
    })
}

/// `from=new|first|last`, `after=POSITION`, `time=SECONDS`; the beginning otherwise.
fn start(view: coracle_store::View<'_>, subject: &str, words: &mut script::Words) -> Place {
    if let Some(after) = words.number("after") {
        return if topic::is_pattern(subject) {
            Place::after(Revision(after))
        } else {
            Place::after_seq(after)
        };
    }
    if let Some(seconds) = words.number("time") {
        return topic::before_time(view, subject, Timestamp(seconds * 1_000));
    }
    match words.maybe("from").as_deref() {
        Some("new") => topic::newest(view, subject),
        Some("last") => topic::before_last(view, subject),
        Some("first") | None => topic::oldest(view, subject),
        Some(other) => panic!("from={other} is no place"),
    }
}

fn place(script: &Script, words: &mut script::Words) -> Start {
    match words.maybe("from").as_deref() {
        Some("first") => Start::First,
        None if words.has("after") || words.has("time") => {
            let subject = subject(words);
            let after = start(script.store.view(), &subject, words);
            words.set("topic", &subject);
            Start::After(after)
        }
        None | Some("new") => Start::New,
        Some(other) => panic!("from={other} is no place"),
    }
}

/// `revision-number-seq-delivered`, as the answer of a receive shows it.
fn receipts(words: &mut script::Words, name: &str) -> Vec<Receipt> {
    let parse = |text: &String| {
        let numbers: Vec<u64> = text.split('-').map(|part| part.parse().expect("a number")).collect();
        let [revision, number, seq, delivered] = numbers[..] else { panic!("{text} is no receipt") };
        let place = Place { revision: Revision(revision), number, seq };
        Receipt { place, delivered: Revision(delivered) }
    };
    words.list(name).iter().map(parse).collect()
}
