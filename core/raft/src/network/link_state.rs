//! What a connection to a peer has to remember: its phase, its requests, and when it last showed life.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::CallError;
use super::wire::{Kind, put_frame, retain_frames};

/// Requests without an answer.
const PENDING_MAX: usize = 8192;
/// Bytes not yet written; one request above it is taken.
const BUFFER_MAX: usize = 32 << 20;
/// A peer that owes answers and says nothing for so long is pinged.
const QUIET: Duration = Duration::from_millis(500);
/// A connection without requests is pinged this often, which keeps it open.
const IDLE: Duration = Duration::from_secs(15);
/// A ping unanswered for so long: the connection is dead…
const STALL: Duration = Duration::from_millis(1500);
/// …unless so much was sent before it that the slowest link worth having is still busy.
const SLOWEST_BYTES_PER_SECOND: u64 = 1_000_000;
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// After a rejection, which does not heal by itself.
const BACKOFF_REJECTED: Duration = Duration::from_secs(2);

pub type Done = Box<dyn FnOnce(Result<Bytes, CallError>) + Send>;

/// A request on its way.
pub struct Pending {
    pub deadline: Instant,
    pub sent: Instant,
    pub done: Done,
}

/// What the clock brings.
pub struct Due {
    /// When to look again.
    pub next: Instant,
    /// A ping was queued.
    pub ping: bool,
    pub expired: Vec<(Pending, CallError)>,
}

pub enum Phase {
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

pub struct State {
    pub address: Arc<str>,
    pub phase: Phase,
    pub buffer: Vec<u8>,
    pub next: u64,
    /// Requests below this were handed to the socket.
    pub taken: u64,
    pub pending: BTreeMap<u64, Pending>,
    /// No deadline is before this.
    pub earliest: Instant,
    /// When the peer was last seen to have said anything, and the bytes received and sent by then.
    heard: Instant,
    heard_at: (u64, u64),
    pinged: Option<Instant>,
    failures: u32,
}

impl State {
    pub fn new(address: Arc<str>) -> Self {
        let now = Instant::now();
        Self {
            address,
            phase: Phase::Idle,
            buffer: Vec::new(),
            next: 1,
            taken: 1,
            pending: BTreeMap::new(),
            earliest: now,
            heard: now,
            heard_at: (0, 0),
            pinged: None,
            failures: 0,
        }
    }

    pub fn admit(&self, now: Instant) -> Result<(), CallError> {
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
    pub fn opened(&mut self, stop: &Arc<Notify>, bytes: (u64, u64)) -> bool {
        if !matches!(&self.phase, Phase::Connecting(current) if Arc::ptr_eq(current, stop)) {
            return false;
        }
        self.phase = Phase::Open(stop.clone());
        (self.heard, self.heard_at, self.pinged) = (Instant::now(), bytes, None);
        self.failures = 0;
        true
    }

    /// All that is pending fails; so will new requests, for a while.
    pub fn end(&mut self, stop: &Arc<Notify>, error: &CallError) -> Vec<(Pending, CallError)> {
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

    /// What is due at `now`, with so many bytes received and sent.
    ///
    /// An error ends the connection: the peer has fallen silent.
    pub fn tick(&mut self, now: Instant, bytes: (u64, u64)) -> Result<Due, CallError> {
        let expired = if now >= self.earliest { self.expire(now) } else { Vec::new() };
        let next = if self.pending.is_empty() { now + IDLE } else { self.earliest };
        if !matches!(self.phase, Phase::Open(_)) {
            return Ok(Due { next, ping: false, expired });
        }
        if bytes.0 != self.heard_at.0 {
            (self.heard, self.heard_at, self.pinged) = (now, bytes, None);
        }
        let patience = if self.pending.is_empty() { IDLE } else { QUIET };
        let mut ping = false;
        let look = match self.pinged {
            None if now < self.heard + patience => self.heard + patience,
            None => {
                put_frame(&mut self.buffer, Kind::Ping, 0, |_| {}).expect("empty");
                self.pinged = Some(now);
                ping = true;
                now + STALL
            }
            Some(at) => {
                let busy = (bytes.1 - self.heard_at.1) * 1_000_000 / SLOWEST_BYTES_PER_SECOND;
                let dead = at + STALL + Duration::from_micros(busy);
                if now >= dead {
                    return Err(CallError::Unreachable("the peer has fallen silent".into()));
                }
                dead
            }
        };
        Ok(Due { next: next.min(look), ping, expired })
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
