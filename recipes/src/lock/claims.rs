//! The claims on one lock, as keys: holders, the line behind them, and how the line moves.

use coracle_store::{Cause, ContentType, Key, Revision, SessionId, Timestamp, Txn, Value, View};
use minicbor::{Decode, Encode};

use super::{FAMILY, Hold, Mode, Place};
use crate::names;

/// Blockers named in an answer.
const BLOCKERS: usize = 16;
const HOLD: u8 = b'h';
const WAIT: u8 = b'w';
const COUNT: u8 = b'c';

/// One lock, by what its keys begin with: family byte and name.
pub(super) struct Lock {
    prefix: Vec<u8>,
}

/// Who wants the lock, as the line remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Waiter {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    #[n(2)]
    pub mode: Mode,
    /// Log time of the arrival.
    #[n(3)]
    pub since: Timestamp,
    #[n(4)]
    pub meta: Box<str>,
}

/// A session's one claim on a lock, with its key.
pub(super) enum Claimed {
    Hold(Key, Hold),
    Wait(Key, Waiter),
}

/// What a key of a lock is, from the bytes after the name.
pub(super) enum Part {
    Hold(Revision),
    Wait,
    Count,
}

impl Lock {
    pub fn new(name: &str) -> Self {
        Self { prefix: [&[FAMILY.0][..], &names::closed(name)].concat() }
    }

    /// The lock that a key belongs to, its name, and what the key is.
    pub fn of(key: &Key) -> Option<(Self, String, Part)> {
        let (name, rest) = names::split(key.name())?;
        let part = match rest.split_first()? {
            (&HOLD, numbers) => Part::Hold(Revision(u64::from_be_bytes(*numbers.first_chunk()?))),
            (&WAIT, _) => Part::Wait,
            (&COUNT, _) => Part::Count,
            _ => return None,
        };
        Some((Self { prefix: key.as_bytes()[..key.as_bytes().len() - rest.len()].to_vec() }, name, part))
    }

    /// What all its keys begin with, family byte first.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Holds in the order of their grants.
    pub fn holds<'a>(&self, view: View<'a>) -> impl DoubleEndedIterator<Item = (&'a Key, Hold)> + use<'a> {
        view.scan(FAMILY, &self.part(HOLD)[1..]).map(|(key, record)| (key, decoded(&record.value)))
    }

    /// The hold with this token.
    pub fn hold_of(&self, view: View<'_>, token: Revision) -> Option<Hold> {
        let prefix = [&self.part(HOLD)[1..], &token.0.to_be_bytes()].concat();
        view.scan(FAMILY, &prefix).next().map(|(_, record)| decoded(&record.value))
    }

    /// The mode it is held in; `None` if it is free.
    pub fn mode(&self, view: View<'_>) -> Option<Mode> {
        self.holds(view).next().map(|(_, hold)| hold.mode)
    }

    /// At most [`BLOCKERS`] holders.
    pub fn blockers(&self, view: View<'_>) -> Vec<Hold> {
        self.holds(view).take(BLOCKERS).map(|(_, hold)| hold).collect()
    }

    /// The line in order of arrival.
    pub fn waiters<'a>(
        &self,
        view: View<'a>,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, Waiter)> + use<'a> {
        view.scan(FAMILY, &self.part(WAIT)[1..]).map(|(key, record)| (key, decoded(&record.value)))
    }

    /// Number of waiters.
    pub fn waiting(&self, view: View<'_>) -> u64 {
        view.get(&self.key(COUNT, &[])).map_or(0, |record| {
            u64::from_be_bytes(record.value.first_chunk().copied().expect("only a lock writes its counter"))
        })
    }

    /// A session's claim.
    pub fn claim(&self, view: View<'_>, session: SessionId) -> Option<Claimed> {
        let key = view.attached_under(session, &self.prefix).next()?;
        let value = &view.get(key)?.value;
        Some(match key.as_bytes()[self.prefix.len()] {
            HOLD => Claimed::Hold(key.clone(), decoded(value)),
            _ => Claimed::Wait(key.clone(), decoded(value)),
        })
    }

    /// Where a waiter is. Costs the places ahead of it.
    pub fn place(&self, view: View<'_>, key: &Key, waiter: Waiter) -> Place {
        let line = view.scan(FAMILY, &self.part(WAIT)[1..]);
        let ahead = line.take_while(|(other, _)| *other < key).count() as u64;
        waiter.place(ahead + 1, self.blockers(view))
    }

    /// Make it a holder now.
    pub fn grant(&self, txn: &mut Txn<'_>, waiter: Waiter) -> Hold {
        let Waiter { session, owner, mode, meta, .. } = waiter;
        let hold = Hold { session, owner, mode, token: txn.revision(), since: txn.now(), meta };
        let key = self.key(HOLD, &[hold.token.0.to_be_bytes(), session.0.to_be_bytes()]);
        txn.put(key, encoded(&hold), ContentType::Binary, Some(session));
        hold
    }

    /// Put it at the end of the line.
    pub fn join(&self, txn: &mut Txn<'_>, waiter: Waiter) -> Place {
        let waiting = self.waiting(txn.view()) + 1;
        // Two arrivals of one entry have one revision: number them.
        let last = self.part(WAIT).len()..;
        let arrival = txn.revision().0.to_be_bytes();
        let number = match self.waiters(txn.view()).next_back() {
            Some((key, _)) if key.as_bytes()[last.clone()].starts_with(&arrival) => {
                let number = key.as_bytes()[last].last_chunk().copied().unwrap_or_default();
                u64::from_be_bytes(number) + 1
            }
            _ => 0,
        };
        let key = self.key(WAIT, &[arrival, number.to_be_bytes()]);
        txn.put(key, encoded(&waiter), ContentType::Binary, Some(waiter.session));
        self.set_waiting(txn, waiting);
        let blockers = self.blockers(txn.view());
        waiter.place(waiting, blockers)
    }

    /// Take a waiter out of the line.
    pub fn leave(&self, txn: &mut Txn<'_>, key: &Key) {
        txn.delete(key, Cause::Command);
        let waiting = self.waiting(txn.view());
        self.set_waiting(txn, waiting.saturating_sub(1));
    }

    /// Write the number of waiters; none leave no key.
    pub fn set_waiting(&self, txn: &mut Txn<'_>, waiting: u64) {
        let key = self.key(COUNT, &[]);
        if waiting == 0 {
            txn.delete(&key, Cause::Command);
        } else {
            txn.put(key, Value::from(&waiting.to_be_bytes()[..]), ContentType::Binary, None);
        }
    }

    /// Grant to the head of the line as long as the lock admits it; answers the new holds. Touches no other waiter.
    pub fn advance(&self, txn: &mut Txn<'_>) -> Vec<Hold> {
        let mut mode = self.mode(txn.view());
        let mut granted = Vec::new();
        loop {
            let head = self.waiters(txn.view()).next();
            let Some((key, waiter)) = head.filter(|(_, waiter)| waiter.mode.joins(mode)) else { break };
            let key = key.clone();
            mode = Some(waiter.mode);
            txn.delete(&key, Cause::Command);
            granted.push(self.grant(txn, waiter));
        }
        if !granted.is_empty() {
            let waiting = self.waiting(txn.view());
            self.set_waiting(txn, waiting.saturating_sub(granted.len() as u64));
        }
        granted
    }

    fn part(&self, part: u8) -> Vec<u8> {
        [&self.prefix[..], &[part]].concat()
    }

    fn key(&self, part: u8, numbers: &[[u8; 8]]) -> Key {
        let mut name = self.part(part);
        name.extend(numbers.iter().flatten());
        Key::new(FAMILY, &name[1..])
    }
}

impl Mode {
    /// Whether it may hold beside holders of `held`.
    pub(super) fn joins(self, held: Option<Mode>) -> bool {
        match held {
            None => true,
            Some(held) => self == Mode::Shared && held == Mode::Shared,
        }
    }
}

impl Waiter {
    pub fn place(self, position: u64, blockers: Vec<Hold>) -> Place {
        let Self { session, owner, mode, since, .. } = self;
        Place { session, owner, mode, position, since, blockers }
    }
}

impl Claimed {
    pub fn mode(&self) -> Mode {
        match self {
            Self::Hold(_, hold) => hold.mode,
            Self::Wait(_, waiter) => waiter.mode,
        }
    }
}

fn encoded(value: impl Encode<()>) -> Value {
    crate::encoded(value).into()
}

fn decoded<'b, T: Decode<'b, ()>>(value: &'b [u8]) -> T {
    minicbor::decode(value).expect("only a lock writes its keys")
}
