//! Counters: add, reserve ids, set, read.

use std::future::IntoFuture;
use std::ops::RangeInclusive;

use coracle_api as api;
use reqwest::Method;

use crate::call::Call;
use crate::escape::escape;
use crate::kv::Pending;
use crate::{Coracle, Error, Fence, WatchBuilder};

/// A counter; one that nobody wrote is 0.
#[derive(Debug, Clone)]
pub struct Counter {
    client: Coracle,
    path: String,
}

#[allow(clippy::missing_errors_doc, reason = "see `Error`")]
impl Counter {
    pub(crate) fn new(client: Coracle, name: &str) -> Self {
        Self { client, path: format!("/v1/counters/{}", escape(name.as_bytes())) }
    }

    /// Add to it; below zero to subtract.
    pub fn add(&self, delta: i64) -> AddToCounter {
        let call = Call::change(Method::POST, format!("{}/add", self.path)).query("delta", delta.to_string());
        AddToCounter { client: self.client.clone(), call, fences: Vec::new() }
    }

    /// Take the next `count` numbers: nobody else gets them.
    pub async fn reserve(&self, count: u32) -> Result<RangeInclusive<i64>, Error> {
        let api::Counted { value, previous, .. } = self.add(count.into()).await?;
        Ok(previous + 1..=value)
    }

    /// Set it.
    pub fn set(&self, value: i64) -> SetCounter {
        let call = Call::change(Method::PUT, &self.path).body(value.to_string().into(), api::TEXT);
        SetCounter { client: self.client.clone(), call, fences: Vec::new() }
    }

    pub async fn get(&self) -> Result<api::Counter, Error> {
        self.client.ask(Call::get(&self.path)).await
    }

    /// Forget it: it is 0 again, and ids that it gave out may be given out again.
    pub async fn delete(&self) -> Result<api::Counted, Error> {
        self.client.ask(Call::change(Method::DELETE, &self.path)).await
    }

    /// Follow it.
    pub fn watch(&self) -> WatchBuilder<api::Counter> {
        WatchBuilder::new(self.client.clone(), Call::get(&self.path))
    }
}

/// An addition; await it.
#[derive(Debug)]
#[must_use = "an addition is sent when it is awaited"]
pub struct AddToCounter {
    client: Coracle,
    call: Call,
    fences: Vec<Fence>,
}

impl AddToCounter {
    /// Refused with `out_of_range` if the sum would be below this.
    pub fn min(mut self, min: i64) -> Self {
        self.call = self.call.query("min", min.to_string());
        self
    }

    /// Refused with `out_of_range` if the sum would be above this.
    pub fn max(mut self, max: i64) -> Self {
        self.call = self.call.query("max", max.to_string());
        self
    }

    /// Only while the claim is current.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }
}

/// A new value; await it.
#[derive(Debug)]
#[must_use = "a value is set when it is awaited"]
pub struct SetCounter {
    client: Coracle,
    call: Call,
    fences: Vec<Fence>,
}

impl SetCounter {
    /// Only if it was last changed by `revision`; 412 `revision_mismatch` otherwise.
    pub fn if_match(mut self, revision: u64) -> Self {
        self.call = self.call.header("if-match", format!("\"{revision}\""));
        self
    }

    /// Only if it was never written; 412 `revision_mismatch` otherwise.
    pub fn if_absent(mut self) -> Self {
        self.call = self.call.header("if-none-match", "*");
        self
    }

    /// Only while the claim is current.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }
}

impl IntoFuture for AddToCounter {
    type Output = Result<api::Counted, Error>;
    type IntoFuture = Pending<api::Counted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.client.ask(self.call.fences(&self.fences)).await })
    }
}

impl IntoFuture for SetCounter {
    type Output = Result<api::Counted, Error>;
    type IntoFuture = Pending<api::Counted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.client.ask(self.call.fences(&self.fences)).await })
    }
}
