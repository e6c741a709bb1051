//! Sessions: time-bound promises that keys and claims hang on.
//!
//! A session is an ordinary key of [`crate::Family::SESSION`], so that watch, history, snapshot and checkpoint need
//! nothing special. Its deadline is not here: renewals are not logged, only leaders count time (see the raft crate).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::command::{OnExpire, OpenSession, Principal};
use crate::ids::{Family, Key, Millis, SessionId, Timestamp, Value};
use crate::mvcc;
use crate::record::Record;

/// The replicated part of a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Session {
    #[n(0)]
    pub id: SessionId,
    #[n(1)]
    pub ttl: Millis,
    #[n(2)]
    pub name: Box<str>,
    #[n(3)]
    pub meta: Box<str>,
    #[n(4)]
    pub on_expire: OnExpire,
    /// Who opened it.
    #[n(5)]
    pub owner: Principal,
    /// Log time of the opening.
    #[n(6)]
    pub opened: Timestamp,
    /// Raised by each logged renewal (one that carries progress or metadata). An expiry that names an older
    /// generation does nothing.
    #[n(7)]
    pub generation: u64,
    #[n(8)]
    pub progress: Option<u8>,
    #[n(9)]
    pub note: Option<Box<str>>,
    /// Opened by `ttl=` on a claim: it lives only for that claim and ends with it.
    #[n(10)]
    pub private: bool,
    /// For so long nobody is granted what it held when it expired.
    #[n(11)]
    pub lock_delay: Option<Millis>,
    /// It has stalled if its progress does not move for so long.
    #[n(12)]
    pub stall_after: Option<Millis>,
    /// Log time of the newest move of its progress, or of the opening; only kept with `stall_after`.
    #[n(13)]
    pub moved: Option<Timestamp>,
    /// Since when it has stalled: alive but not moving.
    #[n(14)]
    pub stalled: Option<Timestamp>,
    /// Since when it has missed renewals for two thirds of its time.
    #[n(15)]
    pub suspect: Option<Timestamp>,
}

impl Session {
    pub(crate) fn opened(open: &OpenSession, owner: Principal, now: Timestamp, private: bool) -> Self {
        Self {
            id: open.id,
            ttl: open.ttl,
            name: open.name.clone(),
            meta: open.meta.clone(),
            on_expire: open.on_expire,
            owner,
            opened: now,
            generation: 1,
            progress: None,
            note: None,
            private,
            lock_delay: open.lock_delay,
            stall_after: open.stall_after,
            moved: open.stall_after.map(|_| now),
            stalled: None,
            suspect: None,
        }
    }

    /// When it will have stalled, if nothing moves. Work that is done need not move.
    pub(crate) fn stalls_at(&self) -> Option<Timestamp> {
        let at = self.moved?.after(self.stall_after?);
        (self.stalled.is_none() && self.progress != Some(DONE)).then_some(at)
    }

    /// The value of its key.
    pub(crate) fn encode(&self) -> Value {
        minicbor::to_vec(self).expect("writing to memory cannot fail").into()
    }

    /// The session in the record of a session key.
    ///
    /// # Errors
    /// If the value is not a session of this version.
    pub fn decode(value: &[u8]) -> Result<Self, minicbor::decode::Error> {
        minicbor::decode(value)
    }
}

/// The key a session is stored under.
#[must_use]
pub fn key(id: SessionId) -> Key {
    Key::new(Family::SESSION, &id.0.to_be_bytes())
}

/// The session whose key it is.
#[must_use]
pub fn id_of(key: &Key) -> Option<SessionId> {
    let id = (key.family() == Family::SESSION).then(|| key.name().try_into().ok())??;
    Some(SessionId(u64::from_be_bytes(id)))
}

/// Progress of work that is done.
const DONE: u8 = 100;

static NOTHING: BTreeSet<Key> = BTreeSet::new();

/// An index over the keys: who lives, and what is attached to whom. Says nothing that the keys do not say.
#[derive(Default)]
pub(crate) struct Sessions {
    living: BTreeMap<SessionId, Arc<Session>>,
    attached: BTreeMap<SessionId, BTreeSet<Key>>,
    /// Those that can stall, by when they will have.
    stalling: BTreeSet<(Timestamp, SessionId)>,
}

impl Sessions {
    pub fn get(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.living.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> + use<'_> {
        self.living.values()
    }

    /// The living sessions with greater ids, in their order.
    pub fn after(&self, id: SessionId) -> impl DoubleEndedIterator<Item = &Arc<Session>> + use<'_> {
        self.living.range((Bound::Excluded(id), Bound::Unbounded)).map(|(_, session)| session)
    }

    /// The session that stalls next, and when.
    pub fn next_stall(&self) -> Option<(Timestamp, SessionId)> {
        self.stalling.first().copied()
    }

    /// Keys attached to a session, in key order.
    pub fn attached(&self, id: SessionId) -> &BTreeSet<Key> {
        self.attached.get(&id).unwrap_or(&NOTHING)
    }

    /// Keys attached to a session that start with `prefix` (family byte first; empty for all), in key order.
    pub fn attached_under(
        &self,
        id: SessionId,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = &Key> + use<'_> {
        self.attached(id).range(mvcc::under(Key::from_bytes(prefix)))
    }

    /// Follow a change of one key.
    pub fn replaced(&mut self, key: &Key, previous: Option<&Record>, record: Option<&Record>) {
        let from = previous.and_then(|previous| previous.session);
        let to = record.and_then(|record| record.session);
        if from != to {
            if let Some(id) = from
                && let Some(keys) = self.attached.get_mut(&id)
            {
                keys.remove(key);
                if keys.is_empty() {
                    self.attached.remove(&id);
                }
            }
            if let Some(id) = to {
                self.attached.entry(id).or_default().insert(key.clone());
            }
        }
        if key.family() == Family::SESSION {
            let session =
                |record: &Record| Session::decode(&record.value).expect("only the store writes them");
            if let Some(gone) = previous.map(session) {
                if let Some(at) = gone.stalls_at() {
                    self.stalling.remove(&(at, gone.id));
                }
                self.living.remove(&gone.id);
            }
            if let Some(session) = record.map(session) {
                if let Some(at) = session.stalls_at() {
                    self.stalling.insert((at, session.id));
                }
                self.living.insert(session.id, Arc::new(session));
            }
        }
    }
}
