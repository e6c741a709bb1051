//! Fair lines by name, within one node: of those who wait for the same thing only the first is woken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Line = Arc<tokio::sync::Mutex<()>>;

/// All lines that somebody stands in.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<BTreeMap<String, Line>>>);

/// The first place in a line, until it is dropped.
#[derive(Debug)]
pub struct First {
    lines: Lines,
    name: String,
    place: Option<OwnedMutexGuard<()>>,
}

impl Lines {
    /// Stand in a line until it is one's turn, in order of arrival.
    pub async fn first(&self, name: String) -> First {
        let line =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone();
        // Whoever leaves while waiting leaves the line as well.
        let mut first = First { lines: self.clone(), name, place: None };
        first.place = Some(line.lock_owned().await);
        first
    }
}

impl Drop for First {
    fn drop(&mut self) {
        self.place = None;
        let mut lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A line that nobody else stands in is forgotten.
        if lines.get(&self.name).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_in_order_and_nothing_is_left() {
        let lines = Lines::default();
        let first = lines.first("a".into()).await;
        let other = lines.first("b".into()).await;
        let mut second = Box::pin(lines.first("a".into()));
        let mut third = Box::pin(lines.first("a".into()));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(second);
        drop(first);
        drop(third.await);
        drop(other);
        assert!(lines.0.lock().unwrap().is_empty());
    }
}
