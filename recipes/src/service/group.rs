//! Candidates side by side, so that each strategy finds its next one without looking at the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fair::Shares;
use super::pool::Candidate;
use super::ring::Ring;

/// Candidates that may be picked. Weight 0 gets nothing, so it is not here.
#[derive(Debug, Default)]
pub(super) struct Group {
    members: Vec<Arc<Candidate>>,
    places: BTreeMap<Box<str>, usize>,
    shares: Shares,
    /// Made when first asked for.
    ring: Option<Ring>,
}

impl Group {
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn member(&self, place: usize) -> &Arc<Candidate> {
        &self.members[place]
    }

    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    pub fn ring(&mut self) -> &Ring {
        self.ring.get_or_insert_with(|| {
            let mut ring = Ring::default();
            self.members.iter().for_each(|candidate| ring.insert(candidate));
            ring
        })
    }

    pub fn insert(&mut self, candidate: &Arc<Candidate>) {
        let weight = u64::from(candidate.instance.description.weight);
        if weight == 0 {
            self.remove(&candidate.id);
            return;
        }
        if let Some(place) = self.places.get(&candidate.id) {
            let was = std::mem::replace(&mut self.members[*place], candidate.clone());
            self.shares.set(*place, was.instance.description.weight.into(), weight);
            if let Some(ring) = &mut self.ring {
                ring.remove(&was);
            }
        } else {
            self.places.insert(candidate.id.clone(), self.members.len());
            self.members.push(candidate.clone());
            self.shares.push(weight);
        }
        if let Some(ring) = &mut self.ring {
            ring.insert(candidate);
        }
    }

    /// The last one takes the place of the one that goes.
    pub fn remove(&mut self, id: &str) {
        let Some(place) = self.places.remove(id) else { return };
        let gone = self.members.swap_remove(place);
        let weight = |candidate: &Candidate| u64::from(candidate.instance.description.weight);
        let last = self.members.len();
        if let Some(moved) = self.members.get(place) {
            self.shares.set(last, weight(moved), 0);
            self.shares.set(place, weight(&gone), weight(moved));
            self.places.insert(moved.id.clone(), place);
        }
        self.shares.pop();
        if let Some(ring) = &mut self.ring {
            ring.remove(&gone);
        }
    }
}
