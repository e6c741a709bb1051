//! Tests of the generator itself: what it sends, what it refuses to count, and its arithmetic.

mod clusters;
mod etcd;
mod fake;
mod formats;
mod happenings;
mod loads;
mod others;
mod steadiness;
mod tables;
