//! ⑦ `hold=true`: a claim or session that lives as long as its connection.
//!
//! The edge renews while the socket lives. When it closes the ttl runs as grace, or the session is closed at once
//! (`on_disconnect=expire`).

use std::time::{Duration, Instant};

use axum::response::Response;
use bytes::Bytes;
use coracle_api::{ByeReason, HoldFrame, Problem, Span};
use coracle_raft::node::Watch;
use coracle_recipes::{self as recipes, Turn};
use coracle_store::{Cause, Key, Operation, Revision, Selection, SessionId, Store, session};

use super::call::{Call, Mutation};
use super::claim::{Kind, Missed, Standing};
use super::frame::{self, Frames};
use super::problem::{Answer, Refused};
use super::read::Format;
use super::turn::{Following, Renewal, Renewed, SESSION_EXPIRED, Step, TurnOf, Withdrawal};
use super::{attached, wire};
use crate::edge::{Admitted, Edge};

/// How a held claim was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    pub ttl: Span,
    /// Do not wait for the ttl when the connection closes.
    pub expire_at_once: bool,
}

/// Finding a place costs the way to the nearer end of the line: so those far behind look as much more rarely, and all of a line
/// together cost the same however long it is. In between they are told what they were told before.
const COUNT_EVERY: Duration = Duration::from_millis(5);

fn position(standing: &Standing) -> u32 {
    u32::try_from(standing.position).unwrap_or(u32::MAX)
}

/// What is held.
pub enum Claim<K> {
    /// A written key.
    Key { session: SessionId, revision: Revision },
    /// A session itself.
    Session { session: SessionId, revision: Revision },
    /// A place in a line, or what was granted; waiting until then if a time was given.
    Line { session: SessionId, kind: Box<K>, revision: Revision, until: Option<Instant> },
}

/// Whether the stream shall be server-sent events; asked before the parameters end.
fn wants_sse(call: &mut Call) -> Answer<bool> {
    let format = call.format(&[("ndjson", Format::Ndjson), ("sse", Format::Sse)])?;
    Ok(format == Some(Format::Sse))
}

/// A stream that shall begin once its claim is made: its place and its form are settled before anything is proposed.
pub struct Opening {
    hold: Hold,
    sse: bool,
    place: Admitted,
}

/// The parts of an opening, for a stream of another making.
pub struct Opened {
    pub sse: bool,
    /// The session ends with the connection, not after its ttl.
    pub at_once: bool,
    pub place: Admitted,
}

impl Opening {
    pub fn opened(self) -> Opened {
        Opened { sse: self.sse, at_once: self.hold.expire_at_once, place: self.place }
    }
}

/// Settle what can be settled before the claim.
pub fn opening(call: &mut Call, hold: Hold) -> Answer<Opening> {
    let sse = wants_sse(call)?;
    Ok(Opening { hold, sse, place: call.edge.open_stream()? })
}

/// Begin the stream of what has no line.
pub fn stream_of(call: Call, opening: Opening, claim: Claim<NoLine>, received: Instant) -> Response {
    stream(call, opening, claim, received)
}

/// Begin the stream. The claim was made by a request received at `received`.
pub fn stream<K: Kind>(call: Call, opening: Opening, claim: Claim<K>, received: Instant) -> Response {
    let Opening { hold, sse, place } = opening;
    let edge = call.edge.clone();
    let (session, revision, until) = match &claim {
        Claim::Key { session, revision } | Claim::Session { session, revision } => {
            (*session, *revision, None)
        }
        Claim::Line { session, revision, until, .. } => (*session, *revision, *until),
    };
    let mutation = Mutation { principal: call.peer.principal.clone(), guards: Vec::new(), idempotency: None };
    let closing = Withdrawal::new(&edge, mutation, Operation::CloseSession(session));
    drop(call);
    let ttl = hold.ttl.as_duration();
    edge.renewals.note(session, received, ttl);
    let mut feed = Feed {
        edge,
        session,
        ttl,
        until,
        frames: Frames::new(sse),
        stage: Stage::Begin(Some((claim, Renewal::new(session, ttl, received)))),
        closing,
        _place: place,
    };
    if !hold.expire_at_once {
        feed.closing.settle();
    }
    let stream =
        futures::stream::unfold(feed, |mut feed| async move { feed.next().await.map(|bytes| (bytes, feed)) });
    frame::response(sse, revision, stream)
}

enum Stage<K> {
    Begin(Option<(Claim<K>, Renewal)>),
    /// In a line, or granted.
    Following {
        following: Box<Following<K>>,
        holding: bool,
        /// The place as it was told, and when it was found.
        told: Option<(Standing, Instant)>,
    },
    /// Nothing to watch but the session, and what hangs on it.
    Session {
        renewal: Renewal,
        watch: Watch,
        /// What was taken up to here is told.
        seen: Revision,
    },
    Ended,
}

struct Feed<K> {
    edge: Edge,
    session: SessionId,
    ttl: Duration,
    /// How long to stay in the line, if not for as long as it takes.
    until: Option<Instant>,
    frames: Frames,
    stage: Stage<K>,
    /// Closes the session when the stream is dropped, if asked for.
    closing: Withdrawal,
    _place: Admitted,
}

impl<K: Kind> Feed<K> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.frames.is_empty() {
                return Some(self.frames.take());
            }
            match &mut self.stage {
                Stage::Ended => return None,
                Stage::Begin(begin) => match begin.take() {
                    // Boxed, as it happens once.
                    Some((claim, renewal)) => Box::pin(self.begin(claim, renewal)).await,
                    None => return None,
                },
                Stage::Session { .. } => self.renew().await,
                Stage::Following { .. } => self.follow().await,
            }
        }
    }

    async fn begin(&mut self, claim: Claim<K>, renewal: Renewal) {
        let valid_for = Span::from(renewal.valid_for());
        let session = wire::session(self.session);
        match claim {
            Claim::Session { revision, .. } => {
                self.send("opened", &HoldFrame::Opened { session, ttl: self.ttl.into(), valid_for });
                self.keep(renewal, revision).await;
            }
            Claim::Key { revision, .. } => {
                let token = revision.0;
                let mode = Some(coracle_api::Mode::Exclusive);
                self.send("acquired", &HoldFrame::Acquired { session, token, valid_for, mode });
                self.keep(renewal, revision).await;
            }
            Claim::Line { kind, revision, .. } => {
                let (edge, deadline) = (self.edge.clone(), self.edge.deadline());
                match Following::new(edge, *kind, self.session, revision, Some(renewal), deadline).await {
                    Ok(following) => {
                        let turn = following.turn();
                        let following = Box::new(following);
                        self.stage = Stage::Following { following, holding: false, told: None };
                        self.turned(turn);
                    }
                    Err(refused) => self.fail(&refused.0),
                }
            }
        }
    }

    /// Keep the session from now on, and tell what was taken from it after a revision.
    async fn keep(&mut self, renewal: Renewal, seen: Revision) {
        let watch = self.edge.node.watch(Selection::Session(self.session));
        if let Err(error) = self.edge.node.wait_revision(seen, self.edge.deadline()).await {
            return self.fail(&Refused::from(error).0);
        }
        self.stage = Stage::Session { renewal, watch, seen };
        self.look();
    }

    /// Tell what was taken from the session since the last look, and whether it has ended.
    fn look(&mut self) {
        let Stage::Session { seen, .. } = &mut self.stage else { return };
        let id = self.session;
        let (lost, end) = self.edge.node.read(|store| {
            let key = session::key(id);
            let end =
                store.session(id).is_none().then(|| store.key_history(&key).last().map(|it| it.2.cause));
            (attached::lost(store, id, *seen), end)
        });
        *seen = lost.revision;
        for taken in lost.items {
            self.send("taken", &HoldFrame::Taken(taken));
        }
        match end {
            None => {}
            Some(Some(Cause::SessionClosed)) => self.lost("session_closed"),
            // A private session ends with the last thing that hangs on it.
            Some(Some(Cause::Command | Cause::Broken)) => self.lost("released"),
            Some(Some(Cause::SessionExpired) | None) => self.lost(SESSION_EXPIRED),
        }
    }

    async fn renew(&mut self) {
        let Stage::Session { renewal, watch, .. } = &mut self.stage else { return };
        let next = renewal.next;
        tokio::select! {
            biased;
            () = self.edge.drained() => return self.bye(),
            _ = watch.changed() => return self.look(),
            () = tokio::time::sleep_until(next.into()) => {}
        }
        match renewal.renew(&self.edge).await {
            Renewed::Good => {
                let valid_for = renewal.valid_for().into();
                self.send("held", &HoldFrame::Held { valid_for });
            }
            Renewed::Later => {}
            Renewed::Lost(reason) => self.lost(reason),
        }
    }

    async fn follow(&mut self) {
        let Stage::Following { following, holding, told } = &mut self.stage else { return };
        let (holding, end) = (*holding, if *holding { None } else { self.until });
        let keys = following.keys();
        match following.step(end).await {
            Step::Draining => self.bye(),
            Step::Lost(reason) => self.lost(reason),
            Step::Turn(Turn::Gone) => {
                let (reason, detail) = following.reason(&keys);
                self.ended(reason, detail);
            }
            Step::Turn(turn) => self.turned(turn),
            Step::Renewed if holding => {
                if let Some(renewal) = following.renewal() {
                    let valid_for = renewal.valid_for().into();
                    self.send("held", &HoldFrame::Held { valid_for });
                }
            }
            Step::Renewed => match told {
                Some((standing, found)) if found.elapsed() < COUNT_EVERY * position(standing) => {
                    following.kind.waiting(&mut self.frames, standing.clone());
                }
                Some(_) | None => {
                    let turn = following.turn();
                    self.turned(turn);
                }
            },
            Step::Time => {
                // The claim goes with its private session.
                let mutation = Mutation {
                    principal: coracle_store::Principal("anonymous".into()),
                    guards: Vec::new(),
                    idempotency: None,
                };
                drop(Withdrawal::new(&self.edge, mutation, Operation::CloseSession(self.session)));
                self.lost("timeout");
            }
        }
    }

    fn turned(&mut self, turn: TurnOf<K>) {
        let Stage::Following { following, holding, told } = &mut self.stage else { return };
        match turn {
            Turn::Waiting(place) => {
                let standing = following.kind.standing(&place);
                *told = Some((standing.clone(), Instant::now()));
                following.kind.waiting(&mut self.frames, standing);
            }
            Turn::Granted(grant) => {
                *told = None;
                if std::mem::replace(holding, true) {
                    return;
                }
                let valid_for = following.renewal().map(|r| r.valid_for()).unwrap_or_default().into();
                following.kind.acquired(&mut self.frames, &grant, valid_for);
                if following.kind.ends(&grant) {
                    self.edge.renewals.forget(self.session);
                    self.closing.settle();
                    self.stage = Stage::Ended;
                }
            }
            Turn::Gone => self.lost("lost"),
        }
    }

    fn send(&mut self, kind: &'static str, frame: &HoldFrame) {
        self.frames.object(kind, frame);
    }

    fn lost(&mut self, reason: &str) {
        self.ended(reason, None);
    }

    fn ended(&mut self, reason: &str, detail: Option<String>) {
        self.edge.renewals.forget(self.session);
        self.send("lost", &HoldFrame::Lost { reason: reason.to_owned(), detail });
        self.closing.settle();
        self.stage = Stage::Ended;
    }

    fn fail(&mut self, problem: &Problem) {
        self.frames.error(problem);
        self.stage = Stage::Ended;
    }

    /// The node goes down, not the client: the session keeps its grace, to be resumed elsewhere.
    fn bye(&mut self) {
        self.send("bye", &HoldFrame::Bye { reason: ByeReason::Shutdown });
        self.closing.settle();
        self.stage = Stage::Ended;
    }
}

/// The kind of claim that has no line and so is never made.
pub enum NoLine {}

impl Kind for NoLine {
    type Grant = Self;
    type Place = Self;

    fn operation(&self) -> recipes::Operation {
        match *self {}
    }

    fn withdrawal(&self, _: SessionId) -> recipes::Operation {
        match *self {}
    }

    fn turn(&self, _: recipes::Outcome) -> Option<TurnOf<Self>> {
        match *self {}
    }

    fn in_the_way(&self, _: recipes::Refusal) -> Option<Missed> {
        match *self {}
    }

    fn prefixes(&self) -> Vec<Vec<u8>> {
        match *self {}
    }

    fn poll(&self, _: &Store, _: SessionId, _: Option<&Key>) -> TurnOf<Self> {
        match *self {}
    }

    fn holder(&self, _: &Self) -> SessionId {
        match *self {}
    }

    fn standing(&self, _: &Self) -> Standing {
        match *self {}
    }

    fn granted(&self, _: Revision, _: &Self, _: Span) -> Response {
        match *self {}
    }

    fn missed(&self, _: Revision, _: Missed) -> Answer {
        match *self {}
    }

    fn acquired(&self, _: &mut Frames, _: &Self, _: Span) {
        match *self {}
    }
}
