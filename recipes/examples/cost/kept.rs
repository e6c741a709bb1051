//! What is just kept: keys, sessions with what hangs on them, counters, fences.

use coracle_recipes::{Operation, counter, fence};
use coracle_store::command::{Delete, OpenSession, Precondition, UpdateSession};
use coracle_store::{
    Action, Attach, Family, Key, Millis, Operation as StoreOperation, Order, Range, Revision, SessionId,
};

use crate::meter::Meter;
use crate::stage::Stage;

const FEW: usize = 5_000;

pub fn key(number: usize) -> Key {
    Key::new(Family::KV, format!("dir/{number:09}").as_bytes())
}

/// Somewhere among so many, each time elsewhere.
pub fn somewhere(number: usize, among: usize) -> usize {
    number * 7_919 % among
}

pub fn keys(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    stage.often(count, |stage, number| stage.put(key(2 * number)));
    let then = stage.store.revision();
    let old = |number| key(2 * somewhere(number, count));
    meter.of("put a new key", FEW.min(count / 2), |number| stage.put(key(2 * somewhere(number, count) + 1)));
    meter.of("put over a key", FEW, |number| stage.put(old(number)));
    meter.of("get", FEW, |number| assert!(stage.view().get(&old(number)).is_some()));
    meter.of("compare and set", FEW, |number| {
        let seen = stage.view().get(&old(number)).map_or(Revision(0), |record| record.mod_revision);
        stage.put_as(old(number), Attach::None, Precondition::Matches(seen));
    });
    meter.of("get as it was", FEW, |number| {
        assert!(stage.store.get_at(&old(number), then).expect("kept").is_some());
    });
    let page = |start, at| Range { start, end: None, order: Order::Ascending, limit: 50, at };
    meter.of("list 50", FEW / 10, |number| {
        let range = page(key(2 * somewhere(number, count / 2)), None);
        assert_eq!(stage.store.range(&range).expect("now").items.len(), 50);
    });
    meter.of("delete", FEW.min(count / 2), |number| {
        let (key, precondition) = (key(2 * somewhere(number, count) + 1), Precondition::Present);
        stage.one(StoreOperation::Delete(Delete { key, precondition, return_previous: false }));
    });
}

pub fn sessions(count: usize, meter: &mut Meter) {
    const HOUR: u64 = 3_600_000;
    let mut stage = Stage::new();
    let few = meter.times(1_000).min(count / 8);
    let id = |number: usize| number as u64 + 1;
    let open = |id| OpenSession {
        stall_after: Some(Millis(HOUR + id)),
        ..OpenSession::new(SessionId(id), Millis(10_000))
    };
    stage.often(count, |stage, number| {
        stage.one(StoreOperation::OpenSession(open(id(number))));
        stage.put_as(key(number), Attach::Session(SessionId(id(number))), Precondition::None);
    });
    let new = |number| id(count + number);
    meter.of("open", few, |number| {
        stage.one(StoreOperation::OpenSession(open(new(number))));
    });
    meter.of("attach a key", few, |number| {
        stage.put_as(key(count + number), Attach::Session(SessionId(new(number))), Precondition::None);
    });
    meter.of("say progress", few, |number| {
        let (id, progress) = (SessionId(id(count / 4 + number)), Some(50));
        stage.one(StoreOperation::UpdateSession(UpdateSession { id, progress, note: None, meta: None }));
    });
    meter.of("close, with its key", few, |number| {
        stage.one(StoreOperation::CloseSession(SessionId(new(number))));
    });
    meter.of("expire, with its key", few, |number| stage.expire([id(count / 2 + number)].into_iter()));
    let slice = meter.times(256).min(count / 8);
    meter.of("expire, 256 in an entry", 1, |_| {
        stage.expire((0..slice).map(|number| id(count * 3 / 4 + number)));
    });
    meter.figures.last_mut().expect("just measured").per(slice);
    meter.of("stall", few, |number| {
        stage.now = 1 + HOUR + id(number);
        stage.act(Action::Advance);
    });
}

pub fn counters(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    let add = |number: usize| {
        let counter = format!("counter-{number:07}").into();
        let add = counter::Add { counter, delta: 1, min: None, max: None };
        Operation::Counter(counter::Operation::Add(add))
    };
    stage.often(count, |stage, number| drop(stage.run(&add(number))));
    meter.of("add", FEW, |number| drop(stage.run(&add(somewhere(number, count)))));
    meter.of("add to a new one", FEW, |number| drop(stage.run(&add(count + number))));
    meter.of("list 50 names", FEW / 10, |number| {
        let after = format!("counter-{:07}", somewhere(number, count / 2));
        assert_eq!(counter::names(stage.view(), "", Some(&after), 50).len(), 50);
    });
}

pub fn fences(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    let check = |number: usize, token| {
        let name = format!("fence-{number:07}").into();
        Operation::Fence(fence::Operation::Check(name, Revision(token)))
    };
    stage.often(count, |stage, number| drop(stage.run(&check(number, 1))));
    meter.of("check", FEW, |number| drop(stage.run(&check(somewhere(number, count), 2 + number as u64))));
}
