//! ⑦ What most streams hold: a session with what hangs on it, or a place in a line. See [`super::hold`].

use std::time::{Duration, Instant};

use coracle_api::{HoldFrame, Mode};
use coracle_raft::node::Watch;
use coracle_recipes::Turn;
use coracle_store::command::OpenSession;
use coracle_store::{Cause, Key, Operation, Revision, Selection, SessionId, session};

use super::call::{Call, Mutation, outcome};
use super::claim::{Kind, Standing};
use super::hold::{self, Claimed, Held, Holding, Opening};
use super::message::Response;
use super::problem::Answer;
use super::turn::{Following, SESSION_EXPIRED};
use super::{attached, wire};
use crate::edge::Edge;

/// A session, and what is taken from it.
struct Kept {
    id: SessionId,
    /// It is there for what hangs on it, not for itself.
    registers: bool,
    watch: Watch,
    /// What was taken up to here is told.
    seen: Revision,
}

impl Kept {
    fn session(edge: &Edge, id: SessionId, seen: Revision) -> Self {
        Self { id, registers: false, watch: edge.node.watch(Selection::Session(id)), seen }
    }
}

/// The stream of a session itself, of which all up to a revision is known.
pub fn session(
    call: Call,
    opening: Opening,
    session: SessionId,
    revision: Revision,
    received: Instant,
) -> Response {
    let kept = Kept::session(&call.edge, session, revision);
    hold::stream(call, opening, Claimed { session, revision, received, until: None }, kept)
}

/// The stream of what was written at a revision and lives with the session.
pub fn written(
    call: Call,
    opening: Opening,
    session: SessionId,
    revision: Revision,
    received: Instant,
) -> Response {
    let kept = Kept { registers: true, ..Kept::session(&call.edge, session, revision) };
    hold::stream(call, opening, Claimed { session, revision, received, until: None }, kept)
}

impl Held for Kept {
    async fn look(&mut self, holding: &mut Holding) -> Answer<()> {
        if !holding.is_granted() {
            if self.registers {
                holding.acquired(self.seen, Some(Mode::Exclusive));
            } else {
                let (session, valid_for) = (wire::session(self.id), holding.valid_for());
                holding.set_granted(true);
                holding.send("opened", &HoldFrame::Opened { session, ttl: holding.ttl(), valid_for });
            }
            holding.edge.node.wait_revision(self.seen, holding.edge.deadline()).await?;
        }
        let (id, seen) = (self.id, self.seen);
        let lost = holding.edge.node.read(|store| attached::lost(store, id, seen));
        self.seen = lost.revision;
        for taken in lost.items {
            holding.send("taken", &HoldFrame::Taken(taken));
        }
        if let Some(reason) = end_of(&holding.edge, id) {
            holding.lost(reason, None);
        }
        Ok(())
    }

    async fn changed(&mut self) {
        self.watch.changed().await;
    }
}

/// Open a session for a claim that is made by the stream itself, then the stream.
pub async fn opened<H: Held>(
    call: Call,
    opening: Opening,
    open: OpenSession,
    mutation: Mutation,
    until: Option<Instant>,
    held: impl FnOnce(Edge, SessionId, Revision) -> H,
) -> Answer {
    let (received, session) = (Instant::now(), open.id);
    let reply = call.propose(mutation, Operation::OpenSession(open)).await?;
    let (revision, ..) = outcome(reply)?;
    let held = held(call.edge.clone(), session, revision);
    Ok(hold::stream(call, opening, Claimed { session, revision, received, until }, held))
}

/// Why a session has ended, if it has.
pub fn end_of(edge: &Edge, id: SessionId) -> Option<&'static str> {
    let key = session::key(id);
    let end = edge.node.read(|store| {
        store.session(id).is_none().then(|| store.key_history(&key).next().map(|it| it.2.cause))
    })?;
    Some(match end {
        Some(Cause::SessionClosed) => "session_closed",
        // A private session ends with the last thing that hangs on it.
        Some(Cause::Command | Cause::Broken) => "released",
        Some(Cause::SessionExpired) | None => SESSION_EXPIRED,
    })
}

/// A place in a line, and what was granted.
pub struct InLine<K: Kind> {
    following: Following<K>,
    /// The keys of the claim before it changed.
    keys: Vec<Key>,
    changed: bool,
    told: Told,
    /// It was told that it is.
    overdue: bool,
}

/// Finding a place costs the way to the nearer end of the line: so those far behind look as much more rarely, and all of a line
/// together cost the same however long it is. In between they are told what they were told before.
const COUNT_EVERY: Duration = Duration::from_millis(5);

/// The place in a line as it was told, and when it was found.
#[derive(Default)]
pub struct Told(Option<(Standing, Instant)>);

impl Told {
    /// What was told, if it is too early to look again.
    pub fn again(&self) -> Option<Standing> {
        let (standing, found) = self.0.as_ref()?;
        let early = found.elapsed() < COUNT_EVERY * u32::try_from(standing.position).unwrap_or(u32::MAX);
        early.then(|| standing.clone())
    }

    pub fn note(&mut self, standing: Standing) -> Standing {
        self.0 = Some((standing.clone(), Instant::now()));
        standing
    }
}

impl<K: Kind> InLine<K> {
    pub fn new(following: Following<K>) -> Self {
        Self { following, keys: Vec::new(), changed: true, told: Told::default(), overdue: false }
    }
}

impl<K: Kind> Held for InLine<K> {
    async fn look(&mut self, holding: &mut Holding) -> Answer<()> {
        if !std::mem::take(&mut self.changed)
            && let Some(standing) = self.told.again()
        {
            self.following.kind.waiting(&mut holding.frames, standing);
            return Ok(());
        }
        match self.following.turn() {
            Turn::Waiting(place) => {
                let standing = self.told.note(self.following.kind.standing(&place));
                self.following.kind.waiting(&mut holding.frames, standing);
            }
            Turn::Granted(grant) => {
                self.told = Told::default();
                let valid_for = holding.valid_for();
                let kind = &self.following.kind;
                if !holding.is_granted() {
                    holding.set_granted(true);
                    kind.acquired(&mut holding.frames, &grant, valid_for);
                }
                let overdue = kind.overdue(&grant);
                if kind.ends(&grant) {
                    holding.finish();
                }
                if let Some(since) = overdue
                    && !std::mem::replace(&mut self.overdue, true)
                {
                    holding.send("overdue", &HoldFrame::Overdue { since });
                }
            }
            Turn::Gone => {
                let (reason, detail) = self.following.reason(&self.keys);
                holding.lost(reason, detail);
            }
        }
        Ok(())
    }

    async fn changed(&mut self) {
        self.keys = self.following.keys();
        self.following.changed().await;
        self.changed = true;
    }
}
