//! The checker finds each kind of violation, and none where there is none.

use std::time::Duration;

use super::violations;
use crate::history::{Action, Answer, History, Op, Outcome, Sample};
use crate::log::{Change, Event, Log};
use crate::replay::Item;

/// A log of puts, a delete, a transaction and two grants, with the history that fits it.
fn sound() -> (History, Log) {
    let put = |name: &str, value: &str, version, previous_revision| Event {
        family: "kv".into(),
        op: "put".into(),
        name: name.into(),
        value: Some(value.into()),
        version,
        previous_revision,
        create: version == 1,
        ..Event::default()
    };
    let delete = |name: &str, previous_revision| Event {
        family: "kv".into(),
        op: "delete".into(),
        name: name.into(),
        previous_revision,
        ..Event::default()
    };
    let lock = |op: &str, token, session: &str| Event {
        family: "locks".into(),
        op: op.into(),
        name: "l".into(),
        token: Some(token),
        session: Some(session.into()),
        ..Event::default()
    };
    let changes = [
        (2, vec![put("a", "op-1", 1, 0)]),
        (3, vec![put("a", "op-2", 2, 2)]),
        (4, vec![put("b", "op-3", 1, 0), put("c", "op-4", 1, 0)]),
        (5, vec![delete("b", 4)]),
        (6, vec![lock("acquired", 6, "s1")]),
        (7, vec![lock("released", 6, "s1"), lock("acquired", 7, "s2")]),
        (8, vec![lock("released", 7, "s2")]),
    ];
    let log =
        Log { changes: changes.into_iter().map(|(revision, events)| Change { revision, events }).collect() };
    let item = |value: &str, create_revision, mod_revision, version| Item {
        value: value.into(),
        create_revision,
        mod_revision,
        version,
        session: None,
    };
    let mut ops = Vec::new();
    let mut step = |action, outcome| {
        let at = 10 * (ops.len() as u64 + 1);
        let (call, ret) = (Duration::from_millis(at), Duration::from_millis(at + 5));
        ops.push(Op { client: 0, call, ret, attempts: 1, action, outcome });
    };
    let ok = |revision, answer| Outcome::Ok { revision, answer };
    let write =
        |value: &str, if_match| Action::Put { key: "a".into(), value: value.into(), if_match, session: None };
    let get = |key: &str| Action::Get { key: key.into(), stale: false, min_revision: 0 };
    step(write("op-1", None), ok(2, Answer::Written { version: 1 }));
    step(write("op-2", Some(2)), ok(3, Answer::Written { version: 2 }));
    let mismatch = Outcome::No { code: "revision_mismatch".into(), revision: Some(3), current: Some(3) };
    step(write("op-refused", Some(2)), mismatch);
    step(
        Action::Txn {
            guard: ("a".into(), 3),
            puts: vec![("b".into(), "op-3".into()), ("c".into(), "op-4".into())],
            delete: None,
            otherwise: ("d".into(), "op-else".into()),
        },
        ok(4, Answer::Succeeded(true)),
    );
    step(get("a"), ok(4, Answer::Item(Some(item("op-2", 2, 3, 2)))));
    step(Action::Delete { key: "b".into(), if_match: None }, ok(5, Answer::Deleted(1)));
    step(get("b"), ok(5, Answer::Item(None)));
    let all = vec![("a".to_owned(), item("op-2", 2, 3, 2)), ("c".to_owned(), item("op-4", 4, 4, 1))];
    step(Action::List { prefix: String::new() }, ok(5, Answer::Items(all)));
    step(Action::Acquire { lock: "l".into(), session: "s1".into() }, ok(6, Answer::Granted { token: 6 }));
    step(Action::Release { lock: "l".into(), session: "s1".into(), token: 6 }, ok(7, Answer::Released));
    step(Action::Acquire { lock: "l".into(), session: "s2".into() }, ok(7, Answer::Granted { token: 7 }));
    step(Action::Release { lock: "l".into(), session: "s2".into(), token: 7 }, ok(8, Answer::Released));
    // The second had waited since before the first was released.
    ops[10].call = ops[9].call;
    let sample = |node, term, leader: &str| Sample { node, term, leader: Some(leader.into()) };
    let samples = vec![sample(0, 1, "1"), sample(1, 1, "1"), sample(1, 2, "2")];
    (History { ops, samples }, log)
}

/// What the checker says after a change.
fn after(change: impl FnOnce(&mut Vec<Op>, &mut Vec<Change>)) -> String {
    let (mut history, mut log) = sound();
    change(&mut history.ops, &mut log.changes);
    violations(&history, &log).join("\n")
}

fn set_revision(op: &mut Op, to: u64) {
    if let Outcome::Ok { revision, .. } = &mut op.outcome {
        *revision = to;
    }
}

#[test]
fn a_sound_history_has_no_violations() {
    assert_eq!(after(|_, _| {}), "");
}

#[test]
fn an_unknown_write_may_be_there_or_not() {
    let unknown = || Outcome::Unknown { why: "lost".into() };
    assert_eq!(after(|ops, _| ops[1].outcome = unknown()), "");
    let absent = |ops: &mut Vec<Op>, _: &mut Vec<Change>| {
        ops[2].outcome = unknown();
    };
    assert_eq!(after(absent), "");
}

#[test]
fn a_lost_write_is_found() {
    // Nothing after it refers to it: only the lost write itself can show.
    let found = after(|ops, log| {
        log.retain(|change| change.revision != 4);
        log.retain(|change| change.revision != 5);
        ops.drain(4..8);
    });
    assert!(found.contains("C1"), "{found}");
}

#[test]
fn a_write_at_another_revision_is_found() {
    assert!(after(|ops, _| set_revision(&mut ops[0], 1)).contains("C1"));
}

#[test]
fn other_content_is_found() {
    assert!(after(|_, log| log[0].events[0].value = Some("op-9".into())).contains("C1"));
    assert!(after(|_, log| log[0].events[0].session = Some("s".into())).contains("C1"));
}

#[test]
fn a_write_applied_twice_is_found() {
    let found = after(|_, log| {
        let mut again = log[0].events[0].clone();
        (again.version, again.previous_revision, again.create) = (3, 3, false);
        log.push(Change { revision: 9, events: vec![again] });
    });
    assert!(found.contains("C10"), "{found}");
}

#[test]
fn a_write_of_nobody_is_found() {
    assert!(after(|ops, _| drop(ops.remove(0))).contains("phantom"));
}

#[test]
fn a_refused_write_in_the_log_is_found() {
    let found = after(|ops, _| {
        ops[0].outcome = Outcome::No { code: "no_leader".into(), revision: None, current: None }
    });
    assert!(found.contains("C5"), "{found}");
}

#[test]
fn a_condition_that_did_not_hold_is_found() {
    let other = |to| {
        move |ops: &mut Vec<Op>, _: &mut Vec<Change>| {
            if let Action::Put { if_match, .. } = &mut ops[1].action {
                *if_match = Some(to);
            }
        }
    };
    assert!(after(other(7)).contains("C5: matched 2, not 7"));
}

#[test]
fn a_refusal_that_lied_is_found() {
    let lie = |current| {
        move |ops: &mut Vec<Op>, _: &mut Vec<Change>| {
            ops[2].outcome =
                Outcome::No { code: "revision_mismatch".into(), revision: Some(3), current: Some(current) };
        }
    };
    assert!(after(lie(1)).contains("C5"));
    assert!(after(lie(2)).contains("C5"));
}

#[test]
fn a_torn_transaction_is_found() {
    let found = after(|_, log| {
        let second = log[2].events.remove(1);
        log.push(Change { revision: 9, events: vec![second] });
    });
    assert!(found.contains("C6: torn"), "{found}");
}

#[test]
fn a_guard_judged_wrongly_is_found() {
    let found = after(|ops, _| {
        if let Action::Txn { guard, .. } = &mut ops[3].action {
            guard.1 = 2;
        }
    });
    assert!(found.contains("C6: the guard saw 3"), "{found}");
}

#[test]
fn a_delete_that_did_not_is_found() {
    assert!(after(|_, log| drop(log.remove(3))).contains("C1: not deleted"));
    assert!(
        after(|ops, _| {
            if let Action::Delete { key, .. } = &mut ops[5].action {
                *key = "a".into();
            }
        })
        .contains("C1: not deleted")
    );
}

#[test]
fn a_wrong_read_is_found() {
    assert!(after(|ops, _| set_revision(&mut ops[4], 2)).contains("C4"));
    let missing = |ops: &mut Vec<Op>, _: &mut Vec<Change>| {
        if let Outcome::Ok { answer: Answer::Items(items), .. } = &mut ops[7].outcome {
            items.pop();
        }
    };
    assert!(after(missing).contains("C4"));
}

#[test]
fn a_read_older_than_asked_for_is_found() {
    let found = after(|ops, _| ops[4].action = Action::Get { key: "a".into(), stale: true, min_revision: 5 });
    assert!(found.contains("C7"), "{found}");
}

#[test]
fn a_stale_linearizable_read_is_found() {
    // Right for its revision, but another client had been told of a newer one before.
    let found = after(|ops, _| {
        set_revision(&mut ops[4], 3);
    });
    assert!(found.contains("C3"), "{found}");
    let stale = after(|ops, _| {
        set_revision(&mut ops[4], 3);
        ops[4].action = Action::Get { key: "a".into(), stale: true, min_revision: 0 };
    });
    assert_eq!(stale, "");
}

#[test]
fn two_writes_with_one_revision_are_found() {
    assert!(after(|ops, _| set_revision(&mut ops[1], 2)).contains("C3"));
}

#[test]
fn a_log_that_is_none_is_found() {
    assert!(after(|_, log| log.swap(0, 1)).contains("log: revision 2 after 3"));
    assert!(after(|_, log| log[1].events[0].version = 7).contains("version 7"));
    assert!(after(|_, log| log[1].events[0].previous_revision = 0).contains("previous revision 0"));
    assert!(after(|_, log| log[1].events[0].create = true).contains("create true"));
}

#[test]
fn two_holders_are_found() {
    assert!(after(|_, log| drop(log[5].events.remove(0))).contains("L2"));
}

#[test]
fn tokens_that_fall_are_found() {
    let found = after(|_, log| {
        log[5].events[1].token = Some(5);
        log[6].events[0].token = Some(5);
    });
    assert!(found.contains("L1"), "{found}");
}

#[test]
fn a_grant_of_another_session_is_found() {
    assert!(after(|_, log| log[4].events[0].session = Some("s9".into())).contains("L4"));
}

#[test]
fn a_release_that_did_not_is_found() {
    assert!(after(|_, log| drop(log.pop())).contains("L4: not released"));
}

#[test]
fn two_who_were_sure_to_hold_are_found() {
    let found = after(|ops, _| ops[9].call = ops[10].ret + Duration::from_millis(1));
    assert!(found.contains("L3"), "{found}");
}

#[test]
fn a_second_leader_of_a_term_and_a_term_that_falls_are_found() {
    let said = |change: fn(&mut History)| {
        let (mut history, log) = sound();
        change(&mut history);
        violations(&history, &log).join("\n")
    };
    assert!(said(|history| history.samples[1].leader = Some("3".into())).contains("C13: 3 is not the only"));
    assert!(said(|history| history.samples.swap(1, 2)).contains("C13: node 1 fell from term 2 to 1"));
}

/// A key hangs on a session, and goes with it.
fn hanging(change: fn(&mut Vec<Change>)) -> String {
    let event = |family: &str, op: &str, name: &str| Event {
        family: family.into(),
        op: op.into(),
        name: name.into(),
        ..Event::default()
    };
    let put = Event { session: Some("s1".into()), ..event("kv", "put", "k") };
    let mut changes = vec![
        Change { revision: 1, events: vec![event("sessions", "opened", "s1"), put.clone()] },
        Change { revision: 2, events: vec![event("kv", "delete", "k"), event("sessions", "expired", "s1")] },
        Change { revision: 3, events: vec![event("kv", "put", "k")] },
    ];
    change(&mut changes);
    let mut wrong = Vec::new();
    super::sessions::check(&Log { changes }, &mut wrong);
    wrong.join("\n")
}

#[test]
fn a_key_that_outlives_its_session_is_found() {
    assert_eq!(hanging(|_| {}), "");
    let lives_on = hanging(|changes| drop(changes[1].events.remove(0)));
    assert!(lives_on.contains("S3: k of the dead s1 is there at 2"), "{lives_on}");
    let late = hanging(|changes| changes[2].events[0].session = Some("s1".into()));
    assert!(late.contains("S3: k of the dead s1 is there at 3"), "{late}");
    let twice = hanging(|changes| {
        let again = changes[1].events[1].clone();
        changes[2].events.push(again);
    });
    assert!(twice.contains("S3: s1 ended again"), "{twice}");
}

#[test]
fn an_overtaken_waiter_is_found() {
    let waits = |session: &str| Event {
        family: "locks".into(),
        op: "waiting".into(),
        name: "l".into(),
        session: Some(session.into()),
        ..Event::default()
    };
    let left = |session: &str| Event { op: "left".into(), ..waits(session) };
    let in_turn = after(|_, log| {
        log.insert(5, Change { revision: 6, events: vec![waits("s2"), waits("s3")] });
        log[6].events.push(left("s2"));
    });
    assert_eq!(in_turn.replace("log: revision 6 after 6", ""), "", "s2 was first");
    let overtaken = after(|_, log| {
        log.insert(5, Change { revision: 6, events: vec![waits("s3"), waits("s2")] });
        log[6].events.push(left("s2"));
    });
    assert!(overtaken.contains("L7: l granted to s2 at 7 before s3"), "{overtaken}");
    let past_the_line = after(|_, log| {
        log.insert(5, Change { revision: 6, events: vec![waits("s3")] });
    });
    assert!(past_the_line.contains("L7: l granted to s2 at 7 before s3"), "{past_the_line}");
}
