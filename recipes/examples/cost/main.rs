//! What each operation costs beside 10³ … 10⁶ others that it does not touch:
//! `cargo run --release -p coracle-recipes --example cost [CURVE…]` prints docs/PERFORMANCE.md's table.
//!
//! Two costs: processor time, for people, and steps (rows that were looked at or written), which are the same on every
//! machine. The steps are tested below: they may not differ between a hundred and ten thousand others.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a stopwatch stands outside the recipes"
)]

mod claims;
mod kept;
mod meetings;
mod meter;
mod queues;
mod services;
mod stage;
mod streams;
mod topics;

use meter::{Figure, Meter};

/// One thing there may be many of.
struct Curve {
    /// Whose operations.
    of: &'static str,
    /// What there is more and more of.
    beside: &'static str,
    /// As many as are tried.
    most: usize,
    at: fn(usize, &mut Meter),
}

const fn curve(of: &'static str, beside: &'static str, most: usize, at: fn(usize, &mut Meter)) -> Curve {
    Curve { of, beside, most, at }
}

const CURVES: &[Curve] = &[
    curve("keys", "keys", 1_000_000, kept::keys),
    curve("sessions", "sessions with a key each", 1_000_000, kept::sessions),
    curve("streams", "streams of each kind", 1_000_000, streams::streams),
    curve("locks", "waiters, 9 000 in a line", 100_000, claims::locks),
    curve("locks-held", "locks that are held", 1_000_000, claims::held),
    curve("semaphores", "waiters, 9 000 in a line", 100_000, claims::semaphores),
    curve("elections", "candidates, 9 000 in a line", 100_000, claims::elections),
    curve("queues", "messages, a tenth each in flight, delayed, in one group", 1_000_000, queues::queues),
    curve("queue-waiters", "waiting receivers, 9 000 in a line", 100_000, queues::waiters),
    curve("barrier-queues", "items of a generation", 100_000, queues::generations),
    curve("topics", "messages, half of them in others", 1_000_000, topics::topics),
    curve("subscriptions", "subscriptions", 10_000, topics::subscriptions),
    curve("services", "instances, 10 000 of a service", 100_000, services::services),
    curve("groups", "members, 9 000 in a group", 100_000, meetings::groups),
    curve("barriers", "parties, 9 000 at a barrier", 100_000, meetings::barriers),
    curve("latches", "counts, 9 000 of a latch", 100_000, meetings::latches),
    curve("counters", "counters", 1_000_000, kept::counters),
    curve("fences", "fences", 1_000_000, kept::fences),
];

/// The columns of the table.
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// So often an operation is done at each size, at most.
const TIMES: usize = 10_000;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !CURVES.iter().any(|curve| curve.of == name.as_str())) {
        let known: Vec<&str> = CURVES.iter().map(|curve| curve.of).collect();
        eprintln!("error: no curve {unknown}; there are {}", known.join(", "));
        std::process::exit(2);
    }
    println!("| µs each, beside | 10³ | 10⁴ | 10⁵ | 10⁶ | steps |\n|---|---|---|---|---|---|");
    for curve in CURVES.iter().filter(|curve| wanted.is_empty() || wanted.iter().any(|name| name == curve.of))
    {
        println!("| **{}: {}** | | | | | |", curve.of, curve.beside);
        let figures = |size| measured(curve, size, TIMES);
        let columns: Vec<_> = SIZES.into_iter().filter(|size| *size <= curve.most).map(figures).collect();
        for row in 0..columns[0].len() {
            let across: Vec<Figure> = columns.iter().map(|column| column[row]).collect();
            println!("{}", meter::row(&across, SIZES.len()));
        }
    }
}

fn measured(curve: &Curve, size: usize, times: usize) -> Vec<Figure> {
    let mut meter = Meter::new(times);
    (curve.at)(size, &mut meter);
    meter.figures
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So much may a value grow with the numbers that are written in it.
    const BYTES_A_ROW: u64 = 8;
    /// No entry looks at more, whatever it touches.
    const MOST_ROWS: u64 = 150_000;
    /// So often each operation is done: as often as there is enough for beside a hundred.
    const TRIES: usize = 10;

    #[test]
    fn what_an_operation_looks_at_does_not_grow_with_what_it_does_not_touch() {
        let mut wrong = Vec::new();
        for curve in CURVES {
            let (few, many) = (measured(curve, 100, TRIES), measured(curve, 10_000, TRIES));
            assert!(!few.is_empty(), "{} measures nothing", curve.of);
            for (few, many) in few.iter().zip(&many) {
                assert_eq!((few.what, few.times), (many.what, many.times), "{}", curve.of);
                let grows = many.steps.rows != few.steps.rows
                    || many.steps.bytes > few.steps.bytes + BYTES_A_ROW * few.steps.rows;
                let within = many.steps.rows <= MOST_ROWS * many.times as u64;
                if grows != few.grows.is_some() || !within {
                    wrong.push(format!("{}, {}: {:?} → {:?}", curve.of, few.what, few.steps, many.steps));
                }
            }
        }
        assert!(wrong.is_empty(), "beside 100 and beside 10 000:\n{}", wrong.join("\n"));
    }

    #[test]
    fn a_look_at_every_row_is_seen() {
        let all = |size| {
            let mut meter = Meter::new(1);
            let mut stage = stage::Stage::new();
            (0..size).for_each(|number| stage.put(kept::key(number)));
            meter.of("count", 1, |_| assert_eq!(stage.view().seek(&kept::key(0)).count(), size));
            meter.figures[0].steps.rows
        };
        assert_eq!(all(1_000) - all(100), 900);
    }
}
