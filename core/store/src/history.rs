//! The bounded past: every change since the compact revision, and where each key was touched.
//!
//! Revisions are dense: each mutating entry takes the next one, so the change of revision r is at position
//! r − compacted − 1. A value of the past is not stored anywhere of its own: the value of a key at revision R is the
//! `previous` of its first event after R, or its current value if there is none. Say key `a` was put at 3 and at 7
//! and deleted at 9, and history begins after 2: its touches are 3, 7, 9; at 2 it is the `previous` of 3 (absent); at
//! 3..=6 the `previous` of 7; at 7 and 8 the `previous` of 9; from 9 on it is the current value (absent).

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::{Family, Key, Revision, SessionId, Timestamp};
use crate::limits::COMPACT_SLICE;
use crate::mvcc;
use crate::record::{Change, Event, Record};
use crate::store::HistorySize;

/// Bytes accounted for an event beside its key and value.
const EVENT_OVERHEAD: usize = 128;

#[derive(Default)]
pub(crate) struct History {
    /// Newest forgotten revision.
    compacted: Revision,
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    touches: BTreeMap<Key, Touches>,
    /// Keys that left a session, with the newest revision at which they did.
    left: BTreeMap<(SessionId, Key), Revision>,
}

/// Where a key was touched: the event at `position` in the change of `revision`.
#[derive(Clone, Copy)]
pub(crate) struct Touch {
    revision: Revision,
    position: u32,
}

/// The touches of one key, oldest first. Most keys have one.
pub(crate) enum Touches {
    One(Touch),
    Many(VecDeque<Touch>),
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
                self.left.insert((id, event.key.clone()), change.revision);
            }
            let touch = Touch { revision: change.revision, position };
            match self.touches.entry(event.key.clone()) {
                btree_map::Entry::Vacant(vacant) => {
                    vacant.insert(Touches::One(touch));
                }
                btree_map::Entry::Occupied(mut occupied) => occupied.get_mut().push(touch),
            }
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
                if let Some(id) = left_session(event)
                    && let btree_map::Entry::Occupied(left) = self.left.entry((id, event.key.clone()))
                    && *left.get() == change.revision
                {
                    left.remove();
                }
                if let btree_map::Entry::Occupied(mut touches) = self.touches.entry(event.key.clone())
                    && touches.get_mut().pop_oldest()
                {
                    touches.remove();
                }
            }
            events += change.events.len();
            self.compacted = change.revision;
        }
    }

    /// The change of a revision that is still here.
    pub fn change(&self, revision: Revision) -> Option<&Arc<Change>> {
        let position = revision.0.checked_sub(self.compacted.0)?.checked_sub(1)?;
        self.changes.get(usize::try_from(position).ok()?)
    }

    /// Changes after `revision`, which must not be compacted; none if it is in the future.
    pub fn changes_after(&self, revision: Revision) -> impl Iterator<Item = &Arc<Change>> + use<'_> {
        let skip = revision.0.saturating_sub(self.compacted.0);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.changes.len());
        self.changes.range(skip..)
    }

    /// Touched keys of a range.
    pub fn touched(&self, start: &[u8], end: Option<&[u8]>) -> btree_map::Range<'_, Key, Touches> {
        mvcc::span(&self.touches, start, end)
    }

    /// Touched keys under a prefix.
    pub fn touched_under(&self, prefix: &[u8]) -> btree_map::Range<'_, Key, Touches> {
        mvcc::under(&self.touches, prefix)
    }

    /// Keys under a prefix (family byte first; empty for all families) that left a session after `at`, with the newest
    /// revision at which they did.
    pub fn left(
        &self,
        id: SessionId,
        prefix: &[u8],
        at: Revision,
    ) -> impl Iterator<Item = (&Key, Revision)> + use<'_> {
        let start = (id, Key::from_bytes(prefix).unwrap_or(Key::new(Family(0), &[])));
        let end = match Key::after_prefix(prefix) {
            Some(after) => Bound::Excluded((id, after)),
            None => id.0.checked_add(1).map_or(Bound::Unbounded, |next| {
                Bound::Excluded((SessionId(next), Key::new(Family(0), &[])))
            }),
        };
        let left = self.left.range((Bound::Included(start), end));
        left.filter(move |(_, revision)| **revision > at).map(|((_, key), revision)| (key, *revision))
    }

    /// What happened to a key at a revision.
    pub fn event_at(&self, key: &Key, at: Revision) -> Option<(&Change, &Event)> {
        let touch = self.touches.get(key)?.first_after(Revision(at.0.checked_sub(1)?))?;
        self.event(touch).filter(|(change, _)| change.revision == at)
    }

    pub fn touches(&self, key: &Key) -> Option<&Touches> {
        self.touches.get(key)
    }

    /// What a key with these touches was at `at`, given what it is now.
    pub fn value_at<'a>(
        &'a self,
        touches: Option<&Touches>,
        current: Option<&'a Arc<Record>>,
        at: Revision,
    ) -> Option<&'a Arc<Record>> {
        match touches.and_then(|touches| touches.first_after(at)) {
            Some(touch) => self.event(touch)?.1.previous.as_ref(),
            None => current,
        }
    }

    /// The events of one key, oldest first.
    pub fn events_of(&self, key: &Key) -> Vec<(Revision, Timestamp, Event)> {
        let touches = match self.touches.get(key) {
            None => Vec::new(),
            Some(Touches::One(touch)) => vec![*touch],
            Some(Touches::Many(touches)) => touches.iter().copied().collect(),
        };
        touches
            .into_iter()
            .filter_map(|touch| self.event(touch))
            .map(|(change, event)| (change.revision, change.time, event.clone()))
            .collect()
    }

    fn event(&self, touch: Touch) -> Option<(&Change, &Event)> {
        let change = self.change(touch.revision)?;
        Some((change, change.events.get(touch.position as usize)?))
    }
}

impl Touches {
    fn push(&mut self, touch: Touch) {
        match self {
            Self::One(first) => *self = Self::Many(VecDeque::from([*first, touch])),
            Self::Many(touches) => touches.push_back(touch),
        }
    }

    /// Drop the oldest; true if none is left.
    fn pop_oldest(&mut self) -> bool {
        match self {
            Self::One(_) => true,
            Self::Many(touches) => {
                touches.pop_front();
                if let (1, Some(last)) = (touches.len(), touches.front()) {
                    *self = Self::One(*last);
                }
                false
            }
        }
    }

    fn first_after(&self, at: Revision) -> Option<Touch> {
        match self {
            Self::One(touch) => Some(*touch).filter(|touch| touch.revision > at),
            Self::Many(touches) => {
                touches.get(touches.partition_point(|touch| touch.revision <= at)).copied()
            }
        }
    }
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
