//! Renewals: gathered, and acknowledged together after one read-index round has confirmed the lead.
//!
//! A deposed leader that has not noticed yet cannot get through the round, so it never acknowledges a renewal that its
//! successor does not count: the successor gives every session its full time when it takes over, which is later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_store::{Millis, SessionId};

use super::deadlines::Renewal;
use crate::forward::{Answer, Failure};
use crate::gather::{ALL, Gather};
use crate::inner::Inner;

/// How soon to look again at a session whose expiry is being decided.
const EXPIRING_PAUSE: Duration = Duration::from_millis(20);
/// How long applying up to the read index may take.
const APPLY: Duration = Duration::from_secs(5);

/// Renewals waiting for the next round.
pub type Renewals = Gather<Waiting>;

pub struct Waiting {
    session: SessionId,
    arrival: Instant,
    deadline: Instant,
    done: Box<dyn FnOnce(Answer) + Send>,
}

impl Gather<Waiting> {
    /// Renew a session as of now; `done` hears [`Answer::Renewed`], [`Answer::SessionExpired`] or [`Answer::Failed`].
    pub fn enqueue(&self, session: SessionId, deadline: Instant, done: impl FnOnce(Answer) + Send + 'static) {
        self.put(Waiting { session, arrival: Instant::now(), deadline, done: Box::new(done) });
    }
}

/// Serve rounds until the node stops.
pub async fn run(node: Arc<Inner>) {
    loop {
        let batch = node.renewals.next(ALL).await;
        if confirm(&node).await {
            settle(&node, batch);
        } else {
            for renewal in batch {
                (renewal.done)(Answer::Failed(Failure::NotLeader));
            }
        }
    }
}

/// This node leads, and has applied everything that was committed when the round began.
async fn confirm(node: &Inner) -> bool {
    match node.barrier.join().await {
        Some(Ok(index)) => {
            node.leads() && node.shared.index.wait(index, Instant::now() + APPLY).await.is_ok()
        }
        _ => false,
    }
}

fn settle(node: &Arc<Inner>, batch: Vec<Waiting>) {
    let mut later = Vec::new();
    let mut answers = Vec::with_capacity(batch.len());
    {
        let applied = node.shared.read();
        let mut deadlines = node.deadlines();
        for renewal in batch {
            let answer = match (applied.store.session(renewal.session), deadlines.as_mut()) {
                (None, _) => Answer::SessionExpired,
                (Some(_), None) => Answer::Failed(Failure::NotLeader),
                (Some(session), Some(table)) => {
                    // Applied a moment ago and not in the table yet.
                    table.arm(session, renewal.arrival);
                    match table.renew(renewal.session, renewal.arrival) {
                        Renewal::Renewed(ttl) => {
                            Answer::Renewed(Millis(u64::try_from(ttl.as_millis()).unwrap_or(0)))
                        }
                        Renewal::Unknown => Answer::Failed(Failure::NotLeader),
                        Renewal::Expiring if Instant::now() < renewal.deadline => {
                            later.push(renewal);
                            continue;
                        }
                        Renewal::Expiring => Answer::Failed(Failure::Unknown),
                    }
                }
            };
            answers.push((renewal.done, answer));
        }
    }
    for (done, answer) in answers {
        done(answer);
    }
    if !later.is_empty() {
        let node = node.clone();
        tokio::spawn(async move {
            tokio::time::sleep(EXPIRING_PAUSE).await;
            for renewal in later {
                node.renewals.put(renewal);
            }
        });
    }
}
