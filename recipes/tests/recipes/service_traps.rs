//! Many instances: the limit, the cost of one among them, all of them lost at once.

use coracle_recipes::service::{
    self, Description, INSTANCES, Named, News, Operation, Outcome, Refusal, Register, Status,
};
use coracle_recipes::{Recipes, selection};
use coracle_store::command::{Expiry, OpenSession};
use coracle_store::{
    Action, Attach, Change, Command, Family, Millis, Outcome as StoreOutcome, Principal,
    Refusal as StoreRefusal, Revision, SessionId, Store, Timestamp,
};

fn apply(store: &mut Store, now: u64, action: Action) -> Result<StoreOutcome, StoreRefusal> {
    let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
    store.apply(Timestamp(now), &Command { principal, idempotency, guards, action }.encode()).result
}

fn run(store: &mut Store, operation: Operation) -> Result<Outcome, StoreRefusal> {
    let operation = coracle_recipes::Operation::Service(operation).encode();
    let StoreOutcome::Program(bytes) = apply(store, 1, Action::One(operation))? else { panic!() };
    let outcome = coracle_recipes::Outcome::decode(&bytes).unwrap();
    let coracle_recipes::Outcome::Service(outcome) = outcome else { panic!("{outcome:?}") };
    Ok(outcome)
}

fn named(service: &str, id: u64) -> Named {
    Named { service: service.into(), id: format!("i{id:06}").into(), generation: None }
}

fn register(service: &str, id: u64, attach: Attach) -> Operation {
    let description =
        Description { address: "10.0.0.7".into(), port: 80, weight: 100, ..Description::default() };
    Operation::Register(Box::new(Register {
        named: named(service, id),
        description,
        status: Status::Passing,
        attach,
    }))
}

fn private(id: u64) -> Attach {
    Attach::Private(OpenSession::new(SessionId(id), Millis(10_000)))
}

fn newest(store: &Store) -> &Change {
    store.changes_after(Revision(store.revision().0 - 1)).unwrap().next().unwrap()
}

#[test]
fn a_service_is_full_at_its_limit() {
    let mut store = Store::new(Box::new(Recipes));
    for id in 0..INSTANCES {
        run(&mut store, register("web", id, Attach::None)).unwrap();
    }
    let Err(StoreRefusal::Program(bytes)) = run(&mut store, register("web", INSTANCES, private(1))) else {
        panic!()
    };
    let refusal = coracle_recipes::Refusal::decode(&bytes).unwrap();
    assert_eq!(refusal, coracle_recipes::Refusal::Service(Refusal::TooManyInstances(INSTANCES)));
    assert_eq!(store.sessions().count(), 0, "the refused one left no session");
    // Those that are there can be replaced, other services are not full, and one that goes makes room for one.
    run(&mut store, register("web", 7, Attach::None)).unwrap();
    run(&mut store, register("api", 7, Attach::None)).unwrap();
    run(&mut store, Operation::Deregister(named("web", 7))).unwrap();
    run(&mut store, register("web", INSTANCES, Attach::None)).unwrap();
    assert_eq!(service::census(store.view(), "web").instances, INSTANCES);
}

#[test]
fn what_happens_to_one_touches_no_other() {
    let mut store = Store::new(Box::new(Recipes));
    for id in 1..=2_000 {
        run(&mut store, register("web", id, private(id))).unwrap();
    }
    let mut touched = |operation: Operation| {
        run(&mut store, operation).unwrap();
        newest(&store).events.len()
    };
    let of = |id| named("web", id);
    let news = News { load: Some(500), ..News::default() };
    assert_eq!(touched(Operation::Renew(of(1), news)), 1);
    let critical = News { status: Some(Status::Critical), ..News::default() };
    assert_eq!(touched(Operation::Renew(of(1), critical)), 2, "and the counts");
    assert_eq!(touched(Operation::Report(of(2), false)), 1);
    assert_eq!(touched(Operation::Report(of(2), false)), 4, "errors, instance, timer, counts");
    assert_eq!(touched(Operation::Drain(of(3), Millis(1_000))), 3, "instance, timer, counts");
    assert_eq!(touched(register("web", 4, Attach::Keep)), 1);
    assert_eq!(touched(Operation::Deregister(of(5))), 4, "instance, liveness, its session, counts");
}

#[test]
fn very_many_are_lost_and_removed_in_slices() {
    const LOST: u64 = 1_000;
    let mut store = Store::new(Box::new(Recipes));
    for id in 1..=LOST {
        run(&mut store, register("web", id, private(id))).unwrap();
    }
    let all = (1..=LOST).map(|id| Expiry { session: SessionId(id), generation: 1 });
    for slice in all.collect::<Vec<_>>().chunks(256) {
        apply(&mut store, 20_000, Action::Expire(slice.to_vec())).unwrap();
    }
    let census = service::census(store.view(), "web");
    assert_eq!((census.instances, census.up), (LOST, 0));
    assert_eq!(store.view().scan(Family(b't'), &[]).count() as u64, LOST);
    let mut entries = 0;
    while store.due().is_some() {
        apply(&mut store, 80_000, Action::Advance).unwrap();
        entries += 1;
    }
    assert_eq!(entries, LOST.div_ceil(256));
    assert_eq!(store.live_bytes(), 0, "no ghosts");
}

#[test]
fn names_do_not_run_into_each_other() {
    let mut store = Store::new(Box::new(Recipes));
    for name in ["a", "a\0", "ab", "\u{10FFFF}"] {
        run(&mut store, register(name, 1, Attach::None)).unwrap();
        run(&mut store, register(name, 11, Attach::None)).unwrap();
    }
    assert_eq!(service::ids(store.view(), "a", None, 9), ["i000001", "i000011"]);
    assert_eq!(service::ids(store.view(), "a", Some("i000001"), 9), ["i000011"]);
    assert_eq!(service::names(store.view(), "", None, 9), ["a", "a\0", "ab", "\u{10FFFF}"]);
    let keys = |name: &str| {
        let selection = selection(service::NAME, name).unwrap();
        store.view().scan(service::FAMILY, &[]).filter(|(key, _)| selection.contains(key)).count()
    };
    assert_eq!((keys("a"), keys("ab"), keys("")), (3, 3, 12), "two instances and the counts");
}
