//! One connection to one peer for one class of traffic, and the requests that ride on it.
//!
//! A task exists only while there is a connection or one being made; the first request starts it. It reads, writes
//! and watches the clock for all requests, which are entries of a map and frames in a buffer. A request whose frame
//! has not been handed to the socket when it fails is [`CallError::Unreachable`]; afterwards nobody knows.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::client::CallError;
use super::counters::Counters;
use super::dial::{Dial, DialError};
use super::hello::{Class, Reject};
use super::link_state::{Done, Pending, Phase, State};
use super::out::{drain, lock};
use super::service::Local;
use super::wire::{Frame, Kind, Reader, put_frame};
use crate::types::NodeId;

pub struct Link {
    to: NodeId,
    class: Class,
    state: Mutex<State>,
    /// There is something to write.
    wake: Notify,
    /// There is an earlier deadline.
    hurry: Notify,
    pub counters: Arc<Counters>,
}

impl Link {
    pub fn new(to: NodeId, class: Class, address: Arc<str>) -> Arc<Self> {
        let (wake, hurry) = (Notify::new(), Notify::new());
        Arc::new(Self {
            to,
            class,
            state: Mutex::new(State::new(address)),
            wake,
            hurry,
            counters: Arc::default(),
        })
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
        let mut state = lock(&self.state);
        let id = state.next;
        let queued = state.admit(now).and_then(|()| {
            let too_large = |_| CallError::Unreachable("the request is too large".into());
            put_frame(&mut state.buffer, kind, id, encode).map_err(too_large)
        });
        if let Err(error) = queued {
            drop(state);
            return done(Err(error));
        }
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
        drop(state);
        self.counters.queued();
        self.wake.notify_one();
    }

    /// Queue a frame that wants no answer; false if the connection is not open.
    pub fn tell(&self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = lock(&self.state);
        let open = matches!(state.phase, Phase::Open(_)) && state.admit(Instant::now()).is_ok();
        if !open || put_frame(&mut state.buffer, kind, 0, encode).is_err() {
            return false;
        }
        drop(state);
        self.counters.queued();
        self.wake.notify_one();
        true
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
        if !lock(&self.state).opened(stop, self.counters.bytes()) {
            return CallError::Unreachable("the connection is no longer wanted".into());
        }
        self.counters.connected();
        let (mut reader, mut writer) = reader.split(&self.counters);
        let take = |batch: &mut Vec<u8>| {
            let mut state = lock(&self.state);
            state.taken = state.next;
            std::mem::swap(&mut state.buffer, batch);
            true
        };
        tokio::select! {
            biased;
            error = self.read(&mut reader, &dial.local) => error,
            end = drain(&mut writer, &self.wake, || lock(&self.state).buffer.len(), take) => match end {
                Ok(()) => unreachable(&io::ErrorKind::BrokenPipe.into()),
                Err(e) => unreachable(&e),
            },
        }
    }

    async fn read(&self, reader: &mut Reader, local: &Arc<dyn Local>) -> CallError {
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
                    self.counters.received();
                    self.receive(frame);
                }
                Ok(None) => return CallError::Unreachable("the peer closed the connection".into()),
                Err(e) => return unreachable(&e),
            }
        }
    }

    fn receive(&self, frame: Frame) {
        // An answer after its deadline finds nobody, and a pong has come for nobody.
        let pending = lock(&self.state).pending.remove(&frame.id);
        let Some(pending) = pending else { return };
        self.counters.answered_after(pending.sent.elapsed());
        (pending.done)(match frame.kind {
            Kind::Failed => Err(CallError::Failed(String::from_utf8_lossy(&frame.body).into())),
            _ => Ok(frame.body),
        });
    }

    /// Expire requests; return when the peer has fallen silent.
    async fn watch(&self) -> CallError {
        loop {
            let due = match lock(&self.state).tick(Instant::now(), self.counters.bytes()) {
                Ok(due) => due,
                Err(error) => return error,
            };
            if due.ping {
                self.wake.notify_one();
            }
            self.counters.timed_out(due.expired.len());
            for (pending, error) in due.expired {
                (pending.done)(Err(error));
            }
            tokio::select! {
                biased;
                () = self.hurry.notified() => {}
                () = sleep_until(due.next) => {}
            }
        }
    }
}

fn unreachable(e: &io::Error) -> CallError {
    CallError::Unreachable(e.to_string().into())
}
