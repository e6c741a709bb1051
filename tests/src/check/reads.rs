//! C4, C7: what was read is what the log says at that revision.

use crate::history::{Action, Answer, History, Outcome};
use crate::replay::Replay;

pub fn check(history: &History, replay: &Replay, wrong: &mut Vec<String>) {
    for op in &history.ops {
        let Outcome::Ok { revision, answer } = &op.outcome else { continue };
        match (&op.action, answer) {
            (Action::Get { key, min_revision, .. }, Answer::Item(item)) => {
                if item.as_ref() != replay.at(key, *revision) {
                    wrong.push(format!("C4: the log says {:?}: {op:?}", replay.at(key, *revision)));
                }
                if revision < min_revision {
                    wrong.push(format!("C7: older than asked for: {op:?}"));
                }
                if *revision > replay.revision() {
                    wrong.push(format!("C7: from the future: {op:?}"));
                }
            }
            (Action::List { prefix }, Answer::Items(items)) => {
                let expected = replay.list(prefix, *revision);
                if *items != expected {
                    wrong.push(format!("C4: the log says {expected:?}: {op:?}"));
                }
            }
            (Action::Get { .. } | Action::List { .. }, _) => {
                wrong.push(format!("a read answered {answer:?}"));
            }
            _ => {}
        }
    }
}
