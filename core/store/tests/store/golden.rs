//! The conversations in testdata, replayed. `REWRITE=1` writes what the store answers now: review it as a diff.

use crate::script::Script;

fn replay(topic: &str) {
    datadriven::walk(&format!("testdata/{topic}"), |file| {
        let mut script = Script::new();
        file.run(|case| script.answer(case));
    });
}

#[test]
fn mvcc() {
    replay("mvcc");
}

#[test]
fn txn() {
    replay("txn");
}

#[test]
fn session() {
    replay("session");
}

#[test]
fn watch() {
    replay("watch");
}

#[test]
fn idempotency() {
    replay("idempotency");
}

#[test]
fn quota() {
    replay("quota");
}

#[test]
fn compaction() {
    replay("compaction");
}
