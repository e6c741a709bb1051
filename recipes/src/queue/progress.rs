//! Looking at barrier queues: how far a generation is, and where a producer's own item stands.

use coracle_store::{Key, Revision, Selection, View};

use super::barrier::{self, Generation, HandOut, Stage};
use super::keys::{Keys, MessageId, Place};
use super::look;
use super::state::{Body, Head, Role};
use super::{Barrier, Config, Item, decoded};
use crate::names;

/// A barrier queue, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// As it was configured, whole.
    pub barrier: Barrier,
    /// The one that fills.
    pub filling: Generation,
    /// Declared ids that are not there, at most 100 of them.
    pub missing: Vec<Box<str>>,
    /// The one that is delivered now.
    pub draining: Option<Generation>,
    /// Released ones that wait for their turn.
    pub waiting: u64,
}

/// Where a producer's own item stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// In the generation that fills: its number, and how many items it has.
    Filling(u64, u64),
    Released {
        generation: u64,
        ordinal: u64,
        size: u64,
        /// With the item's id: its receipt.
        delivery: Revision,
        /// It may go: always, but with `strict`.
        turn: bool,
    },
    /// Withdrawn, settled, swept out.
    Gone,
}

/// Missing ids shown.
const SHOWN: usize = 100;

/// How far a barrier queue is; `None` if it is none.
#[must_use]
pub fn progress(view: View<'_>, queue: &str) -> Option<Progress> {
    let keys = Keys::new(queue);
    let barrier = whole(view, &keys, look::config(view, &keys, queue)).barrier?;
    let head = head(view, &keys);
    let filling = generation(view, &keys, head.filling).unwrap_or_else(|| Generation {
        number: head.generation + 1,
        missing: head.declared,
        ..Generation::default()
    });
    let missing = barrier.contains.iter().filter(|id| view.get(&keys.present(head.filling, id)).is_none());
    let generations = view.under(keys.generations()).map(|(_, record)| decoded::<Generation>(&record.value));
    let released = generations.filter(|found| found.stage == Stage::Released).skip(1);
    Some(Progress {
        missing: missing.take(SHOWN).cloned().collect(),
        draining: (head.front < head.filling).then(|| generation(view, &keys, head.front)).flatten(),
        waiting: if head.front < head.filling { released.count() as u64 } else { 0 },
        filling,
        barrier,
    })
}

/// The configuration with the parts of a barrier that have keys of their own.
pub(super) fn whole(view: View<'_>, keys: &Keys, mut config: Config) -> Config {
    if let Some(barrier) = &mut config.barrier {
        let prefix = keys.all_declared();
        let id = |key: &coracle_store::Key| {
            names::split(&key.as_bytes()[prefix.as_bytes().len()..]).map(|(id, _)| id.into())
        };
        barrier.contains = view.under(prefix.clone()).filter_map(|(key, _)| id(key)).collect();
        barrier.finalizer = view.get(&keys.finalizer()).map(|record| decoded(&record.value));
    }
    config
}

/// Where the item of that message stands, for its producer.
#[must_use]
pub fn own(view: View<'_>, queue: &str, id: MessageId) -> Own {
    let keys = Keys::new(queue);
    let Some(record) = view.get(&keys.body(id)) else { return Own::Gone };
    let body: Body<'_> = decoded(&record.value);
    let Some(arrival) = body.item.filter(|arrival| arrival.role == Role::Item) else { return Own::Gone };
    let Some(found) = generation(view, &keys, arrival.slot) else { return Own::Gone };
    match (found.stage, found.released) {
        (Stage::Filling, _) => Own::Filling(found.number, found.live),
        (Stage::Released, Some(released)) => {
            let (head, config) = (head(view, &keys), look::config(view, &keys, queue));
            Own::Released {
                generation: found.number,
                ordinal: barrier::ordinal(view, &keys, arrival.slot, arrival.number),
                size: released.size,
                delivery: released.revision,
                turn: is_turn(view, &keys, &config, &head, arrival.slot, id),
            }
        }
        (Stage::Released | Stage::Sweeping(_), _) => Own::Gone,
    }
}

/// Whether a released item may go: with `strict` it is the first of the generation whose turn it is.
pub(super) fn is_turn(
    view: View<'_>,
    keys: &Keys,
    config: &Config,
    head: &Head,
    slot: u64,
    id: MessageId,
) -> bool {
    let strict =
        config.barrier.as_ref().is_some_and(|barrier| barrier.hand_out == HandOut::Own && barrier.strict);
    if !strict {
        return true;
    }
    let first = view.front(keys.slot(slot)).next().and_then(|(key, _)| Place::last_of(key));
    slot == head.front && first.is_some_and(|first| first.id == id)
}

/// What to watch for a producer that waits for its own item: that it goes, and what must happen before its turn. So a
/// settled item wakes the producer behind it, not all of them.
#[must_use]
pub fn watched_own(view: View<'_>, queue: &str, id: MessageId) -> Vec<Key> {
    let keys = Keys::new(queue);
    let mut watched = vec![keys.body(id)];
    let Some(record) = view.get(&keys.body(id)) else { return watched };
    let Some(arrival) = decoded::<Body<'_>>(&record.value).item else { return watched };
    let slot = arrival.slot;
    if view.get(&keys.released(slot)).is_none() {
        watched.push(keys.released(slot));
        return watched;
    }
    let place = Place { slot, order: Role::Item.order(), id };
    let mine = keys.ready(place);
    let before = view.under(keys.slot(slot)).take_while(|(key, _)| **key < mine).last();
    watched.push(match before {
        Some((key, _)) => key.clone(),
        None => keys.generation(slot.saturating_sub(1)),
    });
    watched
}

/// What to watch for the next generation that is released.
#[must_use]
pub fn watched_releases(queue: &str) -> Selection {
    Selection::Prefix(Keys::new(queue).releases().as_bytes().to_vec())
}

/// The newest released generation behind `after` whose items everybody may read, and its revision.
#[must_use]
pub fn broadcast(view: View<'_>, queue: &str, after: u64) -> Option<(Generation, u64)> {
    let keys = Keys::new(queue);
    let slot = head(view, &keys).filling.checked_sub(1)?;
    let found = generation(view, &keys, slot)?;
    (found.stage == Stage::Released && found.number > after).then_some((found, slot))
}

/// The slot of a generation by its number.
#[must_use]
pub fn slot_of(view: View<'_>, queue: &str, number: u64) -> Option<u64> {
    let keys = Keys::new(queue);
    let found = view
        .under(keys.generations())
        .find(|(_, record)| decoded::<Generation>(&record.value).number == number);
    found.and_then(|(key, _)| key.as_bytes().last_chunk().map(|slot| u64::from_be_bytes(*slot)))
}

/// Items of a slot in their order, behind a position of an item before.
#[must_use]
pub fn items(view: View<'_>, queue: &str, slot: u64, after: Option<MessageId>, limit: usize) -> Vec<Item> {
    look::items_of(view, &Keys::new(queue), slot, after, limit)
}

fn head(view: View<'_>, keys: &Keys) -> Head {
    view.get(&keys.head()).map(|record| decoded(&record.value)).unwrap_or_default()
}

fn generation(view: View<'_>, keys: &Keys, slot: u64) -> Option<Generation> {
    view.get(&keys.generation(slot)).map(|record| decoded(&record.value))
}
