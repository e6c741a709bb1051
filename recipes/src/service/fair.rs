//! Shares in proportion to weights: prefix sums that are kept, read and searched in logarithmic time (a Fenwick tree).

/// Weights by place.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    /// Entry `n` (from 1) sums the weights of the `n & -n` places up to and including place `n - 1`.
    sums: Vec<u64>,
}

impl Shares {
    pub fn total(&self) -> u64 {
        self.before(self.sums.len())
    }

    /// Sum of the weights of the places before this one.
    fn before(&self, place: usize) -> u64 {
        let (mut rest, mut sum) = (place, 0);
        while rest > 0 {
            sum += self.sums[rest - 1];
            rest &= rest - 1;
        }
        sum
    }

    pub fn push(&mut self, weight: u64) {
        let number = self.sums.len() + 1;
        let covered = number & number.wrapping_neg();
        let below = self.before(number - 1) - self.before(number - covered);
        self.sums.push(below + weight);
    }

    /// Forget the last place.
    pub fn pop(&mut self) {
        self.sums.pop();
    }

    pub fn set(&mut self, place: usize, was: u64, is: u64) {
        let mut number = place + 1;
        while let Some(sum) = self.sums.get_mut(number - 1) {
            *sum = *sum + is - was;
            number += number & number.wrapping_neg();
        }
    }

    /// The place that `point` falls on, if the weights are laid end to end; `point` must be below the total.
    pub fn at(&self, mut point: u64) -> usize {
        let mut place = 0;
        let mut step = self.sums.len().checked_next_power_of_two().unwrap_or(0);
        while step > 0 {
            if let Some(sum) = (place + step).checked_sub(1).and_then(|last| self.sums.get(last))
                && *sum <= point
            {
                place += step;
                point -= sum;
            }
            step /= 2;
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_falls_on_its_weight() {
        let mut shares = Shares::default();
        let mut plain: Vec<u64> = Vec::new();
        for n in 0..300_u64 {
            match n % 5 {
                4 => {
                    shares.pop();
                    plain.pop();
                }
                3 => {
                    let place = usize::try_from(n * 7).unwrap() % plain.len();
                    shares.set(place, plain[place], n);
                    plain[place] = n;
                }
                _ => {
                    shares.push(n % 4);
                    plain.push(n % 4);
                }
            }
            assert_eq!(shares.total(), plain.iter().sum());
            let points =
                plain.iter().enumerate().flat_map(|(place, weight)| (0..*weight).map(move |_| place));
            if n % 20 == 0 {
                for (point, place) in points.enumerate() {
                    assert_eq!(shares.at(point as u64), place);
                }
            }
        }
    }
}
