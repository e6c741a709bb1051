//! Ranges that contain a key, found without a look at those that do not.
//!
//! A treap: ordered by where ranges start, balanced by a number drawn from each watcher's id, and every node knows the
//! greatest end below it. So a look-up leaves out whatever ends before the key and whatever starts after it.

use crate::ids::Key;
use crate::watch::WatcherId;

#[derive(Default)]
pub(crate) struct Ranges {
    root: Tree,
}

type Tree = Option<Box<Node>>;

struct Node {
    start: Key,
    end: Key,
    id: WatcherId,
    /// The greatest end of this node and of those below.
    last: Key,
    before: Tree,
    behind: Tree,
}

impl Ranges {
    /// The keys from `start` to before `end`.
    pub fn insert(&mut self, id: WatcherId, start: Key, end: Key) {
        let (before, behind) = split(self.root.take(), &start, id);
        let node = Node { last: end.clone(), start, end, id, before: None, behind: None };
        self.root = join(join(before, Some(Box::new(node))), behind);
    }

    /// Forget a range that was inserted with this id and start.
    pub fn remove(&mut self, id: WatcherId, start: &Key) {
        let (before, rest) = split(self.root.take(), start, id);
        let (_, behind) = split(rest, start, WatcherId(id.0 + 1));
        self.root = join(before, behind);
    }

    /// Call `found` for each range that contains the key. Answers how many were looked at.
    pub fn containing(&self, key: &Key, found: &mut dyn FnMut(WatcherId)) -> usize {
        containing(&self.root, key, found)
    }
}

impl Node {
    /// What it is balanced by.
    fn rank(&self) -> u64 {
        let mixed = self.id.0.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    /// Have these below it.
    fn hang(&mut self, before: Tree, behind: Tree) {
        let below = before.iter().chain(&behind).map(|node| &node.last);
        self.last = below.chain([&self.end]).max().expect("its own").clone();
        (self.before, self.behind) = (before, behind);
    }
}

fn containing(tree: &Tree, key: &Key, found: &mut dyn FnMut(WatcherId)) -> usize {
    let Some(node) = tree.as_ref().filter(|node| *key < node.last) else { return 0 };
    let mut looked_at = 1 + containing(&node.before, key, found);
    if node.start <= *key {
        if *key < node.end {
            found(node.id);
        }
        looked_at += containing(&node.behind, key, found);
    }
    looked_at
}

/// What is ordered before (start, id), and what is not.
fn split(tree: Tree, start: &Key, id: WatcherId) -> (Tree, Tree) {
    let Some(mut node) = tree else { return (None, None) };
    let (before, behind) = (node.before.take(), node.behind.take());
    if (&node.start, node.id) < (start, id) {
        let (near, far) = split(behind, start, id);
        node.hang(before, near);
        (Some(node), far)
    } else {
        let (near, far) = split(before, start, id);
        node.hang(far, behind);
        (near, Some(node))
    }
}

/// One tree of two, all of the first before all of the second.
fn join(first: Tree, second: Tree) -> Tree {
    match (first, second) {
        (None, tree) | (tree, None) => tree,
        (Some(mut one), Some(mut other)) => {
            if one.rank() > other.rank() {
                let (before, behind) = (one.before.take(), one.behind.take());
                one.hang(before, join(behind, Some(other)));
                Some(one)
            } else {
                let (before, behind) = (other.before.take(), other.behind.take());
                other.hang(join(Some(one), before), behind);
                Some(other)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Family;

    fn key(number: u64) -> Key {
        Key::new(Family::KV, &number.to_be_bytes())
    }

    fn found(ranges: &Ranges, number: u64) -> (Vec<u64>, usize) {
        let mut ids = Vec::new();
        let looked_at = ranges.containing(&key(number), &mut |id| ids.push(id.0));
        ids.sort_unstable();
        (ids, looked_at)
    }

    /// Ten thousand neighbours, and one that lies over all of them.
    #[test]
    fn neighbours_that_do_not_contain_a_key_are_not_looked_at() {
        let mut ranges = Ranges::default();
        for number in 0..10_000 {
            ranges.insert(WatcherId(number), key(10 * number), key(10 * number + 10));
        }
        ranges.insert(WatcherId(10_000), key(0), key(100_000));
        for number in [0, 1, 4_711, 9_999] {
            let (ids, looked_at) = found(&ranges, 10 * number + 5);
            assert_eq!(ids, [number, 10_000]);
            assert!(looked_at < 200, "{looked_at} looked at");
        }
        assert_eq!(found(&ranges, 100_000).0, [0; 0]);
        for number in (0..10_000).filter(|number| number % 3 > 0) {
            ranges.remove(WatcherId(number), &key(10 * number));
        }
        ranges.remove(WatcherId(77), &key(1));
        assert_eq!(found(&ranges, 10 * 4_711 + 5).0, [10_000]);
        assert_eq!(found(&ranges, 10 * 4_710 + 5).0, [4_710, 10_000]);
    }
}
