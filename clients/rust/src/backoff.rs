//! Waiting between attempts: full jitter from 50 ms up to 5 s.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A random wait below the current ceiling, which doubles with each call.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(10)).min(LAST);
        self.failures += 1;
        ceiling.mul_f64(rand::random())
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_a_doubling_ceiling() {
        for _ in 0..50 {
            let mut backoff = Backoff::default();
            for ceiling_ms in [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000] {
                assert!(backoff.next() <= Duration::from_millis(ceiling_ms));
            }
            backoff.reset();
            assert!(backoff.next() <= Duration::from_millis(50));
        }
    }
}
