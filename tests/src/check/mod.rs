//! Whether a history fits a log: docs/RULES.md, invariants C1–C7, C10, C13, L1–L4, L7, S3.
//!
//! Each reply carries its revision, so this needs no search: an answer is right if it is what the log replayed up to
//! that revision says, and the log is a linearization if its revisions respect real time.

pub mod elections;
mod locks;
mod members;
pub mod queues;
mod reads;
mod sessions;
mod time;
mod writes;

#[cfg(test)]
mod tests;

use crate::history::History;
use crate::log::Log;
use crate::replay::Replay;

/// What is wrong; nothing if all is well. The log must begin with the first revision.
#[must_use]
pub fn violations(history: &History, log: &Log) -> Vec<String> {
    let (replay, mut wrong) = Replay::of(log);
    writes::check(history, log, &replay, &mut wrong);
    reads::check(history, &replay, &mut wrong);
    time::check(history, &mut wrong);
    locks::check(history, log, &mut wrong);
    sessions::check(log, &mut wrong);
    members::check(history, &mut wrong);
    wrong
}

/// Fails with everything that is wrong.
///
/// # Panics
/// If anything is.
pub fn holds(history: &History, log: &Log) {
    let wrong = violations(history, log);
    let shown = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} violations:\n{shown}", wrong.len());
}

/// A run that did too little proves nothing.
///
/// # Panics
/// If fewer actions of some kind succeeded, or more than a quarter of all have an unknown outcome.
pub fn did_enough(history: &History, each: usize) {
    for kind in ["put", "cas", "delete", "txn", "get", "stale", "list", "acquire", "release"] {
        assert!(history.ok(kind) >= each, "only {} of {kind}: {}", history.ok(kind), history.summary());
    }
    assert!(history.unknown() * 4 <= history.ops.len(), "too much is unknown: {}", history.summary());
}
