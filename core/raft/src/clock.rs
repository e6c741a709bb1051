//! The only reader of time in this crate.

use std::time::{SystemTime, UNIX_EPOCH};

use coracle_store::Timestamp;

/// Wall clock, for stamping log entries. Goes wherever the operating system's clock goes: the store takes the
/// maximum of all stamps it has seen, and nothing that decides who holds what hangs on it.
#[must_use]
pub fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
