//! How long a test with rounds goes on: a few rounds, or as long as `CORACLE_SOAK` says.

use std::time::{Duration, Instant};

/// Counts rounds.
pub struct Rounds {
    left: u32,
    until: Option<Instant>,
    done: u32,
}

impl Rounds {
    /// `few` rounds, or more with `CORACLE_SOAK=SECONDS`.
    ///
    /// # Panics
    /// If that is no number.
    #[must_use]
    pub fn of(few: u32) -> Self {
        let soak = std::env::var("CORACLE_SOAK").ok();
        let seconds = soak.map(|text| text.parse().expect("CORACLE_SOAK is a number of seconds"));
        Self {
            left: few,
            until: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            done: 0,
        }
    }

    /// Whether there is another round.
    pub fn another(&mut self) -> bool {
        let more = self.left > 0 || self.until.is_some_and(|until| Instant::now() < until);
        self.left = self.left.saturating_sub(1);
        self.done += u32::from(more);
        more
    }

    /// Rounds begun so far.
    #[must_use]
    pub fn begun(&self) -> u32 {
        self.done
    }
}
