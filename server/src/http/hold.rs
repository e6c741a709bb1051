//! ⑦ `hold=true`: a claim or session that lives as long as its connection.
//!
//! The edge renews while the socket lives. When it closes the ttl runs as grace, or the session is closed at once
//! (`on_disconnect=expire`).

use std::time::{Duration, Instant};

use axum::response::Response;
use bytes::Bytes;
use coracle_api::{ByeReason, HoldFrame, Problem, Span};
use coracle_recipes::lock::Turn;
use coracle_store::{Operation, Revision, SessionId};

use super::call::{Call, Mutation};
use super::frame::{self, Frames};
use super::problem::{Answer, blocker};
use super::read::Format;
use super::turn::{Following, Renewal, Renewed, Step, Withdrawal};
use super::wire;
use crate::edge::{Admitted, Edge};

/// How a held claim was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    pub ttl: Span,
    /// Do not wait for the ttl when the connection closes.
    pub expire_at_once: bool,
}

/// What is held.
pub enum Claim {
    /// A written key.
    Key { session: SessionId, revision: Revision },
    /// A session itself.
    Session { session: SessionId, revision: Revision },
    /// A place in a lock's line, or the lock; waiting until then if a time was given.
    Lock { session: SessionId, lock: String, revision: Revision, until: Option<Instant> },
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

/// Settle what can be settled before the claim.
pub fn opening(call: &mut Call, hold: Hold) -> Answer<Opening> {
    let sse = wants_sse(call)?;
    Ok(Opening { hold, sse, place: call.edge.open_stream()? })
}

/// Begin the stream. The claim was made by a request received at `received`.
pub fn stream(mut call: Call, opening: Opening, claim: Claim, received: Instant) -> Response {
    let Opening { hold, sse, place } = opening;
    let edge = call.edge.clone();
    let (session, revision) = match &claim {
        Claim::Key { session, revision }
        | Claim::Session { session, revision }
        | Claim::Lock { session, revision, .. } => (*session, *revision),
    };
    let mutation = Mutation { principal: call.peer.principal.clone(), guards: Vec::new(), idempotency: None };
    let closing = Withdrawal::new(&edge, mutation, Operation::CloseSession(session));
    call.admitted = None;
    let ttl = hold.ttl.as_duration();
    edge.renewals.note(session, received, ttl);
    let mut feed = Feed {
        edge,
        claim,
        session,
        ttl,
        frames: Frames::new(sse),
        stage: Stage::Begin(Some(Renewal::new(session, ttl, received))),
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

enum Stage {
    Begin(Option<Renewal>),
    /// In a lock's line, or holding it.
    Following {
        following: Box<Following>,
        holding: bool,
    },
    /// Nothing to watch but the session.
    Renewing(Renewal),
    Ended,
}

struct Feed {
    edge: Edge,
    claim: Claim,
    session: SessionId,
    ttl: Duration,
    frames: Frames,
    stage: Stage,
    /// Closes the session when the stream is dropped, if asked for.
    closing: Withdrawal,
    _place: Admitted,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.frames.is_empty() {
                return Some(self.frames.take());
            }
            match &mut self.stage {
                Stage::Ended => return None,
                Stage::Begin(renewal) => {
                    let renewal = renewal
                        .take()
                        .unwrap_or_else(|| Renewal::new(self.session, self.ttl, Instant::now()));
                    self.begin(renewal).await;
                }
                Stage::Renewing(_) => self.renew().await,
                Stage::Following { .. } => self.follow().await,
            }
        }
    }

    async fn begin(&mut self, renewal: Renewal) {
        let valid_for = Span::from(renewal.valid_for());
        let session = wire::session(self.session);
        match &self.claim {
            Claim::Session { .. } => {
                self.send("opened", &HoldFrame::Opened { session, ttl: self.ttl.into(), valid_for });
                self.stage = Stage::Renewing(renewal);
            }
            Claim::Key { revision, .. } => {
                let token = revision.0;
                let mode = coracle_api::Mode::Exclusive;
                self.send("acquired", &HoldFrame::Acquired { session, token, valid_for, mode });
                self.stage = Stage::Renewing(renewal);
            }
            Claim::Lock { lock, revision, .. } => {
                let (edge, lock, revision) = (self.edge.clone(), lock.clone(), *revision);
                let deadline = edge.deadline();
                match Following::new(edge, lock, self.session, revision, Some(renewal), deadline).await {
                    Ok(following) => {
                        let turn = following.turn();
                        self.stage = Stage::Following { following: Box::new(following), holding: false };
                        self.turned(turn);
                    }
                    Err(refused) => self.fail(&refused.0),
                }
            }
        }
    }

    async fn renew(&mut self) {
        let Stage::Renewing(renewal) = &mut self.stage else { return };
        let next = renewal.next;
        tokio::select! {
            biased;
            () = self.edge.drained() => return self.bye(),
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
        let until = match &self.claim {
            Claim::Lock { until, .. } => *until,
            Claim::Key { .. } | Claim::Session { .. } => None,
        };
        let Stage::Following { following, holding } = &mut self.stage else { return };
        let (holding, end) = (*holding, if *holding { None } else { until });
        let key = following.key();
        match following.step(end).await {
            Step::Draining => self.bye(),
            Step::Lost(reason) => self.lost(reason),
            Step::Turn(Turn::Gone) => {
                let reason = following.reason(key.as_ref());
                self.lost(reason);
            }
            Step::Turn(turn) => self.turned(turn),
            Step::Renewed if holding => {
                if let Some(renewal) = following.renewal() {
                    let valid_for = renewal.valid_for().into();
                    self.send("held", &HoldFrame::Held { valid_for });
                }
            }
            Step::Renewed => {
                let turn = following.turn();
                self.turned(turn);
            }
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

    fn turned(&mut self, turn: Turn) {
        match turn {
            Turn::Waiting(place) => {
                let blockers = place.blockers.iter().map(blocker).collect();
                self.send("waiting", &HoldFrame::Waiting { position: place.position, blockers });
            }
            Turn::Held(hold) => {
                let Stage::Following { following, holding } = &mut self.stage else { return };
                if std::mem::replace(holding, true) {
                    return;
                }
                let valid_for = following.renewal().map(|r| r.valid_for()).unwrap_or_default().into();
                let frame = HoldFrame::Acquired {
                    session: wire::session(hold.session),
                    token: hold.token.0,
                    valid_for,
                    mode: wire::mode(hold.mode),
                };
                self.send("acquired", &frame);
            }
            Turn::Gone => self.lost("lost"),
        }
    }

    fn send(&mut self, kind: &'static str, frame: &HoldFrame) {
        self.frames.object(kind, frame);
    }

    fn lost(&mut self, reason: &str) {
        self.edge.renewals.forget(self.session);
        self.send("lost", &HoldFrame::Lost { reason: reason.to_owned() });
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
