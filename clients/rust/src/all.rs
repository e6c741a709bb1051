//! The objects of a family, whoever they belong to.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::session::all_pages;
use crate::{Coracle, Error, WatchBuilder};

/// The objects of one family that are there: queues, topics, barriers, latches, counters, groups, fences.
#[derive(Debug, Clone)]
pub struct All<T> {
    client: Coracle,
    path: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + Sync + 'static> All<T> {
    pub(crate) fn new(client: Coracle, path: &'static str) -> Self {
        Self { client, path, of: PhantomData }
    }

    /// Those whose names begin with `prefix`, in the order of their names, as of one revision.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<T>, Error> {
        all_pages(&self.client, &Call::get(self.path).query("prefix", prefix)).await
    }

    /// Follow those whose names begin with `prefix`.
    pub fn watch(&self, prefix: &str) -> WatchBuilder<T> {
        WatchBuilder::new(self.client.clone(), Call::get(self.path).query("prefix", prefix))
    }
}
