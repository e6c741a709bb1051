//! ① How a read is meant: how fresh, as of when, and whether to wait for something newer.

use std::time::{Duration, Instant};

use coracle_api::{Code, Problem, Span};
use coracle_raft::node::{Node, Watch};
use coracle_store::{HistoryError, Revision, Selection, Store};
use futures::FutureExt;
use http::header;

use super::call::Call;
use super::problem::{Answer, Refused, bad_query};
use super::respond;
use crate::edge::{Admitted, Edge};

/// Consistency of a read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// Whatever this node has, unless it is older than `max_stale`.
    stale: bool,
    max_stale: Option<Span>,
    /// This node must have at least this revision.
    min_revision: Option<Revision>,
}

/// A long poll: answer when something after `after` happened, or nothing did for `wait`.
#[derive(Debug, Clone, Copy)]
pub struct LongPoll {
    pub wait: Span,
    pub after: Option<Revision>,
}

/// Form of an answer or stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Raw,
    Json,
    Ndjson,
    Sse,
}

impl Call {
    /// `consistency`, `max_stale`, `min_revision`.
    pub fn reading(&mut self) -> Answer<Reading> {
        let stale =
            self.query.word("consistency", &[("linearizable", false), ("stale", true)])?.unwrap_or(false);
        let max_stale = self.query.span("max_stale", Span::ZERO..=Span::MAX)?;
        let min_revision = self.query.number("min_revision", 0..=u64::MAX)?.map(Revision);
        if max_stale.is_some() && !stale {
            return Err(bad_query("max_stale", "only with consistency=stale"));
        }
        Ok(Reading { stale, max_stale, min_revision })
    }

    /// `wait` with `after`.
    pub fn long_poll(&mut self) -> Answer<Option<LongPoll>> {
        let wait = self.wait()?;
        let after = self.query.number("after", 0..=u64::MAX)?.map(Revision);
        match (wait, after) {
            (Some(wait), after) => Ok(Some(LongPoll { wait, after })),
            (None, Some(_)) => Err(bad_query("after", "only with wait or watch=true")),
            (None, None) => Ok(None),
        }
    }

    /// `format=`, or what the `Accept` header asks for; `None` if neither says anything.
    pub fn format(&mut self, words: &[(&str, Format)]) -> Answer<Option<Format>> {
        if let Some(format) = self.query.word("format", words)? {
            return Ok(Some(format));
        }
        let Some(accept) = self.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()) else {
            return Ok(None);
        };
        let asked = match accept.split([',', ';']).next().unwrap_or_default().trim() {
            "text/event-stream" => Format::Sse,
            "application/x-ndjson" => Format::Ndjson,
            // Libraries that name JSON first but take anything are not asking for an envelope.
            "application/json" if !accept.contains("*/*") => Format::Json,
            _ => return Ok(None),
        };
        Ok(words.iter().any(|(_, format)| *format == asked).then_some(asked))
    }

    /// Wait until this node has a revision, which may never come to be.
    pub async fn reach(&self, revision: Revision) -> Answer<()> {
        if self.edge.node.wait_revision(revision, self.deadline).await.is_ok() {
            return Ok(());
        }
        let newest = self.edge.node.read(Store::revision);
        let detail = format!("this node has not got so far in time min_revision={revision} newest={newest}");
        let problem = Problem::new(Code::NotReady, detail);
        Err(problem.with("min_revision", revision.0).with("newest", newest.0).at_revision(newest.0).into())
    }

    /// Bring this node to where the read may look.
    pub async fn settle(&self, reading: Reading) -> Answer<()> {
        if let Some(revision) = reading.min_revision {
            self.reach(revision).await?;
        }
        let too_old = |max: Span| self.edge.node.staleness() > max.as_duration();
        if !reading.stale || reading.max_stale.is_some_and(too_old) {
            self.barrier().await?;
        }
        Ok(())
    }

    /// The rest of a JSON read's parameters, and the wait they ask for. `Some`: nothing in the selection has changed up
    /// to that revision, answer 304.
    pub async fn ready(&mut self, selection: Selection) -> Answer<Option<Revision>> {
        let reading = self.reading()?;
        let poll = self.long_poll()?;
        self.format(&[("json", Format::Json)])?;
        self.query.done()?;
        let Some(poll) = poll else {
            self.settle(reading).await?;
            return Ok(None);
        };
        let (changed, revision) = Box::pin(self.until_changed(poll, selection, reading)).await?;
        Ok((!changed).then_some(revision))
    }

    /// Wait until `find` finds what it looks for, at most `wait`; it looks again at each change within the selection. The
    /// state is as fresh as a linearizable read from the beginning. `None`: it was not found in time.
    pub async fn until<T>(
        &mut self,
        selection: Selection,
        wait: Span,
        find: impl Fn(&Store) -> Option<T>,
    ) -> Answer<(Option<T>, Revision)> {
        let end = Instant::now() + wait.as_duration();
        let node = self.edge.node.clone();
        let mut watch = node.watch(selection);
        self.barrier().await?;
        let look = || node.read(|store| (find(store), store.revision()));
        let mut found = look();
        if found.0.is_some() || wait.is_zero() {
            return Ok(found);
        }
        let _place = self.edge.park()?;
        self.park();
        let edge = self.edge.clone();
        while found.0.is_none() {
            tokio::select! {
                biased;
                () = edge.drained() => return Err(Edge::shutting_down()),
                _ = watch.changed() => found = look(),
                () = tokio::time::sleep_until(end.into()) => break,
            }
        }
        self.deadline = self.fresh_deadline();
        Ok(found)
    }

    /// Wait until something in the selection has changed after the poll's revision. True: it has. False: nothing did
    /// in time, up to and including the revision answered.
    pub async fn until_changed(
        &mut self,
        poll: LongPoll,
        selection: Selection,
        reading: Reading,
    ) -> Answer<(bool, Revision)> {
        let Some(quiet) = self.quiet(poll, selection, reading).await? else {
            return Ok((true, self.edge.node.read(Store::revision)));
        };
        let found = quiet.wait().await?;
        self.deadline = self.fresh_deadline();
        Ok(found)
    }

    /// The same for a read that needs nothing of the call any more: what waits is only the answer. It is given the
    /// revision up to which nothing has changed, if nothing has.
    pub async fn answer_when_changed(
        mut self,
        poll: LongPoll,
        selection: Selection,
        reading: Reading,
        answer: impl FnOnce(&Edge, Option<Revision>) -> Answer + Send + 'static,
    ) -> Answer {
        let Some(quiet) = self.quiet(poll, selection, reading).await? else {
            return answer(&self.edge, None);
        };
        Ok(respond::later(async move {
            let edge = quiet.edge.clone();
            let (changed, revision) = quiet.wait().await?;
            answer(&edge, (!changed).then_some(revision))
        }))
    }

    /// What to wait on; `None` if something has changed already. The call's place among those worked on is given up.
    async fn quiet(
        &mut self,
        poll: LongPoll,
        selection: Selection,
        reading: Reading,
    ) -> Answer<Option<Quiet>> {
        let edge = self.edge.clone();
        let watch = edge.node.watch(selection.clone());
        self.settle(reading).await?;
        let (after, touched) = edge.node.read(|store| {
            let after = poll.after.unwrap_or_else(|| store.revision());
            (after, touched_since(store, &selection, after))
        });
        if touched {
            return Ok(None);
        }
        let place = edge.park()?;
        self.park();
        let end = Instant::now() + jittered(poll.wait.as_duration());
        Ok(Some(Quiet { edge, watch, after, end, place }))
    }
}

/// A long poll for which nothing has changed yet.
struct Quiet {
    edge: Edge,
    watch: Watch,
    after: Revision,
    end: Instant,
    place: Admitted,
}

impl Quiet {
    /// Wait for a change or the end. True: something has changed.
    async fn wait(self) -> Answer<(bool, Revision)> {
        let Self { edge, mut watch, after, end, place } = self;
        let changed = loop {
            tokio::select! {
                biased;
                () = edge.drained() => return Err(Edge::shutting_down()),
                revision = watch.changed() => if revision > after { break true },
                () = tokio::time::sleep_until(end.into()) => break false,
            }
        };
        drop(place);
        if changed {
            return Ok((true, edge.node.read(Store::revision)));
        }
        let (quiet, revision) = Box::pin(quiet_up_to(&edge.node, &mut watch, edge.deadline())).await?;
        Ok((!quiet, revision))
    }
}

/// A revision this node has applied, and whether the watch had nothing to tell up to it.
pub async fn quiet_up_to(node: &Node, watch: &mut Watch, deadline: Instant) -> Answer<(bool, Revision)> {
    let revision = node.read(Store::revision);
    // Watchers are told before the revision is announced as reached: after this nothing up to it is under way.
    node.wait_revision(revision, deadline).await.map_err(Refused::from)?;
    Ok((watch.changed().now_or_never().is_none(), revision))
}

/// Whether the selection has changed after a revision, as far as history tells; what is compacted counts as changed.
fn touched_since(store: &Store, selection: &Selection, after: Revision) -> bool {
    if after >= store.revision() {
        return false;
    }
    if let Selection::Key(key) = selection
        && let Some(record) = store.get(key)
    {
        return record.mod_revision > after;
    }
    match store.changes_after(after) {
        Err(HistoryError::Compacted(_) | HistoryError::Future(_)) => true,
        Ok(mut changes) => changes.any(|change| change.events.iter().any(|event| selection.concerns(event))),
    }
}

/// Up to 1/16 longer, so that the polls of many clients do not stay in step.
fn jittered(wait: Duration) -> Duration {
    wait + wait.mul_f64(rand::random::<f64>() / 16.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_up_to_a_sixteenth() {
        for _ in 0..1000 {
            let wait = jittered(Duration::from_secs(16));
            assert!(wait >= Duration::from_secs(16) && wait <= Duration::from_secs(17), "{wait:?}");
        }
    }
}
