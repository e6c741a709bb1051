//! Receiving: from the front, or in line; and what becomes of those who wait.

use std::collections::BTreeMap;

use coracle_store::command::Attach;
use coracle_store::limits::KEY_OVERHEAD;
use coracle_store::{Cause, ContentType, Record, Refusal as StoreRefusal, SessionId, Txn};

use super::delivery::Failure;
use super::desk::Desk;
use super::keys::{Part, Ticket};
use super::state::{Parcel, Terms, Waiter};
use super::{
    Delivered, Outcome, RECEIVE, Receive, Refusal, VISIBILITY, WAITERS, check_queue, decoded, encoded,
    settle, time,
};
use crate::bounded;

pub(super) fn receive(txn: &mut Txn<'_>, wanted: Receive) -> Result<Outcome, StoreRefusal> {
    let Receive { queue, terms, attach, wait, acks } = wanted;
    check_queue(&queue)?;
    bounded("max", terms.max as usize, 1, RECEIVE)?;
    bounded("acks", acks.len(), 0, RECEIVE)?;
    terms.visibility.map_or(Ok(()), |span| super::span("visibility", span, VISIBILITY.0))?;
    let session = match &attach {
        Attach::None => None,
        Attach::Session(id) if txn.view().session(*id).is_none() => {
            return Err(StoreRefusal::SessionExpired(*id));
        }
        Attach::Session(id) => Some(*id),
        Attach::Private(open) => Some(open.id),
        Attach::Keep => return Err(StoreRefusal::Malformed),
    };
    if session.is_none() && (wait || terms.bound) {
        return Err(StoreRefusal::Malformed);
    }
    let mut desk = Desk::open(txn, &queue);
    if desk.config.single_active && !terms.bound {
        return Err(Refusal::SessionRequired.into());
    }
    let acked = settle::acknowledge(&mut desk, &acks);
    // What that made ready belongs to those who waited before.
    desk.assign();
    let mut attached = false;
    let mut messages = Vec::new();
    if desk.may_take(session) {
        // Nothing to take is not worth a session, nor a look beforehand where none is needed.
        if terms.bound && desk.front().is_some() {
            desk.txn.attach(&attach, None)?;
            attached = true;
        }
        messages = desk.deliver(terms, session, None);
    }
    if let Some(session) = session.filter(|_| attached && desk.config.single_active && !messages.is_empty()) {
        desk.activate(session);
    }
    if messages.is_empty() && wait {
        let session = session.ok_or(StoreRefusal::Malformed)?;
        if desk.head.waiting >= WAITERS {
            return Err(Refusal::TooManyWaiters(WAITERS).into());
        }
        if !attached {
            desk.txn.attach(&attach, None)?;
        }
        let ticket = join(&mut desk, terms, session)?;
        desk.finish();
        return Ok(Outcome::Waiting(ticket, session, acked));
    }
    desk.finish();
    let session = session.filter(|_| terms.bound && !terms.at_most_once && !messages.is_empty());
    Ok(Outcome::Delivered(Delivered { messages, acked, session }))
}

impl Desk<'_, '_> {
    /// Whether this receiver may have what is ready.
    fn may_take(&self, session: Option<SessionId>) -> bool {
        !self.config.single_active || self.active().is_none_or(|active| Some(active) == session)
    }
}

/// At the end of the line.
fn join(desk: &mut Desk<'_, '_>, terms: Terms, session: SessionId) -> Result<Ticket, StoreRefusal> {
    desk.txn.make_room(3 * (KEY_OVERHEAD + desk.keys.prefix().as_bytes().len() + 64))?;
    let ticket = Ticket { revision: desk.txn.revision(), number: desk.txn.number() };
    let waiter = Waiter { session, terms, since: desk.txn.now() };
    desk.txn.put(desk.keys.waiter(ticket), encoded(&waiter), ContentType::Binary, Some(session));
    desk.head.waiting += 1;
    Ok(ticket)
}

/// The receiver is about to answer its caller: now it has the messages.
pub(super) fn collect(txn: &mut Txn<'_>, queue: &str, ticket: Ticket) -> Result<Outcome, StoreRefusal> {
    let mut desk = Desk::open(txn, queue);
    let key = desk.keys.parcel(ticket);
    let Some(parcel) = desk.txn.get(&key).map(|record| decoded::<Parcel>(&record.value)) else {
        let waits = desk.txn.get(&desk.keys.waiter(ticket)).and_then(|record| record.session);
        return match waits {
            Some(session) => Ok(Outcome::Waiting(ticket, session, Vec::new())),
            None => Err(Refusal::TicketGone.into()),
        };
    };
    desk.delete(&key);
    let Parcel { waiter, messages, until } = parcel;
    time::clear_parcel(desk.txn, &desk.keys, ticket, until);
    let mut delivered = Delivered {
        session: (waiter.terms.bound && !waiter.terms.at_most_once).then_some(waiter.session),
        ..Delivered::default()
    };
    for id in messages {
        // Somebody may have removed it meanwhile.
        let Some(flight) = desk.flight(id).filter(|flight| flight.ticket == Some(ticket)) else { continue };
        let record = desk.record(id).expect("a message in flight has been sent");
        let body = decoded(&record.value);
        delivered.messages.push(desk.depart(flight, waiter.terms, &record.content_type, body));
    }
    desk.finish();
    Ok(Outcome::Delivered(delivered))
}

/// The receiver gives up.
pub(super) fn leave(txn: &mut Txn<'_>, queue: &str, ticket: Ticket) -> Outcome {
    let mut desk = Desk::open(txn, queue);
    let key = desk.keys.parcel(ticket);
    if let Some(parcel) = desk.txn.get(&key).map(|record| decoded::<Parcel>(&record.value)) {
        desk.delete(&key);
        give_back(&mut desk, ticket, &parcel);
    } else if desk.delete(&desk.keys.waiter(ticket)) {
        desk.head.waiting -= 1;
    }
    desk.finish();
    Outcome::Done
}

/// Nobody has seen what was assigned: it returns as if nothing had happened.
pub(super) fn give_back(desk: &mut Desk<'_, '_>, ticket: Ticket, parcel: &Parcel) {
    time::clear_parcel(desk.txn, &desk.keys, ticket, parcel.until);
    for id in &parcel.messages {
        if let Some(flight) = desk.flight(*id).filter(|flight| flight.ticket == Some(ticket)) {
            desk.fail(flight, &Failure::default());
        }
    }
}

/// The receivers of ended sessions leave all lines before anything is assigned in any.
pub(super) fn released(txn: &mut Txn<'_>, queues: &BTreeMap<String, Vec<(Part, &Record)>>) {
    for (name, gone) in queues {
        let left = gone.iter().filter(|(part, _)| *part == Part::Waiter).count() as u64;
        if left > 0 {
            let mut desk = Desk::open(txn, name);
            desk.head.waiting = desk.head.waiting.saturating_sub(left);
            desk.keep();
        }
    }
}

/// What a session's end says of its deliveries: a crash counts, a good-bye does not.
pub(super) fn counts(cause: Cause) -> bool {
    match cause {
        Cause::SessionExpired | Cause::Broken => true,
        Cause::SessionClosed | Cause::Command => false,
    }
}
