//! Sending: a batch is all or nothing, and in a row.

use coracle_store::command::Attach;
use coracle_store::limits::{KEY_OVERHEAD, META_BYTES, NAME_BYTES, TTL_MS, VALUE_BYTES};
use coracle_store::{Refusal as StoreRefusal, SessionId, Txn};

use super::desk::{Desk, Draft};
use super::state::{Duplicate, Tally};
use super::{BATCH, HEADERS, Kind, Message, MessageId, Outcome, Refusal, Send, Sent, decoded, encoded};
use super::{check_queue, time};
use crate::bounded;

pub(super) fn send(txn: &mut Txn<'_>, wanted: Send) -> Result<Outcome, StoreRefusal> {
    let Send { queue, mut messages, mut attach } = wanted;
    check_queue(&queue)?;
    bounded("messages", messages.len(), 1, BATCH)?;
    messages.iter().try_for_each(check)?;
    let mut desk = Desk::open(txn, &queue);
    messages.iter().try_for_each(|message| fits(desk.config.kind, message, &attach))?;
    if let Attach::Private(open) = &attach {
        if desk.config.kind == Kind::Barrier {
            // The `ttl` is that of the session of its own, as everywhere.
            let ttl = open.ttl.0;
            if !TTL_MS.contains(&ttl) {
                let bound = ttl.clamp(*TTL_MS.start(), *TTL_MS.end());
                return Err(StoreRefusal::OutOfBounds("ttl".into(), bound, ttl));
            }
            for message in &mut messages {
                message.ttl = None;
            }
        } else {
            attach = Attach::None;
        }
    }
    let session = desk.txn.attach(&attach, None)?;
    let mut sent = Vec::with_capacity(messages.len());
    for message in messages {
        sent.push(one(&mut desk, message, session)?);
    }
    desk.finish();
    Ok(Outcome::Sent(sent))
}

fn one(desk: &mut Desk<'_, '_>, message: Message, session: Option<SessionId>) -> Result<Sent, StoreRefusal> {
    if let Some(dedup_id) = &message.dedup_id
        && let Some(id) = known(desk, dedup_id)
    {
        return Ok(Sent { id, duplicate: true, generation: None, session: None });
    }
    if let Some(known) = desk.known_item(&message, session)? {
        return Ok(known);
    }
    desk.make_place()?;
    desk.txn.make_room(growth(desk, &message))?;
    let now = desk.txn.now();
    let draft = Draft {
        value: &message.value,
        content_type: message.content_type.clone(),
        priority: message.priority,
        group: message.group.as_deref(),
        expires: message.ttl.map(|ttl| now.after(ttl)),
        headers: message.headers.clone(),
        death: None,
    };
    let sent = if desk.config.kind == Kind::Barrier {
        desk.check_items()?;
        desk.arrive(draft, message.item.as_deref(), session)?
    } else {
        let (id, body) = desk.write(draft, None);
        if message.delay.0 > 0 {
            desk.delay(id, Tally::default(), now.after(message.delay), false);
        } else {
            desk.make_ready(id, &body, &Tally::default());
        }
        Sent { id, duplicate: false, generation: None, session: None }
    };
    if let Some(dedup_id) = message.dedup_id {
        let until = now.after(desk.config.dedup_window);
        time::set_window(desk.txn, &desk.keys, &dedup_id, until);
        desk.put(desk.keys.dedup(&dedup_id), encoded(Duplicate { id: sent.id, until }));
    }
    Ok(sent)
}

/// The message of that dedup id, sent within the window; also if it is settled long since.
fn known(desk: &Desk<'_, '_>, dedup_id: &str) -> Option<MessageId> {
    let duplicate: Duplicate = decoded(&desk.txn.get(&desk.keys.dedup(dedup_id))?.value);
    (duplicate.until > desk.txn.now()).then_some(duplicate.id)
}

/// Bytes that a message and its standing count against the quota, roughly and never too little.
fn growth(desk: &Desk<'_, '_>, message: &Message) -> usize {
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| 2 * text.len());
    let headers: usize =
        message.headers.iter().map(|header| header.name.len() + header.value.len() + 8).sum();
    let key = KEY_OVERHEAD + desk.keys.prefix().as_bytes().len() + 64;
    let timers = [message.delay.0 > 0, message.ttl.is_some(), message.group.is_some()];
    let keys =
        3 + timers.iter().filter(|there| **there).count() + 2 * usize::from(message.dedup_id.is_some());
    let texts = 3 * text(&message.group) + 3 * text(&message.dedup_id) + 3 * text(&message.item);
    message.value.len() + headers + texts + keys * key
}

fn check(message: &Message) -> Result<(), StoreRefusal> {
    bounded("value", message.value.len(), 0, VALUE_BYTES)?;
    bounded("priority", usize::from(message.priority), 0, 9)?;
    for (what, name) in [("group", &message.group), ("dedup_id", &message.dedup_id), ("id", &message.item)] {
        name.as_ref().map_or(Ok(()), |name| bounded(what, name.len(), 1, NAME_BYTES))?;
    }
    super::span("delay", message.delay, 0)?;
    message.ttl.map_or(Ok(()), |ttl| super::span("ttl", ttl, 1))?;
    bounded("headers", message.headers.len(), 0, HEADERS)?;
    let headers = message.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    bounded("headers", headers, 0, META_BYTES)
}

/// What only one kind of queue can do is refused by the others, not ignored.
fn fits(kind: Kind, message: &Message, attach: &Attach) -> Result<(), StoreRefusal> {
    let wrong = |what: &str| Err(Refusal::WrongKind(kind, what.into()).into());
    match kind {
        Kind::Fifo | Kind::Barrier if message.priority > 0 => wrong("priority"),
        Kind::Fifo | Kind::Priority if message.item.is_some() => wrong("id"),
        Kind::Fifo | Kind::Priority if matches!(attach, Attach::Session(_)) => wrong("session"),
        // There `ttl` is that of the message.
        Kind::Fifo | Kind::Priority if *attach != Attach::None && message.ttl.is_none() => wrong("hold"),
        Kind::Barrier if message.group.is_some() => wrong("group"),
        Kind::Barrier if message.delay.0 > 0 => wrong("delay"),
        Kind::Fifo | Kind::Priority | Kind::Barrier => Ok(()),
    }
}
