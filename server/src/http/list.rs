//! ① ⑦ Lists: pages that all show the revision of the first one.
//!
//! A family brings two functions over a view: the names behind a name, and how one object is shown. Both answer as of
//! the revision of the view, so later pages need nothing but the history.

use coracle_api as api;
use coracle_store::{HistoryError, Revision, Selection, Store, View};
use http::StatusCode;
use serde::Serialize;

use super::call::Call;
use super::cursor::{self, Cursor};
use super::message::Response;
use super::problem::{Answer, bad_query};
use super::read::{Format, Reading};
use super::respond;

/// Items of a page, unless asked otherwise, and at most.
pub const ITEMS_DEFAULT: u64 = 100;
pub const ITEMS_MAX: u64 = 1000;

/// `limit`, `cursor` and `revision`: which page of which list.
pub struct Listing {
    pub limit: usize,
    cursor: Option<Cursor>,
    at: Option<Revision>,
    /// What makes it the same list: see [`cursor::list_hash`].
    hash: u64,
}

/// One page.
pub struct Listed<T> {
    pub items: Vec<T>,
    next_cursor: Option<String>,
    revision: Revision,
}

impl Listing {
    /// The parameters of a list that is made by `parts`: its family and every filter, so that a cursor goes on with the
    /// list it came from. A watch has a `limit` of its own: ask for that first ([`super::watch::asked`]).
    pub fn of(call: &mut Call, parts: &[&[u8]]) -> Answer<Self> {
        let limit = call.query.number("limit", 1..=ITEMS_MAX)?.unwrap_or(ITEMS_DEFAULT);
        let hash = cursor::list_hash(parts);
        let cursor = call.query.text("cursor")?.map(|text| Cursor::decode(&text, hash)).transpose()?;
        let at = call.query.number("revision", 0..=u64::MAX)?.map(Revision);
        if cursor.is_some() && at.is_some() {
            return Err(bad_query("cursor", "not together with revision: a cursor has its revision"));
        }
        Ok(Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), cursor, at, hash })
    }

    /// Take the rest of the parameters and bring the node to where the list can be read, after the wait that is asked
    /// for. `Some`: nothing in the selection has changed.
    pub async fn ready(&self, call: &mut Call, selection: Selection) -> Answer<Option<Response>> {
        if self.cursor.is_none() && self.at.is_none() {
            return Ok(call.ready(selection).await?.map(respond::not_modified));
        }
        let reading = call.reading()?;
        let poll = call.long_poll()?;
        call.format(&[("json", Format::Json)])?;
        call.query.done()?;
        if poll.is_some() {
            return Err(bad_query("wait", "not together with cursor or revision: the past does not change"));
        }
        self.settle(call, reading).await?;
        Ok(None)
    }

    /// A later page needs only the revision of the first one.
    async fn settle(&self, call: &Call, reading: Reading) -> Answer<()> {
        match &self.cursor {
            Some(cursor) => call.reach(cursor.revision).await,
            None => call.settle(reading).await,
        }
    }

    /// Read the page. `names` answers names behind a name in order, at most so many; `show` one object, `None` if
    /// there is nothing to show of it.
    pub fn page<T>(
        &self,
        call: &Call,
        names: impl FnOnce(View<'_>, Option<&str>, usize) -> Vec<String>,
        show: impl Fn(View<'_>, &str) -> Option<T>,
    ) -> Answer<Listed<T>> {
        let after = self.after().map(std::str::from_utf8).transpose();
        let after = after.map_err(|_| bad_query("cursor", "not a cursor of this list"))?;
        self.read(call, |store| {
            let view = self.pinned().map_or_else(|| Ok(store.view()), |at| store.view_at(at))?;
            let mut names = names(view, after, self.limit + 1);
            let more = names.len() > self.limit;
            names.truncate(self.limit);
            let items = names.iter().filter_map(|name| show(view, name)).collect();
            let last = names.pop().filter(|_| more).map(String::into_bytes);
            let revision = view.revision();
            Ok(Listed { items, next_cursor: self.next(revision, last), revision })
        })
    }

    /// Read a page that `page` makes, of the revision that is [`Self::pinned`].
    pub fn read<T>(&self, call: &Call, page: impl FnOnce(&Store) -> Result<T, HistoryError>) -> Answer<T> {
        match call.edge.node.read(page) {
            Ok(page) => Ok(page),
            Err(HistoryError::Compacted(oldest)) if self.cursor.is_some() => Err(cursor::expired(oldest)),
            Err(error) => Err(error.into()),
        }
    }

    /// The revision that the page is to show, if it is not the newest.
    pub fn pinned(&self) -> Option<Revision> {
        self.cursor.as_ref().map(|cursor| cursor.revision).or(self.at)
    }

    /// The last name of the page before.
    pub fn after(&self) -> Option<&[u8]> {
        self.cursor.as_ref().map(|cursor| &*cursor.last)
    }

    /// The cursor of the next page behind `last`, if there is more.
    pub fn next(&self, revision: Revision, last: Option<Vec<u8>>) -> Option<String> {
        last.map(|last| Cursor { revision, list: self.hash, last }.encode())
    }
}

impl<T: Serialize> Listed<T> {
    pub fn answer(self) -> Response {
        let Self { items, next_cursor, revision } = self;
        respond::json(StatusCode::OK, revision, &api::Page { items, next_cursor, revision: revision.0 })
    }
}
