//! ③ What comes in the same moment, taken together.
//!
//! A node that is busy has more to do with each turn of its runtime; what it gathers then costs one write, one system
//! call, one wake-up instead of many. A node that is idle waits for nobody. Lock + release at 64 clients over three nodes:
//! a tenth less processor.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout_at;

/// How often others may add something before it is taken all the same.
const TURNS: usize = 8;
/// As `enough`: everything that comes along.
pub const ALL: usize = usize::MAX;

/// Things that wait for one task to take all of them.
pub struct Gather<T> {
    waiting: Mutex<Vec<T>>,
    arrived: Notify,
}

impl<T> Gather<T> {
    pub fn put(&self, thing: T) {
        self.waiting().push(thing);
        self.arrived.notify_one();
    }

    /// Wait for something, and for whatever comes with it; in the order in which it came. With `enough` of them it no
    /// longer waits for more, though more may have come.
    pub async fn next(&self, enough: usize) -> Vec<T> {
        loop {
            company(enough, || self.len()).await;
            let together = self.take();
            if !together.is_empty() {
                return together;
            }
            self.arrived.notified().await;
        }
    }

    /// Wait until so many are there, or it is too late for them; whether they came in time. For the task that takes them.
    pub async fn reach(&self, count: usize, deadline: Instant) -> bool {
        loop {
            let came = self.len() >= count;
            let late = Instant::now() > deadline;
            if came || late {
                return came && !late;
            }
            let _ = timeout_at(deadline.into(), self.arrived.notified()).await;
        }
    }

    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    /// All of them, or none.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.waiting())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Gather<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), arrived: Notify::new() }
    }
}

/// Let everything run that is ready to, as long as that adds to what is counted and it is not `enough`.
pub async fn company(enough: usize, count: impl Fn() -> usize) {
    let mut seen = count();
    for _ in 0..TURNS {
        if seen == 0 || seen >= enough {
            return;
        }
        yield_now().await;
        let now = count();
        if now == seen {
            return;
        }
        seen = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_others_are_about_to_add_comes_along() {
        let gather = Arc::new(Gather::default());
        let taker = tokio::spawn({
            let gather = gather.clone();
            async move { gather.next(ALL).await }
        });
        put_and_go_on(gather, 0);
        assert_eq!(taker.await.unwrap(), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn enough_is_not_made_to_wait_for_more() {
        let gather = Arc::new(Gather::default());
        gather.put(7);
        put_and_go_on(gather.clone(), 0);
        assert_eq!(gather.next(1).await, [7]);
        assert_eq!(gather.next(ALL).await, [0, 1, 2, 3]);
    }

    /// Each puts one number, and makes the next one ready to.
    fn put_and_go_on(gather: Arc<Gather<u32>>, number: u32) {
        tokio::spawn(async move {
            gather.put(number);
            if number < 3 {
                put_and_go_on(gather, number + 1);
            }
        });
    }

    #[tokio::test]
    async fn so_many_are_waited_for_until_it_is_too_late() {
        let gather = Arc::new(Gather::default());
        let (soon, over) = (Instant::now() + Duration::from_mins(1), Instant::now());
        put_and_go_on(gather.clone(), 0);
        assert!(gather.reach(4, soon).await);
        assert!(!gather.reach(5, over).await, "nobody else comes");
        assert!(!gather.reach(4, over).await, "they are there, but nobody knows since when");
        assert_eq!(gather.next(ALL).await, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn nobody_holds_it_up_for_ever() {
        let gather = Arc::new(Gather::default());
        let endless = tokio::spawn({
            let gather = gather.clone();
            async move {
                loop {
                    gather.put(());
                    yield_now().await;
                }
            }
        });
        assert!(gather.next(ALL).await.len() <= TURNS + 2);
        endless.abort();
    }
}
