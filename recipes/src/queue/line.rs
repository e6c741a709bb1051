//! The line of receivers: whoever has waited longest gets what is ready.

use coracle_store::{ContentType, Key, SessionId};

use super::delivery::Failure;
use super::desk::Desk;
use super::keys::Ticket;
use super::state::{Flight, Parcel, Waiter};
use super::{COLLECT, decoded, encoded, time};

impl Desk<'_, '_> {
    /// Give what is ready to those who wait, in the order of their arrival.
    pub fn assign(&mut self) {
        self.find_active();
        while self.head.waiting > 0 && self.front().is_some() {
            let Some((key, waiter)) = self.next_waiter() else { break };
            let Some(ticket) = Ticket::from_bytes(&key.as_bytes()[self.keys.waiters().as_bytes().len()..])
            else {
                break;
            };
            let delivered = self.deliver(waiter.terms, Some(waiter.session), Some(ticket));
            // Nothing but expired messages.
            if delivered.is_empty() {
                break;
            }
            self.delete(&key);
            self.head.waiting -= 1;
            let messages = delivered.iter().map(|delivery| delivery.id).collect();
            let session = waiter.session;
            let until = self.txn.now().after(COLLECT);
            time::set_parcel(self.txn, &self.keys, ticket, until);
            let parcel = encoded(Parcel { waiter, messages, until });
            self.txn.put(self.keys.parcel(ticket), parcel, ContentType::Binary, Some(session));
        }
    }

    fn next_waiter(&self) -> Option<(Key, Waiter)> {
        let view = self.txn.view();
        let key = if self.config.single_active {
            view.attached_under(self.active()?, self.keys.waiters().as_bytes()).next()?
        } else {
            view.front(self.keys.waiters()).next()?.0
        };
        Some((key.clone(), decoded(&view.get(key)?.value)))
    }

    /// The queue's one consumer.
    pub fn active(&self) -> Option<SessionId> {
        self.txn.get(&self.keys.active())?.session
    }

    pub fn activate(&mut self, session: SessionId) {
        if self.active() == Some(session) {
            return;
        }
        let since = encoded(self.txn.now());
        self.txn.put(self.keys.active(), since, ContentType::Binary, Some(session));
    }

    /// Somebody waits and nobody consumes: the first in line begins.
    fn find_active(&mut self) {
        if self.config.single_active && self.head.waiting > 0 && self.active().is_none() {
            let first = self.txn.view().front(self.keys.waiters()).next();
            if let Some(session) = first.and_then(|(_, record)| record.session) {
                self.activate(session);
            }
        }
    }

    /// The one consumer let a message time out: all that it has returns, and the first of another session in line
    /// takes over. Without another it stays. (`RabbitMQ` #17317: there the queue stood still for good.)
    pub fn depose(&mut self, session: SessionId) {
        let mut flights = Vec::new();
        let mut next = None;
        let view = self.txn.view();
        for key in view.attached_under(session, self.keys.flights().as_bytes()) {
            flights.extend(view.get(key).map(|record| decoded::<Flight>(&record.value)));
        }
        for (_, record) in view.under(self.keys.waiters()) {
            if record.session != Some(session) {
                next = record.session;
                break;
            }
        }
        let Some(next) = next else { return };
        for flight in flights {
            self.fail(flight, &Failure { taken: true, ..Failure::default() });
        }
        self.activate(next);
    }
}
