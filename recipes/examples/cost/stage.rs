//! A store with the recipes, without log and HTTP.

use coracle_recipes::{Operation, Outcome, Recipes};
use coracle_store::command::{Expiry, OpenSession, Precondition, Put};
use coracle_store::{
    Action, Attach, Command, ContentType, Key, Millis, Operation as StoreOperation, Outcome as StoreOutcome,
    Principal, Refusal, SessionId, Store, Timestamp, Value, View,
};

pub struct Stage {
    pub store: Store,
    pub now: u64,
}

/// What every value is.
pub const VALUE: &[u8] = b"a value of forty bytes, or very nearly..";

impl Stage {
    pub fn new() -> Self {
        Self { store: Store::new(Box::new(Recipes)), now: 1 }
    }

    pub fn view(&self) -> View<'_> {
        self.store.view()
    }

    pub fn try_act(&mut self, action: Action) -> Result<StoreOutcome, Refusal> {
        let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
        let command = Command { principal, idempotency, guards, action };
        self.store.apply(Timestamp(self.now), &command.encode()).result
    }

    pub fn act(&mut self, action: Action) -> StoreOutcome {
        self.try_act(action).expect("taken")
    }

    pub fn one(&mut self, operation: StoreOperation) -> StoreOutcome {
        self.act(Action::One(operation))
    }

    pub fn run(&mut self, operation: &Operation) -> Outcome {
        let StoreOutcome::Program(bytes) = self.one(operation.encode()) else { panic!("not a recipe's") };
        Outcome::decode(&bytes).expect("an outcome")
    }

    pub fn put(&mut self, key: Key) {
        self.put_as(key, Attach::None, Precondition::None);
    }

    pub fn put_as(&mut self, key: Key, attach: Attach, precondition: Precondition) {
        let (value, content_type) = (Value::from(VALUE), ContentType::Text);
        let put = Put { key, value, content_type, attach, precondition, return_previous: false };
        self.one(StoreOperation::Put(put));
    }

    pub fn open(&mut self, id: u64) {
        let open = OpenSession::new(SessionId(id), Millis(10_000));
        self.one(StoreOperation::OpenSession(open));
    }

    /// These sessions run out in one entry.
    pub fn expire(&mut self, ids: impl Iterator<Item = u64>) {
        let expiries = ids.map(|id| Expiry { session: SessionId(id), generation: 1 });
        self.act(Action::Expire(expiries.collect()));
    }

    /// History is not what is measured.
    pub fn forget(&mut self) {
        while self.store.compact_revision() < self.store.revision() {
            self.act(Action::Compact(self.store.revision()));
        }
    }

    /// Do something so many times without keeping its history.
    pub fn often(&mut self, times: usize, mut work: impl FnMut(&mut Self, usize)) {
        for number in 0..times {
            work(self, number);
            if number % 10_000 == 9_999 {
                self.forget();
            }
        }
        self.forget();
    }
}
