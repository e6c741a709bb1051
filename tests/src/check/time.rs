//! C3: revisions respect real time.

use crate::history::{Action, History};

/// What returned before another was called has no higher revision, and a lower one if the other changed something.
pub fn check(history: &History, wrong: &mut Vec<String>) {
    let known = history.ops.iter().filter_map(|op| Some((op, op.revision()?)));
    let mut by_call: Vec<_> = known.collect();
    let mut by_ret = by_call.clone();
    by_call.sort_by_key(|(op, _)| op.call);
    by_ret.sort_by_key(|(op, _)| op.ret);
    let mut returned = by_ret.into_iter().peekable();
    let mut newest: Option<(&crate::history::Op, u64)> = None;
    for (op, revision) in by_call {
        while let Some(before) = returned.next_if(|(before, _)| before.ret < op.call) {
            newest = newest.filter(|(_, seen)| *seen >= before.1).or(Some(before));
        }
        // A stale read may be old; an acquire repeated answers the grant it had.
        if matches!(op.action, Action::Get { stale: true, .. }) {
            continue;
        }
        if let Some((before, seen)) = newest
            && (revision < seen || (op.changed() && revision == seen))
        {
            wrong.push(format!("C3: {before:?} came before {op:?}"));
        }
    }
}
