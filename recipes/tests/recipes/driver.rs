//! A store as the models drive it: one entry at a time, and restarted from its rows.

use coracle_recipes::{Operation, Outcome, Recipes, Refusal};
use coracle_store::{
    Action, Command, Loader, Outcome as StoreOutcome, Principal, Refusal as StoreRefusal, Store, Timestamp,
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

    /// As a node does that starts from a checkpoint, or another that gets a snapshot.
    pub fn restart(&mut self) {
        let mut loader = Loader::new(Box::new(Recipes));
        for row in self.store.rows() {
            loader.row(row.table, &row.key, &row.value.expect("a row")).expect("rows of a store");
        }
        self.store = loader.finish().expect("a whole store");
    }
}
