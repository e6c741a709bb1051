//! ③ Whether those who have been answered come back at once.
//!
//! Clients that ask again as soon as they are answered are worth waiting for: all of them together are one batch, half
//! the cost of two. Others are not, and nobody can tell them apart; so what came of the last time decides the next.

/// The longest a node goes on without another try, in batches.
const REST: u32 = 4095;
/// The first batches of a try bring everybody together, and prove nothing.
const GATHERING: u32 = 2;

/// How often waiting was in vain of late.
#[derive(Debug, Default)]
pub struct Returns {
    vain: u32,
    /// Batches until the next try.
    rest: u32,
    /// Batches of this try.
    tried: u32,
}

impl Returns {
    /// Should those of the batch that leaves now be waited for?
    pub fn expected(&mut self) -> bool {
        let tired = self.rest > 0;
        self.rest = self.rest.saturating_sub(1);
        !tired
    }

    /// They have been waited for, and all came in time, and hardly anybody else; or not. If not, the next try is twice as
    /// many batches away.
    pub fn came(&mut self, back: bool) {
        self.tried = self.tried.saturating_add(1);
        if self.tried <= GATHERING {
            return;
        }
        if back {
            self.vain /= 2;
        } else {
            self.vain = (2 * self.vain + 1).min(REST);
            (self.rest, self.tried) = (self.vain, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many batches, how many waited.
    fn waited(returns: &mut Returns, batches: u32, mut back: impl FnMut() -> bool) -> u32 {
        let mut waits = 0;
        for _ in 0..batches {
            if returns.expected() {
                waits += 1;
                returns.came(back());
            }
        }
        waits
    }

    #[test]
    fn who_comes_back_is_waited_for_and_who_does_not_is_hardly() {
        let mut returns = Returns::default();
        assert_eq!(waited(&mut returns, 1000, || true), 1000);
        assert!(waited(&mut returns, 10_000, || false) < 60);
        let mut turn = 0;
        let now_and_then = || {
            turn += 1;
            turn % 3 == 0
        };
        assert!(waited(&mut returns, 10_000, now_and_then) < 100);
    }

    #[test]
    fn trust_comes_back_after_one_rest() {
        let mut returns = Returns::default();
        waited(&mut returns, 10_000, || false);
        waited(&mut returns, REST, || true);
        assert_eq!(waited(&mut returns, 1000, || true), 1000);
    }

    #[test]
    fn one_that_is_late_does_not_end_it() {
        let mut returns = Returns::default();
        waited(&mut returns, 100, || true);
        returns.came(false);
        assert_eq!(waited(&mut returns, 100, || true), 99);
    }
}
