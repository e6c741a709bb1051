//! The bounded past: every change since the compact revision, and where each key was touched.
//!
//! Revisions are dense: each mutating entry takes the next one, so the change of revision r is at position
//! r − compacted − 1. A value of the past is not stored anywhere of its own: the value of a key at revision R is the
//! `previous` of its first event after R, or its current value if there is none. Say key `a` was put at 3 and at 7
//! and deleted at 9, and history begins after 2: its touches are 3, 7, 9; at 2 it is the `previous` of 3 (absent); at
//! 3..=6 the `previous` of 7; at 7 and 8 the `previous` of 9; from 9 on it is the current value (absent).
//!
//! Every entry writes history and few readers look at it. So an entry only appends, compaction drops whole blocks, and
//! the touches of a block are put in the order of their keys by the first who reads it. The newest changes, which make no
//! block yet, are looked at one by one.

use std::collections::{BTreeMap, VecDeque, btree_map, vec_deque};
use std::iter::Peekable;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, OnceLock};

use crate::ids::{Key, Revision, SessionId};
use crate::limits::COMPACT_SLICE;
use crate::mvcc::Bounds;
use crate::record::{Change, Event, Record};
use crate::store::HistorySize;

/// Bytes accounted for an event beside its key and value.
const EVENT_OVERHEAD: usize = 128;
/// A block is closed when it has so many events; few where tests run, so that all of them read across blocks.
const BLOCK: usize = if cfg!(debug_assertions) { 16 } else { 1_024 };

#[derive(Default)]
pub(crate) struct History {
    /// Newest forgotten revision.
    compacted: Revision,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    blocks: VecDeque<Block>,
    /// Events behind the last block.
    loose: usize,
    /// Where keys left a session, oldest first.
    left: BTreeMap<SessionId, VecDeque<Touch>>,
}

/// Consecutive changes, the first of which may be forgotten.
struct Block {
    last: Revision,
    /// Where it touches which key, in the order of the keys and then of the revisions.
    touches: OnceLock<Box<[(Key, Touch)]>>,
}

/// Where a key was touched: the event at `position` in the change of `revision`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Touch {
    revision: Revision,
    position: u32,
}

/// Touched keys of a range, in order from both ends, each with its first touch after a revision.
pub(crate) struct Touched<'a> {
    /// Of each block.
    blocks: Vec<&'a [(Key, Touch)]>,
    /// Of what is looked at one by one.
    loose: BTreeMap<&'a Key, Touch>,
}

/// Of a range.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Front,
    Back,
}

impl History {
    /// A history that begins after `compacted`.
    pub fn after(compacted: Revision) -> Self {
        Self { compacted, ..Self::default() }
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    pub fn size(&self) -> HistorySize {
        HistorySize {
            changes: self.changes.len(),
            bytes: self.bytes,
            oldest: self.changes.front().map(|change| change.time),
        }
    }

    /// Revision of the newest change, or the compact revision if there is none.
    pub fn newest(&self) -> Revision {
        Revision(self.compacted.0 + self.changes.len() as u64)
    }

    pub fn push(&mut self, change: Arc<Change>) {
        debug_assert_eq!(change.revision, self.newest().next(), "revisions are dense");
        for (position, event) in (0..).zip(&change.events) {
            self.bytes += event_bytes(event);
            if let Some(id) = left_session(event) {
                let touch = Touch { revision: change.revision, position };
                self.left.entry(id).or_default().push_back(touch);
            }
        }
        self.loose += change.events.len();
        if self.loose >= BLOCK {
            self.blocks.push_back(Block { last: change.revision, touches: OnceLock::new() });
            self.loose = 0;
        }
        self.changes.push_back(change);
    }

    /// Forget changes up to and including `target`, one slice of them.
    pub fn compact(&mut self, target: Revision) {
        let mut events = 0;
        for _ in 0..COMPACT_SLICE {
            if events >= COMPACT_SLICE || self.changes.front().is_none_or(|change| change.revision > target) {
                break;
            }
            let Some(change) = self.changes.pop_front() else { break };
            for event in &change.events {
                self.bytes -= event_bytes(event);
                if let Some(id) = left_session(event) {
                    self.forget_left(id);
                }
            }
            events += change.events.len();
            self.compacted = change.revision;
        }
        let gone = self.blocks.partition_point(|block| block.last <= self.compacted);
        self.blocks.drain(..gone);
    }

    /// Forget the oldest time that a key left the session.
    fn forget_left(&mut self, id: SessionId) {
        if let btree_map::Entry::Occupied(mut left) = self.left.entry(id) {
            left.get_mut().pop_front();
            if left.get().is_empty() {
                left.remove();
            }
        }
    }

    /// The change of a revision that is still here.
    pub fn change(&self, revision: Revision) -> Option<&Arc<Change>> {
        let position = revision.0.checked_sub(self.compacted.0)?.checked_sub(1)?;
        self.changes.get(usize::try_from(position).ok()?)
    }

    /// Changes after `revision`, which must not be compacted; none if it is in the future.
    pub fn changes_after(&self, revision: Revision) -> vec_deque::Iter<'_, Arc<Change>> {
        let skip = revision.0.saturating_sub(self.compacted.0);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.changes.len());
        self.changes.range(skip..)
    }

    /// Keys of a range that were touched after `at`.
    pub fn touched(&self, bounds: &Bounds, at: Revision) -> Touched<'_> {
        let of_block = |number| {
            let touches = self.block(number);
            let begin = match &bounds.0 {
                Bound::Included(start) => touches.partition_point(|(key, _)| key < start),
                _ => 0,
            };
            let end = match &bounds.1 {
                Bound::Excluded(end) => touches.partition_point(|(key, _)| key < end),
                _ => touches.len(),
            };
            &touches[begin..end]
        };
        let mut whole = self.blocks_after(at);
        // Of a block that begins before the revision the rest is looked at one by one.
        let cut = whole.next_if(|number| self.before_block(*number) < at);
        let rest = cut.into_iter().flat_map(|number| self.events_after(at, self.blocks[number].last));
        let mut loose = BTreeMap::new();
        for (touch, event) in rest.chain(self.loose_after(at)) {
            if bounds.contains(&event.key) {
                loose.entry(&event.key).or_insert(touch);
            }
        }
        let blocks = whole.map(of_block).filter(|touches| !touches.is_empty()).collect();
        Touched { blocks, loose }
    }

    /// The first touch of a key after `at`.
    pub fn first_touch(&self, key: &Key, at: Revision) -> Option<Touch> {
        let of_block = |number| {
            let touches = self.block(number);
            let place = touches.partition_point(|(other, touch)| (other, touch.revision) <= (key, at));
            touches.get(place).filter(|(other, _)| other == key).map(|(_, touch)| *touch)
        };
        let loose = || self.loose_after(at).find(|(_, event)| event.key == *key).map(|(touch, _)| touch);
        self.blocks_after(at).find_map(of_block).or_else(loose)
    }

    /// What a touched key was before.
    pub fn before(&self, touch: Touch) -> Option<&Arc<Record>> {
        self.event(touch)?.1.previous.as_ref()
    }

    /// The newest event with which each key under a prefix (family byte first; empty for all) left a session after
    /// `at`, in the order of the keys.
    pub fn left(
        &self,
        id: SessionId,
        prefix: &[u8],
        at: Revision,
    ) -> impl Iterator<Item = (&Change, &Event)> + use<'_> {
        let mut newest = BTreeMap::new();
        if let Some(left) = self.left.get(&id) {
            let after = left.range(left.partition_point(|touch| touch.revision <= at)..);
            let events = after.filter_map(|touch| self.event(*touch));
            let wanted = events.filter(|(_, event)| event.key.as_bytes().starts_with(prefix));
            newest.extend(wanted.map(|(change, event)| (&event.key, (change, event))));
        }
        newest.into_values()
    }

    /// The events of one key, newest first.
    pub fn events_of<'a>(&'a self, key: &Key) -> impl Iterator<Item = (&'a Change, &'a Event)> + use<'a> {
        let (loose, of_block) = (key.clone(), key.clone());
        let of_block = move |number| {
            let touches = self.block(number);
            let begin = touches.partition_point(|(other, _)| *other < of_block);
            let end = touches.partition_point(|(other, _)| *other <= of_block);
            touches[begin..end].iter().rev().map(|(_, touch)| *touch)
        };
        let loose = self.loose_after(self.compacted).rev().filter(move |(_, event)| event.key == loose);
        let touches = loose.map(|(touch, _)| touch);
        let all = touches.chain((0..self.blocks.len()).rev().flat_map(of_block));
        // What is forgotten may still be in the index of its block.
        all.filter_map(|touch| self.event(touch))
    }

    fn event(&self, touch: Touch) -> Option<(&Change, &Event)> {
        let change = self.change(touch.revision)?;
        Some((change, change.events.get(touch.position as usize)?))
    }

    /// The blocks that have a change after `at`, by their numbers.
    fn blocks_after(&self, at: Revision) -> Peekable<Range<usize>> {
        (self.blocks.partition_point(|block| block.last <= at)..self.blocks.len()).peekable()
    }

    /// The revision that a block begins after.
    fn before_block(&self, number: usize) -> Revision {
        number.checked_sub(1).map_or(self.compacted, |number| self.blocks[number].last)
    }

    /// Where a block touches which key. Sorted by the first who asks.
    fn block(&self, number: usize) -> &[(Key, Touch)] {
        let Block { last, touches } = &self.blocks[number];
        touches.get_or_init(|| {
            let all = self.events_after(self.before_block(number), *last);
            let mut touches: Vec<_> = all.map(|(touch, event)| (event.key.clone(), touch)).collect();
            touches.sort_unstable();
            touches.into()
        })
    }

    /// What was touched after a revision, up to and including another.
    fn events_after(&self, after: Revision, upto: Revision) -> impl Iterator<Item = (Touch, &Event)> {
        self.changes_after(after).take_while(move |change| change.revision <= upto).flat_map(touched)
    }

    /// What was touched after `at` by the changes that make no block yet.
    fn loose_after(&self, at: Revision) -> impl DoubleEndedIterator<Item = (Touch, &Event)> + use<'_> {
        let last = self.blocks.back().map_or(self.compacted, |block| block.last);
        self.changes_after(last.max(at)).flat_map(touched)
    }
}

impl<'a> Touched<'a> {
    pub fn peek(&self, end: End) -> Option<&'a Key> {
        let of_blocks = self.blocks.iter().filter_map(|touches| at_end(touches, end));
        let keys = of_blocks.map(|(key, _)| key);
        match end {
            End::Front => keys.chain(self.loose.keys().next().copied()).min(),
            End::Back => keys.chain(self.loose.keys().next_back().copied()).max(),
        }
    }

    pub fn pop(&mut self, end: End) -> Option<(&'a Key, Touch)> {
        let key = self.peek(end)?;
        let mut first = self.loose.remove(key);
        for touches in &mut self.blocks {
            while let Some((_, touch)) = at_end(touches, end).filter(|(other, _)| other == key) {
                first = Some(first.map_or(*touch, |first| first.min(*touch)));
                *touches = match end {
                    End::Front => &touches[1..],
                    End::Back => &touches[..touches.len() - 1],
                };
            }
        }
        Some((key, first?))
    }
}

fn at_end(touches: &[(Key, Touch)], end: End) -> Option<&(Key, Touch)> {
    match end {
        End::Front => touches.first(),
        End::Back => touches.last(),
    }
}

/// What a change touches.
fn touched(change: &Arc<Change>) -> impl DoubleEndedIterator<Item = (Touch, &Event)> {
    let revision = change.revision;
    change.events.iter().enumerate().map(move |(position, event)| {
        let position = u32::try_from(position).expect("an entry has fewer events");
        (Touch { revision, position }, event)
    })
}

/// The session a key left with this event.
fn left_session(event: &Event) -> Option<SessionId> {
    let from = event.previous.as_ref()?.session?;
    (event.record.as_ref().and_then(|record| record.session) != Some(from)).then_some(from)
}

/// What an event counts in the bytes of the history, on disk and in memory alike.
pub(crate) fn event_bytes(event: &Event) -> usize {
    let value = |record: &Option<Arc<Record>>| record.as_ref().map_or(0, |record| record.value.len());
    event.key.as_bytes().len() + value(&event.record).max(value(&event.previous)) + EVENT_OVERHEAD
}
