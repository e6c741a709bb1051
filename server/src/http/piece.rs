//! ① Taking a body from the connection, without waking the connection when there is nothing more to send.
//!
//! hyper passes the pieces of a body from the task of the connection to whoever reads it, and wakes the task for each that
//! is taken, to send the next. Reader and task are the same here, and nearly all bodies are one piece: each request
//! with a body would have its task run once more for nothing, which is a twelfth of what the edge does for it.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

thread_local! {
    static TAKING: Cell<Taking> = const { Cell::new(Taking::Nothing) };
}

/// What this thread is doing with a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    Nothing,
    Piece,
    /// And there has been a call to wake up.
    Woken,
}

/// A waker of a connection that is not heard while a piece of a body is taken on the same thread. For HTTP/1 only: the
/// other has windows to open.
pub struct Deaf(Waker);

impl Deaf {
    pub fn waker(task: &Waker) -> Waker {
        Arc::new(Self(task.clone())).into()
    }
}

impl Wake for Deaf {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match TAKING.get() {
            Taking::Nothing => self.0.wake_by_ref(),
            Taking::Piece | Taking::Woken => TAKING.set(Taking::Woken),
        }
    }
}

/// The next piece of a body, as `poll_frame`.
pub fn take(
    body: &mut Incoming,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    TAKING.set(Taking::Piece);
    let piece = Pin::new(&mut *body).poll_frame(context);
    let woken = TAKING.replace(Taking::Nothing) == Taking::Woken;
    if woken && !body.is_end_stream() {
        context.waker().wake_by_ref();
    }
    piece
}
