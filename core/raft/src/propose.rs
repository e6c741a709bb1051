//! ③ Propose: into this node's Raft if it leads, otherwise over the peer connection to the leader.
//!
//! Only what certainly had no effect is tried again here. Everything else is the client's decision, with its
//! idempotency key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_store::{Action, Command, Operation, Reply};
use futures::FutureExt;
use openraft::errors::ClientWriteError;
use tokio::sync::{Notify, oneshot};
use tokio::time::{timeout, timeout_at};

use crate::forward::{Answer, Ask, Failure, Request};
use crate::gather::ALL;
use crate::inner::Inner;
use crate::network::CallError;
use crate::node::Circumstance;
use crate::returns::Returns;
use crate::types::{NodeId, Payload, Respond, WriteResult};

/// Proposals under way in this node's Raft above which new ones are refused, and a little more for those that free
/// something.
const PENDING: u64 = 4096;
const PENDING_DRAIN: u64 = 6144;
/// A node without peers hands over this many as soon as it has them: what a batch costs is an fsync on a thread of its
/// own, and while that one waits for the disk the next are read. With peers a batch costs all of them.
const ALONE: usize = 8;
/// How long to wait for those who have been answered: so many times what their answers took, but no longer than this.
const PATIENCE: u32 = 3;
const PATIENCE_ENDS: Duration = Duration::from_millis(10);
/// Answers that take longer are not waited for: where they do, batches had better follow each other closely.
const SLOW: Duration = Duration::from_millis(20);
/// How long to wait for a leader to show up before looking again.
const LEADER_PAUSE: Duration = Duration::from_millis(20);

impl Inner {
    pub async fn propose(&self, command: Bytes, deadline: Instant) -> Result<Reply, Circumstance> {
        let request = Request::Write(command.clone());
        loop {
            self.check_running()?;
            let attempt = match self.leader() {
                None => Err(Circumstance::NoLeader),
                Some(leader) if leader == self.id => self.propose_here(command.clone(), deadline).await,
                Some(leader) => match self.ask(leader, &request, deadline).await? {
                    Answer::Reply(reply) => Ok(reply),
                    Answer::Failed(failure) => Err(failure.into()),
                    _ => Err(Circumstance::Lost),
                },
            };
            match attempt {
                Err(Circumstance::NoLeader) => self.pause(deadline).await?,
                decided => return decided,
            }
        }
    }

    /// Ask the leader, wherever it is, until it answers or the deadline passes. For questions that may be repeated.
    pub async fn ask_leader(&self, ask: Ask, deadline: Instant) -> Result<Answer, Circumstance> {
        let request = Request::Ask(ask.clone());
        loop {
            self.check_running()?;
            let answer = match self.leader() {
                None => Answer::Failed(Failure::NotLeader),
                Some(leader) if leader == self.id => self.answer(ask.clone(), deadline).await,
                Some(leader) => match self.ask(leader, &request, deadline).await {
                    Ok(answer) => answer,
                    Err(Circumstance::NoLeader) => Answer::Failed(Failure::NotLeader),
                    Err(other) => return Err(other),
                },
            };
            match answer {
                Answer::Failed(failure) => match failure.into() {
                    Circumstance::NoLeader => self.pause(deadline).await?,
                    other => return Err(other),
                },
                answer => return Ok(answer),
            }
        }
    }

    /// One question to one peer. What was certainly not asked is `NoLeader`, and may be tried again.
    pub async fn ask(
        &self,
        peer: NodeId,
        request: &Request,
        deadline: Instant,
    ) -> Result<Answer, Circumstance> {
        match self.peers.ask(peer, deadline, |out| request.encode(out)).await {
            Ok(bytes) => Answer::decode(&bytes).ok_or(Circumstance::Lost),
            Err(CallError::Unreachable(_) | CallError::Refused(_)) => Ok(Answer::Failed(Failure::NotLeader)),
            Err(CallError::Overloaded) => Err(Circumstance::Overloaded),
            Err(CallError::Timeout) => Err(Circumstance::CommitTimeout),
            Err(CallError::Lost | CallError::Failed(_)) => Err(Circumstance::Lost),
        }
    }

    async fn propose_here(&self, command: Bytes, deadline: Instant) -> Result<Reply, Circumstance> {
        let (done, reply) = oneshot::channel();
        self.submit(command, move |result| {
            let _ = done.send(result);
        });
        match timeout_at(deadline.into(), reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Circumstance::Lost),
            Err(_) => Err(Circumstance::CommitTimeout),
        }
    }

    /// Hand a command to this node's Raft. `done` is called exactly once: on the task that applies it, or before this
    /// returns if it is refused.
    pub fn submit(&self, command: Bytes, done: impl FnOnce(Result<Reply, Circumstance>) + Send + 'static) {
        if let Err(circumstance) = self.admit_command(&command) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return done(Err(circumstance));
        }
        self.proposed.fetch_add(1, Ordering::Relaxed);
        let (done, answering) = (Once(Some(done)), Answering(self.answered.clone()));
        let respond = Respond::new(move |result: WriteResult| {
            drop(answering);
            done.call(outcome(result));
        });
        let payload = Payload { time: self.shared.clock.stamp(), command };
        self.proposals.put((payload, respond));
    }

    /// Hand over what was submitted to Raft, for ever: what comes together is one write of the log.
    ///
    /// A node with peers waits for those whom it has just answered, if they tend to come back at once (ADR 0014).
    pub async fn hand_over(&self) {
        let mut returns = Returns::default();
        let mut handed = 0;
        let mut everybody = ALL;
        loop {
            let alone = self.peers.is_empty();
            let batch = self.proposals.next(if alone { ALONE } else { everybody }).await;
            let (began, count) = (Instant::now(), batch.len());
            handed += count as u64;
            for (payload, respond) in batch {
                // The channel is larger than the bound on pending proposals, so this never has to wait. Unconstrained,
                // because a task that has used up its cooperative budget would see a full channel where there is none.
                let write = self.raft.client_write_ff(payload, Some(respond));
                if !matches!(tokio::task::unconstrained(write).now_or_never(), Some(Ok(()))) {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            everybody = ALL;
            if !alone && returns.expected() {
                let answered = timeout(SLOW, self.answered.reach(handed)).await.is_ok();
                let newcomers = self.proposals.len();
                everybody = newcomers + count;
                let until = Instant::now() + PATIENCE_ENDS.min(PATIENCE * began.elapsed());
                let back = answered && self.proposals.reach(everybody, until).await;
                returns.came(back && newcomers <= count / 8);
            }
        }
    }

    /// Proposals of this node's Raft that are not answered yet.
    pub fn pending(&self) -> u64 {
        let answered = self.answered.count();
        self.proposed.load(Ordering::Relaxed).saturating_sub(answered)
    }

    fn admit_command(&self, command: &Bytes) -> Result<(), Circumstance> {
        self.check_running()?;
        let pending = self.pending();
        if pending >= PENDING && !(pending < PENDING_DRAIN && self.drains(command)) {
            return Err(Circumstance::Overloaded);
        }
        if self.wal.is_full() && !self.drains(command) {
            return Err(Circumstance::Full);
        }
        Ok(())
    }

    /// Does this command only give things back? Looked at only under pressure.
    fn drains(&self, command: &Bytes) -> bool {
        let Ok(command) = Command::decode(command) else { return false };
        match command.action {
            Action::Expire(_) | Action::Compact(_) | Action::Advance => true,
            Action::Noop | Action::Doubt(..) | Action::Configure(_) | Action::Transaction(_) => false,
            Action::One(operation) => match operation {
                Operation::Delete(_) | Operation::DeleteRange(_) | Operation::CloseSession(_) => true,
                Operation::Program(bytes) => self.shared.read().store.program_drains(&bytes),
                Operation::Put(_)
                | Operation::Append(_)
                | Operation::Get(_)
                | Operation::OpenSession(_)
                | Operation::UpdateSession(_) => false,
            },
        }
    }

    pub fn check_running(&self) -> Result<(), Circumstance> {
        if let Some(reason) = self.shared.failure() {
            return Err(Circumstance::Stopped(reason));
        }
        if self.shared.stopping() {
            return Err(Circumstance::ShuttingDown);
        }
        Ok(())
    }

    /// Wait a moment for a leader to show up.
    ///
    /// # Errors
    /// [`Circumstance::NoLeader`] if the deadline is over.
    pub async fn pause(&self, deadline: Instant) -> Result<(), Circumstance> {
        let now = Instant::now();
        if now >= deadline {
            return Err(Circumstance::NoLeader);
        }
        let mut changes = self.shared.leader_changes();
        let until = deadline.min(now + LEADER_PAUSE);
        let _ = timeout_at(until.into(), changes.changed()).await;
        Ok(())
    }

    pub async fn read_barrier(&self, deadline: Instant) -> Result<(), Circumstance> {
        loop {
            self.check_running()?;
            match self.barrier.join().await {
                None => return Err(Circumstance::ShuttingDown),
                Some(Ok(index)) => {
                    return self.shared.index.wait(index, deadline).await.map_err(|_| Circumstance::NoLeader);
                }
                Some(Err(Circumstance::NoLeader)) => self.pause(deadline).await?,
                Some(Err(other)) => return Err(other),
            }
        }
    }
}

fn outcome(result: WriteResult) -> Result<Reply, Circumstance> {
    match result {
        Ok(response) => Ok(response.data),
        Err(ClientWriteError::ForwardToLeader(_)) => Err(Circumstance::NoLeader),
        Err(_) => Err(Circumstance::Lost),
    }
}

/// What goes into the log, and who hears of it.
pub type Proposal = (Payload, Respond<WriteResult>);

/// How many proposals have been answered, ever.
#[derive(Default)]
pub struct Answered {
    count: AtomicU64,
    more: Notify,
}

impl Answered {
    fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Wait until it is so many. For one task.
    async fn reach(&self, count: u64) {
        while self.count() < count {
            self.more.notified().await;
        }
    }
}

/// One proposal, answered when this is dropped.
struct Answering(Arc<Answered>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.more.notify_one();
    }
}

/// A callback that is told [`Circumstance::Lost`] if nobody calls it: Raft has stopped with the proposal inside.
struct Once<F: FnOnce(Result<Reply, Circumstance>)>(Option<F>);

impl<F: FnOnce(Result<Reply, Circumstance>)> Once<F> {
    fn call(mut self, result: Result<Reply, Circumstance>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl<F: FnOnce(Result<Reply, Circumstance>)> Drop for Once<F> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(Circumstance::Lost));
        }
    }
}
