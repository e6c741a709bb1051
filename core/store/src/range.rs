//! Reading ranges, now and at a past revision.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::ids::{Key, Revision};
use crate::record::Record;
use crate::store::{HistoryError, Order, Page, Range, State};

impl State {
    /// A revision that can be read.
    pub(crate) fn readable(&self, at: Revision) -> Result<Revision, HistoryError> {
        if at < self.history.compacted() {
            Err(HistoryError::Compacted(self.history.compacted()))
        } else if at > self.revision {
            Err(HistoryError::Future(self.revision))
        } else {
            Ok(at)
        }
    }

    pub(crate) fn page(&self, range: &Range) -> Result<Page, HistoryError> {
        let revision = self.readable(range.at.unwrap_or(self.revision))?;
        let mut page = Page { items: Vec::new(), more: false, revision };
        self.walk(range, revision, &mut |key, record| {
            if page.items.len() == range.limit {
                page.more = true;
                return ControlFlow::Break(());
            }
            page.items.push((key.clone(), record.clone()));
            ControlFlow::Continue(())
        });
        Ok(page)
    }

    pub(crate) fn count(&self, range: &Range) -> Result<usize, HistoryError> {
        let revision = self.readable(range.at.unwrap_or(self.revision))?;
        if revision == self.revision {
            return Ok(self.keys.span(range.start.as_bytes(), range.end.as_ref().map(Key::as_bytes)).count());
        }
        let mut count = 0;
        self.walk(range, revision, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        Ok(count)
    }

    /// Visit the keys of a range as they were at a readable revision, in its order.
    fn walk(
        &self,
        range: &Range,
        at: Revision,
        visit: &mut dyn FnMut(&Key, &Arc<Record>) -> ControlFlow<()>,
    ) {
        let (start, end) = (range.start.as_bytes(), range.end.as_ref().map(Key::as_bytes));
        let current = in_order(self.keys.span(start, end), range.order);
        if at == self.revision {
            let _ = { current }.try_for_each(|(key, record)| visit(key, record));
            return;
        }
        // The keys of then are among the keys of now and those touched since: both are sorted, so merge them.
        let mut current = current.peekable();
        let mut touched = in_order(self.history.touched(start, end), range.order).peekable();
        loop {
            let turn = match (current.peek(), touched.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((now, _)), Some((then, _))) => match range.order {
                    Order::Ascending => now.cmp(then),
                    Order::Descending => then.cmp(now),
                },
            };
            let now = if turn.is_le() { current.next() } else { None };
            let then = if turn.is_ge() { touched.next() } else { None };
            let Some(key) = now.map(|(key, _)| key).or(then.map(|(key, _)| key)) else { return };
            let record =
                self.history.value_at(then.map(|(_, touches)| touches), now.map(|(_, record)| record), at);
            if record.is_some_and(|record| visit(key, &record).is_break()) {
                return;
            }
        }
    }
}

fn in_order<'a, T: 'a>(
    items: impl DoubleEndedIterator<Item = T> + 'a,
    order: Order,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match order {
        Order::Ascending => Box::new(items),
        Order::Descending => Box::new(items.rev()),
    }
}
