//! S3: with a session goes all that hangs on it, in the same revision, and nothing comes to hang on it afterwards.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::{Event, Log};

pub fn check(log: &Log, wrong: &mut Vec<String>) {
    let mut attached: BTreeMap<&str, &str> = BTreeMap::new();
    let mut dead: BTreeSet<&str> = BTreeSet::new();
    for change in &log.changes {
        let at = change.revision;
        let ended = |event: &&Event| event.family == "sessions" && matches!(&*event.op, "expired" | "closed");
        for event in change.events.iter().filter(ended) {
            if !dead.insert(&event.name) {
                wrong.push(format!("S3: {} ended again at {at}", event.name));
            }
        }
        for event in change.events.iter().filter(|event| event.family == "kv") {
            match event.session.as_deref().filter(|_| event.op == "put") {
                Some(session) => attached.insert(&event.name, session),
                None => attached.remove(&*event.name),
            };
        }
        if change.events.iter().any(|event| event.family == "sessions" || event.op == "put") {
            let ghosts = attached.iter().filter(|(_, session)| dead.contains(*session));
            wrong.extend(
                ghosts.map(|(key, session)| format!("S3: {key} of the dead {session} is there at {at}")),
            );
            attached.retain(|_, session| !dead.contains(session));
        }
    }
}
