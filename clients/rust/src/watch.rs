//! Watches: streams of changes that survive cuts, and say what happened on the way.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_api::{ByeReason, Frame};
use futures::stream::{BoxStream, Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::client::Events;
use crate::follow::{Frames, Taken, follow};
use crate::{Coracle, Error};

/// What a watch tells. Every change appears exactly once, in order, or a [`Update::Gap`] says which are missing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update<I> {
    /// The state at `revision`, in chunks. With `first` a new state begins: forget everything before it.
    Snapshot { revision: u64, items: Vec<I>, first: bool, more: bool },
    /// The past is told; what follows happens now.
    Synced { revision: u64 },
    /// All that one revision changed.
    Change { revision: u64, time: coracle_api::Instant, events: Events },
    /// Nothing else happened up to `revision`.
    Progress { revision: u64 },
    /// The changes after `from` up to and including `to` are no longer kept; a snapshot follows.
    Gap { from: u64, to: u64 },
    /// We read too slowly and were cut off; nothing is lost, the watch goes on by itself.
    Lagged { revision: u64 },
    /// The node said goodbye; nothing is lost, the watch goes on elsewhere by itself.
    Bye { reason: ByeReason },
    /// The connection failed; nothing is lost, the watch goes on by itself.
    Reconnecting { detail: String },
}

/// A watch to be opened by [`WatchBuilder::from_now`], [`WatchBuilder::after`] or [`WatchBuilder::from_snapshot`].
#[derive(Debug)]
#[must_use = "a watch starts with from_now(), after() or from_snapshot()"]
pub struct WatchBuilder<I> {
    client: Coracle,
    call: Call,
    heartbeat: Duration,
    on_gap_error: bool,
    items: PhantomData<fn() -> I>,
}

/// A running watch. It ends only with an error, when dropped, or never.
pub struct Watch<I> {
    updates: BoxStream<'static, Result<Update<I>, Error>>,
}

impl<I: DeserializeOwned + Send + 'static> WatchBuilder<I> {
    pub(crate) fn new(client: Coracle, call: Call) -> Self {
        let heartbeat = Duration::from_secs(5);
        Self { client, call, heartbeat, on_gap_error: false, items: PhantomData }
    }

    /// How often the server shows that it lives; 5 s if not set. After two and a half of silence the watch goes elsewhere.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// End with 410 `compacted` where changes are missing, in place of a gap and a snapshot.
    pub fn error_on_gap(mut self) -> Self {
        self.on_gap_error = true;
        self
    }

    /// Only narrow what the stream tells: add a parameter of the family, such as `prefix`.
    pub fn filter(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.call = self.call.query(name, value);
        self
    }

    /// Changes from now on; the first update is [`Update::Synced`].
    #[must_use]
    pub fn from_now(self) -> Watch<I> {
        self.start(Position::Now)
    }

    /// Changes after `revision`.
    #[must_use]
    pub fn after(self, revision: u64) -> Watch<I> {
        self.start(Position::After(revision))
    }

    /// The current state, then its changes.
    #[must_use]
    pub fn from_snapshot(self) -> Watch<I> {
        self.start(Position::Snapshot)
    }

    fn start(self, position: Position) -> Watch<I> {
        let Self { client, mut call, heartbeat, on_gap_error, .. } = self;
        if on_gap_error {
            call = call.query("on_gap", "error");
        }
        let frames = Changes { position, new_snapshot: true, items: PhantomData };
        Watch { updates: follow(client, call, heartbeat, frames) }
    }
}

impl<I> Stream for Watch<I> {
    type Item = Result<Update<I>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.updates.poll_next_unpin(context)
    }
}

impl<I> std::fmt::Debug for Watch<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// Where the watch goes on after a cut.
#[derive(Debug, Clone, Copy)]
enum Position {
    Now,
    After(u64),
    Snapshot,
}

/// Frames of a watch, and where it goes on.
struct Changes<I> {
    position: Position,
    /// The next snapshot chunk begins a new state.
    new_snapshot: bool,
    items: PhantomData<fn() -> I>,
}

impl<I: DeserializeOwned + Send + 'static> Frames for Changes<I> {
    type Frame = Frame<I>;
    type Update = Update<I>;

    fn resume(&self, call: Call) -> Call {
        match self.position {
            Position::Now => call.query("initial", "false"),
            Position::After(revision) => call.query("after", revision.to_string()),
            Position::Snapshot => call,
        }
    }

    fn opened(&mut self) {
        self.new_snapshot = true;
    }

    fn take(&mut self, frame: Frame<I>) -> Result<Taken<Update<I>>, Error> {
        let seen = match self.position {
            Position::After(revision) => Some(revision),
            Position::Now | Position::Snapshot => None,
        };
        // A change seen before would be a fault of the server; it must not become one of ours.
        if let Frame::Change { revision, .. } = &frame
            && seen.is_some_and(|seen| *revision <= seen)
        {
            return Ok(Taken::Nothing);
        }
        if let Some(revision) = frame.resume_after() {
            self.position = Position::After(revision.max(seen.unwrap_or(0)));
        }
        Ok(Taken::Update(match frame {
            Frame::Snapshot { revision, items, more } => {
                let first = std::mem::replace(&mut self.new_snapshot, !more);
                // Half a snapshot is no state to continue from: after a cut it starts anew.
                if first && more {
                    self.position = Position::Snapshot;
                }
                Update::Snapshot { revision, items, first, more }
            }
            Frame::Synced { revision } => Update::Synced { revision },
            Frame::Change { revision, time, events } => Update::Change { revision, time, events },
            Frame::Progress { revision } => Update::Progress { revision },
            Frame::Gap { from, to } => {
                self.new_snapshot = true;
                self.position = Position::Snapshot;
                Update::Gap { from, to }
            }
            Frame::Lagged { revision } => {
                return Ok(Taken::Last { update: Update::Lagged { revision }, leave: false });
            }
            Frame::Bye { reason, .. } => {
                let leave = reason != ByeReason::Limit;
                return Ok(Taken::Last { update: Update::Bye { reason }, leave });
            }
            Frame::Error { problem } => return Taken::problem(problem, Self::reconnecting),
            Frame::Other { .. } => return Ok(Taken::Nothing),
        }))
    }

    fn reconnecting(detail: String) -> Update<I> {
        Update::Reconnecting { detail }
    }
}
