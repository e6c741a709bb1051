//! When something happened, and whose latency that explains.

use std::time::Duration;

use crate::observed::parse;
use crate::tail::{holds, union};

fn ranges(seconds: &[(u64, u64)]) -> Vec<(Duration, Duration)> {
    seconds.iter().map(|(from, to)| (Duration::from_secs(*from), Duration::from_secs(*to))).collect()
}

#[test]
fn the_same_time_is_counted_once() {
    assert_eq!(union(ranges(&[(5, 6), (1, 3), (2, 4), (4, 5), (8, 9)])), ranges(&[(1, 6), (8, 9)]));
    assert_eq!(union(ranges(&[(1, 9), (2, 3)])), ranges(&[(1, 9)]));
    assert_eq!(union(Vec::new()), Vec::new());
}

#[test]
fn a_moment_lies_in_a_range_or_beside_it() {
    let ranges = ranges(&[(1, 3), (5, 6)]);
    let inside: Vec<u64> = (0..8).filter(|second| holds(&ranges, Duration::from_secs(*second))).collect();
    assert_eq!(inside, [1, 2, 5]);
    assert!(!holds(&[], Duration::ZERO));
}

#[test]
fn figures_without_labels_are_read() {
    let text = "# HELP coracle_checkpoints Checkpoints written.\n# TYPE coracle_checkpoints counter\n\
                coracle_checkpoints_total 3\ncoracle_checkpoint_seconds_total 0.25\n\
                coracle_http_requests_total{route=\"/v1/kv\",status=\"201\"} 7\n# EOF\n";
    let figures = parse(text);
    assert_eq!(figures.len(), 2);
    assert_eq!(
        (figures["coracle_checkpoints_total"], figures["coracle_checkpoint_seconds_total"]),
        (3.0, 0.25)
    );
}
