//! Sticky choice: the same key meets the same instance, on every node, however the others come and go.
//!
//! Rendezvous hashing promises that, but asks every instance about every key. Here each instance has a few points on a
//! ring, each key is tried at [`PROBES`] places of it, and the instance nearest behind one of them has the key
//! (multi-probe consistent hashing: Appleton and O'Reilly, 2015). The promise is the same: an instance that goes loses its
//! keys to the others, one that comes takes its share from all, and no other key moves. The cost is that of a few look-ups
//! in an ordered map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::pool::Candidate;

/// Places a key is tried at: the more, the evener.
const PROBES: u64 = 21;
/// Points of an instance of weight 100.
const POINTS: u64 = 4;
/// The odd number nearest to 2^64 / the golden ratio: multiples of it spread evenly.
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug, Default)]
pub(super) struct Ring {
    points: BTreeMap<(u64, Box<str>), Arc<Candidate>>,
}

impl Ring {
    pub fn insert(&mut self, candidate: &Arc<Candidate>) {
        for point in points(candidate) {
            self.points.insert((point, candidate.id.clone()), candidate.clone());
        }
    }

    pub fn remove(&mut self, candidate: &Candidate) {
        for point in points(candidate) {
            self.points.remove(&(point, candidate.id.clone()));
        }
    }

    /// The instances in the order in which they would have the key, `enough` of them that are not in `without`.
    pub fn order(&self, key: &str, enough: usize, without: &BTreeSet<Box<str>>) -> Vec<Arc<Candidate>> {
        let hash = hash(key);
        let place = |n: u64| mix(hash.wrapping_add(n.wrapping_mul(GOLDEN)));
        let behind = |at: u64| self.points.range((at, Box::default())..).chain(self.points.iter());
        let mut probes: Vec<_> =
            (0..PROBES).map(place).map(|at| (at, behind(at).take(self.points.len()).peekable())).collect();
        let mut found: Vec<Arc<Candidate>> = Vec::new();
        let mut seen = BTreeSet::new();
        while found.len() < enough {
            let distance = |at: u64, walk: &mut std::iter::Peekable<_>| {
                let (point, _): &(&(u64, Box<str>), &Arc<Candidate>) = walk.peek()?;
                Some(point.0.wrapping_sub(at))
            };
            let nearest = probes
                .iter_mut()
                .enumerate()
                .filter_map(|(n, (at, walk))| Some((distance(*at, walk)?, n)))
                .min();
            let Some((_, (_, candidate))) = nearest.and_then(|(d, n)| Some((d, probes[n].1.next()?))) else {
                break;
            };
            if seen.insert(candidate.id.clone()) && !without.contains(&candidate.id) {
                found.push(candidate.clone());
            }
        }
        found
    }
}

fn points(candidate: &Candidate) -> impl Iterator<Item = u64> + use<> {
    let weight = u64::from(candidate.instance.description.weight);
    let hash = hash(&candidate.id);
    (0..(weight * POINTS).div_ceil(100)).map(move |n| mix(hash ^ n.wrapping_mul(GOLDEN)))
}

/// Of a text, the same for ever: stickiness is a promise across nodes and versions. (FNV-1a, then mixed.)
fn hash(text: &str) -> u64 {
    mix(text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    }))
}

/// Every bit of the answer depends on every bit given. (The end of `SplitMix64`.)
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
