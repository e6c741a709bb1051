//! The read barrier: read index, one round for all reads that wait.
//!
//! A read that arrives while a round is under way waits for the next one: only a round that *began* after the read
//! arrived proves anything about it. On a follower the round is one question to the leader.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::gather::{ALL, Gather};

/// What a round answers: the log index to have applied before reading.
pub type Round<E> = Result<u64, E>;

/// Who is told the outcome of a round.
type Done<E> = Box<dyn FnOnce(Round<E>) + Send>;

/// Reads waiting for the next round.
pub struct ReadBarrier<E> {
    waiting: Gather<Done<E>>,
}

impl<E: Clone + Send + 'static> ReadBarrier<E> {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { waiting: Gather::default() })
    }

    /// Join the next round. `None` if the node is gone.
    pub async fn join(&self) -> Option<Round<E>> {
        let (done, answer) = oneshot::channel();
        self.enqueue(move |round| {
            let _ = done.send(round);
        });
        answer.await.ok()
    }

    /// As [`ReadBarrier::join`], with a callback: run on the task that serves the rounds, so short.
    pub fn enqueue(&self, done: impl FnOnce(Round<E>) + Send + 'static) {
        self.waiting.put(Box::new(done));
    }

    /// Run rounds, one after the other, for ever: `ask` finds out the index for everybody who waited when it began.
    pub async fn serve<F: Future<Output = Round<E>>>(&self, ask: impl Fn() -> F) {
        loop {
            let batch = self.waiting.next(ALL).await;
            let round = ask().await;
            for read in batch {
                read(round.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_read_never_shares_a_round_that_began_before_it() {
        let barrier = ReadBarrier::<()>::new();
        let rounds = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Notify::new());
        let server = tokio::spawn({
            let (barrier, rounds, gate) = (barrier.clone(), rounds.clone(), gate.clone());
            async move {
                barrier
                    .serve(|| async {
                        let round = rounds.fetch_add(1, Ordering::SeqCst) + 1;
                        gate.notified().await;
                        Ok(round)
                    })
                    .await;
            }
        });
        let first = tokio::spawn({
            let barrier = barrier.clone();
            async move { barrier.join().await }
        });
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut late: Vec<_> = (0..5).map(|_| Box::pin(barrier.join())).collect();
        for read in &mut late {
            assert!(futures::poll!(read).is_pending());
        }
        gate.notify_one();
        assert_eq!(first.await.unwrap(), Some(Ok(1)));
        gate.notify_one();
        for read in late {
            assert_eq!(read.await, Some(Ok(2)), "all five in one round, the one after they came");
        }
        server.abort();
    }
}
