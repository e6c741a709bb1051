//! Does a session wait for itself? The graph of who waits for whom, searched when it gets an edge.
//!
//! A session counts as one actor: it gives back what it has when all it waits for is granted. So there are two kinds of
//! nodes, sessions and claims, and these edges:
//!
//! - a session waits for each of its claims that is in line;
//! - a claim waits for the sessions that hold one of its locks in a mode it does not join, and for the sessions that are
//!   ahead of it in a line and want such a mode: they will hold before it does;
//! - a claim waits for a claim on several locks ahead of it that it would join: that must be granted, and nothing more.
//!
//! One that shares, ahead of another that shares, is no edge: it waits for nobody that the other does not wait for too.
//!
//! Edges come with a claim that joins its lines, with a hold that becomes exclusive, and with one that is handed on. All
//! of them touch one session, so a cycle that was not there before leads through it. The search goes on from the session
//! both ways by turns, and ends when one of them has seen all: it costs the fewer of those that the session waits for and
//! those that wait for it. Nobody waits for one that holds nothing, so most searches end where they begin.
//!
//! Not here: semaphores and elections, where nobody waits for anybody in particular.
//!
//! The models of the lock and of its graph (`tests/recipes/lock_model.rs`) prove it against the obvious: let everybody
//! who waits for nothing give back everything, until all have had their turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coracle_store::{Key, SessionId, View};
use minicbor::{Decode, Encode};

use super::{FAMILY, Hold, Lock, Mode, Refusal};
use crate::line::{Claimed, Part, Waiter, decoded};

/// A session, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    /// The lock it waits for. Another of the cycle holds it, or will get it first.
    #[n(2)]
    pub lock: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Session(SessionId),
    /// By its session and the first of its locks.
    Claim(SessionId, Box<str>),
}

/// The node at the other end of an edge, and the lock that the edge is about; `None` for what was looked at and is none.
type Edge = Option<(Node, Box<str>)>;
type Edges<'a> = Box<dyn Iterator<Item = Edge> + 'a>;

/// What one more edge leads to.
enum Looked {
    New(Node),
    /// What was seen before, or nowhere.
    Nowhere,
    /// There is no more edge.
    Done,
}

/// One way through the graph.
struct Search<'a> {
    edges: fn(View<'a>, &Node, &mut Read) -> Edges<'a>,
    view: View<'a>,
    /// From where each node was reached.
    seen: BTreeMap<Node, (Node, Box<str>)>,
    open: VecDeque<Node>,
    /// The one whose edges are looked at.
    present: Option<(Node, Edges<'a>)>,
    read: Read,
}

/// What has been read of each line. Whoever is in the way of one is in the way of all behind it that want the same: so
/// no place is read again for each of those, and a search costs the lines it comes through, not their squares.
///
/// Not noted is what was read for a session that holds what it waits for, since it is not in its own way. There is at
/// most one of those in a line.
#[derive(Default)]
struct Read {
    holders: BTreeSet<(Box<str>, bool)>,
    /// By lock and whether for one that shares: up to where from the front, or down to where from the end.
    waiters: BTreeMap<(Box<str>, bool), Key>,
    /// Likewise, for claims on several locks.
    together: BTreeMap<(Box<str>, bool), Key>,
}

/// Refuse what was just done if the session now waits for itself.
pub(super) fn check(view: View<'_>, session: SessionId) -> Result<(), Refusal> {
    let start = Node::Session(session);
    let mut behind = Search::new(view, &start, behind);
    let mut ahead = Search::new(view, &start, ahead);
    let meeting = loop {
        match behind.step() {
            Looked::Done => return Ok(()),
            Looked::New(node) if node == start || ahead.seen.contains_key(&node) => break node,
            _ => {}
        }
        match ahead.step() {
            Looked::Done => return Ok(()),
            Looked::New(node) if node == start || behind.seen.contains_key(&node) => break node,
            _ => {}
        }
    };
    let mut path: Vec<_> = ahead.back(&start, &meeting).collect();
    path.reverse();
    // The other way the edges were followed against their direction: each lock is that of the node before it.
    let mut at = &meeting;
    for (next, lock) in behind.back(&start, &meeting) {
        path.push((at, lock));
        at = next;
    }
    let link = |(node, lock): (&Node, &str)| match node {
        Node::Session(_) => None,
        Node::Claim(session, _) => {
            let (_, waiter) = Lock::new(lock).waiter(view, *session)?;
            Some(Link { session: *session, owner: waiter.owner, lock: lock.into() })
        }
    };
    Err(Refusal::WouldDeadlock(path.into_iter().filter_map(link).collect()))
}

impl<'a> Search<'a> {
    fn new(view: View<'a>, start: &Node, edges: fn(View<'a>, &Node, &mut Read) -> Edges<'a>) -> Self {
        let (open, present) = (VecDeque::from([start.clone()]), None);
        Self { edges, view, seen: BTreeMap::new(), open, present, read: Read::default() }
    }

    /// Look at one more edge.
    fn step(&mut self) -> Looked {
        loop {
            let Some((from, edges)) = &mut self.present else {
                // Only now: what those before it read is read.
                let Some(node) = self.open.pop_front() else { return Looked::Done };
                let edges = (self.edges)(self.view, &node, &mut self.read);
                self.present = Some((node, edges));
                continue;
            };
            let Some(edge) = edges.next() else {
                self.present = None;
                continue;
            };
            let Some((node, lock)) = edge.filter(|(node, _)| !self.seen.contains_key(node)) else {
                return Looked::Nowhere;
            };
            self.seen.insert(node.clone(), (from.clone(), lock));
            self.open.push_back(node.clone());
            return Looked::New(node);
        }
    }

    /// The nodes from where one was reached back to the start, each with the lock of the edge.
    fn back<'s>(&'s self, start: &'s Node, from: &'s Node) -> impl Iterator<Item = (&'s Node, &'s str)> {
        let before = |node: &Node| self.seen.get(node).map(|(node, lock)| (node, &**lock));
        std::iter::successors(before(from), move |(node, _)| if *node == start { None } else { before(node) })
    }
}

/// Whom a node waits for.
fn ahead<'a>(view: View<'a>, node: &Node, read: &mut Read) -> Edges<'a> {
    let (session, first) = match node {
        Node::Session(session) => {
            let claim = move |key| match claim(view, key)? {
                (name, Claim::Waits(_, waiter)) => Some((waiter.node(&name), name.into())),
                (_, Claim::Holds(_)) => None,
            };
            return Box::new(view.attached_under(*session, &[FAMILY.0]).map(claim));
        }
        Node::Claim(session, first) => (*session, first),
    };
    let mut edges: Vec<Edges<'a>> = Vec::new();
    for (name, key, waiter) in places(view, session, first) {
        let (lock, mode, of) = (Lock::new(&name), waiter.terms, name.clone());
        let line = (name.clone(), mode == Mode::Shared);
        if !read.holders.contains(&line) {
            let holds = matches!(lock.claim(view, session), Some(Claimed::Hold(_)));
            if !holds {
                read.holders.insert(line.clone());
            }
            edges.push(Box::new(lock.holds(view).map(move |(_, hold)| {
                let blocks = hold.session != session && !mode.joins(Some(hold.terms));
                blocks.then(|| (Node::Session(hold.session), of.clone()))
            })));
        }
        let from = read.waiters.get(&line).cloned().unwrap_or_else(|| lock.front());
        let waiters = lock.waiters_between(view, &from, Some(&key));
        read.waiters.insert(line, from.max(key));
        edges.push(Box::new(waiters.map(move |(_, other)| {
            if !mode.joins(Some(other.terms)) {
                Some((Node::Session(other.session), name.clone()))
            } else if other.together.is_empty() {
                None
            } else {
                Some((other.node(&name), name.clone()))
            }
        })));
    }
    Box::new(edges.into_iter().flatten())
}

/// Who waits for a node.
fn behind<'a>(view: View<'a>, node: &Node, read: &mut Read) -> Edges<'a> {
    let mut edges: Vec<Edges<'a>> = Vec::new();
    let (session, first) = match node {
        Node::Session(session) => {
            let session = *session;
            for (name, claim) in
                view.attached_under(session, &[FAMILY.0]).filter_map(move |key| claim(view, key))
            {
                // To have looked at a claim is a step of its own.
                edges.push(Box::new(std::iter::once(None)));
                let (mode, place) = match claim {
                    Claim::Holds(hold) => (hold.terms, None),
                    Claim::Waits(place, waiter) => (waiter.terms, Some(place)),
                };
                let both = place.is_none() && Lock::new(&name).waiter(view, session).is_some();
                let mut unnoted = BTreeMap::new();
                let known = if both { &mut unnoted } else { &mut read.waiters };
                let waiters = behind_in(view, &name, place, mode, known).map(move |waiter| {
                    let waits = waiter.session != session && !waiter.terms.joins(Some(mode));
                    waits.then(|| (waiter.node(&name), name.as_str().into()))
                });
                edges.push(Box::new(waiters));
            }
            return Box::new(edges.into_iter().flatten());
        }
        Node::Claim(session, first) => (*session, first),
    };
    edges.push(Box::new(std::iter::once(Some((Node::Session(session), first.clone())))));
    for (name, key, waiter) in places(view, session, first).filter(|(.., waiter)| !waiter.together.is_empty())
    {
        let others = behind_in(view, &name, Some(&key), waiter.terms, &mut read.together);
        edges.push(Box::new(others.map(move |other| {
            other.terms.joins(Some(waiter.terms)).then(|| (other.node(&name), name.clone()))
        })));
    }
    Box::new(edges.into_iter().flatten())
}

enum Claim<'a> {
    Holds(Hold),
    Waits(&'a Key, Waiter<Mode>),
}

/// What a session's key on a lock is, and the name of the lock.
fn claim<'a>(view: View<'a>, key: &'a Key) -> Option<(String, Claim<'a>)> {
    let (_, name, part) = Lock::of(key)?;
    let value = &view.get(key)?.value;
    match part {
        Part::Hold(_) => Some((name, Claim::Holds(decoded(value)))),
        Part::Wait => Some((name, Claim::Waits(key, decoded(value)))),
        Part::Other(_) => None,
    }
}

/// The places of a claim that waits, one in each of its lines.
fn places<'a>(
    view: View<'a>,
    session: SessionId,
    first: &str,
) -> impl Iterator<Item = (Box<str>, Key, Waiter<Mode>)> + use<'a> {
    let waiter = Lock::new(first).waiter(view, session).map(|(_, waiter)| waiter.together);
    let names = match waiter {
        Some(together) if !together.is_empty() => together,
        _ => vec![first.into()],
    };
    names.into_iter().filter_map(move |name| {
        let (key, waiter) = Lock::new(&name).waiter(view, session)?;
        Some((name, key, waiter))
    })
}

/// Who waits for a lock, or who does behind a place, the last one first; as far as it is not known for this mode.
fn behind_in<'a>(
    view: View<'a>,
    name: &str,
    place: Option<&Key>,
    mode: Mode,
    known: &mut BTreeMap<(Box<str>, bool), Key>,
) -> impl Iterator<Item = Waiter<Mode>> + use<'a> {
    let lock = Lock::new(name);
    let next = |place: &Key| Key::new(FAMILY, &[place.name(), &[0]].concat());
    let (start, line) = (place.map_or_else(|| lock.front(), next), (name.into(), mode == Mode::Shared));
    let end = known.get(&line).cloned();
    let unread = lock.waiters_between(view, &start, end.as_ref()).rev();
    known.insert(line, end.map_or(start.clone(), |end| end.min(start)));
    unread.map(|(_, waiter)| waiter)
}

impl Waiter<Mode> {
    /// The node of its claim, if it is in the line of this lock.
    fn node(&self, lock: &str) -> Node {
        Node::Claim(self.session, self.together.first().map_or_else(|| lock.into(), Clone::clone))
    }
}
