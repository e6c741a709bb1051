//! The transaction a command or recipe works in, and the view a reader gets.

use std::sync::Arc;

use crate::command::{Attach, OpenSession};
use crate::ids::{Family, Key, Revision, SessionId, Timestamp, Value};
use crate::record::{Cause, ContentType, Record};
use crate::reply::Refusal;
use crate::session::Session;
use crate::store::State;

/// A consistent read of the current state.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) state: &'a State,
}

impl<'a> View<'a> {
    /// The revision this view shows.
    pub fn revision(self) -> Revision {
        todo!()
    }
    /// Log time.
    pub fn now(self) -> Timestamp {
        todo!()
    }
    pub fn get(self, key: &Key) -> Option<&'a Arc<Record>> {
        todo!("{key:?}")
    }
    /// Keys of a family whose name starts with `prefix`, in order.
    pub fn scan(self, family: Family, prefix: &[u8]) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Arc<Record>)> {
        let _ = (self, family, prefix);
        std::iter::empty()
    }
    /// The session, if it is alive.
    pub fn session(self, id: SessionId) -> Option<&'a Arc<Session>> {
        todo!("{id}")
    }
    /// Keys attached to a session, all families, in key order.
    pub fn attached(self, id: SessionId) -> impl Iterator<Item = &'a Key> {
        let _ = (self, id);
        std::iter::empty()
    }
}

/// The changes of one entry while it is being applied. Dropped without commit, or refused: nothing happened.
pub struct Txn<'a> {
    pub(crate) state: &'a mut State,
}

impl Txn<'_> {
    /// The state as changed so far.
    pub fn view(&self) -> View<'_> {
        View { state: self.state }
    }
    /// The revision this entry will have if it changes anything. A grant made here has this as its token.
    pub fn revision(&self) -> Revision {
        todo!()
    }
    /// Log time of this entry.
    pub fn now(&self) -> Timestamp {
        todo!()
    }
    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        todo!("{key:?}")
    }
    /// Write a key of any family. Attaching to a session that is not alive is the caller's mistake: resolve with
    /// [`Txn::attach`] first.
    pub fn put(&mut self, key: Key, value: Value, content_type: ContentType, session: Option<SessionId>) {
        let _ = (key, value, content_type, session);
        todo!()
    }
    /// Delete a key; true if it existed.
    pub fn delete(&mut self, key: &Key, cause: Cause) -> bool {
        let _ = (key, cause);
        todo!()
    }
    /// Resolve a request's choice of session to a living session (`None` for no session); opens private ones.
    ///
    /// # Errors
    /// [`Refusal::SessionExpired`], [`Refusal::TooManyHolds`], [`Refusal::SessionExists`].
    pub fn attach(&mut self, attach: &Attach, current: Option<SessionId>) -> Result<Option<SessionId>, Refusal> {
        let _ = (attach, current);
        todo!()
    }
    /// Open a session.
    ///
    /// # Errors
    /// [`Refusal::SessionExists`], [`Refusal::OutOfBounds`], [`Refusal::QuotaExceeded`].
    pub fn open_session(&mut self, open: &OpenSession) -> Result<SessionId, Refusal> {
        let _ = open;
        todo!()
    }
    /// Refuse growth at quota. Recipes call it before they add a claim or an item, never before they release one.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`].
    pub fn make_room(&self, bytes: usize) -> Result<(), Refusal> {
        let _ = bytes;
        todo!()
    }
}
