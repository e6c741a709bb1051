//! The verdict on memory over time.

use std::time::Duration;

use crate::steady::{Change, Curve};

/// Forty looks, three seconds apart, at two nodes.
fn curve(mib: impl Fn(usize) -> [u64; 2]) -> Curve {
    let looks = (0..40).map(|look| {
        let at = Duration::from_secs(3 * (look as u64 + 1));
        (at, mib(look).map(|mib| mib * 1024).to_vec())
    });
    Curve { samples: looks.collect() }
}

#[test]
fn what_fills_in_the_first_quarter_and_stays_is_flat() {
    let filling = curve(|look| [100 + 20 * look.min(9) as u64, 300 + (look % 3) as u64]);
    let changes = filling.changes().unwrap();
    assert!(changes.iter().all(|change| change.flat), "{changes:?}");
    assert_eq!(changes[0], Change { second_quarter: 280.0, last_quarter: 280.0, flat: true });
    let report = filling.report().unwrap();
    assert!(
        report.contains("node 2: flat, 301 MiB in the second quarter, 301 in the last: +0.0 MiB"),
        "{report}"
    );
    assert!(report.contains("\n     3 s     100    300\n"), "{report}");
}

#[test]
fn one_node_that_grows_is_told_with_its_pace() {
    let growing = curve(|look| [200 + look as u64, 300]);
    let changes = growing.changes().unwrap();
    assert_eq!(changes.iter().map(|change| change.flat).collect::<Vec<_>>(), [false, true]);
    // A MiB in each look of three seconds is twenty a minute.
    let report = growing.report().unwrap();
    assert!(
        report.contains(
            "node 1: grows, 214 MiB in the second quarter, 234 in the last: +20.0 MiB, +20.00 a minute"
        ),
        "{report}"
    );
}

#[test]
fn three_looks_are_no_curve() {
    let mut short = curve(|_| [1, 1]);
    short.samples.truncate(3);
    assert!(short.changes().is_err() && short.report().is_err());
}
