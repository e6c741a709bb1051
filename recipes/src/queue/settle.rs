//! Settling: what becomes of a delivery, by its receipt or by the end of its session.

use coracle_store::limits::NAME_BYTES;
use coracle_store::{Cause, Millis, Record, Refusal as StoreRefusal, Txn};

use super::barrier::End;
use super::delivery::Failure;
use super::desk::Desk;
use super::keys::Part;
use super::state::{Flight, Parcel};
use super::{
    Nack, Outcome, RECEIVE, Receipt, Receipts, Refusal, VISIBILITY, check_queue, decoded, receive, time,
};
use crate::bounded;

pub(super) fn ack(txn: &mut Txn<'_>, wanted: &Receipts) -> Result<Outcome, StoreRefusal> {
    let mut desk = counter(txn, wanted)?;
    let acked = acknowledge(&mut desk, &wanted.receipts);
    finish(desk, wanted, acked)
}

pub(super) fn nack(txn: &mut Txn<'_>, wanted: &Receipts, nack: &Nack) -> Result<Outcome, StoreRefusal> {
    bounded("reason", nack.reason.len(), 0, NAME_BYTES)?;
    nack.delay.map_or(Ok(()), |delay| super::span("delay", delay, 0))?;
    let mut desk = counter(txn, wanted)?;
    let mut settled = Vec::with_capacity(wanted.receipts.len());
    for receipt in &wanted.receipts {
        let flight = current(&desk, *receipt);
        settled.push(flight.is_some());
        if let Some(flight) = flight {
            let reason = Some(&*nack.reason);
            let failure = Failure {
                counted: !nack.uncounted,
                delay: nack.delay,
                fatal: nack.fatal,
                reason,
                taken: false,
            };
            desk.fail(flight, &failure);
        }
    }
    finish(desk, wanted, settled)
}

pub(super) fn renew(
    txn: &mut Txn<'_>,
    wanted: &Receipts,
    visibility: Option<Millis>,
) -> Result<Outcome, StoreRefusal> {
    visibility.map_or(Ok(()), |span| super::span("visibility", span, VISIBILITY.0))?;
    let mut desk = counter(txn, wanted)?;
    let span = visibility.unwrap_or(desk.config.visibility);
    let until = desk.txn.now().after(span);
    let mut renewed = Vec::with_capacity(wanted.receipts.len());
    for receipt in &wanted.receipts {
        let flight = current(&desk, *receipt);
        renewed.push(flight.is_some());
        let Some(mut flight) = flight else { continue };
        // Without a visibility of its own the session alone decides, as before.
        if flight.until.is_none() && visibility.is_none() {
            continue;
        }
        if let Some(before) = flight.until.replace(until) {
            time::clear_visibility(desk.txn, &desk.keys, receipt.id, before);
        }
        time::set_visibility(desk.txn, &desk.keys, receipt.id, until);
        desk.fly(&flight);
    }
    stale(wanted, &renewed)?;
    desk.finish();
    Ok(Outcome::Settled(renewed, Some(span)))
}

/// Which of these receipts are current: their messages are done.
pub(super) fn acknowledge(desk: &mut Desk<'_, '_>, receipts: &[Receipt]) -> Vec<bool> {
    let mut acked = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        acked.push(match current(desk, *receipt) {
            Some(flight) => desk.settle(&flight),
            None => desk.is_own(*receipt) && desk.remove(receipt.id, End::Acked),
        });
    }
    acked
}

/// The delivery a receipt is of, if it is not settled. One of this very entry cannot be known to anybody.
fn current(desk: &Desk<'_, '_>, receipt: Receipt) -> Option<Flight> {
    let known = receipt.delivery < desk.txn.revision();
    desk.flight(receipt.id)
        .filter(|flight| known && flight.delivery == receipt.delivery && flight.ticket.is_none())
}

fn counter<'t, 'a>(txn: &'t mut Txn<'a>, wanted: &Receipts) -> Result<Desk<'t, 'a>, StoreRefusal> {
    check_queue(&wanted.queue)?;
    bounded("receipts", wanted.receipts.len(), 1, RECEIVE)?;
    Ok(Desk::open(txn, &wanted.queue))
}

fn finish(desk: Desk<'_, '_>, wanted: &Receipts, settled: Vec<bool>) -> Result<Outcome, StoreRefusal> {
    stale(wanted, &settled)?;
    desk.finish();
    Ok(Outcome::Settled(settled, None))
}

fn stale(wanted: &Receipts, settled: &[bool]) -> Result<(), StoreRefusal> {
    let stale = wanted.receipts.iter().zip(settled).find(|(_, settled)| !**settled);
    match stale.filter(|_| wanted.all) {
        Some((receipt, _)) => Err(Refusal::ReceiptStale(*receipt).into()),
        None => Ok(()),
    }
}

/// Sessions ended: what they had returns. Their receivers have left already.
pub(super) fn released(txn: &mut Txn<'_>, name: &str, gone: &[(Part, &Record)], cause: Cause) {
    let mut desk = Desk::open(txn, name);
    for (part, record) in gone {
        match part {
            Part::Flight(_) => {
                let flight: Flight = decoded(&record.value);
                desk.fail(flight, &Failure { counted: receive::counts(cause), ..Failure::default() });
            }
            Part::Ready(place) => desk.orphan(*place, record),
            Part::Parcel(ticket) => receive::give_back(&mut desk, *ticket, &decoded::<Parcel>(&record.value)),
            _ => {}
        }
    }
    desk.finish();
}
