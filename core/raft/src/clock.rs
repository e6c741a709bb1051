//! The only reader of time in this crate.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use coracle_store::Timestamp;

/// What this node would stamp a log entry with: its wall clock, but never less than what the newest entry it has seen
/// says plus the time that went by since.
///
/// So log time goes on at its pace when the lead goes to a node whose clock is hours behind: what waits for log time
/// (delays, visibility, retention) is not late. A leader whose clock is hours ahead takes log time with it, and what
/// waits for it happens early; sessions, and with them locks and elections, do not: they are counted in time gone by.
pub struct LogClock {
    started: Instant,
    /// Log time less the time since the start, in milliseconds: the highest seen.
    offset: AtomicI64,
}

impl LogClock {
    /// A clock of a node whose state is as of `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { started: Instant::now(), offset: AtomicI64::new(signed(now)) }
    }

    /// An entry with this stamp was applied.
    pub fn saw(&self, stamp: Timestamp) {
        self.offset.fetch_max(signed(stamp).saturating_sub(self.elapsed()), Ordering::Relaxed);
    }

    /// The stamp of an entry proposed now. Never goes back.
    #[must_use]
    pub fn stamp(&self) -> Timestamp {
        self.at(wall(), self.elapsed())
    }

    fn at(&self, wall: Timestamp, elapsed: i64) -> Timestamp {
        let own = signed(wall).saturating_sub(elapsed);
        let offset = self.offset.fetch_max(own, Ordering::Relaxed).max(own);
        Timestamp(u64::try_from(offset.saturating_add(elapsed)).unwrap_or(0))
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

fn signed(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// Wall clock. Goes wherever the operating system's clock goes.
fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_wall_clock_hours_behind_does_not_stop_log_time() {
        let clock = LogClock::new(Timestamp(10 * HOUR));
        assert_eq!(clock.at(Timestamp(8 * HOUR), 0), Timestamp(10 * HOUR));
        assert_eq!(clock.at(Timestamp(8 * HOUR + 500), 500), Timestamp(10 * HOUR + 500));
        clock.saw(Timestamp(11 * HOUR));
        let elapsed = u64::try_from(clock.elapsed()).unwrap();
        let stamp = clock.at(Timestamp(8 * HOUR), clock.elapsed()).0;
        assert!((11 * HOUR - elapsed..11 * HOUR + 60_000).contains(&stamp), "{stamp}");
    }

    #[test]
    fn a_wall_clock_that_jumps_back_does_not_take_log_time_with_it() {
        let clock = LogClock::new(Timestamp(0));
        assert_eq!(clock.at(Timestamp(10 * HOUR), 0), Timestamp(10 * HOUR));
        assert_eq!(clock.at(Timestamp(7 * HOUR), 1_000), Timestamp(10 * HOUR + 1_000));
        assert_eq!(clock.at(Timestamp(12 * HOUR), 2_000), Timestamp(12 * HOUR), "forward it goes at once");
    }
}
