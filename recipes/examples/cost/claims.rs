//! Claims in a line: locks, semaphores, elections.

use coracle_recipes::{Operation, election, lock, semaphore};
use coracle_store::{Attach, ContentType, SessionId, Value, View};

use crate::kept::somewhere;
use crate::meter::Meter;
use crate::stage::Stage;

/// Waiters of one line; a line may have 10 000, and some are to come.
pub const IN_LINE: usize = 9_000;
/// So often each operation is done: each takes somebody out of a line.
const FEW: usize = 100;

/// The same, in the words of each recipe.
#[derive(Clone, Copy)]
struct Words {
    claim: fn(&str, u64, bool) -> Operation,
    /// Whether one holds or waits.
    give_up: fn(&str, u64) -> Operation,
    place: fn(View<'_>, &str, u64) -> Option<u64>,
    first: fn(View<'_>, &str, usize) -> usize,
}

const LOCK: Words = Words {
    claim: |name, session, wait| {
        let (attach, owner, meta) = (Attach::Session(SessionId(session)), "".into(), "".into());
        let (mode, reentrant, convert) = (lock::Mode::Exclusive, false, false);
        Operation::Lock(lock::Operation::Acquire(lock::Acquire {
            lock: name.into(),
            mode,
            attach,
            owner,
            meta,
            wait,
            reentrant,
            convert,
        }))
    },
    give_up: |name, session| {
        let claim = lock::Claim { lock: name.into(), session: SessionId(session), token: None };
        Operation::Lock(lock::Operation::Release(claim))
    },
    place: |view, name, session| match lock::poll(view, name, SessionId(session)) {
        lock::Turn::Waiting(place) => Some(place.position),
        _ => None,
    },
    first: |view, name, limit| lock::line(view, name, limit).map_or(0, |shown| shown.waiters.len()),
};

const SEMAPHORE: Words = Words {
    claim: |name, session, wait| {
        let (attach, owner, meta) = (Attach::Session(SessionId(session)), "".into(), "".into());
        let (permits, limit) = (1, Some(1));
        let acquire =
            semaphore::Acquire { semaphore: name.into(), permits, limit, attach, owner, meta, wait };
        Operation::Semaphore(semaphore::Operation::Acquire(acquire))
    },
    give_up: |name, session| {
        let claim = semaphore::Claim { semaphore: name.into(), session: SessionId(session), token: None };
        Operation::Semaphore(semaphore::Operation::Release(claim))
    },
    place: |view, name, session| match semaphore::poll(view, name, SessionId(session)) {
        semaphore::Turn::Waiting(place) => Some(place.position),
        _ => None,
    },
    first: |view, name, limit| semaphore::show(view, name, limit).map_or(0, |shown| shown.waiters.len()),
};

const ELECTION: Words = Words {
    claim: |name, session, wait| {
        let (value, content_type) = (Value::from(&b"10.0.0.1:80"[..]), ContentType::Text);
        let candidacy = election::Candidacy { priority: 0, value, content_type };
        let (attach, owner) = (Attach::Session(SessionId(session)), "".into());
        let campaign = election::Campaign { election: name.into(), candidacy, attach, owner, wait };
        Operation::Election(election::Operation::Campaign(campaign))
    },
    give_up: |name, session| {
        let claim = election::Claim { election: name.into(), session: SessionId(session), token: None };
        Operation::Election(election::Operation::Resign(claim, false))
    },
    place: |view, name, session| match election::poll(view, name, SessionId(session)) {
        election::Turn::Waiting(place) => Some(place.position),
        _ => None,
    },
    first: |view, name, limit| election::show(view, name, limit).candidates.len(),
};

pub fn locks(count: usize, meter: &mut Meter) {
    let mut stage = line(LOCK, count, meter);
    // Somebody waits for what the session holds: so its own waiting might close a cycle.
    let few = meter.times(10);
    for number in 0..few {
        let (name, holder, waiter) = (format!("own-{number}"), extra(2_000 + number), extra(3_000 + number));
        stage.open(holder);
        stage.open(waiter);
        stage.run(&(LOCK.claim)(&name, holder, true));
        stage.run(&(LOCK.claim)(&name, waiter, true));
    }
    meter.of("wait while another waits for it", few, |number| {
        stage.run(&(LOCK.claim)(&named(0), extra(2_000 + number), true));
    });
    // Both ways are long: whoever of the line holds what all the others want.
    let other = named(1_000);
    let (holder, length) = (extra(4_000), count.min(IN_LINE));
    stage.open(holder);
    stage.run(&(LOCK.claim)(&other, holder, true));
    for number in 0..length {
        stage.open(extra(10_000 + number));
        stage.run(&(LOCK.claim)(&other, extra(10_000 + number), true));
    }
    meter
        .of("wait behind a line, with a line behind it", 1, |_| {
            stage.run(&(LOCK.claim)(&named(0), holder, true));
        })
        .grows("looks for a cycle among all of them");
}

pub fn semaphores(count: usize, meter: &mut Meter) {
    line(SEMAPHORE, count, meter);
}

pub fn elections(count: usize, meter: &mut Meter) {
    line(ELECTION, count, meter);
}

fn named(line: usize) -> String {
    format!("line-{line:04}")
}

/// A session in no line yet.
fn extra(number: usize) -> u64 {
    1_000_000_000 + number as u64
}

/// One line of [`IN_LINE`] waiters is worked on, beside others that together have the rest.
fn line(words: Words, count: usize, meter: &mut Meter) -> Stage {
    let mut stage = Stage::new();
    let length = count.min(IN_LINE);
    // Who holds is the first of each.
    let session = |number: usize| number as u64 + 1;
    stage.often(count + count.div_ceil(length), |stage, number| {
        stage.open(session(number));
        stage.run(&(words.claim)(&named(number / (length + 1)), session(number), true));
    });
    let few = meter.times(FEW);
    for number in 0..few {
        stage.open(extra(number));
        stage.open(extra(FEW + number));
    }
    let busy = named(0);
    meter.of("join the line", few, |number| {
        stage.run(&(words.claim)(&busy, extra(number), true));
    });
    meter.of("ask, and not wait", few, |_| {
        let claim = (words.claim)(&busy, extra(FEW), false);
        assert!(stage.try_act(coracle_store::Action::One(claim.encode())).is_err());
    });
    meter.of("leave from the middle", few, |number| {
        stage.run(&(words.give_up)(&busy, session(length / 2 - number)));
    });
    meter.of("expire in the middle", few, |number| {
        stage.expire([session(length / 2 + 1 + number)].into_iter());
    });
    meter.of("give back, the next is granted", few, |number| {
        stage.run(&(words.give_up)(&busy, session(number)));
    });
    meter.of("expire, the next is granted", few, |number| stage.expire([session(few + number)].into_iter()));
    assert_eq!((words.place)(stage.view(), &busy, session(2 * few + 1)), Some(1), "{} were granted", 2 * few);
    meter.of("take and give back another", few, |number| {
        let (other, who) = (format!("other-{number}"), extra(FEW + number));
        stage.run(&(words.claim)(&other, who, true));
        stage.run(&(words.give_up)(&other, who));
    });
    meter.of("list the first 20", few, |_| {
        assert_eq!((words.first)(stage.view(), &busy, 20), 20);
    });
    let place = |session| (words.place)(stage.view(), &busy, session);
    meter.of("place of the last", few, |_| assert!(place(extra(few - 1)) > Some(1)));
    let middle = session(length / 2 + few + 1);
    meter
        .of("place in the middle", few.min(10), |_| assert!(place(middle) > Some(1)))
        .grows("counts to the nearer end, at most 5 000");
    stage
}

/// A hundred by a session.
pub fn held(count: usize, meter: &mut Meter) {
    let mut stage = Stage::new();
    let name = |number: usize| format!("lock-{number:07}");
    stage.often(count, |stage, number| {
        let session = (number / 100) as u64 + 1;
        if number % 100 == 0 {
            stage.open(session);
        }
        stage.run(&(LOCK.claim)(&name(number), session, false));
    });
    stage.open(extra(0));
    let few = meter.times(900);
    meter.of("take another", few, |number| {
        drop(stage.run(&(LOCK.claim)(&name(count + number), extra(0), false)));
    });
    meter.of("release one of many", few, |number| {
        drop(stage.run(&(LOCK.give_up)(&name(count + number), extra(0))));
    });
    meter.of("take three together", few.min(100), |number| {
        let locks =
            (0..3).map(|part| (format!("{}-{part}", name(count + number)).into(), lock::Mode::Shared));
        let (locks, attach) = (locks.collect(), Attach::Session(SessionId(extra(0))));
        let wanted = lock::AcquireMany { locks, attach, owner: "".into(), wait: false };
        stage.run(&Operation::Lock(lock::Operation::AcquireMany(wanted)));
    });
    meter.of("list 50 names", few, |number| {
        let after = name(somewhere(number, count / 2));
        assert_eq!(lock::names(stage.view(), "lock-", Some(&after), 50).len(), 50);
    });
}
