//! Waiting until this node has applied a log index or reached a revision.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

/// A number that only grows, and those who wait for it to reach theirs.
///
/// One map instead of a watch channel: a waiter is woken once, when its number is reached, not at every step. Deadlines
/// are swept by a coarse tick ([`Progress::expire`]), not by a timer each.
#[derive(Default)]
pub struct Progress {
    reached: AtomicU64,
    waiters: Mutex<BTreeMap<u64, Vec<Waiter>>>,
}

struct Waiter {
    deadline: Instant,
    done: oneshot::Sender<()>,
}

/// The number was not reached before the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

impl Progress {
    #[must_use]
    pub fn starting_at(number: u64) -> Self {
        Self { reached: AtomicU64::new(number), waiters: Mutex::default() }
    }

    #[must_use]
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// The number is now `number`; wakes everybody who waited for it or less. Never moves back.
    pub fn advance(&self, number: u64) {
        self.reached.fetch_max(number, Ordering::AcqRel);
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(first) = waiters.first_entry() {
            if *first.key() > number {
                break;
            }
            for waiter in first.remove() {
                let _ = waiter.done.send(());
            }
        }
    }

    /// Wait for `number`.
    ///
    /// # Errors
    /// [`Late`] at the first sweep after the deadline.
    pub async fn wait(&self, number: u64, deadline: Instant) -> Result<(), Late> {
        if self.reached() >= number {
            return Ok(());
        }
        let (done, woken) = oneshot::channel();
        {
            let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            // Looked at again under the lock: `advance` raises the number before it takes the lock.
            if self.reached() >= number {
                return Ok(());
            }
            waiters.entry(number).or_default().push(Waiter { deadline, done });
        }
        woken.await.map_err(|_| Late)
    }

    /// Give up on those whose deadline has passed, and forget those who no longer listen.
    pub fn expire(&self, now: Instant) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|_, list| {
            list.retain(|waiter| waiter.deadline > now && !waiter.done.is_closed());
            !list.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_waiter_is_woken_when_its_number_is_reached_and_not_before() {
        let progress = Progress::starting_at(3);
        let later = Instant::now() + Duration::from_mins(1);
        progress.wait(3, later).await.unwrap();
        let mut five = Box::pin(progress.wait(5, later));
        assert!(futures::poll!(&mut five).is_pending());
        progress.advance(4);
        assert!(futures::poll!(&mut five).is_pending());
        progress.advance(6);
        assert_eq!(five.await, Ok(()));
    }

    #[tokio::test]
    async fn the_sweep_ends_those_who_are_late() {
        let progress = Progress::default();
        let now = Instant::now();
        let mut one = Box::pin(progress.wait(1, now));
        assert!(futures::poll!(&mut one).is_pending());
        progress.expire(now);
        assert_eq!(one.await, Err(Late));
    }
}
