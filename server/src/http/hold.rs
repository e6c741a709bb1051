//! ⑦ `hold=true`: a claim or session that lives as long as its connection. The same on every family.
//!
//! The edge renews while the socket lives. When it closes the ttl runs as grace, or the session is closed at once
//! (`on_disconnect=expire`). All of that is here, and what every stream tells: `waiting`, `acquired`, `held`, `lost`,
//! `bye`. What is held ([`Held`]) says when there is something to look at, and what is new.

use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use coracle_api::{ByeReason, Code, Granted, HoldFrame, Mode, Problem, Span};
use coracle_store::{Revision, SessionId};

use super::call::{Call, Mutation};
use super::frame::{self, Frames};
use super::held::end_of;
use super::message::Response;
use super::problem::{Answer, bad_query};
use super::read::Format;
use super::turn::{Renewal, Renewed, SESSION_EXPIRED, Undo, Withdrawal};
use super::wire;
use crate::edge::{Admitted, Edge};

/// How a held claim was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    pub ttl: Span,
    /// Do not wait for the ttl when the connection closes.
    pub expire_at_once: bool,
}

/// What a stream holds.
pub trait Held: Send + 'static {
    /// Do what there is to do, and say what is new. Asked at the beginning, after each change, and, as long as nothing is
    /// granted, whenever the session was renewed.
    fn look(&mut self, holding: &mut Holding) -> impl Future<Output = Answer<()>> + Send;

    /// Until there is something to look at.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// A stream that shall begin once its claim is made: its place and its form are settled before anything is proposed.
pub struct Opening {
    hold: Hold,
    sse: bool,
    place: Admitted,
}

/// Settle what can be settled before the claim.
pub fn opening(call: &mut Call, hold: Hold) -> Answer<Opening> {
    let format = call.format(&[("ndjson", Format::Ndjson), ("sse", Format::Sse)])?;
    Ok(Opening { hold, sse: format == Some(Format::Sse), place: call.edge.open_stream()? })
}

/// The same for a stream of deliveries.
pub fn deliveries(call: &mut Call, hold: Option<Hold>, raw: bool, acks: bool) -> Answer<Option<Opening>> {
    let Some(hold) = hold else { return Ok(None) };
    if raw {
        return Err(bad_query("format", "a stream is not raw"));
    }
    if acks {
        return Err(bad_query("acks", "not together with hold: acknowledge by requests of their own"));
    }
    opening(call, hold).map(Some)
}

/// What was claimed by a request.
#[derive(Debug, Clone, Copy)]
pub struct Claimed {
    pub session: SessionId,
    pub revision: Revision,
    /// When the request was received.
    pub received: Instant,
    /// How long to wait for the grant, if not for as long as it takes.
    pub until: Option<Instant>,
}

/// Begin the stream.
pub fn stream<H: Held>(call: Call, opening: Opening, claimed: Claimed, held: H) -> Response {
    let Opening { hold, sse, place } = opening;
    let Claimed { session, revision, received, until } = claimed;
    let edge = call.edge.clone();
    let caller = Mutation { principal: call.peer.principal.clone(), guards: Vec::new(), idempotency: None };
    drop(call);
    let ttl = hold.ttl.as_duration();
    edge.renewals.note(session, received, ttl);
    let mut closing = Withdrawal::new(&edge, caller.clone(), Undo::Close(session));
    if !hold.expire_at_once {
        closing.settle();
    }
    let holding = Holding {
        edge,
        session,
        frames: Frames::new(sse),
        caller,
        renewal: Renewal::new(session, ttl, received),
        until,
        granted: false,
        ended: false,
        closing,
        _place: place,
    };
    let feed = Feed { holding, held, begun: false };
    let stream =
        futures::stream::unfold(feed, |mut feed| async move { feed.next().await.map(|bytes| (bytes, feed)) });
    frame::response(sse, revision, stream)
}

/// A connection and its session, whatever is held.
pub struct Holding {
    pub edge: Edge,
    pub session: SessionId,
    pub frames: Frames,
    /// To change something in its name.
    pub caller: Mutation,
    renewal: Renewal,
    until: Option<Instant>,
    granted: bool,
    ended: bool,
    /// Closes the session when the stream is dropped, if asked for.
    closing: Withdrawal,
    _place: Admitted,
}

impl Holding {
    pub fn is_granted(&self) -> bool {
        self.granted
    }

    pub fn ttl(&self) -> Span {
        self.renewal.ttl.into()
    }

    pub fn valid_for(&self) -> Span {
        self.renewal.valid_for().into()
    }

    pub fn send(&mut self, kind: &'static str, frame: &HoldFrame) {
        self.frames.object(kind, frame);
    }

    /// It is granted (or not any more); the frame is another's to send.
    pub fn set_granted(&mut self, granted: bool) {
        self.granted = granted;
    }

    /// It is granted, and there is no more to say of it.
    pub fn acquired(&mut self, token: Revision, mode: Option<Mode>) {
        let (session, valid_for) = (wire::session(self.session), self.valid_for());
        self.granted = true;
        let granted = Granted { mode, ..Granted::new(session, token.0, valid_for) };
        self.send("acquired", &HoldFrame::Acquired(granted));
    }

    pub fn lost(&mut self, reason: &str, detail: Option<String>) {
        self.send("lost", &HoldFrame::Lost { reason: reason.to_owned(), detail });
        self.finish();
    }

    /// Nothing is held any more.
    pub fn finish(&mut self) {
        self.edge.renewals.forget(self.session);
        self.end();
    }

    fn fail(&mut self, problem: &Problem) {
        self.frames.error(problem);
        self.end();
    }

    fn end(&mut self) {
        self.closing.settle();
        self.ended = true;
    }
}

struct Feed<H> {
    holding: Holding,
    held: H,
    begun: bool,
}

impl<H: Held> Feed<H> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.holding.frames.is_empty() {
                return Some(self.holding.frames.take());
            }
            if self.holding.ended {
                return None;
            }
            if !std::mem::replace(&mut self.begun, true) {
                self.look().await;
                continue;
            }
            let Holding { edge, renewal, until, granted, .. } = &self.holding;
            let end = until.filter(|_| !granted);
            let alarm = end.map_or(renewal.next, |end| end.min(renewal.next));
            tokio::select! {
                biased;
                () = edge.drained() => self.bye(),
                () = self.held.changed() => self.look().await,
                () = tokio::time::sleep_until(alarm.into()) => match end {
                    Some(end) if Instant::now() >= end => self.timeout(),
                    // Boxed, here and below: what happens once in a while shall not make every stream larger.
                    _ => Box::pin(self.renew()).await,
                },
            }
        }
    }

    async fn look(&mut self) {
        match Box::pin(self.held.look(&mut self.holding)).await {
            Ok(()) => {}
            Err(refused) if refused.0.code == Code::SessionExpired => {
                let reason = end_of(&self.holding.edge, self.holding.session);
                self.holding.lost(reason.unwrap_or(SESSION_EXPIRED), None);
            }
            Err(refused) => self.holding.fail(&refused.0),
        }
    }

    async fn renew(&mut self) {
        match self.holding.renewal.renew(&self.holding.edge).await {
            Renewed::Good if self.holding.granted => {
                let valid_for = self.holding.valid_for();
                self.holding.send("held", &HoldFrame::Held { valid_for });
            }
            Renewed::Good => self.look().await,
            Renewed::Later => {}
            Renewed::Lost(reason) => {
                // The leader knew of the end before this node did: catch up, so that history tells how it came.
                let edge = &self.holding.edge;
                if reason == SESSION_EXPIRED && edge.node.read_barrier(edge.deadline()).await.is_ok() {
                    self.look().await;
                }
                if !self.holding.ended {
                    self.holding.lost(reason, None);
                }
            }
        }
    }

    /// The claim was not granted in time, and goes with its session.
    fn timeout(&mut self) {
        let Holding { edge, caller, session, .. } = &self.holding;
        drop(Withdrawal::new(edge, caller.clone(), Undo::Close(*session)));
        self.holding.lost("timeout", None);
    }

    /// The node goes down, not the client: the session keeps its grace, to be resumed elsewhere.
    fn bye(&mut self) {
        self.holding.send("bye", &HoldFrame::Bye { reason: ByeReason::Shutdown });
        self.holding.end();
    }
}
