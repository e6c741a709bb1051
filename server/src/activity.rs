//! ① What connections are doing, and one look at all of them every moment.
//!
//! A timer a connection, or a request, would have to be polled and armed with each request. So the time here is that of
//! the last look, and a limit is kept to within two looks.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use coracle_api::Span;
use futures::Stream;
use http::Version;

use crate::config::Config;
use crate::http::message::{Body, Response};

/// Longest time between two looks, and shortest.
const PERIOD: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// All connections of a node.
pub struct Sweep {
    began: Instant,
    period: Duration,
    header_timeout: Span,
    idle_timeout: Span,
    /// Milliseconds from the beginning to the last look; never 0.
    now: AtomicU64,
    stopping: AtomicBool,
    connections: Mutex<Vec<Arc<Activity>>>,
}

impl Sweep {
    pub fn new(config: &Config) -> Arc<Self> {
        let shorter = config.header_timeout.as_duration().min(config.idle_timeout.as_duration());
        Arc::new(Self {
            began: Instant::now(),
            period: (shorter / 8).clamp(PERIOD.0, PERIOD.1),
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            now: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
        })
    }

    /// Look again and again, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.period).await;
            let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.now.store(now.max(1), Ordering::Relaxed);
            self.look();
        }
    }

    /// Begin to watch a connection that is served by the task of this waker.
    pub fn watch(self: &Arc<Self>, waker: Waker) -> Arc<Activity> {
        let activity = Arc::new(Activity::new(self.clone(), waker));
        self.lock().push(activity.clone());
        if self.stopping.load(Ordering::SeqCst) {
            activity.order(Order::Finish);
        }
        activity
    }

    /// From now on connections end as soon as nothing is being answered on them.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.lock().iter().for_each(|activity| activity.order(Order::Finish));
    }

    fn look(&self) {
        self.lock().retain(|activity| {
            if activity.overdue() {
                activity.order(Order::Close);
            }
            // Whoever else had it has ended.
            Arc::strong_count(activity) > 1
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Activity>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    GoOn,
    Finish,
    Close,
}

/// What a connection is doing, in the milliseconds of its sweep; 0 is never.
pub struct Activity {
    sweep: Arc<Sweep>,
    waker: Waker,
    order: AtomicU8,
    /// Requests being answered, streams included.
    open: AtomicU32,
    last: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    multiplexed: AtomicBool,
    /// Bytes read between requests: the head of the next one. hyper forgets a length beside a transfer coding, and we
    /// refuse to guess which of the two somebody in between believed.
    head: Mutex<Vec<u8>>,
}

impl Activity {
    fn new(sweep: Arc<Sweep>, waker: Waker) -> Self {
        let now = sweep.now.load(Ordering::Relaxed);
        Self {
            sweep,
            waker,
            order: AtomicU8::new(Order::GoOn as u8),
            open: AtomicU32::new(0),
            last: AtomicU64::new(now),
            // A connection that says nothing at all is one that is slow with its first head.
            head_since: AtomicU64::new(now),
            blocked_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            head: Mutex::default(),
        }
    }

    fn order(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.waker.wake_by_ref();
    }

    /// What to do now; a new order wakes the task of the connection.
    pub fn ordered(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::GoOn,
            1 => Order::Finish,
            _ => Order::Close,
        }
    }

    /// Bytes came. Between requests they are the head of the next.
    pub fn came(&self, bytes: &[u8], head_bytes: usize) {
        let now = self.now();
        self.last.store(now, Ordering::Relaxed);
        if self.answering() || self.multiplexed.load(Ordering::Relaxed) {
            return;
        }
        if self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(now, Ordering::Relaxed);
        }
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let room = head_bytes.saturating_sub(head.len());
        head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Forget the head that was read; true if it has a length, which is only looked for beside a transfer coding.
    pub fn take_head(&self, coded: bool) -> bool {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let end =
            if coded { head.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(head.len()) } else { 0 };
        let found = head[..end].windows(16).any(|w| w.eq_ignore_ascii_case(b"\ncontent-length:"));
        if head.capacity() > 4096 {
            *head = Vec::new();
        } else {
            head.clear();
        }
        found
    }

    /// An answer was written, or could not be for now.
    pub fn wrote(&self, done: bool) {
        if done {
            self.last.store(self.now(), Ordering::Relaxed);
            self.blocked_since.store(0, Ordering::Relaxed);
        } else if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    pub fn answering(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    fn now(&self) -> u64 {
        self.sweep.now.load(Ordering::Relaxed)
    }

    /// Whether the connection is to be closed now.
    fn overdue(&self) -> bool {
        let Sweep { period, header_timeout, idle_timeout, .. } = &*self.sweep;
        // What is said to have been at one look may have been just before the next.
        let slack = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        let over = |since: &AtomicU64, limit: &Span| {
            let since = since.load(Ordering::Relaxed);
            since > 0 && self.now().saturating_sub(since) > limit.as_millis().saturating_add(slack)
        };
        over(&self.blocked_since, idle_timeout)
            || !self.answering() && (over(&self.head_since, header_timeout) || over(&self.last, idle_timeout))
    }
}

/// A request being answered.
pub struct Open(Arc<Activity>);

impl Open {
    pub fn new(activity: Arc<Activity>, version: Version) -> Self {
        activity.open.fetch_add(1, Ordering::Relaxed);
        activity.head_since.store(0, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            activity.multiplexed.store(true, Ordering::Relaxed);
        }
        Self(activity)
    }

    /// A streamed answer is open until its body is dropped, any other until it is made.
    pub fn until_sent(self, response: Response) -> Response {
        match response.body() {
            Body::Empty | Body::Whole(_) => response,
            Body::Streamed(_) => response.map(|body| match body {
                Body::Streamed(frames) => {
                    let sent = Sent { frames: frames.into_data_stream(), _open: self };
                    Body::Streamed(axum::body::Body::from_stream(sent))
                }
                whole => whole,
            }),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.last.store(self.0.now(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The frames of an answer that is open until they are dropped.
struct Sent<S> {
    frames: S,
    _open: Open,
}

impl<S: Stream + Unpin> Stream for Sent<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        Pin::new(&mut self.frames).poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep() -> Arc<Sweep> {
        Sweep::new(&Config::default())
    }

    fn later(sweep: &Sweep, by: Duration) {
        sweep.now.fetch_add(u64::try_from((by + sweep.period).as_millis()).unwrap() + 1, Ordering::Relaxed);
    }

    fn timeouts() -> (Duration, Duration) {
        (Config::default().header_timeout.as_duration(), Config::default().idle_timeout.as_duration())
    }

    #[test]
    fn a_length_beside_a_coding_is_seen() {
        let activity = sweep().watch(Waker::noop().clone());
        let head = |text: &str| activity.came(text.as_bytes(), 1000);
        let put = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
        head(&format!("{put}CONTENT-length: 3\r\n\r\n"));
        assert!(activity.take_head(true));
        head(&format!("{put}\r\n3\r\nContent-Length: 3\r\n"));
        assert!(!activity.take_head(true), "what stands in the body is not in the head");
        head("PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\n");
        assert!(!activity.take_head(false));
        assert!(activity.head.lock().unwrap().is_empty());
    }

    #[test]
    fn a_silent_connection_is_closed_after_the_header_timeout() {
        let sweep = sweep();
        let activity = sweep.watch(Waker::noop().clone());
        sweep.look();
        assert_eq!(activity.ordered(), Order::GoOn);
        later(&sweep, timeouts().0);
        sweep.look();
        assert_eq!(activity.ordered(), Order::Close);
        sweep.stop();
        assert_eq!(activity.ordered(), Order::Close, "finishing is less than closing");
    }

    #[test]
    fn an_idle_connection_lives_longer_than_a_slow_head_and_a_stream_for_ever() {
        let (header, idle) = timeouts();
        let aged = |prepare: &dyn Fn(&Arc<Activity>), by: Duration| {
            let sweep = sweep();
            let activity = sweep.watch(Waker::noop().clone());
            drop(Open::new(activity.clone(), Version::HTTP_11));
            prepare(&activity);
            later(&sweep, by);
            activity.overdue()
        };
        assert!(!aged(&|_| (), header * 2));
        assert!(aged(&|_| (), idle));
        assert!(aged(&|activity| activity.came(b"GET", 1000), header));
        let answering =
            |activity: &Arc<Activity>| std::mem::forget(Open::new(activity.clone(), Version::HTTP_11));
        assert!(!aged(&answering, idle * 2));
        let blocked = |activity: &Arc<Activity>| {
            answering(activity);
            activity.wrote(false);
        };
        assert!(!aged(&blocked, header * 2));
        assert!(aged(&blocked, idle));
    }

    #[test]
    fn ended_connections_are_forgotten_and_new_ones_hear_of_the_end() {
        let sweep = sweep();
        let (first, second) = (sweep.watch(Waker::noop().clone()), sweep.watch(Waker::noop().clone()));
        drop(first);
        sweep.look();
        assert_eq!(sweep.lock().len(), 1);
        sweep.stop();
        assert_eq!(second.ordered(), Order::Finish);
        assert_eq!(sweep.watch(Waker::noop().clone()).ordered(), Order::Finish);
    }
}
