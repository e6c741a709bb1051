//! Remembered replies: a retry with its idempotency key answers the first reply and changes nothing.
//!
//! A record lives for [`IDEMPOTENCY_MS`] of log time; a principal keeps at most [`IDEMPOTENCY_RECORDS`] of them and
//! [`IDEMPOTENCY_BYTES`] of replies, the oldest dropped first. Everything here follows from the entries alone, so all
//! nodes remember the same.
//!
//! What is remembered: every success, and the refusals that no retry can turn into a success ([`is_final`]).
//! Any other refusal changed nothing and depended on the moment (a condition, a full quota, a held lock): its retry
//! is judged afresh, and has its one effect then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::command::{Idempotency, Principal};
use crate::ids::{Millis, Timestamp};
use crate::limits::{IDEMPOTENCY_BYTES, IDEMPOTENCY_MS, IDEMPOTENCY_RECORDS};
use crate::record::Record;
use crate::reply::{Outcome, Refusal, Reply};

/// Records dropped by age in one entry: more than one entry adds, so that they never pile up.
const PURGE_SLICE: usize = 16;
/// Bytes accounted for a record beside the values in its reply.
const RECORD_OVERHEAD: usize = 256;

#[derive(Default)]
pub(crate) struct Replies {
    ledgers: BTreeMap<Principal, Ledger>,
    /// Each principal by the time of its oldest record.
    oldest: BTreeSet<(Timestamp, Principal)>,
    /// Number of the next record: keeps the order of records with the same time over a restart.
    pub next: u64,
    /// What the checkpoint does not know yet.
    pub unsaved: Vec<ReplyChange>,
}

#[derive(Default)]
struct Ledger {
    kept: BTreeMap<Arc<str>, Kept>,
    /// The same, oldest first.
    order: VecDeque<Arc<str>>,
    bytes: usize,
}

/// One remembered reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub time: Timestamp,
    pub number: u64,
    pub fingerprint: u64,
    pub reply: Arc<Reply>,
}

/// A record that came (`Some`) or went.
pub(crate) struct ReplyChange {
    pub principal: Principal,
    pub key: Arc<str>,
    pub kept: Option<Kept>,
}

impl Replies {
    pub fn find(&self, principal: &Principal, key: &str) -> Option<&Kept> {
        self.ledgers.get(principal)?.kept.get(key)
    }

    /// Remember a reply, if it is of the kind that is remembered.
    pub fn remember(&mut self, now: Timestamp, principal: &Principal, asked: &Idempotency, reply: &Reply) {
        if reply.result.as_ref().is_err_and(|refusal| !is_final(refusal)) {
            return;
        }
        let kept = Kept {
            time: now,
            number: self.next,
            fingerprint: asked.fingerprint,
            reply: Arc::new(reply.clone()),
        };
        self.next += 1;
        let key: Arc<str> = asked.key.as_ref().into();
        self.unsaved.push(ReplyChange {
            principal: principal.clone(),
            key: key.clone(),
            kept: Some(kept.clone()),
        });
        self.insert(principal.clone(), key, kept);
        while self.ledgers.get(principal).is_some_and(Ledger::is_over) {
            self.drop_oldest(principal);
        }
    }

    /// Add a record newer than all of its principal's.
    pub fn insert(&mut self, principal: Principal, key: Arc<str>, kept: Kept) {
        if !self.ledgers.contains_key(&principal) {
            self.oldest.insert((kept.time, principal.clone()));
        }
        let ledger = self.ledgers.entry(principal).or_default();
        ledger.bytes += weight(&kept.reply);
        ledger.order.push_back(key.clone());
        ledger.kept.insert(key, kept);
    }

    /// Drop what is too old, one slice of it.
    pub fn purge(&mut self, now: Timestamp) {
        for _ in 0..PURGE_SLICE {
            let due = self.oldest.first().filter(|(time, _)| time.after(Millis(IDEMPOTENCY_MS)) <= now);
            let Some((_, principal)) = due else { break };
            let principal = principal.clone();
            self.drop_oldest(&principal);
        }
    }

    /// All records, by principal and key.
    pub fn iter(&self) -> impl Iterator<Item = (&Principal, &Arc<str>, &Kept)> {
        self.ledgers
            .iter()
            .flat_map(|(principal, ledger)| ledger.kept.iter().map(move |(key, kept)| (principal, key, kept)))
    }

    fn drop_oldest(&mut self, principal: &Principal) {
        let Some(ledger) = self.ledgers.get_mut(principal) else { return };
        let Some(key) = ledger.order.pop_front() else { return };
        if let Some(kept) = ledger.kept.remove(&key) {
            ledger.bytes -= weight(&kept.reply);
            self.oldest.remove(&(kept.time, principal.clone()));
        }
        match ledger.order.front().and_then(|next| ledger.kept.get(next)) {
            Some(next) => {
                self.oldest.insert((next.time, principal.clone()));
            }
            None => {
                self.ledgers.remove(principal);
            }
        }
        self.unsaved.push(ReplyChange { principal: principal.clone(), key, kept: None });
    }
}

impl Ledger {
    /// The newest record always stays, however large it is.
    fn is_over(&self) -> bool {
        self.order.len() > IDEMPOTENCY_RECORDS || (self.bytes > IDEMPOTENCY_BYTES && self.order.len() > 1)
    }
}

/// No retry of the same command can ever succeed.
fn is_final(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::SessionExpired(_)
        | Refusal::SessionExists(_)
        | Refusal::DuplicateKey(_)
        | Refusal::TooManyOperations(_)
        | Refusal::OutOfBounds(..) => true,
        Refusal::Malformed
        | Refusal::RevisionMismatch(..)
        | Refusal::QuotaExceeded(..)
        | Refusal::IdempotencyKeyReused
        | Refusal::GuardFailed(_)
        | Refusal::TooManyHolds(..)
        | Refusal::Program(_) => false,
    }
}

/// Bytes a reply keeps alive.
fn weight(reply: &Reply) -> usize {
    RECORD_OVERHEAD + reply.result.as_ref().map_or(0, outcome_bytes)
}

fn outcome_bytes(outcome: &Outcome) -> usize {
    let record = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.value.len());
    match outcome {
        Outcome::Put(put) => record(&put.previous),
        Outcome::Deleted(deleted) => record(&deleted.previous),
        Outcome::Got(_, got) => record(got),
        Outcome::Transaction(transaction) => transaction.results.iter().map(|o| 128 + outcome_bytes(o)).sum(),
        Outcome::Closed(keys) => keys.iter().map(|key| key.as_bytes().len() + 32).sum(),
        Outcome::Program(bytes) => bytes.len(),
        Outcome::None | Outcome::Session(_) | Outcome::Expired(_) | Outcome::Compacted(_) => 0,
    }
}
