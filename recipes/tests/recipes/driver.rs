//! A store as the models drive it: one entry at a time, and restarted from its rows.

use coracle_recipes::queue::Message;
use coracle_recipes::{Operation, Outcome, Recipes, Refusal};
use coracle_store::command::{Expiry, OpenSession, Transaction};
use coracle_store::{
    Action, Attach, Command, ContentType, Loader, Millis, Outcome as StoreOutcome, Principal,
    Refusal as StoreRefusal, SessionId, Store, Timestamp,
};

pub struct Driver {
    pub store: Store,
    pub now: Timestamp,
}

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No {
    Recipe(Refusal),
    Store(StoreRefusal),
}

impl Driver {
    pub fn new() -> Self {
        Self { store: Store::new(Box::new(Recipes)), now: Timestamp(1) }
    }

    pub fn action(&mut self, action: Action) -> Result<StoreOutcome, StoreRefusal> {
        let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
        self.store.apply(self.now, &Command { principal, idempotency, guards, action }.encode()).result
    }

    pub fn run(&mut self, operation: &Operation) -> Result<Outcome, No> {
        match self.action(Action::One(operation.encode())) {
            Ok(StoreOutcome::Program(bytes)) => Ok(Outcome::decode(&bytes).unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(StoreRefusal::Program(bytes)) => Err(No::Recipe(Refusal::decode(&bytes).unwrap())),
            Err(other) => Err(No::Store(other)),
        }
    }

    pub fn open(&mut self, id: u64) -> bool {
        self.action(Action::One(coracle_store::Operation::OpenSession(open(id)))).is_ok()
    }

    /// These sessions run out in one entry.
    pub fn expire(&mut self, ids: &[u64]) {
        let expiry = |id: &u64| Expiry { session: SessionId(*id), generation: 1 };
        self.action(Action::Expire(ids.iter().map(expiry).collect())).unwrap();
    }

    /// These sessions are closed in one transaction, all or none.
    pub fn close(&mut self, ids: &[u64]) -> bool {
        let close = |id: &u64| coracle_store::Operation::CloseSession(SessionId(*id));
        let (conditions, otherwise) = (Vec::new(), Vec::new());
        let then = ids.iter().map(close).collect();
        self.action(Action::Transaction(Transaction { conditions, then, otherwise })).is_ok()
    }

    /// Let time go on, and everything happen that waited for it.
    pub fn wait(&mut self, millis: u64) {
        self.now.0 += millis;
        while self.store.due().is_some_and(|at| at <= self.now) {
            self.action(Action::Advance).unwrap();
        }
    }

    /// As a node does that starts from a checkpoint, or another that gets a snapshot.
    pub fn restart(&mut self) {
        let mut loader = Loader::new(Box::new(Recipes));
        for row in self.store.rows() {
            loader.row(row.table, &row.key, &row.value.expect("a row")).expect("rows of a store");
        }
        self.store = loader.finish().expect("a whole store");
    }
}

pub fn open(id: u64) -> OpenSession {
    OpenSession::new(SessionId(id), Millis(10_000))
}

pub fn attach(id: u64, private: bool) -> Attach {
    if private { Attach::Private(open(id)) } else { Attach::Session(SessionId(id)) }
}

/// A message with nothing special about it.
pub fn message() -> Message {
    Message {
        value: b"x".to_vec().into(),
        content_type: ContentType::Text,
        priority: 0,
        group: None,
        delay: Millis(0),
        ttl: None,
        dedup_id: None,
        headers: Vec::new(),
        item: None,
    }
}
