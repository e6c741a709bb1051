//! The keys as they were at a revision: what is there now and what was touched since, merged.
//!
//! A key of then is either unchanged, so it is there now, or was touched since, so history knows what it was. Both lists
//! are sorted: reading the past costs what is read and the touches in between, and copies nothing.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::sync::Arc;

use crate::history::{End, History, Touched};
use crate::ids::{Key, Revision, SessionId};
use crate::record::Record;
use crate::store::State;

/// Keys of a range at a revision, in order from both ends.
pub(crate) struct Past<'a> {
    history: &'a History,
    now: btree_map::Range<'a, Key, Arc<Record>>,
    touched: Touched<'a>,
}

impl<'a> Past<'a> {
    pub fn new(
        history: &'a History,
        touched: Touched<'a>,
        now: btree_map::Range<'a, Key, Arc<Record>>,
    ) -> Self {
        Self { history, now, touched }
    }

    fn take(&mut self, end: End) -> Option<(&'a Key, &'a Arc<Record>)> {
        loop {
            let turn = match (peek(&self.now, end), self.touched.peek(end)) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((now, _)), Some(then)) => match end {
                    End::Front => now.cmp(then),
                    End::Back => then.cmp(now),
                },
            };
            let now = if turn.is_le() { pop(&mut self.now, end) } else { None };
            let then = if turn.is_ge() { self.touched.pop(end) } else { None };
            let key = now.map(|(key, _)| key).or(then.map(|(key, _)| key))?;
            let record = match then {
                Some((_, touch)) => self.history.before(touch),
                None => now.map(|(_, record)| record),
            };
            if let Some(record) = record {
                return Some((key, record));
            }
        }
    }
}

fn peek<'a, V>(range: &btree_map::Range<'a, Key, V>, end: End) -> Option<(&'a Key, &'a V)> {
    pop(&mut range.clone(), end)
}

fn pop<'a, V>(range: &mut btree_map::Range<'a, Key, V>, end: End) -> Option<(&'a Key, &'a V)> {
    match end {
        End::Front => range.next(),
        End::Back => range.next_back(),
    }
}

impl<'a> Iterator for Past<'a> {
    type Item = (&'a Key, &'a Arc<Record>);

    fn next(&mut self) -> Option<Self::Item> {
        self.take(End::Front)
    }
}

impl DoubleEndedIterator for Past<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take(End::Back)
    }
}

impl State {
    /// A key as it was.
    pub(crate) fn get_at(&self, key: &Key, at: Revision) -> Option<&Arc<Record>> {
        let current = self.keys.get(key);
        if current.is_some_and(|record| record.mod_revision <= at) {
            return current;
        }
        match self.history.first_touch(key, at) {
            Some(touch) => self.history.before(touch),
            None => current,
        }
    }

    /// Keys under a prefix that were attached to a session: among those that still are, and those that left it since.
    pub(crate) fn attached_at(&self, id: SessionId, prefix: &[u8], at: Revision) -> Vec<&Key> {
        let still = self.sessions.attached_under(id, prefix);
        let mut keys: Vec<&Key> =
            still.chain(self.history.left(id, prefix, at).map(|(_, event)| &event.key)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.get_at(key, at).is_some_and(|record| record.session == Some(id)));
        keys
    }
}

/// One of two iterators: over the present, or over the past.
pub(crate) enum Either<N, T> {
    Now(N),
    Then(T),
}

impl<N: Iterator, T: Iterator<Item = N::Item>> Iterator for Either<N, T> {
    type Item = N::Item;

    fn next(&mut self) -> Option<N::Item> {
        match self {
            Self::Now(now) => now.next(),
            Self::Then(then) => then.next(),
        }
    }
}

impl<N: DoubleEndedIterator, T: DoubleEndedIterator<Item = N::Item>> DoubleEndedIterator for Either<N, T> {
    fn next_back(&mut self) -> Option<N::Item> {
        match self {
            Self::Now(now) => now.next_back(),
            Self::Then(then) => then.next_back(),
        }
    }
}
