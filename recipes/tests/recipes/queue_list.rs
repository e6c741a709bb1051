//! The model of a queue: a list of messages, a line of receivers, what they were assigned.

use std::collections::{BTreeMap, BTreeSet};

use coracle_recipes::queue::{MessageId, Receipt, Ticket};

/// From a delivery until the message is visible again, in milliseconds.
pub const VISIBILITY: u64 = 10_000;
/// What is assigned and not collected in this time is given back, in milliseconds.
pub const COLLECT: u64 = 15_000;
/// Failed deliveries that make a dead letter.
pub const MOST: u32 = 2;

#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Ready,
    Delayed { until: u64, retry: bool },
    Flight { delivery: u64, until: Option<u64>, session: Option<u64>, ticket: Option<Ticket> },
}

#[derive(Debug, Clone)]
pub struct Sent {
    pub id: MessageId,
    pub priority: u8,
    pub group: Option<u8>,
    pub state: State,
    pub deliveries: u32,
}

#[derive(Debug, Clone)]
pub struct Waiter {
    pub ticket: Ticket,
    pub session: u64,
    pub max: u32,
    pub private: bool,
}

#[derive(Default)]
pub struct Model {
    pub now: u64,
    pub paused: bool,
    pub single: bool,
    pub active: Option<u64>,
    pub sessions: BTreeMap<u64, bool>,
    pub messages: Vec<Sent>,
    pub line: Vec<Waiter>,
    pub parcels: Vec<(Waiter, Vec<MessageId>)>,
    /// Until when they are collected.
    pub until: BTreeMap<Ticket, u64>,
    pub dead: Vec<MessageId>,
    pub next_private: u64,
}

impl Model {
    /// In the order of delivery.
    pub fn sorted(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.messages.len()).collect();
        order.sort_by_key(|at| (9 - self.messages[*at].priority, self.messages[*at].id));
        order
    }

    /// The first message that may be delivered: of each group only its first, and none while one is out.
    pub fn front(&self) -> Option<usize> {
        if self.paused {
            return None;
        }
        let out =
            |message: &&Sent| !matches!(message.state, State::Ready | State::Delayed { retry: false, .. });
        let mut closed: BTreeSet<u8> =
            self.messages.iter().filter(out).filter_map(|sent| sent.group).collect();
        for at in self.sorted() {
            let message = &self.messages[at];
            if message.state != State::Ready {
                continue;
            }
            match message.group {
                Some(group) if !closed.insert(group) => {}
                _ => return Some(at),
            }
        }
        None
    }

    pub fn deliver(&mut self, max: u32, revision: u64, state: impl Fn(u64) -> State) -> Vec<MessageId> {
        let mut ids = Vec::new();
        while ids.len() < max as usize {
            let Some(at) = self.front() else { break };
            self.messages[at].deliveries += 1;
            self.messages[at].state = state(revision);
            ids.push(self.messages[at].id);
        }
        ids
    }

    pub fn assign(&mut self, revision: u64) {
        loop {
            if self.single && self.active.is_none() {
                self.active = self.line.first().map(|waiter| waiter.session);
            }
            let next =
                self.line.iter().position(|waiter| !self.single || Some(waiter.session) == self.active);
            let Some(at) = next.filter(|_| self.front().is_some()) else { break };
            let waiter = self.line.remove(at);
            let session = (!waiter.private).then_some(waiter.session);
            let ticket = Some(waiter.ticket);
            let ids = self.deliver(waiter.max, revision, |delivery| State::Flight {
                delivery,
                until: None,
                session,
                ticket,
            });
            self.until.insert(waiter.ticket, self.now + COLLECT);
            self.parcels.push((waiter, ids));
        }
    }

    /// What a delivery becomes once its consumer has it.
    pub fn departed(&self, delivery: u64, session: Option<u64>) -> State {
        let until = session.is_none().then_some(self.now + VISIBILITY);
        State::Flight { delivery, until, session, ticket: None }
    }

    pub fn at(&self, id: MessageId) -> Option<usize> {
        self.messages.iter().position(|message| message.id == id)
    }

    pub fn current(&self, receipt: Receipt) -> Option<usize> {
        let at = self.at(receipt.id)?;
        match self.messages[at].state {
            State::Flight { delivery, ticket: None, .. } if delivery == receipt.delivery.0 => Some(at),
            _ => None,
        }
    }

    pub fn fail(&mut self, at: usize, counted: bool, fatal: bool, delay: u64) {
        let message = &mut self.messages[at];
        if !counted {
            message.deliveries -= 1;
        }
        if fatal || (counted && message.deliveries >= MOST) {
            let message = self.messages.remove(at);
            self.dead.push(message.id);
        } else if delay > 0 {
            message.state = State::Delayed { until: self.now + delay, retry: true };
        } else {
            message.state = State::Ready;
        }
    }

    pub fn give_back(&mut self, ids: &[MessageId], its: Ticket) {
        for id in ids {
            let Some(at) = self.at(*id) else { continue };
            if matches!(self.messages[at].state, State::Flight { ticket: Some(ticket), .. } if ticket == its)
            {
                self.fail(at, false, false, 0);
            }
        }
    }

    pub fn end(&mut self, sessions: &[u64], counted: bool, revision: u64) {
        self.sessions.retain(|id, _| !sessions.contains(id));
        self.line.retain(|waiter| !sessions.contains(&waiter.session));
        if self.active.is_some_and(|active| sessions.contains(&active)) {
            self.active = None;
        }
        let (gone, kept) = self.parcels.drain(..).partition(|(waiter, _)| sessions.contains(&waiter.session));
        self.parcels = kept;
        let gone: Vec<(Waiter, Vec<MessageId>)> = gone;
        for id in self.messages.iter().map(|message| message.id).collect::<Vec<_>>() {
            let Some(at) = self.at(id) else { continue };
            match self.messages[at].state {
                State::Flight { session: Some(session), ticket: None, .. } if sessions.contains(&session) => {
                    self.fail(at, counted, false, 0);
                }
                _ => {}
            }
        }
        for (waiter, ids) in gone {
            self.give_back(&ids, waiter.ticket);
        }
        self.assign(revision);
    }

    /// What has become due, in the order of time; each alone.
    pub fn tick(&mut self, by: u64, revision: u64) {
        self.now += by;
        loop {
            let due = |message: &Sent| match message.state {
                State::Delayed { until, .. } => Some((until, 0, message.id)),
                State::Flight { until: Some(until), .. } => Some((until, 1, message.id)),
                _ => None,
            };
            let next = self.messages.iter().filter_map(due).filter(|(until, ..)| *until <= self.now).min();
            let parcels =
                self.parcels.iter().map(|(waiter, _)| (self.until[&waiter.ticket], 2, waiter.ticket));
            let parcel = parcels.filter(|(until, ..)| *until <= self.now).min();
            let first = next.is_some_and(|(until, kind, _)| {
                parcel.is_none_or(|(at, after, _)| (until, kind) < (at, after))
            });
            match (next, parcel) {
                (Some((_, kind, id)), _) if first => {
                    let at = self.at(id).expect("it is there");
                    if kind == 0 {
                        self.messages[at].state = State::Ready;
                    } else {
                        self.fail(at, true, false, 0);
                    }
                }
                (_, Some((_, _, ticket))) => {
                    let at = self.parcels.iter().position(|(waiter, _)| waiter.ticket == ticket).unwrap();
                    let (_, ids) = self.parcels.remove(at);
                    self.give_back(&ids, ticket);
                }
                _ => break,
            }
            self.assign(revision);
        }
    }

    pub fn prune(&mut self) {
        let held = |id: &u64| {
            self.line.iter().any(|waiter| waiter.session == *id)
                || self.parcels.iter().any(|(waiter, _)| waiter.session == *id)
        };
        let kept: BTreeMap<u64, bool> = self
            .sessions
            .iter()
            .filter(|(id, private)| !**private || held(id))
            .map(|(id, p)| (*id, *p))
            .collect();
        self.sessions = kept;
    }
}
