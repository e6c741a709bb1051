//! Services: instances that come, say something, and are picked.

use std::collections::BTreeSet;

use coracle_recipes::Operation as Any;
use coracle_recipes::service::{
    self, Description, Draw, Filter, Named, News, Operation, Pool, Register, Status, Strategy, Wish, told,
};
use coracle_store::{Attach, SessionId, Timestamp};

use crate::kept::somewhere;
use crate::meter::Meter;
use crate::stage::Stage;

const FEW: usize = 5_000;

/// Instances of one service; a service may have 20 000.
const OF_ONE: usize = 10_000;

fn named(number: usize) -> Named {
    let service = format!("web-{:02}", number / OF_ONE).into();
    Named { service, id: format!("instance-{number:06}").into(), generation: None }
}

/// One more of the first service.
fn new(number: usize) -> Named {
    Named { id: format!("new-{number:06}").into(), ..named(0) }
}

fn register(named: Named, number: usize, attach: Attach) -> Any {
    let description = Description {
        address: format!("10.0.{}.{}", number / 256 % 256, number % 256).into(),
        port: 8080,
        zone: format!("zone-{}", number % 3).into(),
        weight: u16::try_from(50 + number % 100).expect("small"),
        tags: vec!["blue".into()],
        meta: [("owner".into(), "ann".into())].into(),
        ..Description::default()
    };
    let register = Register { named, description, status: Status::Passing, attach };
    Any::Service(Operation::Register(Box::new(register)))
}

fn renew(number: usize, load: usize) -> Any {
    let news = News { load: u16::try_from(load).ok(), ..News::default() };
    Any::Service(Operation::Renew(named(number), news))
}

pub fn services(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    let (few, first) = (meter.times(FEW).min(count / 4), count.min(OF_ONE));
    stage.often(count, |stage, number| {
        stage.run(&register(named(number), number, Attach::None));
    });
    for number in 0..few {
        stage.open(number as u64 + 1);
    }
    meter.of("register", few, |number| {
        let attach = Attach::Session(SessionId(number as u64 + 1));
        stage.run(&register(new(number), number, attach));
    });
    meter.of("renew with a new load", few, |number| {
        stage.run(&renew(somewhere(number, first), 1 + number % 999));
    });
    meter.of("expire", few / 2, |number| stage.expire([number as u64 + 1].into_iter()));
    meter.of("deregister", few / 2, |number| {
        stage.run(&Any::Service(Operation::Deregister(new(few - 1 - number))));
    });
    meter.of("list 50", few.min(500), |number| {
        let after = named(somewhere(number, first / 4)).id;
        assert_eq!(service::ids(stage.view(), "web-00", Some(&after), 50).len(), 50);
    });
    meter
        .of("the first pick of a node", 1, |_| {
            assert!(!Pool::of(stage.view(), "web-00", Filter::default()).is_empty());
        })
        .grows("reads all instances, once");
    let mut pool = Pool::of(stage.view(), "web-00", Filter::default());
    for (what, strategy) in [
        ("pick in turn", Strategy::RoundRobin),
        ("pick at random", Strategy::Random),
        ("pick by weight", Strategy::Weighted),
        ("pick the less loaded", Strategy::Least),
        ("pick by key", Strategy::Sticky),
    ] {
        let (key, zone) = ("".into(), Some("zone-1".into()));
        let mut wish = Wish { strategy, key, zone, count: 1, exclude: BTreeSet::new() };
        // What is made at the first pick is not each pick's cost.
        pool.pick(&wish, Draw { cursor: 0, random: 0, now: Timestamp(1) });
        meter.of(what, FEW, |number| {
            if strategy == Strategy::Sticky {
                wish.key = number.to_string().into();
            }
            let draw = Draw { cursor: number as u64, random: number as u64 * 7_919, now: Timestamp(1) };
            assert_eq!(pool.pick(&wish, draw).candidates.len(), 1);
        });
    }
    let before = stage.store.revision();
    for number in 0..few {
        stage.run(&renew(somewhere(number, first), (number + 500) % 1_000));
    }
    let changes: Vec<_> = stage.store.changes_after(before).expect("kept").cloned().collect();
    meter.of("follow a change", few, |number| {
        for event in &changes[number % changes.len()].events {
            if let Some((id, _, Some(instance))) = told(event) {
                pool.put(&id, instance);
            }
        }
    });
}
