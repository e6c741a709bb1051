//! L1–L4, L7: tokens rise, one holder at a time, what was acknowledged was granted, nobody is overtaken. Sessions must
//! outlive the history.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{Action, Answer, History, Outcome};
use crate::log::Log;

/// One grant as the log shows it.
struct Grant {
    session: String,
    from: u64,
    until: Option<u64>,
}

/// L7: grants follow arrivals. Nobody hands a lock on in these histories.
fn in_turn(log: &Log, wrong: &mut Vec<String>) {
    let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for change in &log.changes {
        let events: Vec<_> = change.events.iter().filter(|event| event.family == "locks").collect();
        let granted = |name: &str, session: &str| {
            let is_it = |event: &&&crate::log::Event| {
                event.op == "acquired" && event.name == name && event.session.as_deref() == Some(session)
            };
            events.iter().any(|event| is_it(&event))
        };
        for event in events.iter().filter(|event| event.token.is_none()) {
            let (name, session) = (event.name.as_str(), event.session.as_deref().unwrap_or_default());
            let line = lines.entry(name).or_default();
            match event.op.as_str() {
                "waiting" => line.push(session),
                "left" | "expired" if !granted(name, session) => line.retain(|other| *other != session),
                _ => {}
            }
        }
        for event in events.iter().filter(|event| event.op == "acquired") {
            let (name, session) = (event.name.as_str(), event.session.as_deref().unwrap_or_default());
            let line = lines.entry(name).or_default();
            if let Some(first) = line.first().filter(|first| **first != session) {
                wrong.push(format!("L7: {name} granted to {session} at {} before {first}", change.revision));
            }
            line.retain(|other| *other != session);
        }
    }
}

pub fn check(history: &History, log: &Log, wrong: &mut Vec<String>) {
    in_turn(log, wrong);
    let mut grants: BTreeMap<(&str, u64), Grant> = BTreeMap::new();
    let mut holders: BTreeMap<&str, u64> = BTreeMap::new();
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for change in &log.changes {
        // Within one revision the end of a hold comes before the grant it makes possible, in whatever order they are told.
        for ends in [true, false] {
            for event in change.events.iter().filter(|event| event.family == "locks") {
                let (name, Some(token)) = (event.name.as_str(), event.token) else { continue };
                let revision = change.revision;
                if ends && event.op != "acquired" {
                    if holders.remove(name) != Some(token) {
                        wrong.push(format!("L2: {name} {token} ended at {revision} without being held"));
                    }
                    if let Some(grant) = grants.get_mut(&(name, token)) {
                        grant.until = Some(revision);
                    }
                } else if !ends && event.op == "acquired" {
                    if let Some(other) = holders.insert(name, token) {
                        wrong.push(format!("L2: {name} granted {token} at {revision} while held by {other}"));
                    }
                    if newest.insert(name, token).is_some_and(|before| before >= token) || token != revision {
                        wrong.push(format!("L1: {name} token {token} at {revision}"));
                    }
                    let session = event.session.clone().unwrap_or_default();
                    grants.insert((name, token), Grant { session, from: revision, until: None });
                }
            }
        }
    }
    let mut certain: BTreeMap<&str, Vec<(u64, Duration, Duration)>> = BTreeMap::new();
    for op in &history.ops {
        let Outcome::Ok { revision, answer } = &op.outcome else { continue };
        match (&op.action, answer) {
            (Action::Acquire { lock, session }, Answer::Granted { token }) => {
                let grant = grants.get(&(lock.as_str(), *token));
                if grant.is_none_or(|grant| grant.session != *session || grant.from > *revision) {
                    wrong.push(format!("L4: never granted so: {op:?}"));
                }
                certain.entry(lock).or_default().push((*token, op.call, op.ret));
            }
            (Action::Release { lock, token, .. }, Answer::Released) => {
                let grant = grants.get(&(lock.as_str(), *token));
                if grant.is_none_or(|grant| grant.until.is_none_or(|until| until > *revision)) {
                    wrong.push(format!("L4: not released so: {op:?}"));
                }
            }
            _ => {}
        }
    }
    for (lock, mut acquired) in certain {
        acquired.sort_by_key(|(_, call, _)| *call);
        for pair in acquired.windows(2) {
            let ((before, _, returned), (after, called, _)) = (pair[0], pair[1]);
            if returned < called && before >= after {
                wrong.push(format!("L1: {lock} token {after} was asked for after {before} was given"));
            }
        }
        disjoint(lock, &mut acquired, history, wrong);
    }
}

/// L3: nobody is sure to hold while another is: from the answer of the acquire to the call of the release.
fn disjoint(
    lock: &str,
    acquired: &mut [(u64, Duration, Duration)],
    history: &History,
    wrong: &mut Vec<String>,
) {
    let mut given_up = BTreeMap::new();
    for op in &history.ops {
        if let Action::Release { lock: of, token, .. } = &op.action
            && of == lock
        {
            let first: &mut Duration = given_up.entry(*token).or_insert(op.call);
            *first = op.call.min(*first);
        }
    }
    acquired.sort_by_key(|(_, _, returned)| *returned);
    let mut last: Option<(u64, Duration)> = None;
    for (token, _, from) in acquired {
        let Some(until) = given_up.get(token) else { continue };
        if let Some((other, end)) = last.filter(|(other, end)| other != token && *end > *from) {
            wrong.push(format!(
                "L3: {lock} surely held by {other} until {end:?} and by {token} from {from:?}"
            ));
        }
        if last.is_none_or(|(_, end)| end < *until) {
            last = Some((*token, *until));
        }
    }
}
