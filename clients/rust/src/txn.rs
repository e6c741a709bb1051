//! Transactions, built step by step.

use std::future::IntoFuture;

use coracle_api::{Compare, Condition, Holding, Key, Operation, Outgoing, SessionId, Txn, TxnResult, Value};
use reqwest::Method;

use crate::call::Call;
use crate::kv::Pending;
use crate::{Coracle, Error, Fence};

/// A transaction; await it. Operations go to `then` until [`TxnBuilder::otherwise`] is called.
#[derive(Debug)]
#[must_use = "a transaction is sent when it is awaited"]
pub struct TxnBuilder {
    client: Coracle,
    txn: Txn,
    fences: Vec<Fence>,
    otherwise: bool,
}

impl TxnBuilder {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client, txn: Txn::default(), fences: Vec::new(), otherwise: false }
    }

    /// Take a whole transaction, in place of everything said before.
    pub fn whole(mut self, txn: Txn) -> Self {
        self.txn = txn;
        self
    }

    /// `then` happens only if this holds.
    pub fn when(mut self, compare: Compare) -> Self {
        self.txn.compares.push(compare);
        self
    }

    /// `then` happens only if the key was last changed by `revision`; 0: if it does not exist.
    pub fn when_revision(self, key: impl AsRef<[u8]>, revision: u64) -> Self {
        self.when(Compare::Key { key: key.as_ref().into(), condition: Condition::ModRevision(revision) })
    }

    /// `then` happens only if the key exists, or does not.
    pub fn when_exists(self, key: impl AsRef<[u8]>, exists: bool) -> Self {
        self.when(Compare::Key { key: key.as_ref().into(), condition: Condition::Exists(exists) })
    }

    /// `then` happens only if the key has this value.
    pub fn when_value(self, key: impl AsRef<[u8]>, value: impl Into<Value>) -> Self {
        let condition = Condition::Value(value.into().bytes);
        self.when(Compare::Key { key: key.as_ref().into(), condition })
    }

    /// `then` happens only while the claim is current.
    pub fn when_held(self, fence: &Fence) -> Self {
        self.when(Compare::Held { claim: fence.claim(), token: fence.token() })
    }

    /// What follows happens if a condition does not hold.
    pub fn otherwise(mut self) -> Self {
        self.otherwise = true;
        self
    }

    pub fn get(self, key: impl AsRef<[u8]>) -> Self {
        self.operation(Operation::Get { key: key.as_ref().into() })
    }

    pub fn put(self, key: impl AsRef<[u8]>, value: impl Into<Value>) -> Self {
        let (key, value) = (Key::from(key.as_ref()), value.into());
        self.operation(Operation::Put { key, value, session: None, keep_session: false })
    }

    /// Put a key that lives with a session.
    pub fn put_with_session(
        self,
        key: impl AsRef<[u8]>,
        value: impl Into<Value>,
        session: SessionId,
    ) -> Self {
        let (key, value) = (Key::from(key.as_ref()), value.into());
        self.operation(Operation::Put { key, value, session: Some(session), keep_session: false })
    }

    pub fn delete(self, key: impl AsRef<[u8]>) -> Self {
        self.operation(Operation::Delete { key: key.as_ref().into() })
    }

    pub fn delete_prefix(self, prefix: impl AsRef<[u8]>) -> Self {
        self.operation(Operation::DeletePrefix { prefix: prefix.as_ref().into() })
    }

    /// Add to a counter; the whole transaction is refused if the sum leaves its bounds.
    pub fn add(self, counter: impl Into<String>, delta: i64) -> Self {
        self.operation(Operation::Add { counter: counter.into(), delta, min: None, max: None })
    }

    /// Give back what a session holds, or its place in the line: a lock, permits, leadership.
    pub fn release(self, holding: Holding, session: SessionId) -> Self {
        self.operation(Operation::Release { holding, session, token: None })
    }

    /// Send a message to a queue: a value, or an [`Outgoing`] with more to say.
    pub fn send(self, queue: impl Into<String>, message: impl Into<Outgoing>) -> Self {
        self.operation(Operation::Send { queue: queue.into(), message: message.into() })
    }

    /// Publish to a topic.
    pub fn publish(self, topic: impl Into<String>, value: impl Into<Value>) -> Self {
        let (topic, value) = (topic.into(), value.into());
        self.operation(Operation::Publish { topic, value, message_key: None, ttl: None })
    }

    /// Acknowledge a delivery of a queue together with what came of it. A stale receipt refuses the transaction.
    pub fn ack(self, queue: impl Into<String>, receipt: impl Into<String>) -> Self {
        self.operation(Operation::Ack { queue: queue.into(), receipt: receipt.into() })
    }

    pub fn operation(mut self, operation: Operation) -> Self {
        if self.otherwise {
            self.txn.otherwise.push(operation);
        } else {
            self.txn.then.push(operation);
        }
        self
    }

    /// Refuse the whole transaction with 412 `fence_stale` unless the claim is current.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fences.push(fence);
        self
    }
}

impl IntoFuture for TxnBuilder {
    type Output = Result<TxnResult, Error>;
    type IntoFuture = Pending<TxnResult>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let call = Call::change(Method::POST, "/v1/txn").fences(&self.fences).json(&self.txn)?;
            self.client.ask(call).await
        })
    }
}
