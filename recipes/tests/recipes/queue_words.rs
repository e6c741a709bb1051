//! The words of the queues' conversations.

use std::fmt::Write as _;

use coracle_recipes::queue::barrier::{
    Act, Authority, Barrier, Control, Deadline, Finalizer, HandOut, OnBreak,
};
use coracle_recipes::queue::{
    self, Config, Item, Message, MessageId, Nack, Receipt, Receipts, Standing, Terms, Ticket,
};
use coracle_recipes::{Condition, Operation, Outcome, Refusal};
use coracle_store::{Attach, ContentType, Millis, Revision, Timestamp};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        if !words.has("queue") {
            return None;
        }
        let verb = words.verb.clone();
        Some(match verb.as_str() {
            "show" => show(script, &words.text("queue")),
            "messages" => {
                let state = words.maybe("state").map(|state| match state.as_str() {
                    "ready" => queue::State::Ready,
                    "blocked" => queue::State::Blocked,
                    "delayed" => queue::State::Delayed,
                    "in_flight" => queue::State::InFlight,
                    "held" => queue::State::Held,
                    other => panic!("{other} is no state"),
                });
                let wanted = queue::Messages { state, after: None, limit: 100 };
                let items = queue::messages(script.store.view(), &words.text("queue"), &wanted);
                if items.is_empty() {
                    return Some("none".into());
                }
                items.iter().map(|found| item(script, found)).collect()
            }
            "message" => {
                let id = words.text("id").parse().expect("an id");
                let found = queue::message(script.store.view(), &words.text("queue"), id);
                found.map_or("none".into(), |found| item(script, &found))
            }
            "line" => {
                let line = queue::consumers(script.store.view(), &words.text("queue"), 100);
                if line.is_empty() {
                    return Some("nobody".into());
                }
                let consumer = |c: &queue::Consumer| {
                    format!("{} {} max={}\n", ticket(c.ticket), script.who(c.session), c.terms.max)
                };
                line.iter().map(consumer).collect()
            }
            "progress" => progress(script, &words.text("queue")),
            "own" => {
                let id = words.text("id").parse().expect("an id");
                match queue::own(script.store.view(), &words.text("queue"), id) {
                    queue::Own::Filling(generation, items) => {
                        format!("filling generation={generation} items={items}")
                    }
                    queue::Own::Released { generation, ordinal, size, delivery, turn } => {
                        let turn = if turn { "" } else { " not yet" };
                        format!(
                            "generation={generation} ordinal={ordinal}/{size} receipt={id}.{delivery}{turn}"
                        )
                    }
                    queue::Own::Gone => "gone".into(),
                }
            }
            "broadcast" => {
                let (name, after) = (words.text("queue"), words.number("after").unwrap_or(0));
                let view = script.store.view();
                let Some((generation, slot)) = queue::broadcast(view, &name, after) else {
                    return Some("nothing".into());
                };
                let items = queue::items(view, &name, slot, None, 100);
                let items: String = items.iter().map(|found| item(script, found)).collect();
                format!("generation={}\n{items}", generation.number)
            }
            "turn" => {
                let name = words.text("queue");
                let turn = queue::turn(script.store.view(), &name, parsed_ticket(&words.text("ticket")));
                format!("{turn:?}").to_lowercase()
            }
            "remains" => {
                words.text("queue");
                let keys = script.store.view().scan(queue::FAMILY, &[]).count();
                format!("{keys} keys of queues")
            }
            _ => return None,
        })
    }

    fn operation(&self, script: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("queue") {
            return None;
        }
        let name: Box<str> = words.text("queue").into();
        Some(Operation::Queue(match words.verb.clone().as_str() {
            "send" => send(script, words, name),
            "receive" => receive(script, words, name),
            "collect" => queue::Operation::Collect(name, parsed_ticket(&words.text("ticket"))),
            "leave" => queue::Operation::Leave(name, parsed_ticket(&words.text("ticket"))),
            "ack" => queue::Operation::Ack(receipts(words, name)),
            "nack" => {
                let nack = Nack {
                    delay: span(words, "delay"),
                    uncounted: words.flag("uncounted"),
                    fatal: words.flag("fatal"),
                    reason: words.maybe("reason").unwrap_or_default().into(),
                };
                queue::Operation::Nack(receipts(words, name), nack)
            }
            "renew" => {
                let visibility = span(words, "visibility");
                queue::Operation::Renew(receipts(words, name), visibility)
            }
            "remove" => queue::Operation::Remove(name, words.text("id").parse().expect("an id")),
            "purge" => {
                let until = Revision(words.number("until").unwrap_or(u64::MAX));
                queue::Operation::Purge(name, until, words.flag("in_flight"))
            }
            "redrive" => {
                let limit = words.number("limit").unwrap_or(1000).try_into().expect("small");
                queue::Operation::Redrive(name, words.maybe("to").map(Into::into), limit)
            }
            "configure" => queue::Operation::Configure(name, Some(config(words))),
            "unconfigure" => queue::Operation::Configure(name, None),
            "signal" => control(words, name, |words| Act::Signal(words.text("name").into())),
            "release" => control(words, name, |_| Act::Open),
            "break" => control(words, name, |words| {
                let how = words.maybe("items").map(|how| on_break(&how));
                Act::Break(words.maybe("reason").unwrap_or_default().into(), how)
            }),
            "pause" => queue::Operation::Pause(name, true),
            "resume" => queue::Operation::Pause(name, false),
            "transfer" => {
                let (from, to) = (script.id(&words.text("from")), script.id(&words.text("to")));
                queue::Operation::Transfer(name, from, to)
            }
            other => panic!("{other} is nothing that a queue does"),
        }))
    }

    fn outcome(&self, script: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Queue(outcome) = outcome else { return None };
        Some(match outcome {
            queue::Outcome::Sent(sent) => {
                let one = |sent: &queue::Sent| {
                    let generation = sent.generation.map(|number| format!(" generation={number}"));
                    let duplicate = if sent.duplicate { " (duplicate)" } else { "" };
                    format!("{}{}{duplicate}", sent.id, generation.unwrap_or_default())
                };
                format!("sent {}", sent.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            queue::Outcome::Delivered(delivered) => {
                let mut text =
                    if delivered.messages.is_empty() { "nothing" } else { "delivered" }.to_string();
                text.push_str(&acked(&delivered.acked));
                for message in &delivered.messages {
                    let _ = write!(text, "\n- {}", delivery(script, message));
                }
                text
            }
            queue::Outcome::Waiting(place, session, acks) => {
                format!("waiting {} {}{}", ticket(*place), script.who(*session), acked(acks))
            }
            queue::Outcome::Settled(settled, span) => {
                let span = span.map(|span| format!(" for {}ms", span.0)).unwrap_or_default();
                format!("settled {settled:?}{span}")
            }
            queue::Outcome::Moved(count, more) => {
                format!("moved {count}{}", if *more { " and there may be more" } else { "" })
            }
            queue::Outcome::Configured(fresh) => if *fresh { "configured" } else { "configured anew" }.into(),
            queue::Outcome::Done => "done".into(),
            queue::Outcome::Controlled(number, released, count) => {
                format!("generation={number} items={count}{}", if *released { " released" } else { "" })
            }
        })
    }

    fn refusal(&self, script: &Script, refusal: &Refusal) -> Option<String> {
        let Refusal::Queue(refusal) = refusal else { return None };
        Some(match refusal {
            queue::Refusal::ReceiptStale(receipt) => {
                format!("receipt stale {}.{}", receipt.id, receipt.delivery)
            }
            queue::Refusal::MessageNotFound(id) => format!("no message {id}"),
            queue::Refusal::NotActive(active) => {
                format!("not the consumer, which is {}", active.map_or("nobody", |id| script.who(id)))
            }
            other => format!("{other:?}"),
        })
    }

    fn condition(&self, _: &[&str]) -> Option<Condition> {
        None
    }
}

fn show(script: &Script, name: &str) -> String {
    let Some(seen) = queue::statistics(script.store.view(), name) else { return "idle".into() };
    let mut text = String::new();
    let counts = [
        ("ready", seen.ready),
        ("blocked", seen.blocked),
        ("delayed", seen.delayed),
        ("in_flight", seen.in_flight),
        ("held", seen.held),
        ("dead", seen.dead),
        ("waiting", seen.waiting),
        ("bytes", seen.bytes),
    ];
    for (what, count) in counts.iter().filter(|(_, count)| *count > 0) {
        let _ = write!(text, "{what}={count} ");
    }
    if let Some(oldest) = seen.oldest {
        let _ = write!(text, "oldest={} ", time(oldest));
    }
    if let Some(active) = seen.active {
        let _ = write!(text, "consumer={} ", script.who(active));
    }
    if seen.config.paused {
        text.push_str("paused ");
    }
    if text.is_empty() { "empty".into() } else { text.trim_end().into() }
}

fn item(script: &Script, item: &Item) -> String {
    let mut text = format!("{} {}", item.id, value(&item.value));
    let _ = match &item.standing {
        Standing::Ready => write!(text, " ready"),
        Standing::Blocked => write!(text, " blocked"),
        Standing::Held => write!(text, " held"),
        Standing::Delayed { until, retry } => {
            write!(text, " delayed until={}{}", time(*until), if *retry { " retry" } else { "" })
        }
        Standing::InFlight { since, until, session, delivery, assigned } => {
            let until = until.map(|until| format!(" until={}", time(until))).unwrap_or_default();
            let session = session.map(|id| format!(" session={}", script.who(id))).unwrap_or_default();
            let assigned = if *assigned { " assigned" } else { "" };
            write!(text, " in_flight since={} delivery={delivery}{until}{session}{assigned}", time(*since))
        }
    };
    if item.deliveries > 0 {
        let _ = write!(text, " deliveries={}", item.deliveries);
    }
    if let Some(reason) = &item.reason {
        let _ = write!(text, " reason={reason}");
    }
    if let Some(group) = &item.group {
        let _ = write!(text, " group={group}");
    }
    text.push_str(&place(item.place.as_ref()));
    if let Some(name) = &item.name {
        let _ = write!(text, " name={name}");
    }
    if let Some(death) = &item.death {
        let _ = write!(
            text,
            " died in={} id={} deliveries={} reason={}",
            death.queue, death.id, death.deliveries, death.reason
        );
    }
    text.push('\n');
    text
}

fn delivery(script: &Script, delivery: &queue::Delivery) -> String {
    let _ = script;
    let mut text = format!("{}.{} {}", delivery.id, delivery.delivery, value(&delivery.value));
    if delivery.deliveries != 1 {
        let _ = write!(text, " deliveries={}", delivery.deliveries);
    }
    if delivery.priority > 0 {
        let _ = write!(text, " priority={}", delivery.priority);
    }
    if let Some(group) = &delivery.group {
        let _ = write!(text, " group={group}");
    }
    text.push_str(&place(delivery.place.as_ref()));
    if let Some(until) = delivery.until {
        let _ = write!(text, " until={}", time(until));
    }
    if let Some(death) = &delivery.death {
        let _ = write!(text, " died in={} reason={}", death.queue, death.reason);
    }
    text
}

fn send(script: &mut Script, words: &mut script::Words, queue: Box<str>) -> queue::Operation {
    let mut values = words.list("values");
    values.extend(words.list("value"));
    let message = Message {
        value: coracle_store::Value::from(&[][..]),
        content_type: ContentType::Text,
        priority: words.number("priority").unwrap_or(0).try_into().expect("small"),
        group: words.maybe("group").map(Into::into),
        delay: span(words, "delay").unwrap_or(Millis(0)),
        ttl: span(words, "ttl"),
        dedup_id: words.maybe("dedup").map(Into::into),
        headers: Vec::new(),
        item: words.maybe("id").map(Into::into),
    };
    let one = |value: String| Message { value: value.into_bytes().into(), ..message.clone() };
    let messages = values.into_iter().map(one).collect();
    let attach = attach(script, words);
    queue::Operation::Send(queue::Send { queue, messages, attach })
}

fn receive(script: &mut Script, words: &mut script::Words, queue: Box<str>) -> queue::Operation {
    let bound = words.has("session") || words.flag("bound");
    let terms = Terms {
        max: words.number("max").unwrap_or(1).try_into().expect("small"),
        visibility: span(words, "visibility"),
        bound,
        at_most_once: words.flag("once"),
    };
    let acks = words.list("acks").iter().map(|text| receipt(text)).collect();
    let wait = words.flag("wait");
    let attach = attach(script, words);
    queue::Operation::Receive(queue::Receive { queue, terms, attach, wait, acks })
}

fn attach(script: &mut Script, words: &mut script::Words) -> Attach {
    if words.has("session") || words.has("private") { script.attach(words) } else { Attach::None }
}

fn config(words: &mut script::Words) -> Config {
    let plain = Config::default();
    let kind = match words.maybe("kind").as_deref() {
        None | Some("fifo") => queue::Kind::Fifo,
        Some("priority") => queue::Kind::Priority,
        Some("barrier") => queue::Kind::Barrier,
        Some(other) => panic!("{other} is no kind"),
    };
    Config {
        kind,
        barrier: (kind == queue::Kind::Barrier).then(|| barrier(words)),
        visibility: span(words, "visibility").unwrap_or(plain.visibility),
        max_deliveries: words.number("max_deliveries").map_or(5, |n| n.try_into().expect("small")),
        dead_letter: words.maybe("dead_letter").map(Into::into),
        backoff: span(words, "backoff").map(|min| queue::Backoff { min, max: Millis(min.0 * 4), factor: 2 }),
        retention: span(words, "retention").unwrap_or(plain.retention),
        max_length: words.number("max_length"),
        overflow: if words.flag("drop_oldest") {
            queue::Overflow::DropOldest
        } else {
            queue::Overflow::Reject
        },
        dedup_window: span(words, "dedup_window").unwrap_or(plain.dedup_window),
        single_active: words.flag("single_active"),
        paused: words.flag("paused"),
    }
}

fn place(place: Option<&queue::Ordinal>) -> String {
    let Some(place) = place else { return String::new() };
    let role = match place.role {
        queue::Role::Item => "",
        queue::Role::Batch => " batch",
        queue::Role::Finalizer => " finalizer",
    };
    let ordinal = place.ordinal.map(|ordinal| format!(" ordinal={ordinal}")).unwrap_or_default();
    format!("{role} generation={}{ordinal}/{}", place.generation, place.size)
}

fn progress(script: &Script, name: &str) -> String {
    let Some(seen) = queue::progress(script.store.view(), name) else { return "no barrier".into() };
    let mut text = format!("generation={} items={}", seen.filling.number, seen.filling.live);
    if let Some(size) = seen.barrier.size {
        let _ = write!(text, "/{size}");
    }
    if !seen.missing.is_empty() {
        let _ = write!(text, " missing={}", seen.missing.join(","));
    }
    if !seen.filling.signals.is_empty() {
        let _ = write!(text, " signals={}", seen.filling.signals.join(","));
    }
    if let Some(since) = seen.filling.since {
        let _ = write!(text, " since={}", time(since));
    }
    if let Some(deadline) = seen.filling.deadline {
        let _ = write!(text, " deadline={}", time(deadline));
    }
    if let Some(broken) = &seen.filling.broken {
        let _ = write!(text, " after broken={broken}");
    }
    if let Some(draining) = &seen.draining {
        let released = draining.released.as_ref().expect("released");
        let _ = write!(
            text,
            "\ndraining generation={} by={} left={}/{} acked={} dead={} dropped={} waiting={}",
            draining.number,
            released.cause,
            draining.live,
            released.size,
            draining.acked,
            draining.dead,
            draining.dropped,
            seen.waiting
        );
    }
    text
}

fn control(
    words: &mut script::Words,
    queue: Box<str>,
    act: impl Fn(&mut script::Words) -> Act,
) -> queue::Operation {
    let act = act(words);
    queue::Operation::Control(Control { queue, token: words.number("token").map(Revision), act })
}

fn on_break(how: &str) -> OnBreak {
    match how {
        "carry_over" => OnBreak::CarryOver,
        "dead_letter" => OnBreak::DeadLetter,
        "drop" => OnBreak::Drop,
        other => panic!("{other} is nothing to do with items"),
    }
}

fn names(words: &mut script::Words, name: &str) -> Vec<Box<str>> {
    words.list(name).into_iter().map(Into::into).collect()
}

fn barrier(words: &mut script::Words) -> Barrier {
    Barrier {
        any: words.flag("any"),
        size: words.number("size"),
        contains: names(words, "contains"),
        absent: names(words, "absent"),
        signals: names(words, "signals"),
        deadline: span(words, "deadline").map(|after| Deadline { after, breaks: words.flag("breaks") }),
        hand_out: match words.maybe("hand_out").as_deref() {
            None | Some("work") => HandOut::Work,
            Some("batch") => HandOut::Batch,
            Some("own") => HandOut::Own,
            Some("broadcast") => HandOut::Broadcast,
            Some(other) => panic!("{other} is no way to hand out"),
        },
        strict: words.flag("strict"),
        finalizer: words.has("finalizer").then(|| Finalizer {
            value: words.maybe("finalizer").map(|value| value.into_bytes().into()),
            content_type: ContentType::Text,
        }),
        on_break: words.maybe("on_break").map_or(OnBreak::CarryOver, |how| on_break(&how)),
        authority: (words.maybe("lock").map(|name| Authority::Lock(name.into())))
            .or(words.maybe("leader-of").map(|name| Authority::Election(name.into()))),
    }
}

fn receipts(words: &mut script::Words, queue: Box<str>) -> Receipts {
    let receipts = words.list("receipts").iter().map(|text| receipt(text)).collect();
    Receipts { queue, receipts, all: words.flag("all") }
}

/// `4-0.5`: message 4-0 as delivered at revision 5.
fn receipt(text: &str) -> Receipt {
    let (id, delivery) = text.split_once('.').expect("id.delivery");
    Receipt { id: id.parse().expect("an id"), delivery: Revision(delivery.parse().expect("a revision")) }
}

fn parsed_ticket(text: &str) -> Ticket {
    let MessageId { revision, number } = text.parse().expect("such as 4-0");
    Ticket { revision, number }
}

fn ticket(ticket: Ticket) -> String {
    format!("{}-{}", ticket.revision, ticket.number)
}

fn span(words: &mut script::Words, name: &str) -> Option<Millis> {
    let text = words.maybe(name)?;
    let (number, scale) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').expect("2s or 500ms"), 1_000),
    };
    Some(Millis(number.parse::<u64>().expect("a number") * scale))
}

fn acked(acked: &[bool]) -> String {
    if acked.is_empty() { String::new() } else { format!(" acked={acked:?}") }
}

fn value(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn time(at: Timestamp) -> String {
    format!("{}ms", at.0)
}
