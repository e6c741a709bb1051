//! Long lines, strange names, full stores.

use coracle_recipes::lock::{self, Acquire, Claim, Mode, Operation, Outcome, WAITERS};
use coracle_recipes::{Recipes, Refusal, selection};
use coracle_store::command::{Expiry, OnExpire, OpenSession, Transaction};
use coracle_store::{
    Action, Attach, Change, Command, Millis, Outcome as StoreOutcome, Principal, Refusal as StoreRefusal,
    Revision, SessionId, Settings, Store, Timestamp,
};

fn apply(store: &mut Store, action: Action) -> Result<StoreOutcome, StoreRefusal> {
    let command =
        Command { principal: Principal("ann".into()), idempotency: None, guards: Vec::new(), action };
    store.apply(Timestamp(1), &command.encode()).result
}

fn run(store: &mut Store, operation: Operation) -> Result<Outcome, StoreRefusal> {
    let outcome = apply(store, Action::One(coracle_recipes::Operation::Lock(operation).encode()))?;
    let StoreOutcome::Program(bytes) = outcome else { panic!("{outcome:?}") };
    let coracle_recipes::Outcome::Lock(outcome) = coracle_recipes::Outcome::decode(&bytes).unwrap() else {
        panic!()
    };
    Ok(outcome)
}

fn refused(result: Result<Outcome, StoreRefusal>) -> lock::Refusal {
    let Err(StoreRefusal::Program(bytes)) = result else { panic!("{result:?}") };
    let Refusal::Lock(refusal) = Refusal::decode(&bytes).unwrap() else { panic!() };
    refusal
}

fn open(id: u64) -> OpenSession {
    OpenSession { on_expire: OnExpire::Release, ..OpenSession::new(SessionId(id), Millis(10_000)) }
}

fn acquire(lock: &str, attach: Attach, mode: Mode) -> Operation {
    Operation::Acquire(Acquire {
        lock: lock.into(),
        mode,
        attach,
        owner: "".into(),
        meta: "".into(),
        wait: true,
        reentrant: false,
        convert: false,
    })
}

fn private(lock: &str, id: u64) -> Operation {
    acquire(lock, Attach::Private(open(id)), Mode::Exclusive)
}

fn release(lock: &str, id: u64) -> Operation {
    Operation::Release(Claim { lock: lock.into(), session: SessionId(id), token: None })
}

fn newest(store: &Store) -> &Change {
    store.changes_after(Revision(store.revision().0 - 1)).unwrap().next().unwrap()
}

#[test]
fn a_full_line_moves_without_touching_those_behind() {
    let mut store = Store::new(Box::new(Recipes));
    for id in 1..=WAITERS + 1 {
        run(&mut store, private("deploy", id)).unwrap();
    }
    assert_eq!(
        refused(run(&mut store, private("deploy", WAITERS + 2))),
        lock::Refusal::TooManyWaiters(WAITERS)
    );
    assert_eq!(store.sessions().count() as u64, WAITERS + 1, "the refused one left no session");
    for id in 1..50 {
        let Outcome::Freed(ended, granted) = run(&mut store, release("deploy", id)).unwrap() else {
            panic!()
        };
        assert_eq!((ended[0].session.0, granted[0].session.0), (id, id + 1));
        // Hold ended, place and hold of the next, counter, private session.
        assert_eq!(newest(&store).events.len(), 5);
    }
    let Outcome::Waiting(place) = run(&mut store, private("deploy", WAITERS + 2)).unwrap() else { panic!() };
    assert_eq!(place.position, WAITERS - 48);
    let line = lock::line(store.view(), "deploy", 3).unwrap();
    assert_eq!((line.holders.len(), line.waiters.len(), line.waiting), (1, 3, 9_952));
    // All of it dies, slice by slice; nothing stays.
    let all: Vec<Expiry> = store
        .sessions()
        .map(|session| Expiry { session: session.id, generation: session.generation })
        .collect();
    for slice in all.chunks(256) {
        apply(&mut store, Action::Expire(slice.to_vec())).unwrap();
    }
    assert_eq!(store.live_bytes(), 0);
}

#[test]
fn ten_thousand_readers_are_granted_in_one_entry() {
    let mut store = Store::new(Box::new(Recipes));
    run(&mut store, private("db", 1)).unwrap();
    for id in 2..=WAITERS + 1 {
        run(&mut store, acquire("db", Attach::Private(open(id)), Mode::Shared)).unwrap();
    }
    let Outcome::Freed(_, granted) = run(&mut store, release("db", 1)).unwrap() else { panic!() };
    assert_eq!(granted.len() as u64, WAITERS);
    assert!(granted.iter().all(|hold| hold.token == store.revision()));
    assert_eq!(lock::names(store.view(), "", None, 9), ["db"]);
}

/// Looked for among thousands ahead and thousands behind, each of whom stands in the same two lines.
#[test]
fn a_cycle_through_full_lines_is_found_and_none_where_there_is_none() {
    let mut store = Store::new(Box::new(Recipes));
    let most = WAITERS - 10;
    let (left, right, other) = (WAITERS + 1, WAITERS + 2, WAITERS + 3);
    for id in [left, right, other] {
        apply(&mut store, Action::One(coracle_store::Operation::OpenSession(open(id)))).unwrap();
    }
    let claim = |lock: &str, id: u64| acquire(lock, Attach::Session(SessionId(id)), Mode::Exclusive);
    run(&mut store, claim("left", left)).unwrap();
    run(&mut store, claim("right", right)).unwrap();
    for id in 1..most {
        run(&mut store, private("left", 2 * WAITERS + id)).unwrap();
        run(&mut store, private("right", 3 * WAITERS + id)).unwrap();
    }
    let withdraw = Operation::Withdraw(Claim { lock: "right".into(), session: SessionId(left), token: None });
    let Ok(Outcome::Waiting(place)) = run(&mut store, claim("right", left)) else {
        panic!("no cycle so far")
    };
    assert_eq!(place.position, most);
    run(&mut store, withdraw).unwrap();
    // The last in the line of the one holds something the first in the line of the other waits for.
    run(&mut store, claim("last", other)).unwrap();
    run(&mut store, claim("left", other)).unwrap();
    run(&mut store, claim("last", right)).unwrap();
    let lock::Refusal::WouldDeadlock(cycle) = refused(run(&mut store, claim("right", left))) else {
        panic!("it waits for itself")
    };
    assert_eq!((cycle[0].session.0, &*cycle[0].lock), (left, "right"));
    let last = cycle.iter().rfind(|link| &*link.lock == "left").expect("somebody waits for the left one");
    assert!(last.session.0 >= other, "{cycle:?}");
}

#[test]
fn names_of_any_text_do_not_run_into_each_other() {
    let names = ["a", "a\0", "a\0\0", "a\0\u{1}", "a\u{1}", "ab", "b\0a", "é", "\u{0}", "🔒/../%00"];
    let mut store = Store::new(Box::new(Recipes));
    for (id, name) in (1..).zip(names) {
        let Ok(Outcome::Held(_)) = run(&mut store, private(name, id)) else { panic!("{name:?} is free") };
    }
    let mut sorted = names.map(String::from);
    sorted.sort();
    assert_eq!(lock::names(store.view(), "", None, 100), sorted);
    assert_eq!(lock::names(store.view(), "a\0", None, 100), ["a\0", "a\0\0", "a\0\u{1}"]);
    for name in &sorted {
        let after: Vec<_> = sorted.iter().filter(|other| *other > name).cloned().collect();
        assert_eq!(lock::names(store.view(), "", Some(name), 100), after);
    }
    for (id, name) in (1..).zip(names) {
        run(&mut store, release(name, id)).unwrap();
        let select = selection("locks", name).unwrap();
        let hit = newest(&store).events.iter().any(|event| select.contains(&event.key));
        assert!(hit, "a watch of {name:?} sees its release");
        for other in names.iter().filter(|other| **other != name) {
            let select = selection("locks", other).unwrap();
            assert!(
                !newest(&store).events.iter().any(|event| select.contains(&event.key)),
                "{other:?} does not"
            );
        }
        assert_eq!(lock::line(store.view(), name, 1), None);
    }
    assert_eq!(selection("nothing", "x"), None);
    assert_eq!(store.live_bytes(), 0);
    for bad in ["", &"x".repeat(513)] {
        let refusal = run(&mut store, private(bad, 1)).unwrap_err();
        assert!(matches!(refusal, StoreRefusal::OutOfBounds(..)), "{refusal}");
    }
}

#[test]
fn quota_full_then_release() {
    let mut store = Store::new(Box::new(Recipes));
    for id in 1..=3 {
        run(&mut store, private("deploy", id)).unwrap();
    }
    let quota_bytes = store.live_bytes();
    apply(&mut store, Action::Configure(Settings { quota_bytes, ..Settings::default() })).unwrap();
    let refusal = run(&mut store, private("deploy", 4)).unwrap_err();
    assert!(matches!(refusal, StoreRefusal::QuotaExceeded(..)), "{refusal}");
    let refusal = run(&mut store, acquire("other", Attach::Session(SessionId(1)), Mode::Shared)).unwrap_err();
    assert!(matches!(refusal, StoreRefusal::QuotaExceeded(..)), "{refusal}");
    // What frees, and the grants that follow from it, always work.
    let transfer = Claim { lock: "deploy".into(), session: SessionId(1), token: None };
    run(&mut store, Operation::Transfer(transfer, SessionId(3))).unwrap();
    run(&mut store, release("deploy", 3)).unwrap();
    apply(&mut store, Action::Expire(vec![Expiry { session: SessionId(2), generation: 1 }])).unwrap();
    assert_eq!(store.live_bytes(), 0);
}

#[test]
fn a_renewal_that_races_expiry_keeps_the_lock() {
    let mut store = Store::new(Box::new(Recipes));
    apply(&mut store, Action::One(coracle_store::Operation::OpenSession(open(1)))).unwrap();
    run(&mut store, acquire("deploy", Attach::Session(SessionId(1)), Mode::Exclusive)).unwrap();
    run(&mut store, private("deploy", 2)).unwrap();
    let update =
        coracle_store::command::UpdateSession { id: SessionId(1), progress: Some(1), note: None, meta: None };
    apply(&mut store, Action::One(coracle_store::Operation::UpdateSession(update))).unwrap();
    let stale = Action::Expire(vec![Expiry { session: SessionId(1), generation: 1 }]);
    assert_eq!(apply(&mut store, stale), Ok(StoreOutcome::Expired(0)));
    let line = lock::line(store.view(), "deploy", 9).unwrap();
    assert_eq!(line.holders[0].session, SessionId(1));
    assert_eq!(line.waiting, 1);
}

#[test]
fn a_claim_needs_a_session() {
    let mut store = Store::new(Box::new(Recipes));
    for attach in [Attach::None, Attach::Keep] {
        assert_eq!(run(&mut store, acquire("x", attach, Mode::Exclusive)), Err(StoreRefusal::Malformed));
    }
    let garbage = coracle_store::Operation::Program(vec![0xFF, 7].into());
    assert_eq!(apply(&mut store, Action::One(garbage)), Err(StoreRefusal::Malformed));
}

#[test]
fn a_session_holds_and_waits_for_so_much_and_no_more() {
    let mut store = Store::new(Box::new(Recipes));
    let most = coracle_store::limits::HOLDS;
    apply(&mut store, Action::One(coracle_store::Operation::OpenSession(open(1)))).unwrap();
    let claim = |number: usize| acquire(&number.to_string(), Attach::Session(SessionId(1)), Mode::Exclusive);
    for number in 0..most {
        run(&mut store, claim(number)).unwrap();
    }
    let refusal = run(&mut store, claim(most)).unwrap_err();
    assert_eq!(refusal, StoreRefusal::TooManyHolds(SessionId(1), most as u64));
    run(&mut store, private("full", 2)).unwrap();
    let give = Claim { lock: "full".into(), session: SessionId(2), token: None };
    let refusal = run(&mut store, Operation::Transfer(give, SessionId(1))).unwrap_err();
    assert_eq!(refusal, StoreRefusal::TooManyHolds(SessionId(1), most as u64));
    run(&mut store, claim(0)).unwrap();
    // All of it goes in one revision.
    let close = coracle_store::Operation::CloseSession(SessionId(1));
    let (conditions, otherwise) = (Vec::new(), Vec::new());
    apply(&mut store, Action::Transaction(Transaction { conditions, then: vec![close], otherwise })).unwrap();
    assert_eq!(newest(&store).events.len(), most + 1);
    assert_eq!(lock::names(store.view(), "", None, 9), ["full"]);
}
