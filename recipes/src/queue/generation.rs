//! How a generation goes: items arrive and withdraw, it is released or broken, drained, done.

use coracle_store::command::Attach;
use coracle_store::{ContentType, Millis, Record, Refusal as StoreRefusal, SessionId, Value};

use super::barrier::{
    Barrier, End, Finalizer, Generation, HandOut, ITEMS, OnBreak, Released, Stage, Sweep, counts,
};
use super::desk::{Desk, Draft};
use super::keys::{MessageId, Place};
use super::state::{Arrival, Body, Role, Tally};
use super::{Kind, Message, Receipt, Refusal, SLICE, Sent, decoded, encoded, time};

/// The slot of what follows generations that are not drained in turn.
pub(super) const ASIDE: u64 = u64::MAX;

impl Desk<'_, '_> {
    /// A generation; one of which nothing is known yet is the next that begins.
    pub fn generation(&self, slot: u64) -> Generation {
        match self.txn.get(&self.keys.generation(slot)) {
            Some(record) => decoded(&record.value),
            None => Generation {
                number: self.head.generation + 1,
                missing: self.head.declared,
                ..Generation::default()
            },
        }
    }

    pub fn known_generation(&self, slot: u64) -> Option<Generation> {
        self.txn.get(&self.keys.generation(slot)).map(|record| decoded(&record.value))
    }

    pub fn keep_generation(&mut self, slot: u64, generation: &Generation) {
        if slot == self.head.filling {
            self.head.generation = self.head.generation.max(generation.number);
        }
        self.put(self.keys.generation(slot), encoded(generation));
    }

    pub fn barrier(&self) -> Barrier {
        self.config.barrier.clone().unwrap_or_default()
    }

    /// Whether items of released generations are given to receivers one by one.
    fn works(&self) -> bool {
        self.config.barrier.as_ref().is_some_and(|barrier| barrier.hand_out == HandOut::Work)
    }

    /// Whether one generation waits for the end of the one before.
    fn in_turn(barrier: &Barrier) -> bool {
        match barrier.hand_out {
            HandOut::Work | HandOut::Batch => true,
            HandOut::Own => barrier.strict,
            HandOut::Broadcast => false,
        }
    }

    /// Where an item at this place is counted.
    pub fn counted(&mut self, place: Place) -> &mut u64 {
        let item = place.order == Role::Item.order() && self.config.kind == Kind::Barrier;
        let out = self.works() && place.slot == self.head.front && self.head.front < self.head.filling;
        if item && !out { &mut self.head.held } else { &mut self.head.ready }
    }

    /// An item of that name is in the generation: it is the same item, and depends on the session that said so last.
    pub fn known_item(
        &mut self,
        message: &Message,
        session: Option<SessionId>,
    ) -> Result<Option<Sent>, StoreRefusal> {
        let slot = self.head.filling;
        let Some(item) = &message.item else { return Ok(None) };
        let Some(record) = self.txn.get(&self.keys.present(slot, item)) else { return Ok(None) };
        let id: MessageId = decoded(&record.value);
        let key = self.keys.ready(Place { slot, order: Role::Item.order(), id });
        if let Some(record) = self.txn.get(&key).cloned()
            && record.session != session
        {
            self.check_holds(session)?;
            self.txn.put(key, record.value.clone(), ContentType::Binary, session);
        }
        let generation = Some(self.generation(slot).number);
        Ok(Some(Sent { id, duplicate: true, generation, session }))
    }

    fn check_holds(&mut self, session: Option<SessionId>) -> Result<(), StoreRefusal> {
        match session {
            Some(session) => self.txn.attach(&Attach::Session(session), None).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Whether the generation that fills takes another item.
    pub fn check_items(&self) -> Result<(), StoreRefusal> {
        let live = self.known_generation(self.head.filling).map_or(0, |generation| generation.live);
        if live >= ITEMS { Err(Refusal::Full(live, ITEMS).into()) } else { Ok(()) }
    }

    /// An item arrives.
    pub fn arrive(
        &mut self,
        draft: Draft<'_>,
        item: Option<&str>,
        session: Option<SessionId>,
    ) -> Result<Sent, StoreRefusal> {
        let slot = self.head.filling;
        let mut generation = self.generation(slot);
        self.check_holds(session)?;
        let arrival = Arrival { slot, number: generation.arrivals, id: item, role: Role::Item };
        let (id, _) = self.write(draft, Some(arrival));
        let place = Place { slot, order: Role::Item.order(), id };
        self.txn.put(self.keys.ready(place), encoded(Tally::default()), ContentType::Binary, session);
        self.head.held += 1;
        generation.arrivals += 1;
        generation.live += 1;
        if let Some(item) = item {
            self.put(self.keys.present(slot, item), encoded(id));
            if self.txn.get(&self.keys.declared(item)).is_some() {
                generation.missing = generation.missing.saturating_sub(1);
            }
        }
        if generation.since.is_none() {
            generation.since = Some(self.txn.now());
            self.start_deadline(slot, &mut generation);
        }
        let number = generation.number;
        self.keep_generation(slot, &generation);
        self.evaluate();
        Ok(Sent { id, duplicate: false, generation: Some(number), session })
    }

    pub fn start_deadline(&mut self, slot: u64, generation: &mut Generation) {
        self.stop_deadline(slot, generation);
        let deadline = self.config.barrier.as_ref().and_then(|barrier| barrier.deadline);
        if let (Some(deadline), Some(since)) = (deadline, generation.since) {
            let at = since.after(deadline.after);
            time::set_deadline(self.txn, &self.keys, slot, at);
            generation.deadline = Some(at);
        }
    }

    fn stop_deadline(&mut self, slot: u64, generation: &mut Generation) {
        if let Some(at) = generation.deadline.take() {
            time::clear_deadline(self.txn, &self.keys, slot, at);
        }
    }

    /// All at once, and at no cost an item.
    pub fn release(&mut self, slot: u64, mut generation: Generation, cause: &str) {
        let barrier = self.barrier();
        self.stop_deadline(slot, &mut generation);
        generation.stage = Stage::Released;
        generation.released = Some(Released {
            revision: self.txn.revision(),
            at: self.txn.now(),
            size: generation.live,
            cause: cause.into(),
        });
        self.keep_generation(slot, &generation);
        self.put(self.keys.released(slot), Value::from(&[][..]));
        self.head.filling += 1;
        if Self::in_turn(&barrier) {
            if self.head.front == slot {
                self.begin();
            }
            return;
        }
        self.head.front = self.head.filling;
        if barrier.hand_out == HandOut::Broadcast
            && let Some(before) = slot.checked_sub(1)
            && let Some(old) = self.known_generation(before).filter(|old| old.stage == Stage::Released)
        {
            self.sweep_out(before, old, Sweep::Dropped);
        }
    }

    pub fn released_just_now(&self, slot: u64) -> bool {
        let released = self.known_generation(slot).and_then(|generation| generation.released);
        released.is_some_and(|released| released.revision == self.txn.revision())
    }

    /// Deliver the next generation that is released, past those that are done or broken.
    fn begin(&mut self) {
        while self.head.front < self.head.filling {
            let slot = self.head.front;
            let released =
                self.known_generation(slot).filter(|generation| generation.stage == Stage::Released);
            let Some(generation) = released else {
                self.head.front += 1;
                continue;
            };
            if generation.live == 0 {
                // All of it was deleted before its turn.
                return self.complete(slot, generation);
            }
            match self.barrier().hand_out {
                HandOut::Work => {
                    self.head.held -= generation.live;
                    self.head.ready += generation.live;
                }
                HandOut::Batch => self.follow(slot, slot, Role::Batch, &generation),
                HandOut::Own | HandOut::Broadcast => {}
            }
            return;
        }
    }

    /// Add a message of the queue itself.
    fn follow(&mut self, slot: u64, of: u64, role: Role, generation: &Generation) {
        let said = self.txn.get(&self.keys.finalizer()).map(|record| decoded::<Finalizer>(&record.value));
        let (headers, json) = counts(generation);
        let (value, content_type) = match (role, said) {
            (Role::Finalizer, Some(Finalizer { value: Some(value), content_type })) => (value, content_type),
            _ => (Value::from(json.as_bytes()), ContentType::Json),
        };
        let draft = Draft {
            value: &value,
            content_type,
            priority: 0,
            group: None,
            expires: None,
            headers: headers.to_vec(),
            death: None,
        };
        let (id, body) = self.write(draft, Some(Arrival { slot, number: of, id: None, role }));
        self.make_ready(id, &body, &Tally::default());
    }

    /// An item is no more, and stands nowhere.
    pub fn ended(&mut self, arrival: &Arrival<'_>, end: End) {
        let slot = arrival.slot;
        match arrival.role {
            Role::Item => {}
            Role::Batch => {
                let sweep = if end == End::Acked { Sweep::Acked } else { Sweep::Dropped };
                return self.batch_ended(arrival.number, sweep);
            }
            Role::Finalizer => return self.done(arrival.number),
        }
        if let Some(id) = arrival.id {
            self.delete(&self.keys.present(slot, id));
        }
        let Some(mut generation) = self.known_generation(slot) else { return };
        generation.live = generation.live.saturating_sub(1);
        match generation.stage {
            Stage::Filling => {
                if arrival.id.is_some_and(|id| self.txn.get(&self.keys.declared(id)).is_some()) {
                    generation.missing += 1;
                }
                if generation.live == 0 {
                    self.stop_deadline(slot, &mut generation);
                    (generation.since, generation.arrivals) = (None, 0);
                    self.fill_holes(slot);
                } else {
                    self.dig(slot, arrival.number);
                }
                self.keep_generation(slot, &generation);
            }
            Stage::Released => {
                match end {
                    End::Acked => generation.acked += 1,
                    End::Dead => generation.dead += 1,
                    End::Dropped => generation.dropped += 1,
                }
                let all = generation.live == 0 && !self.batch_is_out(slot);
                if all && (slot == self.head.front || !Self::in_turn(&self.barrier())) {
                    self.complete(slot, generation);
                } else {
                    self.keep_generation(slot, &generation);
                }
            }
            Stage::Sweeping(_) => self.keep_generation(slot, &generation),
        }
    }

    fn batch_is_out(&self, slot: u64) -> bool {
        self.barrier().hand_out == HandOut::Batch && slot == self.head.front
    }

    /// The message that stands for all of a generation is settled.
    pub fn batch_ended(&mut self, slot: u64, sweep: Sweep) {
        let Some(mut generation) = self.known_generation(slot) else { return };
        let live = generation.live;
        match sweep {
            Sweep::Acked => generation.acked += live,
            Sweep::Dead(_) => generation.dead += live,
            Sweep::Dropped => generation.dropped += live,
        }
        if live == 0 {
            return self.complete(slot, generation);
        }
        self.sweep_out(slot, generation.clone(), sweep);
        self.finalize(slot, generation);
    }

    /// Every item is settled.
    fn complete(&mut self, slot: u64, generation: Generation) {
        self.keep_generation(slot, &generation);
        self.finalize(slot, generation);
    }

    /// What follows the last item; or nothing does.
    fn finalize(&mut self, slot: u64, mut generation: Generation) {
        if generation.finalizing || self.txn.get(&self.keys.finalizer()).is_none() {
            return self.done(slot);
        }
        generation.finalizing = true;
        if let Some(mut kept) = self.known_generation(slot) {
            kept.finalizing = true;
            self.keep_generation(slot, &kept);
        }
        let place = if Self::in_turn(&self.barrier()) { slot } else { ASIDE };
        self.follow(place, slot, Role::Finalizer, &generation);
    }

    /// The generation is over: the next, if it is released already.
    fn done(&mut self, slot: u64) {
        match self.known_generation(slot) {
            // Its items are still swept out.
            Some(mut generation) if generation.live > 0 => {
                generation.finalizing = false;
                self.keep_generation(slot, &generation);
            }
            _ => self.end_generation(slot),
        }
        self.fill_holes(slot);
        if slot == self.head.front && self.head.front < self.head.filling {
            self.head.front += 1;
            self.begin();
        }
    }

    /// The generation that fills ends without being released.
    pub fn break_up(&mut self, slot: u64, mut generation: Generation, reason: &str, how: OnBreak) {
        self.stop_deadline(slot, &mut generation);
        let sweep = match how {
            OnBreak::CarryOver => {
                generation.number += 1;
                generation.signals.clear();
                generation.broken = Some(reason.into());
                generation.since = (generation.live > 0).then(|| self.txn.now());
                self.start_deadline(slot, &mut generation);
                return self.keep_generation(slot, &generation);
            }
            OnBreak::DeadLetter => {
                Sweep::Dead(if reason.is_empty() { "broken".into() } else { reason.into() })
            }
            OnBreak::Drop => Sweep::Dropped,
        };
        self.keep_generation(slot, &generation);
        self.head.filling += 1;
        self.sweep_out(slot, generation, sweep);
        if self.head.front == slot {
            self.head.front += 1;
        }
    }

    /// Take all items of a slot out, beginning soon.
    fn sweep_out(&mut self, slot: u64, mut generation: Generation, sweep: Sweep) {
        self.fill_holes(slot);
        if generation.live == 0 {
            return self.end_generation(slot);
        }
        generation.stage = Stage::Sweeping(sweep);
        self.keep_generation(slot, &generation);
        time::set_sweep(self.txn, &self.keys, slot, self.txn.now().after(Millis(1)));
    }

    /// A slice of what is to be swept.
    pub fn sweep(&mut self, slot: u64) {
        let Some(generation) = self.known_generation(slot) else { return };
        let Stage::Sweeping(sweep) = &generation.stage else { return };
        let items = self.keys.order(slot, Role::Item.order());
        let found = self.txn.view().under(items).take(SLICE);
        let ids: Vec<MessageId> =
            found.filter_map(|(key, _)| Place::last_of(key)).map(|place| place.id).collect();
        for id in &ids {
            match sweep {
                Sweep::Dead(reason) => self.let_die(*id, reason),
                Sweep::Acked | Sweep::Dropped => {
                    self.remove(*id, End::Dropped);
                }
            }
        }
        if ids.len() == SLICE {
            time::set_sweep(self.txn, &self.keys, slot, self.txn.now().after(Millis(1)));
        } else if self.known_generation(slot).is_some_and(|generation| !generation.finalizing) {
            self.end_generation(slot);
        }
    }

    /// Nothing is left of it.
    fn end_generation(&mut self, slot: u64) {
        self.delete(&self.keys.generation(slot));
        self.delete(&self.keys.released(slot));
    }

    fn let_die(&mut self, id: MessageId, reason: &str) {
        let Some(record) = self.record(id) else { return };
        let body: Body<'_> = decoded(&record.value);
        self.unplace(id, &body, true);
        self.bury(id, &record, &Tally::default(), reason);
    }

    /// Time is up for the generation that fills.
    pub fn end_deadline(&mut self, slot: u64) {
        let Some(mut generation) = self.known_generation(slot) else { return };
        let due = generation.deadline.is_some_and(|at| at <= self.txn.now());
        if !due || generation.stage != Stage::Filling || slot != self.head.filling {
            return;
        }
        generation.deadline = None;
        let barrier = self.barrier();
        if barrier.deadline.is_some_and(|deadline| deadline.breaks) {
            self.break_up(slot, generation, "deadline", barrier.on_break);
        } else {
            self.release(slot, generation, "deadline");
        }
    }

    /// The producer of an item is gone, and the store has taken the item's place with it.
    pub fn orphan(&mut self, place: Place, record: &Record) {
        let Some(kept) = self.record(place.id) else { return };
        let generation = self.known_generation(place.slot);
        let own = self.barrier().hand_out == HandOut::Own;
        let released = generation.is_some_and(|generation| generation.stage == Stage::Released);
        if released && !own {
            return self.put(self.keys.ready(place), record.value.clone());
        }
        *self.counted(place) -= 1;
        let body: Body<'_> = decoded(&kept.value);
        self.forget(place.id, &body, End::Dropped);
    }

    /// Whether a receipt is that of a producer for its own item: the generation is released, and it is its turn.
    pub fn is_own(&self, receipt: Receipt) -> bool {
        let Some(record) = self.record(receipt.id).filter(|_| self.barrier().hand_out == HandOut::Own) else {
            return false;
        };
        let body: Body<'_> = decoded(&record.value);
        let Some(arrival) = body.item.filter(|arrival| arrival.role == Role::Item) else { return false };
        let generation = self.known_generation(arrival.slot);
        let released = generation.and_then(|generation| generation.released);
        let current = released.is_some_and(|released| {
            released.revision == receipt.delivery && receipt.delivery < self.txn.revision()
        });
        current
            && super::progress::is_turn(
                self.txn.view(),
                &self.keys,
                &self.config,
                &self.head,
                arrival.slot,
                receipt.id,
            )
    }
}
