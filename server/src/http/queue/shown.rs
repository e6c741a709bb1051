//! ⑦ Queues and messages as clients see them.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_api::queue as wire;
use coracle_api::{Instant, Span};
use coracle_recipes::queue::barrier::{self, Authority, HandOut};
use coracle_recipes::queue::{
    self, Backoff, Config, Death, Delivery, Header, Item, Kind, MessageId, Ordinal, Overflow, Progress,
    Receipt, Role, SPAN, Standing, VISIBILITY,
};
use coracle_store::{ContentType, Millis, Revision, SessionId, Timestamp, Value, View};

use super::super::problem::{Answer, bad_body};
use super::super::{body, call, json, wire as ids};
use super::receipt_text;

/// Receivers shown of a line.
const CONSUMERS: usize = 100;

/// A message on its way to its consumer.
pub fn delivery(delivery: &Delivery, session: Option<SessionId>) -> wire::Message {
    let receipt = Receipt { id: delivery.id, delivery: delivery.delivery };
    wire::Message {
        receipt: Some(receipt_text(&receipt)),
        deliveries: delivery.deliveries,
        priority: delivery.priority,
        group: text(delivery.group.as_deref()),
        headers: headers(&delivery.headers),
        since: delivery.since.map(instant),
        until: delivery.until.map(instant),
        session: session.map(ids::session),
        dead: delivery.death.as_ref().map(dead),
        ..message(
            delivery.id,
            &delivery.value,
            &delivery.content_type,
            delivery.sent,
            delivery.place.as_ref(),
        )
    }
}

/// A message that somebody looks at.
pub fn item(item: &Item) -> wire::Message {
    let (state, until, since, session) = match &item.standing {
        Standing::Ready => (wire::MessageState::Ready, None, None, None),
        Standing::Blocked => (wire::MessageState::Blocked, None, None, None),
        Standing::Held => (wire::MessageState::Held, None, None, None),
        Standing::Delayed { until, .. } => (wire::MessageState::Delayed, Some(*until), None, None),
        Standing::InFlight { since, until, session, .. } => {
            (wire::MessageState::InFlight, *until, Some(*since), *session)
        }
    };
    wire::Message {
        state: Some(state),
        deliveries: item.deliveries,
        priority: item.priority,
        group: text(item.group.as_deref()),
        headers: headers(&item.headers),
        expires: item.expires.map(instant),
        until: until.map(instant),
        since: since.map(instant),
        session: session.map(ids::session),
        reason: text(item.reason.as_deref()),
        dead: item.death.as_ref().map(dead),
        name: text(item.name.as_deref()),
        ..message(item.id, &item.value, &item.content_type, item.sent, item.place.as_ref())
    }
}

fn message(
    id: MessageId,
    value: &Value,
    content_type: &ContentType,
    sent: Timestamp,
    place: Option<&Ordinal>,
) -> wire::Message {
    let role = place.and_then(|place| match place.role {
        Role::Item => None,
        Role::Batch => Some(wire::MessageRole::Batch),
        Role::Finalizer => Some(wire::MessageRole::Finalizer),
    });
    wire::Message {
        id: id.to_string(),
        receipt: None,
        state: None,
        value: coracle_api::Value::new(value.as_bytes().to_vec(), json::content_type(content_type)),
        deliveries: 0,
        sent: instant(sent),
        priority: 0,
        group: None,
        headers: BTreeMap::new(),
        expires: None,
        until: None,
        since: None,
        session: None,
        reason: None,
        dead: None,
        name: place.and_then(|place| text(place.id.as_deref())),
        role,
        generation: place.map(|place| place.generation),
        ordinal: place.and_then(|place| place.ordinal),
        size: place.map(|place| place.size),
        items: None,
    }
}

fn dead(death: &Death) -> wire::DeadLetter {
    wire::DeadLetter {
        queue: death.queue.to_string(),
        id: death.id.to_string(),
        deliveries: death.deliveries,
        reason: death.reason.to_string(),
        sent: instant(death.sent),
    }
}

fn headers(headers: &[Header]) -> BTreeMap<String, String> {
    headers.iter().map(|header| (header.name.to_string(), header.value.to_string())).collect()
}

fn text(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

fn instant(at: Timestamp) -> Instant {
    Instant::from_unix_ms(at.0)
}

fn span(span: Millis) -> Span {
    Span::from_millis_saturating(span.0)
}

/// How long ago, by this node's clock.
fn age(at: Timestamp) -> Span {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    span(Timestamp(now).since(at))
}

/// A queue with its line of receivers.
pub fn whole(view: View<'_>, name: &str) -> Option<wire::Queue> {
    let mut shown = queue(view, name)?;
    let consumers = queue::consumers(view, name, CONSUMERS).into_iter().map(|consumer| wire::Consumer {
        session: ids::session(consumer.session),
        since: instant(consumer.since),
        max: consumer.terms.max,
    });
    shown.consumers = Some(consumers.collect());
    Some(shown)
}

/// A queue as lists show it.
pub fn queue(view: View<'_>, name: &str) -> Option<wire::Queue> {
    let seen = queue::statistics(view, name)?;
    let progress = queue::progress(view, name);
    Some(wire::Queue {
        name: name.to_owned(),
        configured: seen.configured,
        length: seen.ready + seen.blocked + seen.delayed + seen.in_flight + seen.held,
        ready: seen.ready,
        blocked: seen.blocked,
        delayed: seen.delayed,
        in_flight: seen.in_flight,
        held: seen.held,
        dead: seen.dead,
        dead_letter: seen.dead_letter,
        bytes: seen.bytes,
        waiting: seen.waiting,
        oldest: seen.oldest.map(instant),
        oldest_age: seen.oldest.map(age),
        consumer: seen.active.map(ids::session),
        consumers: None,
        filling: progress.as_ref().map(filling),
        draining: progress.as_ref().and_then(draining),
        generations_waiting: progress.as_ref().map(|progress| progress.waiting),
        config: config(&seen.config),
    })
}

fn filling(progress: &Progress) -> wire::Filling {
    let generation = &progress.filling;
    let list = |names: &[Box<str>]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then_some(names)
    };
    wire::Filling {
        generation: generation.number,
        items: generation.live,
        progress: progress.barrier.size.map(|size| format!("{}/{size}", generation.live)),
        missing: list(&progress.missing),
        signalled: list(&generation.signals),
        since: generation.since.map(instant),
        age: generation.since.map(age),
        deadline: generation.deadline.map(instant),
        broken: text(generation.broken.as_deref()),
    }
}

fn draining(progress: &Progress) -> Option<wire::Draining> {
    let generation = progress.draining.as_ref()?;
    let released = generation.released.as_ref()?;
    Some(wire::Draining {
        generation: generation.number,
        size: released.size,
        left: generation.live,
        acked: generation.acked,
        dead: generation.dead,
        dropped: generation.dropped,
        cause: released.cause.to_string(),
        released: instant(released.at),
        revision: released.revision.0,
        finalizing: generation.finalizing,
    })
}

fn config(config: &Config) -> wire::QueueConfig {
    wire::QueueConfig {
        kind: match config.kind {
            Kind::Fifo => wire::QueueKind::Fifo,
            Kind::Priority => wire::QueueKind::Priority,
            Kind::Barrier => wire::QueueKind::Barrier,
        },
        visibility: Some(span(config.visibility)),
        max_deliveries: Some(config.max_deliveries),
        dead_letter: text(config.dead_letter.as_deref()),
        retry: config.backoff.map(|backoff| wire::QueueBackoff {
            min: span(backoff.min),
            max: span(backoff.max),
            factor: backoff.factor,
        }),
        retention: Some(span(config.retention)),
        max_length: config.max_length,
        overflow: match config.overflow {
            Overflow::Reject => coracle_api::Overflow::Reject,
            Overflow::DropOldest => coracle_api::Overflow::DropOldest,
        },
        dedup_window: Some(span(config.dedup_window)),
        single_active: config.single_active,
        paused: config.paused,
        barrier: config.barrier.as_ref().map(barrier),
    }
}

fn barrier(barrier: &barrier::Barrier) -> wire::Barrier {
    let names = |names: &[Box<str>]| wire::Names(names.iter().map(ToString::to_string).collect());
    wire::Barrier {
        when: if barrier.any { wire::BarrierMode::Any } else { wire::BarrierMode::All },
        size: barrier.size,
        contains: names(&barrier.contains),
        absent: names(&barrier.absent),
        signals: names(&barrier.signals),
        deadline: barrier.deadline.map(|deadline| span(deadline.after)),
        on_deadline: barrier.deadline.map(|deadline| {
            if deadline.breaks { wire::OnDeadline::Break } else { wire::OnDeadline::Release }
        }),
        delivery: match barrier.hand_out {
            HandOut::Work => wire::Delivery::Work,
            HandOut::Batch => wire::Delivery::Batch,
            HandOut::Own => wire::Delivery::Own,
            HandOut::Broadcast => wire::Delivery::Broadcast,
        },
        strict: barrier.strict,
        finalizer: barrier.finalizer.as_ref().map(|finalizer| wire::Finalizer {
            value: finalizer.value.as_ref().map(|value| {
                coracle_api::Value::new(
                    value.as_bytes().to_vec(),
                    json::content_type(&finalizer.content_type),
                )
            }),
        }),
        on_break: match barrier.on_break {
            barrier::OnBreak::CarryOver => wire::OnBreak::CarryOver,
            barrier::OnBreak::DeadLetter => wire::OnBreak::DeadLetter,
            barrier::OnBreak::Drop => wire::OnBreak::Drop,
        },
        guard: barrier.authority.as_ref().map(|authority| match authority {
            Authority::Lock(name) => format!("locks/{name}"),
            Authority::Election(name) => format!("elections/{name}"),
        }),
    }
}

/// A configuration as it was asked for; what is left out is as in a queue that nobody configured.
pub fn configured(name: &str, wanted: wire::QueueConfig) -> Answer<Config> {
    let plain = queue::plain(name);
    let span = |span: Option<Span>, plain: Millis| span.map_or(plain, |span| Millis(span.as_millis()));
    if let Some(dead_letter) = &wanted.dead_letter {
        call::check_name(dead_letter).map_err(|detail| bad_body(format!("dead_letter: {detail}")))?;
        if *dead_letter == name {
            return Err(bad_body("dead_letter: another queue"));
        }
    }
    let spans = [
        ("visibility", wanted.visibility, VISIBILITY),
        ("retention", wanted.retention, VISIBILITY),
        ("dedup_window", wanted.dedup_window, Millis(1)),
        ("retry.min", wanted.retry.map(|retry| retry.min), Millis(0)),
        (
            "retry.max",
            wanted.retry.map(|retry| retry.max),
            Millis(wanted.retry.map_or(0, |r| r.min.as_millis())),
        ),
    ];
    for (what, span, least) in spans {
        let range = super::spans(least);
        if span.is_some_and(|span| !range.contains(&span)) {
            return Err(bad_body(format!("{what}: a duration min={} max={}", range.start(), range.end())));
        }
    }
    within("max_deliveries", wanted.max_deliveries.map(u64::from), 0, 1_000)?;
    within("max_length", wanted.max_length, 1, u64::MAX)?;
    within("retry.factor", wanted.retry.map(|retry| retry.factor.into()), 1, 10)?;
    Ok(Config {
        kind: match wanted.kind {
            wire::QueueKind::Fifo => Kind::Fifo,
            wire::QueueKind::Priority => Kind::Priority,
            wire::QueueKind::Barrier => Kind::Barrier,
        },
        visibility: span(wanted.visibility, plain.visibility),
        max_deliveries: wanted.max_deliveries.unwrap_or(plain.max_deliveries),
        dead_letter: wanted.dead_letter.map(Into::into),
        backoff: wanted.retry.map(|retry| Backoff {
            min: Millis(retry.min.as_millis()),
            max: Millis(retry.max.as_millis()),
            factor: retry.factor,
        }),
        retention: span(wanted.retention, plain.retention),
        max_length: wanted.max_length,
        overflow: match wanted.overflow {
            coracle_api::Overflow::Reject => Overflow::Reject,
            coracle_api::Overflow::DropOldest => Overflow::DropOldest,
        },
        dedup_window: span(wanted.dedup_window, plain.dedup_window),
        single_active: wanted.single_active,
        paused: wanted.paused,
        barrier: match (wanted.kind, wanted.barrier) {
            (wire::QueueKind::Barrier, asked) => Some(waits_for(asked.unwrap_or_default())?),
            (_, None) => None,
            (_, Some(_)) => return Err(bad_body("barrier: only with kind=barrier")),
        },
    })
}

fn within(what: &str, number: Option<u64>, min: u64, max: u64) -> Answer<()> {
    match number {
        Some(number) if !(min..=max).contains(&number) => {
            Err(bad_body(format!("{what}: a whole number min={min} max={max} actual={number}")))
        }
        _ => Ok(()),
    }
}

fn waits_for(wanted: wire::Barrier) -> Answer<barrier::Barrier> {
    within("size", wanted.size, 1, barrier::ITEMS)?;
    within("deadline", wanted.deadline.map(Span::as_millis), 1, SPAN.0)?;
    if wanted.on_deadline.is_some() && wanted.deadline.is_none() {
        return Err(bad_body("on_deadline: only with deadline"));
    }
    let guard = wanted.guard.as_deref().map(authority).transpose()?;
    Ok(barrier::Barrier {
        any: wanted.when == wire::BarrierMode::Any,
        size: wanted.size,
        contains: call::check_names("contains", wanted.contains.0, barrier::DECLARED)?,
        absent: call::check_names("absent", wanted.absent.0, barrier::NAMED)?,
        signals: call::check_names("signals", wanted.signals.0, barrier::NAMED)?,
        deadline: wanted.deadline.map(|after| barrier::Deadline {
            after: Millis(after.as_millis()),
            breaks: wanted.on_deadline == Some(wire::OnDeadline::Break),
        }),
        hand_out: match wanted.delivery {
            wire::Delivery::Work => HandOut::Work,
            wire::Delivery::Batch => HandOut::Batch,
            wire::Delivery::Own => HandOut::Own,
            wire::Delivery::Broadcast => HandOut::Broadcast,
        },
        strict: wanted.strict,
        finalizer: wanted.finalizer.map(|finalizer| {
            let value = finalizer.value.unwrap_or_else(|| coracle_api::Value::from(""));
            barrier::Finalizer {
                content_type: body::named(&value.content_type, &value.bytes),
                value: (!value.bytes.is_empty()).then(|| Value::from(&*value.bytes)),
            }
        }),
        on_break: match wanted.on_break {
            wire::OnBreak::CarryOver => barrier::OnBreak::CarryOver,
            wire::OnBreak::DeadLetter => barrier::OnBreak::DeadLetter,
            wire::OnBreak::Drop => barrier::OnBreak::Drop,
        },
        authority: guard,
    })
}

fn authority(text: &str) -> Answer<Authority> {
    let (family, name) = text.split_once('/').unwrap_or_default();
    call::check_name(name).map_err(|detail| bad_body(format!("guard: {detail}")))?;
    match family {
        "locks" => Ok(Authority::Lock(name.into())),
        "elections" => Ok(Authority::Election(name.into())),
        _ => Err(bad_body("guard: locks/NAME or elections/NAME")),
    }
}

/// The revision of an entry as a receipt names it.
pub fn own_receipt(id: MessageId, delivery: Revision) -> String {
    receipt_text(&Receipt { id, delivery })
}
