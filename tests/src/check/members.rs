//! C13: one leader a term, and terms that never fall, over all that nodes said of themselves.

use std::collections::BTreeMap;

use crate::history::{History, Sample};

pub fn check(history: &History, wrong: &mut Vec<String>) {
    let mut leaders: BTreeMap<u64, &str> = BTreeMap::new();
    let mut terms: BTreeMap<usize, u64> = BTreeMap::new();
    for Sample { node, term, leader } in &history.samples {
        if let Some(leader) = leader
            && leaders.insert(*term, leader).is_some_and(|other| other != leader)
        {
            wrong.push(format!("C13: {leader} is not the only leader of term {term}"));
        }
        let before = terms.insert(*node, *term).unwrap_or(0);
        if before > *term {
            wrong.push(format!("C13: node {node} fell from term {before} to {term}"));
        }
    }
}
