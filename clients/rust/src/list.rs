//! Lists of keys, page by page at one revision, and histories of one key.

use std::future::IntoFuture;

use coracle_api::{Entry, KvHistory, KvList, Prefix};
use futures::stream::{self, Stream};

use crate::call::Call;
use crate::kv::Pending;
use crate::{Coracle, Error};

/// Keys with a common prefix.
#[derive(Debug, Clone)]
#[must_use = "a list is read by page(), all(), entries() or count()"]
pub struct List {
    client: Coracle,
    call: Call,
}

impl List {
    pub(crate) fn new(client: Coracle, prefix: &[u8]) -> Self {
        Self { client, call: Call::get("/v1/kv").query("prefix", prefix) }
    }

    /// Keys and numbers without values.
    pub fn keys_only(mut self) -> Self {
        self.call = self.call.flag("keys_only", true);
        self
    }

    /// Items of a page; the server's default is 100 and its maximum 1000.
    pub fn limit(mut self, limit: u64) -> Self {
        self.call = self.call.query("limit", limit.to_string());
        self
    }

    /// Keys that go on after the next `/` are grouped into prefixes, as in a folder.
    pub fn folder(mut self) -> Self {
        self.call = self.call.query("delimiter", "/");
        self
    }

    /// From the last key to the first.
    pub fn descending(mut self) -> Self {
        self.call = self.call.query("order", "desc");
        self
    }

    /// As it was at `revision`; 410 `compacted` if that is gone.
    pub fn revision(mut self, revision: u64) -> Self {
        self.call = self.call.query("revision", revision.to_string());
        self
    }

    /// From the state of the answering node, without asking the others: may be old.
    pub fn stale(mut self) -> Self {
        self.call = self.call.query("consistency", "stale");
        self
    }

    /// One page: the first, or the one after `cursor`.
    ///
    /// # Errors
    /// 410 `cursor_expired` once the revision of the first page is compacted; see [`Error`].
    pub async fn page(&self, cursor: Option<&str>) -> Result<KvList, Error> {
        self.client.ask(self.call.clone().query_some("cursor", cursor)).await
    }

    /// All pages together, all at the revision of the first.
    ///
    /// # Errors
    /// As [`List::page`].
    pub async fn all(&self) -> Result<KvList, Error> {
        let mut list = self.page(None).await?;
        while let Some(cursor) = list.next_cursor.take() {
            let page = self.page(Some(&cursor)).await?;
            list.items.extend(page.items);
            list.prefixes.extend(page.prefixes);
            list.next_cursor = page.next_cursor;
        }
        Ok(list)
    }

    /// All pages one by one, all at the revision of the first. Ends after the first error.
    pub fn pages(self) -> impl Stream<Item = Result<KvList, Error>> + Send {
        stream::unfold(Some((self, None::<String>)), |state| async move {
            let (list, cursor) = state?;
            match list.page(cursor.as_deref()).await {
                Ok(page) => {
                    let next = page.next_cursor.clone().map(|cursor| (list, Some(cursor)));
                    Some((Ok(page), next))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Number of keys and the revision it was counted at.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn count(self) -> Result<(u64, u64), Error> {
        let list: KvList = self.client.ask(self.call.flag("count_only", true)).await?;
        let count = list.count.ok_or_else(|| Error::Protocol("a count without a count".to_owned()))?;
        Ok((count, list.revision))
    }

    /// All pages together: keys and folders.
    ///
    /// # Errors
    /// As [`List::page`].
    pub async fn entries(&self) -> Result<(Vec<Entry>, Vec<Prefix>), Error> {
        let list = self.all().await?;
        Ok((list.items, list.prefixes))
    }
}

/// The kept versions of one key, deletes included; await it. The newest last.
#[derive(Debug)]
#[must_use = "a history is read when it is awaited"]
pub struct History {
    client: Coracle,
    call: Call,
}

impl History {
    pub(crate) fn new(client: Coracle, key: &[u8]) -> Self {
        Self { client, call: Call::get("/v1/kv").query("key", key).flag("history", true) }
    }

    /// At most so many versions, the newest.
    pub fn limit(mut self, limit: u64) -> Self {
        self.call = self.call.query("limit", limit.to_string());
        self
    }
}

impl IntoFuture for History {
    type Output = Result<KvHistory, Error>;
    type IntoFuture = Pending<KvHistory>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.client.ask(self.call).await })
    }
}
