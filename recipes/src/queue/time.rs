//! What a queue waits for: the end of a delay, of a visibility, of a ttl, of a window, of the retention.

use coracle_store::{Millis, Timestamp, Txn};

use super::barrier::End;
use super::delivery::Failure;
use super::desk::Desk;
use super::keys::{Keys, MessageId, Ticket};
use super::state::{Body, Duplicate, Parcel};
use super::{SLICE, decoded, receive};
use crate::{names, timer};

const DELAY: u8 = b'd';
const VISIBILITY: u8 = b'f';
const EXPIRY: u8 = b'x';
const RETENTION: u8 = b'o';
const DEDUP: u8 = b'u';
const DEADLINE: u8 = b'l';
const SWEEP: u8 = b'z';
const PARCEL: u8 = b'p';

/// A timer has run out. It may be stale: what it speaks of is looked at again.
pub(super) fn due(txn: &mut Txn<'_>, what: &[u8]) {
    let Some((name, rest)) = names::split(what) else { return };
    let Some((kind, rest)) = rest.split_first() else { return };
    if *kind == DEDUP {
        return end_window(txn, &name, rest);
    }
    let mut desk = Desk::open(txn, &name);
    let slot = || rest.first_chunk().map(|slot| u64::from_be_bytes(*slot)).unwrap_or_default();
    match (*kind, MessageId::from_bytes(rest)) {
        (DEADLINE, _) => desk.end_deadline(slot()),
        (SWEEP, _) => desk.sweep(slot()),
        (PARCEL, _) => uncollected(&mut desk, rest),
        (DELAY, Some(id)) => desk.undelay(id),
        (VISIBILITY, Some(id)) => time_out(&mut desk, id),
        (EXPIRY, Some(id)) => expire(&mut desk, id),
        (RETENTION, _) => drop_old(&mut desk),
        _ => {}
    }
    desk.finish();
}

/// Nobody settled it in time.
fn time_out(desk: &mut Desk<'_, '_>, id: MessageId) {
    let Some(flight) = desk.flight(id) else { return };
    if flight.until.is_none_or(|until| until > desk.txn.now()) {
        return;
    }
    let session = flight.session;
    desk.fail(flight, &Failure { counted: true, taken: true, ..Failure::default() });
    if let Some(session) = session
        && desk.config.single_active
        && desk.active() == Some(session)
    {
        desk.depose(session);
    }
}

/// Whoever was assigned it has not come for it: it may have gone away before it knew that it was in line.
fn uncollected(desk: &mut Desk<'_, '_>, ticket: &[u8]) {
    let Some(ticket) = Ticket::from_bytes(ticket) else { return };
    let key = desk.keys.parcel(ticket);
    let Some(parcel) = desk.txn.get(&key).map(|record| decoded::<Parcel>(&record.value)) else { return };
    if parcel.until <= desk.txn.now() {
        desk.delete(&key);
        receive::give_back(desk, ticket, &parcel);
    }
}

/// Its ttl is over. What is in flight may still be settled; it does not come back.
fn expire(desk: &mut Desk<'_, '_>, id: MessageId) {
    let Some(record) = desk.record(id) else { return };
    let body: Body<'_> = decoded(&record.value);
    if body.expires.is_some_and(|at| at <= desk.txn.now()) && desk.flight(id).is_none() {
        desk.remove(id, End::Dropped);
    }
}

/// Messages past the retention go, in whatever state, the oldest first.
fn drop_old(desk: &mut Desk<'_, '_>) {
    if desk.head.retention.is_none_or(|at| at > desk.txn.now()) {
        return;
    }
    desk.head.retention = None;
    for _ in 0..SLICE {
        let oldest = desk.txn.view().front(desk.keys.bodies()).next();
        let Some((key, record)) = oldest else { return };
        let id = MessageId::from_bytes(&key.as_bytes()[key.as_bytes().len() - 12..]);
        let body: Body<'_> = decoded(&record.value);
        let at = body.sent.after(desk.config.retention);
        let Some(id) = id.filter(|_| at <= desk.txn.now()) else {
            return desk.watch_retention(at);
        };
        desk.remove(id, End::Dropped);
    }
    // There may be more: in the next entry.
    desk.watch_retention(desk.txn.now().after(Millis(1)));
}

fn end_window(txn: &mut Txn<'_>, queue: &str, dedup_id: &[u8]) {
    let Some((dedup_id, _)) = names::split(dedup_id) else { return };
    let key = Keys::new(queue).dedup(&dedup_id);
    let until = txn.get(&key).map(|record| decoded::<Duplicate>(&record.value).until);
    if until.is_some_and(|until| until <= txn.now()) {
        txn.delete(&key, coracle_store::Cause::Command);
    }
}

pub(super) fn set_delay(txn: &mut Txn<'_>, keys: &Keys, id: MessageId, at: Timestamp) {
    timer::set_of(txn, at, keys.prefix(), DELAY, &id.bytes());
}

pub(super) fn clear_delay(txn: &mut Txn<'_>, keys: &Keys, id: MessageId, at: Timestamp) {
    timer::clear_of(txn, at, keys.prefix(), DELAY, &id.bytes());
}

pub(super) fn set_visibility(txn: &mut Txn<'_>, keys: &Keys, id: MessageId, at: Timestamp) {
    timer::set_of(txn, at, keys.prefix(), VISIBILITY, &id.bytes());
}

pub(super) fn clear_visibility(txn: &mut Txn<'_>, keys: &Keys, id: MessageId, at: Timestamp) {
    timer::clear_of(txn, at, keys.prefix(), VISIBILITY, &id.bytes());
}

pub(super) fn set_expiry(txn: &mut Txn<'_>, keys: &Keys, id: MessageId, at: Timestamp) {
    timer::set_of(txn, at, keys.prefix(), EXPIRY, &id.bytes());
}

pub(super) fn clear_expiry(txn: &mut Txn<'_>, keys: &Keys, id: MessageId, at: Timestamp) {
    timer::clear_of(txn, at, keys.prefix(), EXPIRY, &id.bytes());
}

pub(super) fn set_retention(txn: &mut Txn<'_>, keys: &Keys, at: Timestamp) {
    timer::set_of(txn, at, keys.prefix(), RETENTION, &[]);
}

pub(super) fn clear_retention(txn: &mut Txn<'_>, keys: &Keys, at: Timestamp) {
    timer::clear_of(txn, at, keys.prefix(), RETENTION, &[]);
}

pub(super) fn set_window(txn: &mut Txn<'_>, keys: &Keys, dedup_id: &str, at: Timestamp) {
    timer::set_of(txn, at, keys.prefix(), DEDUP, &names::closed(dedup_id));
}

pub(super) fn set_deadline(txn: &mut Txn<'_>, keys: &Keys, slot: u64, at: Timestamp) {
    timer::set_of(txn, at, keys.prefix(), DEADLINE, &slot.to_be_bytes());
}

pub(super) fn clear_deadline(txn: &mut Txn<'_>, keys: &Keys, slot: u64, at: Timestamp) {
    timer::clear_of(txn, at, keys.prefix(), DEADLINE, &slot.to_be_bytes());
}

pub(super) fn set_sweep(txn: &mut Txn<'_>, keys: &Keys, slot: u64, at: Timestamp) {
    timer::set_of(txn, at, keys.prefix(), SWEEP, &slot.to_be_bytes());
}

pub(super) fn set_parcel(txn: &mut Txn<'_>, keys: &Keys, ticket: Ticket, at: Timestamp) {
    timer::set_of(txn, at, keys.prefix(), PARCEL, &ticket.bytes());
}

pub(super) fn clear_parcel(txn: &mut Txn<'_>, keys: &Keys, ticket: Ticket, at: Timestamp) {
    timer::clear_of(txn, at, keys.prefix(), PARCEL, &ticket.bytes());
}
