//! What services cost by number of instances: `cargo run --release -p coracle-recipes --example service_speed`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a stopwatch stands outside the recipes"
)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Instant;

use coracle_recipes::Recipes;
use coracle_recipes::service::{
    Description, Draw, Filter, Named, News, Operation, Pool, Register, Status, Strategy, Wish, told,
};
use coracle_store::{Action, Attach, Command, Principal, Revision, Store, Timestamp};

fn apply(store: &mut Store, operation: Operation) {
    let action = Action::One(coracle_recipes::Operation::Service(operation).encode());
    let command =
        Command { principal: Principal("ann".into()), idempotency: None, guards: Vec::new(), action };
    store.apply(Timestamp(1), &command.encode()).result.expect("accepted");
}

fn named(id: u64) -> Named {
    Named { service: "web".into(), id: format!("instance-{id:06}").into(), generation: None }
}

fn register(id: u64) -> Operation {
    let description = Description {
        address: format!("10.0.{}.{}", id / 256, id % 256).into(),
        port: 8080,
        zone: format!("zone-{}", id % 3).into(),
        weight: u16::try_from(50 + id % 100).expect("small"),
        tags: vec!["blue".into()],
        meta: [("owner".into(), "ann".into())].into(),
        ..Description::default()
    };
    let (status, attach) = (Status::Passing, Attach::None);
    Operation::Register(Box::new(Register { named: named(id), description, status, attach }))
}

/// Time this thread has had a processor, so that a busy machine does not blur the figures.
fn on_processor() -> u128 {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedule.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0)
}

fn timed(what: &str, instances: u64, count: u64, mut work: impl FnMut(u64)) {
    let (began, before) = (Instant::now(), on_processor());
    (0..count).for_each(&mut work);
    let each = (on_processor() - before) / u128::from(count);
    println!("{instances:6} instances  {what:28} {each:9} ns each  ({} ms)", began.elapsed().as_millis());
}

fn main() {
    for instances in [100, 1_000, 10_000] {
        let mut store = Store::new(Box::new(Recipes));
        for id in 0..instances {
            apply(&mut store, register(id));
        }
        timed("register again", instances, 10_000, |n| apply(&mut store, register(n * 7 % instances)));
        timed("renew with a new load", instances, 10_000, |n| {
            let news = News { load: Some(u16::try_from(n % 1_000).expect("small")), ..News::default() };
            apply(&mut store, Operation::Renew(named(n * 7 % instances), news));
        });
        timed("build the pool", instances, 5, |_| {
            drop(black_box(Pool::of(store.view(), "web", Filter::default())));
        });
        let mut pool = Pool::of(store.view(), "web", Filter::default());
        for (what, strategy) in [
            ("pick in turn", Strategy::RoundRobin),
            ("pick at random", Strategy::Random),
            ("pick by weight", Strategy::Weighted),
            ("pick the less loaded", Strategy::Least),
            ("pick by key", Strategy::Sticky),
        ] {
            let mut wish = Wish {
                strategy,
                key: "".into(),
                zone: Some("zone-1".into()),
                count: 1,
                exclude: BTreeSet::new(),
            };
            // What is made at the first pick is not each pick's cost.
            pool.pick(&wish, Draw { cursor: 0, random: 0, now: Timestamp(1) });
            timed(what, instances, 100_000, |n| {
                if strategy == Strategy::Sticky {
                    wish.key = n.to_string().into();
                }
                let draw = Draw { cursor: n, random: n, now: Timestamp(1) };
                assert_eq!(black_box(pool.pick(&wish, draw)).candidates.len(), 1);
            });
        }
        let before = store.revision();
        for n in 0..1_000 {
            let news = News { load: Some((n + 1) % 1_000), ..News::default() };
            apply(&mut store, Operation::Renew(named(u64::from(n) * 7 % instances), news));
        }
        let changes: Vec<_> = store.changes_after(Revision(before.0)).expect("kept").cloned().collect();
        timed("follow a change, with a ring", instances, 1_000, |n| {
            let change = &changes[usize::try_from(n).expect("small") % changes.len()];
            for event in &change.events {
                if let Some((id, _, Some(instance))) = told(event) {
                    pool.put(&id, instance);
                }
            }
        });
    }
}
