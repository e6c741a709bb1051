//! Priority of threads whose work may wait.

use std::cell::Cell;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// So much nicer than the others a thread gets a tenth of a core that they want all of, and the whole of one that nobody
/// wants.
const NICER: i32 = 10;
/// So long it runs without a rest, and so long it rests. A thread that wakes up waits for the end of the slice of whoever
/// runs on its core, however nice that one is; a request passes a dozen such threads, on all nodes.
const TURN: Duration = Duration::from_micros(200);

thread_local! {
    /// Since when the thread has run, if it gives way.
    static RUNNING: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From here on the calling thread gives way to those that somebody waits for: the log's, and the runtime's. A thread
/// cannot take this back without rights, so it is never one that is shared.
pub fn give_way() {
    // Linux counts the priority by thread, and `None` is the calling one. Refused, the work is done all the same.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::getpriority_process(None)
        .and_then(|nice| rustix::process::setpriority_process(None, nice + NICER));
    RUNNING.set(Some(Instant::now()));
}

/// To be called again and again in the middle of long work: rests if it is time, on a thread that gives way.
pub fn rest() {
    if RUNNING.get().is_some_and(|since| since.elapsed() >= TURN) {
        thread::sleep(TURN);
        RUNNING.set(Some(Instant::now()));
    }
}

/// Do this work on a thread of its own that gives way, and wait for it.
///
/// # Errors
/// If the system gives no thread, or the work panics.
pub fn in_background<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || {
            give_way();
            work()
        })?;
        thread.join().map_err(|_| io::Error::other(format!("thread panicked name={name}")))
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_gives_way_does() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let inside = in_background("test", nice).unwrap();
        // 19 is the nicest there is.
        assert_eq!((inside, nice()), ((before + NICER).min(19), before));
    }

    #[test]
    fn only_a_thread_that_gives_way_rests_and_only_after_its_turn() {
        let rested = || {
            let before = RUNNING.get();
            rest();
            RUNNING.get() != before
        };
        assert!(!rested(), "nobody waits for this thread");
        let (at_once, later) = in_background("test", || {
            RUNNING.set(Some(Instant::now() + Duration::from_mins(1)));
            let at_once = rested();
            RUNNING.set(Instant::now().checked_sub(TURN));
            (at_once, rested())
        })
        .unwrap();
        assert!(!at_once && later);
    }
}
