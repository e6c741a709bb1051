//! Holding a claim, a lock, permits or leadership, with or without a command under it.

use std::ffi::OsString;
use std::time::Duration;

use coracle_client::api::Span;
use coracle_client::{Acquire, ClaimGuard, Error};
use serde::Serialize;

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{CLAIM_LOST, Failure, REFUSED, WAIT_RAN_OUT};
use crate::lock_run::{self, Signals};

#[derive(Debug, clap::Args)]
pub struct Terms {
    /// How long to wait in line, 0 to try once [default: without end]
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// How long the claim outlives this process
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    pub ttl: Span,
    /// Time between SIGTERM and SIGKILL when the claim is being lost, at most a third of the ttl [default: 5s or a third]
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<Span>,
    /// Who, for those who look [default: host and process id]
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// The command to run meanwhile
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What is told of a claim that is held.
#[derive(Serialize)]
struct Held {
    claim: String,
    session: String,
    token: u64,
    valid_for: Span,
}

/// Acquire it, and hold it for as long as the command runs, or until interrupted.
pub async fn hold(connection: &Connection, acquire: Acquire, args: Terms) -> Result<(), Failure> {
    let grace = grace(args.grace, args.ttl)?;
    let signals = Signals::new()?;
    let wait = args.wait.map_or(Duration::MAX, Duration::from);
    let acquire = acquire.ttl(args.ttl.into()).owner(args.owner.unwrap_or_else(me)).wait(wait);
    let Some(guard) = granted(acquire, wait, &signals).await? else {
        return Err(Failure::Exit(128 + 2));
    };
    if args.command.is_empty() {
        return hold_until_interrupted(connection, guard, signals).await;
    }
    let code = lock_run::run(guard, &args.command, grace, signals).await?;
    if code == 0 { Ok(()) } else { Err(Failure::Exit(code)) }
}

/// Grace for a ttl: what was asked for, at most a third of the ttl, because a healthy renewal may be that late.
fn grace(asked: Option<Span>, ttl: Span) -> Result<Duration, Failure> {
    let most = ttl.as_duration() / 3;
    match asked.map(Duration::from) {
        None => Ok(most.min(Duration::from_secs(5))),
        Some(grace) if grace <= most => Ok(grace),
        Some(_) => {
            let most = Span::from(most);
            Err(Failure::Usage(format!("--grace must be at most a third of --ttl limit={most}")))
        }
    }
}

/// Wait in line; `None` if interrupted meanwhile.
async fn granted(acquire: Acquire, wait: Duration, signals: &Signals) -> Result<Option<ClaimGuard>, Failure> {
    let acquire = acquire.on_waiting(|waiting| {
        let blockers: Vec<String> =
            waiting.blockers.iter().map(|b| readable(b.owner.as_deref().unwrap_or("?").as_bytes())).collect();
        eprintln!("coracle: waiting position={} behind={}", waiting.position, blockers.join(","));
    });
    tokio::select! {
        acquired = acquire.acquire() => match acquired {
            Ok(guard) => Ok(Some(guard)),
            Err(error @ Error::NotAcquired { .. }) => {
                eprintln!("coracle: {error}");
                Err(Failure::Exit(if wait.is_zero() { REFUSED } else { WAIT_RAN_OUT }))
            }
            Err(error) => Err(error.into()),
        },
        // Dropping the acquire closes its session, which leaves the line; give that a moment to go out.
        () = signals.stop() => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(None)
        }
    }
}

async fn hold_until_interrupted(
    connection: &Connection,
    guard: ClaimGuard,
    signals: Signals,
) -> Result<(), Failure> {
    let held = Held {
        claim: guard.fence().claim(),
        session: guard.session().id().to_string(),
        token: guard.token(),
        valid_for: guard.valid_for().into(),
    };
    let fields = [("token", held.token.to_string()), ("session", held.session.clone())];
    connection.output().item(&held, &fields)?;
    eprintln!("coracle: held until interrupted claim={}", readable(held.claim.as_bytes()));
    tokio::select! {
        reason = guard.lost() => {
            eprintln!("coracle: claim lost: {reason}");
            Err(Failure::Exit(CLAIM_LOST))
        }
        () = signals.stop() => Ok(guard.release().await?),
    }
}

/// Print the one curl that makes a claim and holds it for as long as it runs. `more` is more of the query.
pub fn curl(connection: &Connection, path: &str, args: &Terms, more: &str) -> Result<(), Failure> {
    let client = connection.client()?;
    println!("curl -N -X POST '{}/v1/{path}?hold=true&ttl={}{more}'", client.endpoint(), args.ttl);
    Ok(())
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let escaped = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    name.bytes().map(escaped).collect()
}

/// Host name and process id.
pub fn me() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_is_at_most_a_third() {
        let span = |text: &str| text.parse::<Span>().unwrap();
        assert_eq!(grace(None, span("15s")).unwrap(), Duration::from_secs(5));
        assert_eq!(grace(None, span("6s")).unwrap(), Duration::from_secs(2));
        assert_eq!(grace(None, span("1h")).unwrap(), Duration::from_secs(5));
        assert_eq!(grace(Some(span("20s")), span("1m")).unwrap(), Duration::from_secs(20));
        assert_eq!(grace(Some(span("6s")), span("15s")).unwrap_err().code(), 2);
    }
}
