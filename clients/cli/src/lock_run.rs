//! A command under a lock: stopped in time when the lock is being lost.
//!
//! The deadline is what is left, by our monotonic clock, of the last renewal that was answered. The clock
//! runs on while this process is paused, so the first thing it does when it wakes is to look at it.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::ClaimGuard;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};

use crate::child;
use crate::exit::{CLAIM_LOST, Failure};

/// SIGKILL comes this long before the lock could be somebody else's, but not later than a twentieth of the ttl.
const MARGIN: Duration = Duration::from_millis(250);

/// Signals sent to us, to be passed on.
pub struct Signals {
    received: Arc<Mutex<mpsc::Receiver<Signal>>>,
}

impl Signals {
    pub fn new() -> Result<Self, Failure> {
        let (sender, received) = mpsc::channel(16);
        for (kind, passed_on) in [
            (SignalKind::interrupt(), Signal::INT),
            (SignalKind::terminate(), Signal::TERM),
            (SignalKind::hangup(), Signal::HUP),
            (SignalKind::quit(), Signal::QUIT),
            (SignalKind::user_defined1(), Signal::USR1),
            (SignalKind::user_defined2(), Signal::USR2),
        ] {
            let (mut stream, sender) = (signal(kind)?, sender.clone());
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send(passed_on).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { received: Arc::new(Mutex::new(received)) })
    }

    pub async fn next(&self) -> Signal {
        match self.received.lock().await.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// Wait until somebody wants us to stop.
    pub async fn stop(&self) {
        while !matches!(self.next().await, Signal::INT | Signal::TERM | Signal::HUP | Signal::QUIT) {}
    }
}

/// What to do with the child now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing before so long.
    Fine(Duration),
    Terminate,
    Kill,
}

/// `left` is for how long the lock is surely ours; SIGTERM when `grace` is left of it, SIGKILL when `margin` is.
fn verdict(left: Duration, grace: Duration, margin: Duration, terminated: bool) -> Verdict {
    if left <= margin {
        Verdict::Kill
    } else if terminated {
        Verdict::Fine(left.saturating_sub(margin))
    } else if left <= grace.max(margin) {
        Verdict::Terminate
    } else {
        Verdict::Fine(left.saturating_sub(grace.max(margin)))
    }
}

/// Run the command to its end or to the end of the lock; the exit code.
pub async fn run(
    guard: ClaimGuard,
    argv: &[OsString],
    grace: Duration,
    signals: Signals,
) -> Result<u8, Failure> {
    // LOCK, SEMAPHORE, ELECTION: the family without its plural.
    let family = guard.fence().claim();
    let kind = family.split('/').next().unwrap_or_default().trim_end_matches('s').to_uppercase();
    let mut command = tokio::process::Command::from(child::command(Signal::KILL, argv)?);
    command
        .env(format!("CORACLE_{kind}_NAME"), guard.name())
        .env(format!("CORACLE_{kind}_TOKEN"), guard.token().to_string())
        .env(format!("CORACLE_{kind}_SESSION"), guard.session().id().to_string())
        .kill_on_drop(true);
    let mut process = command.spawn()?;
    let group = process
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()))
        .ok_or_else(|| Failure::Other("the command has no process id".into()))?;
    give_terminal(group);

    let margin = MARGIN.min(guard.session().ttl() / 20);
    let mut terminated = false;
    let mut lost = false;
    let status = loop {
        let left = guard.valid_for();
        let pause = match verdict(left, grace, margin, terminated) {
            Verdict::Kill => {
                lost = true;
                eprintln!("coracle: claim lost, killing the command");
                let _ = kill_process_group(group, Signal::KILL);
                break process.wait().await?;
            }
            Verdict::Terminate => {
                terminated = true;
                eprintln!("coracle: losing the claim, stopping the command");
                let _ = kill_process_group(group, Signal::TERM);
                continue;
            }
            Verdict::Fine(pause) => pause,
        };
        tokio::select! {
            status = process.wait() => break status?,
            signal = signals.next() => { let _ = kill_process_group(group, signal); }
            // Woken early when the lock is taken away, or the session ends, before its time.
            _ = guard.lost() => {}
            () = tokio::time::sleep(pause) => {}
        }
    };
    let code = child::exit_code(status);
    if lost || terminated {
        // What the leader of the group left behind must not go on without the lock.
        let _ = kill_process_group(group, Signal::KILL);
        // A courtesy to who waits; where no node answers there is nobody to be courteous to.
        let _ = tokio::time::timeout(Duration::from_secs(1), guard.release()).await;
        return Ok(CLAIM_LOST);
    }
    if let Err(error) = guard.release().await {
        eprintln!("coracle: {error}");
        return Ok(CLAIM_LOST);
    }
    Ok(code)
}

/// A command in its own process group may read the terminal only if that is given to its group.
pub fn give_terminal(group: Pid) {
    let stdin = std::io::stdin();
    if stdin.is_terminal() && rustix::termios::tcsetpgrp(&stdin, group).is_ok() {
        // It may have been stopped for trying too early.
        let _ = kill_process_group(group, Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_is_stopped_in_time() {
        let secs = Duration::from_secs;
        let (grace, margin) = (secs(5), Duration::from_millis(250));
        for (left, terminated, expect) in [
            (secs(15), false, Verdict::Fine(secs(10))),
            (secs(5), false, Verdict::Terminate),
            (secs(5), true, Verdict::Fine(Duration::from_millis(4750))),
            (margin, true, Verdict::Kill),
            (Duration::ZERO, false, Verdict::Kill),
            (Duration::ZERO, true, Verdict::Kill),
        ] {
            assert_eq!(verdict(left, grace, margin, terminated), expect, "{left:?} {terminated}");
        }
        assert_eq!(
            verdict(secs(2), Duration::ZERO, margin, false),
            Verdict::Fine(Duration::from_millis(1750))
        );
    }
}
