//! Where many come together: groups, barriers, latches.

use coracle_recipes::{Operation, barrier, group, latch};
use coracle_store::{Attach, ContentType, SessionId, Value};

use crate::claims::IN_LINE;
use crate::meter::Meter;
use crate::stage::{Stage, VALUE};

const FEW: usize = 100;

/// Which of the objects that so many share is whose.
fn object(number: usize) -> Box<str> {
    format!("object-{:04}", number / IN_LINE).into()
}

fn named(number: usize) -> Box<str> {
    format!("id-{number:07}").into()
}

pub fn groups(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    let session = |number: usize| number as u64 + 1;
    let join = |object: Box<str>, number: usize, attach| {
        let (payload, content_type) = (Value::from(VALUE), ContentType::Text);
        let join =
            group::Join { group: object, id: named(number), attach, payload, content_type, progress: None };
        Operation::Group(group::Operation::Join(join))
    };
    let attach = |number| Attach::Session(SessionId(session(number)));
    stage.often(count, |stage, number| {
        stage.open(session(number));
        stage.run(&join(object(number), number, attach(number)));
    });
    let few = meter.times(FEW);
    (0..few).for_each(|number| stage.open(session(count + number)));
    meter.of("join", few, |number| drop(stage.run(&join(object(0), count + number, attach(count + number)))));
    meter.of("say something new", few, |number| drop(stage.run(&join(object(0), number, Attach::Keep))));
    meter.of("leave", few, |number| {
        let leave = group::Leave { group: object(0), id: named(count + number), session: None };
        stage.run(&Operation::Group(group::Operation::Leave(leave)));
    });
    meter.of("expire", few, |number| stage.expire([session(count.min(IN_LINE) / 2 + number)].into_iter()));
    meter.of("how many are there", few, |_| assert!(group::seen(stage.view(), &object(0)).size > 0));
}

pub fn barriers(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    let parties = count.min(IN_LINE);
    let enter = |number: usize| {
        let (barrier, id, attach) = (object(number), named(number), Attach::None);
        let enter = barrier::Enter { barrier, id, attach, wait: true, generation: None };
        Operation::Barrier(barrier::Operation::Enter(enter))
    };
    let claim = |number: usize| {
        let (session, generation) = (None, None);
        barrier::Claim { barrier: object(0), id: named(number), session, generation }
    };
    // Who has entered together is inside; who comes then waits for the next time.
    for first in (0..count).step_by(IN_LINE) {
        let parties = parties.min(count - first) as u64;
        let config = barrier::Config { kind: barrier::Kind::Double, parties, exact: true, timeout: None };
        let create = barrier::Create { barrier: object(first), config, members: Vec::new() };
        stage.run(&Operation::Barrier(barrier::Operation::Create(create)));
    }
    stage.often(count, |stage, number| drop(stage.run(&enter(number))));
    let inside = |stage: &Stage| barrier::read(stage.view(), &object(0)).map_or(0, |barrier| barrier.inside);
    assert_eq!(inside(&stage), parties as u64);
    let few = meter.times(FEW);
    let late = |number: usize| {
        let id = format!("late-{number}").into();
        let enter =
            barrier::Enter { barrier: object(0), id, attach: Attach::None, wait: true, generation: None };
        Operation::Barrier(barrier::Operation::Enter(enter))
    };
    meter.of("come, and wait", few, |number| drop(stage.run(&late(number))));
    meter.of("step out of the line", few, |number| {
        let claim = barrier::Claim { id: format!("late-{number}").into(), ..claim(0) };
        stage.run(&Operation::Barrier(barrier::Operation::Withdraw(claim)));
    });
    meter.of("leave, others are inside", few / 2, |number| {
        stage.run(&Operation::Barrier(barrier::Operation::Leave(claim(number))));
    });
    let config = barrier::Config {
        kind: barrier::Kind::Cyclic,
        parties: barrier::PARTIES,
        exact: false,
        timeout: None,
    };
    let create = barrier::Create { barrier: "cyclic".into(), config, members: Vec::new() };
    stage.run(&Operation::Barrier(barrier::Operation::Create(create)));
    let come = |number: usize| {
        let (barrier, id, attach) = ("cyclic".into(), named(number), Attach::None);
        let enter = barrier::Enter { barrier, id, attach, wait: true, generation: None };
        Operation::Barrier(barrier::Operation::Enter(enter))
    };
    stage.often(parties, |stage, number| drop(stage.run(&come(number))));
    meter.of("come to a cyclic one", few, |number| drop(stage.run(&come(parties + number))));
}

pub fn latches(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    let create = |first: usize| {
        let create = latch::Create { latch: object(first), count: latch::COUNT_MAX, members: Vec::new() };
        Operation::Latch(latch::Operation::Create(create))
    };
    let down = |object: Box<str>, number: usize| {
        let down = latch::CountDown { latch: object, id: named(number) };
        Operation::Latch(latch::Operation::CountDown(down))
    };
    for first in (0..count).step_by(IN_LINE) {
        stage.run(&create(first));
    }
    stage.often(count, |stage, number| drop(stage.run(&down(object(number), number))));
    meter.of("count down", FEW, |number| drop(stage.run(&down(object(0), count + number))));
    meter.of("count again", FEW, |number| drop(stage.run(&down(object(0), number))));
}
