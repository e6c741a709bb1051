//! C1, C5, C6, C10: what was acknowledged is there, once, where it was said to be; what was refused is not.

use std::collections::BTreeMap;

use crate::history::{Action, Answer, History, Op, Outcome};
use crate::log::{Event, Log};
use crate::replay::Replay;

/// Where each value of the load was written: it is written by one action only, so twice is once too often.
type Places<'a> = BTreeMap<&'a str, Vec<(u64, &'a Event)>>;

pub fn check(history: &History, log: &Log, replay: &Replay, wrong: &mut Vec<String>) {
    let mut places = Places::new();
    for (revision, event) in log.events("kv") {
        if let Some(value) = event.value.as_ref().filter(|value| value.starts_with("op-")) {
            places.entry(value).or_default().push((revision, event));
        }
    }
    let mut asked = BTreeMap::new();
    for op in &history.ops {
        match &op.action {
            Action::Put { key, value, if_match, session } => {
                asked.insert(value.as_str(), op);
                put(op, &places, key, value, session.as_deref(), wrong);
                matched(op, replay, key, *if_match, wrong);
            }
            Action::Delete { key, if_match } => {
                delete(op, replay, key, wrong);
                matched(op, replay, key, *if_match, wrong);
            }
            Action::Txn { guard, puts, delete, otherwise } => {
                let all = puts.iter().chain([otherwise]);
                asked.extend(all.map(|(_, value)| (value.as_str(), op)));
                txn(op, &places, replay, guard, (puts, delete.as_ref(), otherwise), wrong);
            }
            _ => {}
        }
    }
    for (value, at) in &places {
        if at.len() > 1 {
            wrong.push(format!("C10: {value} was written {} times: {at:?}", at.len()));
        }
        if !asked.contains_key(value) {
            wrong.push(format!("phantom: nobody wrote {value}: {at:?}"));
        }
    }
}

fn put(op: &Op, places: &Places<'_>, key: &str, value: &str, session: Option<&str>, wrong: &mut Vec<String>) {
    let at = places.get(value).map(Vec::as_slice).unwrap_or_default();
    match &op.outcome {
        Outcome::Ok { revision, answer: Answer::Written { version } } => {
            let fits = |(place, event): &(u64, &Event)| {
                place == revision
                    && event.name == key
                    && event.version == *version
                    && event.session.as_deref() == session
            };
            if !at.iter().any(fits) {
                wrong.push(format!("C1: acknowledged but not in the log so: {op:?}, found {at:?}"));
            }
        }
        Outcome::No { .. } if !at.is_empty() => {
            wrong.push(format!("C5: refused but in the log: {op:?}, found {at:?}"));
        }
        Outcome::Ok { answer, .. } => wrong.push(format!("a put answered {answer:?}")),
        Outcome::No { .. } | Outcome::Unknown { .. } => {}
    }
}

/// A write with a condition found it true in the revision before, and a refusal told the truth at its revision.
fn matched(op: &Op, replay: &Replay, key: &str, if_match: Option<u64>, wrong: &mut Vec<String>) {
    let Some(expected) = if_match else { return };
    let revision_of = |at| replay.at(key, at).map_or(0, |item| item.mod_revision);
    match &op.outcome {
        Outcome::Ok { revision, .. } => {
            let before = revision_of(if op.changed() { revision - 1 } else { *revision });
            if before != expected {
                wrong.push(format!("C5: matched {before}, not {expected}: {op:?}"));
            }
        }
        Outcome::No { code, revision: Some(at), current: Some(current) } if code == "revision_mismatch" => {
            if revision_of(*at) != *current || *current == expected {
                wrong.push(format!("C5: the key was at {} then: {op:?}", revision_of(*at)));
            }
        }
        Outcome::No { .. } | Outcome::Unknown { .. } => {}
    }
}

fn delete(op: &Op, replay: &Replay, key: &str, wrong: &mut Vec<String>) {
    let Outcome::Ok { revision, answer } = &op.outcome else { return };
    let fits = match answer {
        Answer::Deleted(1) => {
            replay.at(key, *revision).is_none()
                && replay.changes(key).any(|(at, item)| at == *revision && item.is_none())
        }
        Answer::Deleted(0) => replay.at(key, *revision).is_none(),
        _ => false,
    };
    if !fits {
        wrong.push(format!("C1: not deleted so: {op:?}"));
    }
}

type Branches<'a> = (&'a [(String, String)], Option<&'a String>, &'a (String, String));

fn txn(
    op: &Op,
    places: &Places<'_>,
    replay: &Replay,
    guard: &(String, u64),
    branches: Branches<'_>,
    wrong: &mut Vec<String>,
) {
    let (puts, deleted, otherwise) = branches;
    let at = |value: &str| {
        places
            .get(value)
            .map(|at| at.iter().map(|(revision, _)| *revision).collect::<Vec<_>>())
            .unwrap_or_default()
    };
    let then: Vec<Vec<u64>> = puts.iter().map(|(_, value)| at(value)).collect();
    let other = at(&otherwise.1);
    let whole = then.windows(2).all(|pair| pair[0] == pair[1]);
    if !whole || (!other.is_empty() && then.iter().any(|at| !at.is_empty())) {
        wrong.push(format!("C6: torn: {op:?}, then at {then:?}, else at {other:?}"));
    }
    match &op.outcome {
        Outcome::Ok { revision, answer: Answer::Succeeded(succeeded) } => {
            let expected = if *succeeded { &then[0] } else { &other };
            if expected != &[*revision] {
                wrong.push(format!(
                    "C1: acknowledged but not in the log so: {op:?}, then at {then:?}, else at {other:?}"
                ));
            }
            let found = replay.at(&guard.0, revision - 1).map_or(0, |item| item.mod_revision);
            if (found == guard.1) != *succeeded {
                wrong.push(format!("C6: the guard saw {found} at {}: {op:?}", revision - 1));
            }
            if let Some(key) = deleted
                && *succeeded
                && replay.at(key, *revision).is_some()
            {
                wrong.push(format!("C6: {key} survived: {op:?}"));
            }
        }
        Outcome::No { .. } if !other.is_empty() || !then.iter().all(Vec::is_empty) => {
            wrong.push(format!("C5: refused but in the log: {op:?}, then at {then:?}, else at {other:?}"));
        }
        Outcome::Ok { answer, .. } => wrong.push(format!("a transaction answered {answer:?}")),
        Outcome::No { .. } | Outcome::Unknown { .. } => {}
    }
}
