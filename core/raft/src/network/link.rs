//! One connection to one peer for one class of traffic, and the requests that ride on it.
//!
//! A task exists only while there is a connection or one being made; the first request starts it. It reads, writes
//! and watches the clock for all requests, which are entries of a map and frames in a buffer. A request whose frame
//! has not been handed to the socket when it fails is [`CallError::Unreachable`]; afterwards nobody knows.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::client::CallError;
use super::counters::Counters;
use super::dial::{Dial, DialError};
use super::hello::{Class, Reject};
use super::out::{drain, lock};
use super::stream::Stream;
use super::wire::{Frame, FrameReader, Kind, put_frame, retain_frames};
use crate::types::NodeId;

/// Requests without an answer.
const PENDING_MAX: usize = 8192;
/// Bytes not yet written; one request above it is taken.
const BUFFER_MAX: usize = 32 << 20;
/// A peer that owes answers and says nothing for so long is pinged.
const QUIET: Duration = Duration::from_millis(500);
/// A connection without requests is pinged this often, which keeps it open.
const IDLE: Duration = Duration::from_secs(15);
/// A ping unanswered for so long: the connection is dead.
const STALL: Duration = Duration::from_millis(1500);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// After a rejection, which does not heal by itself.
const BACKOFF_REJECTED: Duration = Duration::from_secs(2);

pub type Done = Box<dyn FnOnce(Result<Bytes, CallError>) + Send>;

struct Pending {
    deadline: Instant,
    sent: Instant,
    done: Done,
}

enum Phase {
    Idle,
    /// Requests gather.
    Connecting(Arc<Notify>),
    Open(Arc<Notify>),
    /// Requests fail at once, until then.
    Down {
        until: Instant,
        error: CallError,
    },
    Closed,
}

struct State {
    address: Arc<str>,
    phase: Phase,
    buffer: Vec<u8>,
    next: u64,
    /// Requests below this were handed to the socket.
    taken: u64,
    pending: BTreeMap<u64, Pending>,
    /// No deadline is before this.
    earliest: Instant,
    /// When the peer last said anything.
    heard: Instant,
    pinged: Option<Instant>,
    failures: u32,
}

pub struct Link {
    to: NodeId,
    class: Class,
    state: Mutex<State>,
    /// There is something to write.
    wake: Notify,
    /// There is an earlier deadline.
    hurry: Notify,
    pub counters: Counters,
}

impl Link {
    pub fn new(to: NodeId, class: Class, address: Arc<str>) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            address,
            phase: Phase::Idle,
            buffer: Vec::new(),
            next: 1,
            taken: 1,
            pending: BTreeMap::new(),
            earliest: now,
            heard: now,
            pinged: None,
            failures: 0,
        };
        let (wake, hurry) = (Notify::new(), Notify::new());
        Arc::new(Self { to, class, state: Mutex::new(state), wake, hurry, counters: Counters::default() })
    }

    /// `done` is called exactly once; before this returns if nothing can be sent.
    pub fn call(
        self: &Arc<Self>,
        (runtime, dial): (&Handle, &Arc<Dial>),
        kind: Kind,
        deadline: Instant,
        encode: impl FnOnce(&mut Vec<u8>),
        done: Done,
    ) {
        let now = Instant::now();
        let refused = {
            let mut state = lock(&self.state);
            match state.admit(now) {
                Err(error) => Some((error, done)),
                Ok(()) => {
                    let id = state.next;
                    if put_frame(&mut state.buffer, kind, id, encode).is_err() {
                        Some((CallError::Unreachable("the request is too large".into()), done))
                    } else {
                        state.next += 1;
                        if state.pending.is_empty() || deadline < state.earliest {
                            state.earliest = deadline;
                            self.hurry.notify_one();
                        }
                        state.pending.insert(id, Pending { deadline, sent: now, done });
                        if matches!(state.phase, Phase::Idle | Phase::Down { .. }) {
                            let stop = Arc::new(Notify::new());
                            state.phase = Phase::Connecting(stop.clone());
                            runtime.spawn(self.clone().run(dial.clone(), state.address.clone(), stop));
                        }
                        None
                    }
                }
            }
        };
        match refused {
            Some((error, done)) => done(Err(error)),
            None => {
                self.counters.queued();
                self.wake.notify_one();
            }
        }
    }

    /// From now on dial another address.
    pub fn redirect(&self, address: &Arc<str>) {
        let mut state = lock(&self.state);
        if state.address != *address {
            state.address = address.clone();
            match &state.phase {
                Phase::Connecting(stop) | Phase::Open(stop) => stop.notify_one(),
                Phase::Down { .. } => state.phase = Phase::Idle,
                Phase::Idle | Phase::Closed => {}
            }
        }
    }

    pub fn close(&self) {
        let mut state = lock(&self.state);
        if let Phase::Connecting(stop) | Phase::Open(stop) =
            std::mem::replace(&mut state.phase, Phase::Closed)
        {
            stop.notify_one();
        }
    }

    /// `None`: not tried.
    pub fn works(&self) -> Option<bool> {
        match lock(&self.state).phase {
            Phase::Open(_) => Some(true),
            Phase::Down { .. } => Some(false),
            Phase::Idle | Phase::Connecting(_) | Phase::Closed => None,
        }
    }

    async fn run(self: Arc<Self>, dial: Arc<Dial>, address: Arc<str>, stop: Arc<Notify>) {
        let end = tokio::select! {
            biased;
            () = stop.notified() => CallError::Unreachable("the connection is no longer wanted".into()),
            error = self.converse(&dial, &address, &stop) => error,
            silent = self.watch() => silent,
        };
        tracing::debug!(to = self.to, class = ?self.class, %address, "no connection: {end}");
        let failed = lock(&self.state).end(&stop, &end);
        for (pending, error) in failed {
            (pending.done)(Err(error));
        }
    }

    /// Connect, then exchange frames until it ends.
    async fn converse(&self, dial: &Dial, address: &str, stop: &Arc<Notify>) -> CallError {
        let reader = match dial.dial(address, self.to, self.class).await {
            Ok(reader) => reader,
            Err(DialError::Rejected(reject)) => return CallError::Refused(reject),
            Err(DialError::Io(e)) => return unreachable(&e),
        };
        if !lock(&self.state).opened(stop) {
            return CallError::Unreachable("the connection is no longer wanted".into());
        }
        self.counters.connected();
        let (mut reader, mut writer) = reader.split();
        let take = |batch: &mut Vec<u8>| {
            let mut state = lock(&self.state);
            state.taken = state.next;
            std::mem::swap(&mut state.buffer, batch);
            true
        };
        tokio::select! {
            biased;
            error = self.read(&mut reader, &dial.local) => error,
            end = drain(&mut writer, &self.wake, &self.counters, take) => match end {
                Ok(()) => unreachable(&io::ErrorKind::BrokenPipe.into()),
                Err(e) => unreachable(&e),
            },
        }
    }

    async fn read(
        &self,
        reader: &mut FrameReader<tokio::io::ReadHalf<Stream>>,
        local: &Arc<dyn super::service::Local>,
    ) -> CallError {
        loop {
            match reader.next().await {
                Ok(Some(Frame { kind: Kind::Reject, body, .. })) => {
                    return match Reject::read(&body) {
                        Ok(reject) => {
                            local.refused(self.to, &reject);
                            CallError::Refused(reject)
                        }
                        Err(e) => unreachable(&e.into()),
                    };
                }
                Ok(Some(frame)) => {
                    self.counters.received(reader.take_bytes());
                    self.receive(frame);
                }
                Ok(None) => return CallError::Unreachable("the peer closed the connection".into()),
                Err(e) => return unreachable(&e),
            }
        }
    }

    fn receive(&self, frame: Frame) {
        let now = Instant::now();
        let pending = {
            let mut state = lock(&self.state);
            state.heard = now;
            state.pinged = None;
            state.pending.remove(&frame.id)
        };
        // An answer after its deadline finds nobody.
        let Some(pending) = pending else { return };
        self.counters.answered_after(now - pending.sent);
        (pending.done)(match frame.kind {
            Kind::Failed => Err(CallError::Failed(String::from_utf8_lossy(&frame.body).into())),
            _ => Ok(frame.body),
        });
    }

    /// Expire requests; return when the peer has fallen silent.
    async fn watch(&self) -> CallError {
        loop {
            let (wait, expired) = {
                let mut state = lock(&self.state);
                match state.tick(Instant::now()) {
                    Err(error) => return error,
                    Ok((next, ping, expired)) => {
                        if ping {
                            self.wake.notify_one();
                        }
                        (next, expired)
                    }
                }
            };
            self.counters.timed_out(expired.len());
            for (pending, error) in expired {
                (pending.done)(Err(error));
            }
            tokio::select! {
                biased;
                () = self.hurry.notified() => {}
                () = sleep_until(wait) => {}
            }
        }
    }
}

fn unreachable(e: &io::Error) -> CallError {
    CallError::Unreachable(e.to_string().into())
}

impl State {
    fn admit(&self, now: Instant) -> Result<(), CallError> {
        match &self.phase {
            Phase::Closed => Err(CallError::Unreachable("closed".into())),
            Phase::Down { until, error } if now < *until => Err(error.clone()),
            _ if self.pending.len() >= PENDING_MAX || self.buffer.len() > BUFFER_MAX => {
                Err(CallError::Overloaded)
            }
            _ => Ok(()),
        }
    }

    /// False if the connection is no longer wanted.
    fn opened(&mut self, stop: &Arc<Notify>) -> bool {
        if !matches!(&self.phase, Phase::Connecting(current) if Arc::ptr_eq(current, stop)) {
            return false;
        }
        self.phase = Phase::Open(stop.clone());
        self.heard = Instant::now();
        self.pinged = None;
        self.failures = 0;
        true
    }

    /// All that is pending fails; so will new requests, for a while.
    fn end(&mut self, stop: &Arc<Notify>, error: &CallError) -> Vec<(Pending, CallError)> {
        let now = Instant::now();
        match &self.phase {
            Phase::Connecting(current) | Phase::Open(current) if Arc::ptr_eq(current, stop) => {
                let backoff = if matches!(error, CallError::Refused(_)) {
                    BACKOFF_REJECTED
                } else {
                    BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(self.failures.min(10)))
                };
                self.failures += 1;
                self.phase = Phase::Down { until: now + backoff, error: error.clone() };
            }
            _ => {}
        }
        self.buffer.clear();
        let taken = std::mem::replace(&mut self.taken, self.next);
        let failed = std::mem::take(&mut self.pending);
        failed
            .into_iter()
            .map(|(id, p)| (p, if id < taken { CallError::Lost } else { error.clone() }))
            .collect()
    }

    /// What is due at `now`: when to look again, whether a ping was queued, and the expired.
    #[allow(clippy::type_complexity, reason = "three answers of one look")]
    fn tick(&mut self, now: Instant) -> Result<(Instant, bool, Vec<(Pending, CallError)>), CallError> {
        let expired = if now >= self.earliest { self.expire(now) } else { Vec::new() };
        let mut ping = false;
        let mut next = if self.pending.is_empty() { now + IDLE } else { self.earliest };
        if matches!(self.phase, Phase::Open(_)) {
            let patience = if self.pending.is_empty() { IDLE } else { QUIET };
            match self.pinged {
                Some(at) if now >= at + STALL => {
                    return Err(CallError::Unreachable("the peer has fallen silent".into()));
                }
                Some(at) => next = next.min(at + STALL),
                None if now >= self.heard + patience => {
                    put_frame(&mut self.buffer, Kind::Ping, 0, |_| {}).expect("empty");
                    self.pinged = Some(now);
                    ping = true;
                    next = next.min(now + STALL);
                }
                None => next = next.min(self.heard + patience),
            }
        }
        Ok((next, ping, expired))
    }

    fn expire(&mut self, now: Instant) -> Vec<(Pending, CallError)> {
        let taken = self.taken;
        let mut unsent = false;
        let mut expired = Vec::new();
        let due: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.deadline <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(pending) = self.pending.remove(&id) else { continue };
            if id < taken {
                expired.push((pending, CallError::Timeout));
            } else {
                unsent = true;
                expired.push((pending, CallError::Unreachable("no connection before the deadline".into())));
            }
        }
        if unsent {
            let Self { buffer, pending, .. } = self;
            retain_frames(buffer, |id| id == 0 || pending.contains_key(&id));
        }
        self.earliest = self.pending.values().map(|p| p.deadline).min().unwrap_or(now + IDLE);
        expired
    }
}
