//! What decides on a generation: conditions, control programs, a new configuration.

use coracle_store::limits::NAME_BYTES;
use coracle_store::{Cause, Refusal as StoreRefusal, Revision, Txn, Value};

use super::barrier::{Act, Authority, Barrier, Control, FINALIZER_BYTES, Generation, Stage};
use super::desk::Desk;
use super::{Outcome, Refusal, check_queue, decoded, encoded};
use crate::bounded;

pub(super) fn control(txn: &mut Txn<'_>, wanted: Control) -> Result<Outcome, StoreRefusal> {
    let Control { queue, token, act } = wanted;
    check_queue(&queue)?;
    let mut desk = Desk::open(txn, &queue);
    let Some(barrier) = desk.config.barrier.clone() else {
        return Err(Refusal::WrongKind(desk.config.kind, "signal, open now and break".into()).into());
    };
    may(&desk, barrier.authority.as_ref(), token)?;
    let slot = desk.head.filling;
    let mut generation = desk.generation(slot);
    let number = generation.number;
    let mut count = 0;
    match act {
        Act::Signal(name) => {
            if !barrier.signals.contains(&name) {
                return Err(Refusal::SignalUnknown(name).into());
            }
            if !generation.signals.contains(&name) {
                generation.signals.push(name);
                desk.keep_generation(slot, &generation);
            }
            count = generation.live;
            desk.evaluate();
        }
        Act::Open if generation.live > 0 => {
            count = generation.live;
            desk.release(slot, generation, "open");
        }
        Act::Open => {}
        Act::Break(reason, how) => {
            bounded("reason", reason.len(), 0, NAME_BYTES)?;
            if generation.live > 0 || !generation.signals.is_empty() {
                count = generation.live;
                desk.break_up(slot, generation, &reason, how.unwrap_or(barrier.on_break));
            }
        }
    }
    let released = desk.released_just_now(slot);
    desk.finish();
    Ok(Outcome::Controlled(number, released, count))
}

/// Only the holder of the configured claim controls the queue.
fn may(
    desk: &Desk<'_, '_>,
    authority: Option<&Authority>,
    token: Option<Revision>,
) -> Result<(), StoreRefusal> {
    let view = desk.txn.view();
    let (claim, checked) = match authority {
        None => return Ok(()),
        Some(Authority::Lock(name)) => {
            (format!("locks/{name}"), token.map(|token| crate::lock::check(view, name, token)))
        }
        Some(Authority::Election(name)) => {
            (format!("elections/{name}"), token.map(|token| crate::election::check(view, name, token)))
        }
    };
    match checked {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) | None => Err(Refusal::NotInCharge(claim.into()).into()),
    }
}

impl Desk<'_, '_> {
    /// Release the generation that fills if its condition holds.
    pub fn evaluate(&mut self) {
        let slot = self.head.filling;
        let Some(generation) = self.known_generation(slot) else { return };
        if generation.live > 0 && self.holds(slot, &generation) {
            self.release(slot, generation, "condition");
        }
    }

    fn holds(&self, slot: u64, generation: &Generation) -> bool {
        let barrier = self.barrier();
        let view = self.txn.view();
        let mut conditions = Vec::new();
        conditions.extend(barrier.size.map(|size| generation.live >= size));
        if self.head.declared > 0 {
            conditions.push(generation.missing == 0);
        }
        let absent = |id: &str| view.get(&self.keys.present(slot, id)).is_none();
        conditions.extend(barrier.absent.iter().map(|id| absent(id)));
        conditions.extend(barrier.signals.iter().map(|name| generation.signals.contains(name)));
        let holds = |holds: &bool| *holds;
        if barrier.any {
            conditions.iter().any(holds)
        } else {
            !conditions.is_empty() && conditions.iter().all(holds)
        }
    }

    /// Whether all generations but the one that fills are done.
    pub fn at_rest(&self) -> bool {
        let mut generations = self.txn.view().under(self.keys.generations());
        generations.all(|(_, record)| decoded::<Generation>(&record.value).stage == Stage::Filling)
    }

    /// The long parts of a barrier's configuration, and what follows from them for the generation that fills.
    pub fn set_barrier(&mut self, barrier: Option<&Barrier>) -> Result<(), StoreRefusal> {
        let before: Vec<_> =
            self.txn.view().under(self.keys.all_declared()).map(|(key, _)| key.clone()).collect();
        let Some(barrier) = barrier else {
            for key in before {
                self.delete(&key);
            }
            self.delete(&self.keys.finalizer());
            let slot = self.head.filling;
            self.delete(&self.keys.generation(slot));
            (self.head.declared, self.head.generation) = (0, 0);
            (self.head.front, self.head.filling) = (0, 0);
            return Ok(());
        };
        let wanted: std::collections::BTreeSet<_> =
            barrier.contains.iter().map(|id| self.keys.declared(id)).collect();
        for key in before.iter().filter(|key| !wanted.contains(*key)) {
            self.txn.delete(key, Cause::Command);
        }
        self.head.declared = wanted.len() as u64;
        for key in wanted {
            if self.txn.get(&key).is_none() {
                self.put(key, Value::from(&[][..]));
            }
        }
        match &barrier.finalizer {
            Some(finalizer) => {
                let bytes = finalizer.value.as_ref().map_or(0, |value| value.len());
                bounded("finalizer", bytes, 0, FINALIZER_BYTES)?;
                self.put(self.keys.finalizer(), encoded(finalizer));
            }
            None => {
                self.delete(&self.keys.finalizer());
            }
        }
        let slot = self.head.filling;
        if let Some(mut generation) = self.known_generation(slot) {
            let present = |id: &str| self.txn.get(&self.keys.present(slot, id)).is_some();
            let there = barrier.contains.iter().filter(|id| present(id)).count() as u64;
            generation.missing = self.head.declared - there;
            generation.signals.retain(|name| barrier.signals.contains(name));
            self.start_deadline(slot, &mut generation);
            self.keep_generation(slot, &generation);
        }
        Ok(())
    }
}
