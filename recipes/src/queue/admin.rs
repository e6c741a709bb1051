//! For operators: remove, purge, redrive, configure, pause, transfer.

use coracle_store::limits::{KEY_OVERHEAD, NAME_BYTES};
use coracle_store::{Key, Refusal as StoreRefusal, Revision, SessionId, Txn};

use super::barrier::{Barrier, DECLARED, End, HandOut, ITEMS, NAMED};
use super::delivery::Failure;
use super::desk::{Desk, Draft};
use super::keys::{MessageId, Place};
use super::state::{Body, Flight};
use super::{Backoff, Config, DEAD, Kind, Outcome, Refusal, SLICE, VISIBILITY, check_queue, decoded, look};
use crate::bounded;

pub(super) fn remove(txn: &mut Txn<'_>, queue: &str, id: MessageId) -> Result<Outcome, StoreRefusal> {
    let mut desk = Desk::open(txn, queue);
    if !desk.remove(id, End::Dropped) {
        return Err(Refusal::MessageNotFound(id).into());
    }
    desk.finish();
    Ok(Outcome::Moved(1, false))
}

/// Dedup ids stay: what was sent before the purge is not sent again after it.
pub(super) fn purge(
    txn: &mut Txn<'_>,
    queue: &str,
    until: Revision,
    in_flight: bool,
) -> Result<Outcome, StoreRefusal> {
    check_queue(queue)?;
    let mut desk = Desk::open(txn, queue);
    let mut ids = Vec::with_capacity(SLICE);
    let (keys, view) = (&desk.keys, desk.txn.view());
    let flights = in_flight.then(|| keys.flights());
    for part in [keys.all_ready(), keys.all_blocked(), keys.all_delayed()].into_iter().chain(flights) {
        let found = view.under(part).filter_map(|(key, _)| last_id(key));
        ids.extend(found.filter(|id| id.revision <= until).take(SLICE - ids.len()));
    }
    for id in &ids {
        desk.remove(*id, End::Dropped);
    }
    desk.finish();
    Ok(Outcome::Moved(ids.len() as u64, ids.len() == SLICE))
}

fn last_id(key: &Key) -> Option<MessageId> {
    let bytes = key.as_bytes();
    MessageId::from_bytes(&bytes[bytes.len().checked_sub(12)?..])
}

/// From the dead letters named, or those of the queue named.
pub(super) fn redrive(
    txn: &mut Txn<'_>,
    queue: &str,
    to: Option<&str>,
    limit: u32,
) -> Result<Outcome, StoreRefusal> {
    check_queue(queue)?;
    to.map_or(Ok(()), check_queue)?;
    let limit = limit as usize;
    bounded("limit", limit, 1, SLICE)?;
    let named = look::config(txn.view(), &super::Keys::new(queue), queue);
    let source =
        if queue.ends_with(DEAD) { Some(queue.to_owned()) } else { look::dead_letter(&named, queue) };
    let source = source.filter(|source| to != Some(source)).ok_or(Refusal::NotFound)?;
    let mut desk = Desk::open(txn, &source);
    let ready = desk.txn.view().under(desk.keys.slot(desk.head.front));
    let ids: Vec<MessageId> =
        ready.filter_map(|(key, _)| Place::last_of(key)).map(|place| place.id).take(limit).collect();
    let mut letters = Vec::with_capacity(ids.len());
    for id in ids {
        let record = desk.record(id).expect("a message that stands somewhere has been sent");
        let death = decoded::<Body<'_>>(&record.value).death;
        // One that was sent here by hand goes nowhere of itself.
        let Some(target) = to.map(str::to_owned).or(death.map(|death| death.queue.into())) else { continue };
        desk.remove(id, End::Acked);
        letters.push((target, record));
    }
    desk.keep();
    for (target, record) in &letters {
        let body: Body<'_> = decoded(&record.value);
        txn.make_room(1)?;
        let draft = Draft {
            value: body.value,
            content_type: record.content_type.clone(),
            priority: 0,
            group: None,
            expires: None,
            headers: body.headers,
            death: None,
        };
        let mut desk = Desk::open(txn, target);
        desk.add(draft);
        desk.finish();
    }
    Ok(Outcome::Moved(letters.len() as u64, letters.len() == limit))
}

pub(super) fn configure(
    txn: &mut Txn<'_>,
    queue: &str,
    config: Option<Config>,
) -> Result<Outcome, StoreRefusal> {
    check_queue(queue)?;
    let mut desk = Desk::open(txn, queue);
    let key = desk.keys.config();
    let before = desk.config.clone();
    let fresh = desk.txn.get(&key).is_none();
    match config {
        Some(config) => {
            check(queue, &config)?;
            turn_into(&desk, &config)?;
            let ids = config.barrier.as_ref().map_or(&[][..], |barrier| &barrier.contains);
            let room: usize = ids.iter().map(|id| KEY_OVERHEAD + key.as_bytes().len() + id.len()).sum();
            desk.txn.make_room(if fresh {
                KEY_OVERHEAD + key.as_bytes().len() + 512 + room
            } else {
                room
            })?;
            desk.config = config;
            let barrier = desk.config.barrier.clone();
            desk.set_barrier(barrier.as_ref())?;
            desk.config.barrier = barrier.map(|barrier| barrier.short());
            desk.keep_config(true);
        }
        None if fresh => return Err(Refusal::NotFound.into()),
        None => {
            turn_into(&desk, &look::plain(queue))?;
            desk.set_barrier(None)?;
            desk.config = look::plain(queue);
            desk.keep_config(false);
        }
    }
    if before.retention != desk.config.retention && desk.head.retention.is_some() {
        let oldest = desk.txn.view().front(desk.keys.bodies()).next();
        let sent = oldest.map(|(_, record)| decoded::<Body<'_>>(&record.value).sent);
        if let Some(sent) = sent {
            desk.watch_retention(sent.after(desk.config.retention).max(desk.txn.now()));
        }
    }
    if before.single_active && !desk.config.single_active {
        desk.delete(&desk.keys.active());
    }
    desk.finish();
    Ok(Outcome::Configured(fresh))
}

/// Messages of one kind of queue stand where another would not look, and a released generation goes on as it began.
fn turn_into(desk: &Desk<'_, '_>, config: &Config) -> Result<(), StoreRefusal> {
    let how = |config: &Config| config.barrier.as_ref().map(|barrier| (barrier.hand_out, barrier.strict));
    let kind =
        (desk.config.kind == Kind::Barrier) != (config.kind == Kind::Barrier) && desk.head.length() > 0;
    if kind || (how(&desk.config) != how(config) && !desk.at_rest()) {
        return Err(Refusal::NotEmpty(desk.head.length()).into());
    }
    Ok(())
}

fn check(queue: &str, config: &Config) -> Result<(), StoreRefusal> {
    super::span("visibility", config.visibility, VISIBILITY.0)?;
    super::span("retention", config.retention, VISIBILITY.0)?;
    super::span("dedup_window", config.dedup_window, 1)?;
    bounded("max_deliveries", config.max_deliveries as usize, 0, 1_000)?;
    if let Some(dead_letter) = &config.dead_letter {
        check_queue(dead_letter)?;
        if **dead_letter == *queue {
            return Err(StoreRefusal::OutOfBounds("dead_letter".into(), 0, 0));
        }
    }
    if let Some(Backoff { min, max, factor }) = config.backoff {
        super::span("min", min, 0)?;
        super::span("max", max, min.0)?;
        bounded("factor", factor as usize, 1, 10)?;
    }
    if config.max_length == Some(0) {
        return Err(StoreRefusal::OutOfBounds("max_length".into(), 1, 0));
    }
    match &config.barrier {
        Some(barrier) if config.kind == Kind::Barrier => check_barrier(barrier),
        None if config.kind != Kind::Barrier => Ok(()),
        Some(_) | None => Err(Refusal::WrongKind(config.kind, "barrier".into()).into()),
    }
}

fn check_barrier(barrier: &Barrier) -> Result<(), StoreRefusal> {
    let items = usize::try_from(ITEMS).unwrap_or(usize::MAX);
    let size = barrier.size.map_or(1, |size| usize::try_from(size).unwrap_or(usize::MAX));
    bounded("size", size, 1, items)?;
    for (what, names, most) in [
        ("contains", &barrier.contains, DECLARED),
        ("absent", &barrier.absent, NAMED),
        ("signals", &barrier.signals, NAMED),
    ] {
        bounded(what, names.len(), 0, most)?;
        names.iter().try_for_each(|name| bounded(what, name.len(), 1, NAME_BYTES))?;
    }
    barrier.deadline.map_or(Ok(()), |deadline| super::span("deadline", deadline.after, 1))?;
    // What everybody gets ends for nobody in particular.
    if barrier.hand_out == HandOut::Broadcast && (barrier.finalizer.is_some() || barrier.strict) {
        return Err(
            Refusal::WrongKind(Kind::Barrier, "strict and finalizer with delivery=broadcast".into()).into()
        );
    }
    Ok(())
}

pub(super) fn pause(txn: &mut Txn<'_>, queue: &str, paused: bool) -> Result<Outcome, StoreRefusal> {
    check_queue(queue)?;
    let mut desk = Desk::open(txn, queue);
    if desk.config.paused != paused {
        desk.config.paused = paused;
        desk.keep_config(desk.config != look::plain(queue));
    }
    desk.finish();
    Ok(Outcome::Done)
}

/// What the former consumer has in flight returns uncounted.
pub(super) fn transfer(
    txn: &mut Txn<'_>,
    queue: &str,
    from: SessionId,
    to: SessionId,
) -> Result<Outcome, StoreRefusal> {
    let mut desk = Desk::open(txn, queue);
    let active = desk.active();
    if active != Some(from) {
        return Err(Refusal::NotActive(active).into());
    }
    if from == to {
        return Ok(Outcome::Done);
    }
    desk.txn.attach(&coracle_store::Attach::Session(to), None)?;
    let view = desk.txn.view();
    let keys = view.attached_under(from, desk.keys.flights().as_bytes());
    let flights: Vec<Flight> =
        keys.filter_map(|key| view.get(key)).map(|record| decoded(&record.value)).collect();
    for flight in flights {
        desk.fail(flight, &Failure { taken: true, ..Failure::default() });
    }
    desk.activate(to);
    desk.finish();
    Ok(Outcome::Done)
}
