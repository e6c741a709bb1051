//! Reading ranges, now and at a past revision.

use std::sync::Arc;

use crate::ids::{Key, Revision};
use crate::record::Record;
use crate::store::{HistoryError, Order, Page, Range, State};
use crate::txn::View;

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
        let view = View::at(self, range.at.unwrap_or(self.revision))?;
        let span = view.span(&range.start, range.end.as_ref());
        Ok(match range.order {
            Order::Ascending => page(span, range.limit, view.revision()),
            Order::Descending => page(span.rev(), range.limit, view.revision()),
        })
    }

    pub(crate) fn count(&self, range: &Range) -> Result<usize, HistoryError> {
        let view = View::at(self, range.at.unwrap_or(self.revision))?;
        Ok(view.span(&range.start, range.end.as_ref()).count())
    }
}

fn page<'a>(
    mut span: impl Iterator<Item = (&'a Key, &'a Arc<Record>)>,
    limit: usize,
    revision: Revision,
) -> Page {
    let items = span.by_ref().take(limit).map(|(key, record)| (key.clone(), record.clone())).collect();
    Page { items, more: span.next().is_some(), revision }
}
