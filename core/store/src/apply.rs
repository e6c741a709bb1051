//! ⑤ Applying an entry: log time, the remembered reply, the guards, the action, the reply.

use std::sync::Arc;

use crate::command::{Action, Command, Comparison, Condition, Operation, Principal, Transaction};
use crate::ids::{Key, Timestamp};
use crate::limits::{IDEMPOTENCY_KEY_BYTES, OPERATIONS};
use crate::operations::{bounded, check_key, written_once};
use crate::program::Program;
use crate::record::Record;
use crate::reply::{Outcome, Refusal, Reply, TransactionOutcome};
use crate::store::{State, Store};
use crate::txn::{Txn, View};

impl Store {
    /// Apply one log entry. Total: any bytes give a reply. Log time becomes `max(now, time)`.
    pub fn apply(&mut self, time: Timestamp, command: &[u8]) -> Reply {
        let Self { state, program } = self;
        state.now = state.now.max(time);
        state.replies.purge(state.now);
        let Ok(Command { principal, idempotency, guards, action }) = Command::decode(command) else {
            return Reply { revision: state.revision, replayed: false, result: Err(Refusal::Malformed) };
        };
        if let Some(asked) = &idempotency {
            if let Err(refusal) = bounded("idempotency_key", asked.key.len(), 1..=IDEMPOTENCY_KEY_BYTES) {
                return Reply { revision: state.revision, replayed: false, result: Err(refusal) };
            }
            match state.replies.find(&principal, &asked.key) {
                Some(kept) if kept.fingerprint == asked.fingerprint => {
                    return Reply { replayed: true, ..Reply::clone(&kept.reply) };
                }
                Some(_) => {
                    let result = Err(Refusal::IdempotencyKeyReused);
                    return Reply { revision: state.revision, replayed: false, result };
                }
                None => {}
            }
        }
        let result = run(state, &**program, &principal, &guards, action);
        let reply = Reply { revision: state.revision, replayed: false, result };
        if let Some(asked) = &idempotency {
            state.replies.remember(state.now, &principal, asked, &reply);
        }
        reply
    }
}

fn run(
    state: &mut State,
    program: &dyn Program,
    who: &Principal,
    guards: &[Condition],
    action: Action,
) -> Result<Outcome, Refusal> {
    check_guards(View::of(state), program, guards)?;
    let mut entry = Entry { txn: Txn::begin(state, who), program, who };
    let result = entry.act(action);
    match &result {
        Ok(_) => entry.txn.commit(),
        Err(_) => entry.txn.roll_back(),
    }
    result
}

/// One entry being applied.
pub(crate) struct Entry<'a> {
    pub txn: Txn<'a>,
    pub program: &'a dyn Program,
    pub who: &'a Principal,
}

impl Entry<'_> {
    fn act(&mut self, action: Action) -> Result<Outcome, Refusal> {
        match action {
            Action::Noop => Ok(Outcome::None),
            Action::One(operation) => self.operate(operation),
            Action::Transaction(transaction) => self.transact(transaction),
            Action::Expire(expiries) => Ok(Outcome::Expired(self.expire(&expiries))),
            Action::Doubt(missing, renewed) => {
                self.doubt(&missing, &renewed);
                Ok(Outcome::None)
            }
            Action::Compact(target) => {
                let state = &mut *self.txn.state;
                state.compact(target);
                Ok(Outcome::Compacted(state.history.compacted()))
            }
            Action::Configure(settings) => {
                self.txn.state.settings = settings;
                Ok(Outcome::None)
            }
            Action::Advance => {
                self.stall();
                self.program.advance(&mut self.txn);
                Ok(Outcome::None)
            }
        }
    }

    fn transact(&mut self, transaction: Transaction) -> Result<Outcome, Refusal> {
        let Transaction { conditions, then, otherwise } = transaction;
        if conditions.len() > OPERATIONS || then.len() + otherwise.len() > OPERATIONS {
            return Err(Refusal::TooManyOperations(OPERATIONS as u64));
        }
        conditions.iter().try_for_each(check_condition)?;
        // Both branches are checked, so that a mistake does not wait for its day.
        written_once(&then, self.txn.revision())?;
        written_once(&otherwise, self.txn.revision())?;
        let view = self.txn.view();
        let succeeded = conditions.iter().all(|condition| holds(view, self.program, condition).is_ok());
        let results = self.operate_all(if succeeded { then } else { otherwise })?;
        Ok(Outcome::Transaction(TransactionOutcome { succeeded, results }))
    }

    /// The operations in order. Sessions that are closed anywhere in the list all end where the first is closed, so
    /// that nothing one of them leaves is granted to another.
    fn operate_all(&mut self, operations: Vec<Operation>) -> Result<Vec<Outcome>, Refusal> {
        let closing: Vec<_> = operations.iter().filter_map(Operation::closes).collect();
        let mut outcomes = Vec::new().into_iter();
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            if operation.closes().is_none() {
                results.push(self.operate(operation)?);
                continue;
            }
            if outcomes.len() == 0 {
                outcomes = self.close(&closing)?.into_iter();
            }
            results.extend(outcomes.next());
        }
        Ok(results)
    }
}

fn check_guards(view: View<'_>, program: &dyn Program, guards: &[Condition]) -> Result<(), Refusal> {
    if guards.len() > OPERATIONS {
        return Err(Refusal::TooManyOperations(OPERATIONS as u64));
    }
    for (position, guard) in (0..).zip(guards) {
        check_condition(guard)?;
        holds(view, program, guard).map_err(|refusal| refusal.unwrap_or(Refusal::GuardFailed(position)))?;
    }
    Ok(())
}

/// Users' conditions are about users' keys.
fn check_condition(condition: &Condition) -> Result<(), Refusal> {
    match condition {
        Condition::Exists(key, _)
        | Condition::ModRevision(key, ..)
        | Condition::CreateRevision(key, ..)
        | Condition::Version(key, ..)
        | Condition::Value(key, ..) => check_key(key),
        Condition::Alive(_) | Condition::Program(_) => Ok(()),
    }
}

/// Whether a condition holds; if not, with the program's reason if it is the program's condition.
fn holds(view: View<'_>, program: &dyn Program, condition: &Condition) -> Result<(), Option<Refusal>> {
    let number = |key: &Key, of: fn(&Record) -> u64| view.get(key).map_or(0, |record| of(record));
    let held = match condition {
        Condition::Exists(key, expected) => view.get(key).is_some() == *expected,
        Condition::ModRevision(key, comparison, than) => {
            comparison.holds(&number(key, |record| record.mod_revision.0), &than.0)
        }
        Condition::CreateRevision(key, comparison, than) => {
            comparison.holds(&number(key, |record| record.create_revision.0), &than.0)
        }
        Condition::Version(key, comparison, than) => {
            comparison.holds(&number(key, |record| record.version), than)
        }
        Condition::Value(key, comparison, than) => {
            view.get(key).is_some_and(|record| comparison.holds(&record.value, than))
        }
        Condition::Alive(id) => view.session(*id).is_some(),
        Condition::Program(encoded) => return program.check(view, encoded).map_err(Some),
    };
    if held { Ok(()) } else { Err(None) }
}

impl Comparison {
    fn holds<T: Ord>(self, actual: &T, than: &T) -> bool {
        match self {
            Self::Equal => actual == than,
            Self::NotEqual => actual != than,
            Self::Less => actual < than,
            Self::Greater => actual > than,
        }
    }
}

/// The record as an answer carries it.
pub(crate) fn answer(record: Option<&Arc<Record>>) -> Option<Record> {
    record.map(|record| Record::clone(record))
}
