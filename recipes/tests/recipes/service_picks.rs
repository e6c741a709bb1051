//! Whom a pool picks: shares, turns, keys; and that it follows its service.

use std::collections::{BTreeMap, BTreeSet};

use coracle_recipes::Recipes;
use coracle_recipes::service::{
    Description, Draw, Filter, Instance, Liveness, Pool, Settings, Status, Strategy, Wish,
};
use coracle_store::{Millis, Revision, Store, Timestamp};
use proptest::prelude::{Just, ProptestConfig, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;

fn instance(zone: &str, weight: u16) -> Instance {
    Instance {
        generation: Revision(1),
        description: Description { address: "h".into(), zone: zone.into(), weight, ..Description::default() },
        told: Status::Passing,
        load: None,
        liveness: Liveness::Permanent,
        registered: Timestamp(0),
        up_since: Some(Timestamp(0)),
        drain: None,
        lost: None,
        ejected: None,
        leaves: None,
    }
}

fn empty() -> Pool {
    Pool::of(Store::new(Box::new(Recipes)).view(), "web", Filter::default())
}

fn wish(strategy: Strategy) -> Wish {
    Wish { strategy, key: "".into(), zone: None, count: 1, exclude: BTreeSet::new() }
}

/// How often each is picked.
fn tally(pool: &mut Pool, wish: &Wish, times: u64, now: u64) -> BTreeMap<String, u64> {
    let (mut cursor, mut tally) = (0, BTreeMap::new());
    for random in 0..times {
        let picked = pool.pick(wish, Draw { cursor, random, now: Timestamp(now) });
        cursor = picked.cursor;
        for candidate in picked.candidates {
            *tally.entry(candidate.id.to_string()).or_default() += 1;
        }
    }
    tally
}

fn owner(pool: &mut Pool, key: u64) -> Box<str> {
    let wish = Wish { key: format!("key-{key}").into(), ..wish(Strategy::Sticky) };
    pool.pick(&wish, Draw { cursor: 0, random: key, now: Timestamp(0) }).candidates[0].id.clone()
}

#[test]
fn shares_follow_weights_within_one_round() {
    let mut pool = empty();
    for (id, weight) in [("a", 100), ("b", 200), ("c", 700)] {
        pool.put(id, instance("", weight));
    }
    let tally = tally(&mut pool, &wish(Strategy::Weighted), 1_000, 0);
    for (id, share) in [("a", 100_u64), ("b", 200), ("c", 700)] {
        assert!(tally[id].abs_diff(share) <= 5, "{tally:?}");
    }
}

#[test]
fn turns_are_even_with_and_without_exclusion() {
    let mut pool = empty();
    for id in ["a", "b", "c", "d"] {
        pool.put(id, instance("", 100));
    }
    let all = tally(&mut pool, &wish(Strategy::RoundRobin), 400, 0);
    assert!(all.values().all(|times| *times == 100), "{all:?}");
    let two = Wish { exclude: ["a".into(), "c".into()].into(), ..wish(Strategy::RoundRobin) };
    let some = tally(&mut pool, &two, 400, 0);
    assert_eq!(some.into_iter().collect::<Vec<_>>(), [("b".into(), 200), ("d".into(), 200)]);
}

#[test]
fn random_and_least_leave_nobody_out() {
    let mut pool = empty();
    for n in 0..20 {
        pool.put(&format!("i{n}"), instance("", 1 + n));
    }
    for strategy in [Strategy::Random, Strategy::Least] {
        let tally = tally(&mut pool, &wish(strategy), 10_000, 0);
        assert_eq!(tally.len(), 20);
        assert!(tally.values().all(|times| (350..700).contains(times)), "{strategy:?} {tally:?}");
    }
    // The most loaded of all loses every comparison.
    pool.put("i7", Instance { load: Some(1_000), ..instance("", 100) });
    assert_eq!(tally(&mut pool, &wish(Strategy::Least), 1_000, 0).get("i7"), None);
}

#[test]
fn a_new_one_starts_slowly() {
    let mut pool = empty();
    pool.configure(Settings { slow_start: Millis(10_000), ..Settings::default() });
    pool.put("old", instance("", 100));
    pool.put("new", Instance { up_since: Some(Timestamp(50_000)), ..instance("", 100) });
    for strategy in [Strategy::Random, Strategy::Weighted, Strategy::RoundRobin, Strategy::Least] {
        let mut share = |now| tally(&mut pool, &wish(strategy), 2_000, now).get("new").copied().unwrap_or(0);
        let shares = [share(50_000), share(55_000), share(60_000)];
        assert!(shares[0] < 300 && shares[0] < shares[1] && shares[1] < shares[2], "{strategy:?} {shares:?}");
        assert!((900..1_100).contains(&shares[2]), "{strategy:?} {shares:?}");
    }
    // Alone it gets everything.
    pool.remove("old");
    assert_eq!(tally(&mut pool, &wish(Strategy::Random), 100, 50_000)["new"], 100);
}

#[test]
fn keys_are_spread_by_weight_and_stay_where_they_are() {
    const KEYS: u64 = 8_000;
    for count in [3_u64, 50] {
        let mut pool = empty();
        for n in 0..count {
            pool.put(&format!("i{n}"), instance("", if n == 0 { 200 } else { 100 }));
        }
        let before: Vec<_> = (0..KEYS).map(|key| owner(&mut pool, key)).collect();
        let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
        for id in &before {
            *tally.entry(id).or_default() += 1;
        }
        let fair = KEYS / (count + 1);
        for (id, keys) in &tally {
            let fair = if *id == "i0" { 2 * fair } else { fair };
            assert!(*keys * 10 > fair * 6 && *keys * 10 < fair * 14, "of {count}: {id} {keys} not {fair}");
        }
        // One goes: only its keys move.
        pool.remove("i1");
        for (key, was) in (0..).zip(&before) {
            let is = owner(&mut pool, key);
            assert!(is == *was || **was == *"i1");
        }
        // It comes back, another comes: its keys are its own again, the other takes from all, no other key moves.
        pool.put("i1", instance("", 100));
        pool.put("new", instance("", 100));
        for (key, was) in (0..).zip(&before) {
            let is = owner(&mut pool, key);
            assert!(is == *was || *is == *"new");
        }
        // Another node finds the same, whatever the order it learned of them.
        let mut other = empty();
        other.put("new", instance("", 100));
        for n in (0..count).rev() {
            other.put(&format!("i{n}"), instance("", if n == 0 { 200 } else { 100 }));
        }
        assert!((0..500).all(|key| owner(&mut pool, key) == owner(&mut other, key)));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { id: u8, zone: u8, weight: u16, status: Status, ejected: bool },
    Remove(u8),
    Configure(u16),
}

fn steps() -> impl Generator<Value = Vec<Step>> {
    let status = prop_oneof![
        4 => Just(Status::Passing),
        1 => Just(Status::Warning),
        2 => Just(Status::Critical),
        1 => Just(Status::Starting),
        1 => Just(Status::Maintenance)
    ];
    let weight = prop_oneof![1 => Just(0_u16), 8 => 1..=1000_u16];
    let put = (0..12_u8, 0..3_u8, weight, status, prop::bool::weighted(0.2))
        .prop_map(|(id, zone, weight, status, ejected)| Step::Put { id, zone, weight, status, ejected });
    let step = prop_oneof![
        8 => put,
        3 => (0..12_u8).prop_map(Step::Remove),
        1 => prop_oneof![Just(0), Just(500), Just(1000)].prop_map(Step::Configure),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Followed change by change, a pool picks exactly those that a look at everything would find.
    #[test]
    fn a_pool_is_a_filtered_list(steps in steps(), zone in 0..3_u8, excluded in prop::collection::btree_set(0..12_u8, 0..4)) {
        let mut pool = empty();
        let mut settings = Settings::default();
        let mut all: BTreeMap<String, Instance> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put { id, zone, weight, status, ejected } => {
                    let zone = if zone == 0 { String::new() } else { format!("z{zone}") };
                    let it = Instance {
                        told: status,
                        ejected: ejected.then_some(Timestamp(9)),
                        ..instance(&zone, weight)
                    };
                    pool.put(&format!("i{id}"), it.clone());
                    all.insert(format!("i{id}"), it);
                }
                Step::Remove(id) => {
                    pool.remove(&format!("i{id}"));
                    all.remove(&format!("i{id}"));
                }
                Step::Configure(protect) => {
                    settings = Settings { protect, ..settings };
                    pool.configure(settings.clone());
                }
            }
            let count = |of: fn(&Instance) -> bool| all.values().filter(|it| of(it)).count();
            let (healthy, up, wanted) =
                (count(Instance::is_healthy), count(Instance::is_up), count(Instance::is_wanted));
            let protected = healthy * 1000 < wanted * usize::from(settings.protect);
            let may = |it: &Instance| {
                if protected {
                    it.is_wanted()
                } else if healthy == 0 && up > 0 {
                    it.is_up()
                } else {
                    it.is_healthy()
                }
            };
            let exclude: BTreeSet<Box<str>> = excluded.iter().map(|id| format!("i{id}").into()).collect();
            let usable: BTreeMap<&str, &Instance> = all
                .iter()
                .map(|(id, it)| (id.as_str(), it))
                .filter(|(id, it)| may(it) && it.description.weight > 0 && !exclude.contains(*id))
                .collect();
            let zone = (zone > 0).then(|| format!("z{zone}"));
            let local = usable.values().filter(|it| Some(&*it.description.zone) == zone.as_deref()).count();
            for strategy in [
                Strategy::RoundRobin, Strategy::Random, Strategy::Weighted, Strategy::Least, Strategy::Sticky
            ] {
                for count in [1, 3, 20] {
                    let wish = Wish {
                        strategy,
                        key: "k".into(),
                        zone: zone.clone().map(Into::into),
                        count,
                        exclude: exclude.clone(),
                    };
                    let picked = pool.pick(&wish, Draw { cursor: 5, random: 7, now: Timestamp(1) });
                    prop_assert_eq!(picked.degraded, protected || (healthy == 0 && up > 0));
                    let ids: BTreeSet<&str> = picked.candidates.iter().map(|it| &*it.id).collect();
                    prop_assert_eq!(ids.len(), picked.candidates.len(), "each once");
                    prop_assert_eq!(ids.len(), count.min(usable.len()));
                    prop_assert!(ids.iter().all(|id| usable.contains_key(id)));
                    // The zone's own come first.
                    let own = picked.candidates.iter().take(local.min(count));
                    prop_assert!(own.clone().all(|it| zone.as_deref() == Some(&*it.instance.description.zone)));
                }
            }
        }
    }
}
