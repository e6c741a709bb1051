//! The transaction a command or recipe works in, and the view a reader gets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Attach, OpenSession, Principal};
use crate::ids::{Family, Key, Revision, SessionId, Timestamp, Value};
use crate::limits::HOLDS;
use crate::mvcc::{self, Written};
use crate::operations::check_session;
use crate::past::{Either, Past};
use crate::record::{Cause, Change, ContentType, Event, Record};
use crate::reply::Refusal;
use crate::session::{self, Session};
use crate::steps::step;
use crate::store::{HistoryError, State};

/// A consistent read of the state, as it is or as it was.
#[derive(Clone, Copy)]
pub struct View<'a> {
    state: &'a State,
    /// A revision of the past; `None` is now.
    at: Option<Revision>,
}

impl<'a> View<'a> {
    pub(crate) fn of(state: &'a State) -> Self {
        Self { state, at: None }
    }

    pub(crate) fn at(state: &'a State, at: Revision) -> Result<Self, HistoryError> {
        let at = state.readable(at)?;
        Ok(Self { state, at: (at < state.revision).then_some(at) })
    }

    /// The revision this view shows.
    #[must_use]
    pub fn revision(self) -> Revision {
        self.at.unwrap_or(self.state.revision)
    }
    /// Log time: in the past, that of the entry that made the revision (of the one after it, where only that is
    /// known).
    #[must_use]
    pub fn now(self) -> Timestamp {
        let Some(at) = self.at else { return self.state.now };
        let history = &self.state.history;
        let change = history.change(at).or_else(|| history.change(at.next()));
        change.map_or(self.state.now, |change| change.time)
    }
    #[must_use]
    pub fn get(self, key: &Key) -> Option<&'a Arc<Record>> {
        match self.at {
            None => self.state.keys.get(key),
            Some(at) => self.state.get_at(key, at),
        }
    }
    /// Keys of a family whose name starts with `prefix`, in order.
    #[must_use]
    pub fn scan(
        self,
        family: Family,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        self.under(Key::new(family, prefix))
    }
    /// Keys that start with the bytes of `prefix`, in order.
    #[must_use]
    pub fn under(self, prefix: Key) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        self.range(mvcc::under(Some(prefix)))
    }
    /// The same from the first on, for the sake of a few: the end of the range is not looked for.
    pub fn front(self, prefix: Key) -> impl Iterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        match self.at {
            None => {
                Either::Now(self.state.keys.front(prefix).inspect(|(_, record)| step(record.value.len())))
            }
            Some(_) => Either::Then(self.under(prefix)),
        }
    }
    /// Keys from `start` (family byte included) to the end of its family, in order.
    #[must_use]
    pub fn seek(self, start: &Key) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        self.span(start, None)
    }
    /// Keys from `start` to before `end`, never leaving the family of `start`, in order.
    #[must_use]
    pub fn span(
        self,
        start: &Key,
        end: Option<&Key>,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        self.range(mvcc::between(start, end))
    }
    fn range(
        self,
        bounds: mvcc::Bounds,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Arc<Record>)> + use<'a> {
        let State { keys, history, .. } = self.state;
        match self.at {
            None => Either::Now(keys.range(bounds)),
            Some(at) => Either::Then(Past::new(history, history.touched(&bounds, at), keys.range(bounds))),
        }
        .inspect(|(_, record)| step(record.value.len()))
    }
    /// The session, if it is alive.
    #[must_use]
    pub fn session(self, id: SessionId) -> Option<Cow<'a, Arc<Session>>> {
        match self.at {
            None => self.state.sessions.get(id).map(Cow::Borrowed),
            Some(_) => self.get(&session::key(id)).map(stored_session),
        }
    }
    /// Living sessions with ids above `after`, in order of their ids.
    #[must_use]
    pub fn sessions(
        self,
        after: Option<SessionId>,
    ) -> impl DoubleEndedIterator<Item = Cow<'a, Arc<Session>>> + use<'a> {
        let after = after.unwrap_or(SessionId(0));
        let start = session::key(SessionId(after.0.saturating_add(1)));
        match self.at {
            None => Either::Now(self.state.sessions.after(after).map(Cow::Borrowed)),
            Some(_) => Either::Then(self.seek(&start).map(|(_, record)| stored_session(record))),
        }
        .inspect(|_| step(0))
    }
    /// Keys attached to a session, all families, in key order.
    #[must_use]
    pub fn attached(self, id: SessionId) -> impl DoubleEndedIterator<Item = &'a Key> + use<'a> {
        match self.at {
            None => Either::Now(self.state.sessions.attached(id).iter()),
            Some(at) => Either::Then(self.state.attached_at(id, &[], at).into_iter()),
        }
        .inspect(|_| step(0))
    }
    /// Keys attached to a session that start with `prefix`, family byte first, in key order.
    #[must_use]
    pub fn attached_under(
        self,
        id: SessionId,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = &'a Key> + use<'a> {
        match self.at {
            None => Either::Now(self.state.sessions.attached_under(id, prefix)),
            Some(at) => Either::Then(self.state.attached_at(id, prefix, at).into_iter()),
        }
        .inspect(|_| step(0))
    }
}

fn stored_session<'a>(record: &Arc<Record>) -> Cow<'a, Arc<Session>> {
    Cow::Owned(Arc::new(Session::decode(&record.value).expect("only the store writes them")))
}

/// The changes of one entry while it is being applied. Refused: nothing happened.
///
/// Writes go straight into the state and leave an event that says how to take them back.
pub struct Txn<'a> {
    pub(crate) state: &'a mut State,
    who: &'a Principal,
    /// In order of first touch; one an entry and key. One without either record is a key that came and went.
    events: Vec<Event>,
    /// Positions of the first `index.len()` events, once there are many.
    index: BTreeMap<Key, usize>,
    /// Sessions that lost their last key, and private ones just opened: perhaps to be closed at the end.
    emptied: Vec<SessionId>,
    /// Given out by [`Txn::number`].
    numbers: u32,
}

/// So many events are searched one by one.
const FEW_EVENTS: usize = 16;

impl<'a> Txn<'a> {
    pub(crate) fn begin(state: &'a mut State, who: &'a Principal) -> Self {
        let events = std::mem::take(&mut state.scratch);
        Self { state, who, events, index: BTreeMap::new(), emptied: Vec::new(), numbers: 0 }
    }

    /// The state as changed so far.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::of(self.state)
    }
    /// The revision this entry will have if it changes anything. A grant made here has this as its token.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.revision.next()
    }
    /// 0, 1, 2 and so on within this entry: with its revision, the name of something that is like nothing else.
    pub fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers - 1
    }
    /// Log time of this entry.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.state.now
    }
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        self.state.keys.get(key)
    }
    /// Write a key of any family. Attaching to a session that is not alive is the caller's mistake: resolve with
    /// [`Txn::attach`] first.
    pub fn put(&mut self, key: Key, value: Value, content_type: ContentType, session: Option<SessionId>) {
        self.write(key, Draft { value, content_type, session }, Cause::Command);
    }
    /// Delete a key; true if it existed.
    pub fn delete(&mut self, key: &Key, cause: Cause) -> bool {
        self.take(key, cause).is_some()
    }
    /// Delete a key; answers what it was.
    pub fn take(&mut self, key: &Key, cause: Cause) -> Option<Arc<Record>> {
        let previous = self.state.replace(key, None)?;
        self.left(previous.session, None);
        self.record(key.clone(), Some(previous.clone()), None, cause);
        Some(previous)
    }
    /// Resolve a request's choice of session to a living session (`None` for no session); opens private ones.
    ///
    /// # Errors
    /// [`Refusal::SessionExpired`], [`Refusal::TooManyHolds`], [`Refusal::SessionExists`], and those of
    /// [`Txn::open_session`].
    pub fn attach(
        &mut self,
        attach: &Attach,
        current: Option<SessionId>,
    ) -> Result<Option<SessionId>, Refusal> {
        match attach {
            Attach::None => Ok(None),
            Attach::Keep => Ok(current),
            Attach::Session(id) => {
                if self.state.sessions.get(*id).is_none() {
                    return Err(Refusal::SessionExpired(*id));
                }
                if current != Some(*id) && self.state.sessions.attached(*id).len() >= HOLDS {
                    return Err(Refusal::TooManyHolds(*id, HOLDS as u64));
                }
                Ok(Some(*id))
            }
            Attach::Private(open) => {
                let id = self.open(open, true)?;
                // If nothing comes to hang on it, it goes again.
                self.emptied.push(id);
                Ok(Some(id))
            }
        }
    }
    /// Open a session.
    ///
    /// # Errors
    /// [`Refusal::SessionExists`], [`Refusal::OutOfBounds`], [`Refusal::QuotaExceeded`].
    pub fn open_session(&mut self, open: &OpenSession) -> Result<SessionId, Refusal> {
        self.open(open, false)
    }
    /// Refuse growth at quota. Recipes call it before they add a claim or an item, never before they release one.
    /// `bytes` is the whole growth, with [`crate::limits::KEY_OVERHEAD`] for each new key.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`].
    pub fn make_room(&self, bytes: usize) -> Result<(), Refusal> {
        let (live, quota) = (self.state.keys.live_bytes, self.state.settings.quota_bytes);
        if bytes > 0 && live.saturating_add(bytes as u64) > quota {
            return Err(Refusal::QuotaExceeded(live, quota));
        }
        Ok(())
    }

    /// A key with its present record, sharing the bytes of the stored key if there is one.
    pub(crate) fn stored(&self, key: Key) -> (Key, Option<Arc<Record>>) {
        match self.state.keys.stored(&key) {
            Some((stored, record)) => (stored.clone(), Some(record.clone())),
            None => (key, None),
        }
    }

    /// Write a key; answers its new version.
    pub(crate) fn write(&mut self, key: Key, draft: Draft, cause: Cause) -> u64 {
        let revision = self.revision();
        let Draft { value, content_type, session } = draft;
        let Written { key, previous, record } = self.state.write(key, |current| {
            let (create_revision, version) = match current {
                None => (revision, 1),
                // Twice in one entry is one change.
                Some(current) if current.mod_revision == revision => {
                    (current.create_revision, current.version)
                }
                Some(current) => (current.create_revision, current.version + 1),
            };
            Record { value, content_type, create_revision, mod_revision: revision, version, session }
        });
        let version = record.version;
        self.left(previous.as_ref().and_then(|previous| previous.session), session);
        self.record(key, previous, Some(record), cause);
        version
    }

    fn open(&mut self, open: &OpenSession, private: bool) -> Result<SessionId, Refusal> {
        check_session(open)?;
        if self.state.sessions.get(open.id).is_some() {
            return Err(Refusal::SessionExists(open.id));
        }
        let key = session::key(open.id);
        let value = Session::opened(open, self.who.clone(), self.now(), private).encode();
        self.make_room(usize::try_from(mvcc::size(&key, value.len())).unwrap_or(usize::MAX))?;
        self.put(key, value, ContentType::Binary, None);
        Ok(open.id)
    }

    /// A key went from one session to another (or none).
    fn left(&mut self, from: Option<SessionId>, to: Option<SessionId>) {
        if let Some(id) = from
            && from != to
            && self.state.sessions.attached(id).is_empty()
        {
            self.emptied.push(id);
        }
    }

    /// Note what was done to a key, in one event a key: the first previous record and the last new one.
    fn record(&mut self, key: Key, previous: Option<Arc<Record>>, record: Option<Arc<Record>>, cause: Cause) {
        let revision = self.revision();
        // A key that was there before this entry and not written by it has no event yet.
        let fresh = match &previous {
            Some(previous) => previous.mod_revision != revision,
            None => self.events.is_empty(),
        };
        match if fresh { None } else { self.position(&key) } {
            Some(position) => {
                self.events[position].record = record;
                self.events[position].cause = cause;
            }
            None => self.events.push(Event { key, record, previous, cause }),
        }
    }

    fn position(&mut self, key: &Key) -> Option<usize> {
        if self.events.len() <= FEW_EVENTS {
            return self.events.iter().position(|event| event.key == *key);
        }
        for (position, event) in self.events.iter().enumerate().skip(self.index.len()) {
            self.index.insert(event.key.clone(), position);
        }
        self.index.get(key).copied()
    }

    /// Make the changes a revision, if there are any.
    pub(crate) fn commit(mut self) {
        for id in std::mem::take(&mut self.emptied) {
            let ends = self.state.sessions.get(id).is_some_and(|session| session.private);
            if ends && self.state.sessions.attached(id).is_empty() {
                self.delete(&session::key(id), Cause::Command);
            }
        }
        let Self { state, mut events, .. } = self;
        events.retain(|event| event.record.is_some() || event.previous.is_some());
        if !events.is_empty() {
            state.revision = state.revision.next();
            // Exactly as large as it must be, for it stays.
            let events = events.drain(..).collect();
            let change = Arc::new(Change { revision: state.revision, time: state.now, events });
            state.unsaved.push(change.clone());
            state.history.push(change);
        }
        state.keep_scratch(events);
    }

    /// Take everything back.
    pub(crate) fn roll_back(self) {
        let Self { state, mut events, .. } = self;
        while let Some(event) = events.pop() {
            state.replace(&event.key, event.previous.as_ref());
        }
        state.keep_scratch(events);
    }
}

/// What to write to a key.
pub(crate) struct Draft {
    pub value: Value,
    pub content_type: ContentType,
    pub session: Option<SessionId>,
}
