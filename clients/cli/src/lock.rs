//! `lock`: hold one, with or without a command under it; look, break, transfer.

use std::ffi::OsString;
use std::time::Duration;

use clap::Subcommand;
use coracle_client::api::{self, SessionId, Span};
use coracle_client::{Coracle, Error, LockGuard};

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{CLAIM_LOST, Failure, REFUSED, WAIT_RAN_OUT};
use crate::lock_run;
use crate::output;

const EXAMPLES: &str = "Examples:
  coracle lock deploy -- ./deploy.sh              run it under the lock
  coracle lock deploy --wait 0 -- ./deploy.sh     only if the lock is free (else exit code 4)
  coracle lock deploy                             hold it until Ctrl-C
  coracle lock show deploy
  coracle lock hold show -- true                  a lock whose name is one of the subcommands

The command runs in its own process group and gets CORACLE_LOCK_NAME, CORACLE_LOCK_TOKEN and CORACLE_LOCK_SESSION.
If the lock cannot be renewed, it gets SIGTERM when only --grace is left of what is surely ours, and SIGKILL before
anybody else could get the lock; then the exit code is 125. If the lock is already gone, it gets SIGKILL at once.";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub struct Lock {
    #[command(subcommand)]
    pub action: Option<Action>,
    #[command(flatten)]
    pub hold: Hold,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Hold a lock; the same as without this word
    #[command(after_help = "Example:\n  coracle lock hold ls -- true")]
    Hold(Hold),
    /// List locks that somebody holds or waits for
    #[command(after_help = "Example:\n  coracle lock ls -o ndjson")]
    Ls,
    /// Who holds a lock, and who waits
    #[command(after_help = "Example:\n  coracle lock show deploy")]
    Show { name: String },
    /// End every hold of a lock: the next in line gets it
    #[command(after_help = "Example:\n  coracle lock break deploy --reason 'ci-7 is stuck'")]
    Break {
        name: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Hand a hold to another session, ahead of the line
    #[command(
        after_help = "Example:\n  coracle lock transfer deploy --from 7587d8aa00000001 --to 7587d8aa00000002"
    )]
    Transfer {
        name: String,
        /// The session that holds it
        #[arg(long, value_name = "SESSION")]
        from: SessionId,
        /// The session that gets it
        #[arg(long, value_name = "SESSION")]
        to: SessionId,
    },
}

#[derive(Debug, clap::Args)]
pub struct Hold {
    /// Name of the lock: any text up to 512 bytes
    #[arg(required = true)]
    pub name: Option<String>,
    /// Together with other shared holders
    #[arg(long)]
    pub shared: bool,
    /// How long to wait in line, 0 to try once [default: without end]
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// How long the lock outlives this process
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    pub ttl: Span,
    /// Time between SIGTERM and SIGKILL when the lock is being lost, at most a third of the ttl [default: 5s or a third]
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<Span>,
    /// Who, for those who look [default: host and process id]
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// The command to run under the lock
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

pub async fn run(connection: &Connection, lock: Lock) -> Result<(), Failure> {
    match lock.action {
        None => hold(connection, lock.hold).await,
        Some(Action::Hold(args)) => hold(connection, args).await,
        Some(Action::Ls) => list(connection).await,
        Some(Action::Show { name }) => show(connection, &name).await,
        Some(Action::Break { name, reason }) => {
            let broken = connection.client()?.locks().break_holds(&name, &reason).await?;
            connection.output().item(&broken, &[("broken", broken.broken.len().to_string())])
        }
        Some(Action::Transfer { name, from, to }) => {
            let done = connection.client()?.locks().transfer(&name, from, to).await?;
            let fields = [("token", done.token.to_string()), ("valid for", done.valid_for.to_string())];
            connection.output().item(&done, &fields)
        }
    }
}

/// Grace for a ttl: what was asked for, at most a third of the ttl, because a healthy renewal may be that late.
pub fn grace(asked: Option<Span>, ttl: Span) -> Result<Duration, Failure> {
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

async fn hold(connection: &Connection, args: Hold) -> Result<(), Failure> {
    let name = args.name.unwrap_or_default();
    let grace = grace(args.grace, args.ttl)?;
    if connection.curl {
        return curl(connection, &name, args.shared, args.ttl);
    }
    let client = connection.client()?;
    let owner = args.owner.unwrap_or_else(me);
    let signals = lock_run::Signals::new()?;
    let Some(guard) = acquire(&client, &name, &owner, args.shared, args.wait, args.ttl, &signals).await?
    else {
        return Err(Failure::Exit(128 + 2));
    };
    if args.command.is_empty() {
        return hold_until_interrupted(connection, guard, signals).await;
    }
    let code = lock_run::run(guard, &args.command, grace, signals).await?;
    if code == 0 { Ok(()) } else { Err(Failure::Exit(code)) }
}

/// Wait in line; `None` if interrupted meanwhile.
async fn acquire(
    client: &Coracle,
    name: &str,
    owner: &str,
    shared: bool,
    wait: Option<Span>,
    ttl: Span,
    signals: &lock_run::Signals,
) -> Result<Option<LockGuard>, Failure> {
    let wait = wait.map_or(Duration::MAX, Duration::from);
    let mut acquire = client.lock(name).ttl(ttl.into()).owner(owner).wait(wait).on_waiting(|waiting| {
        let blockers: Vec<String> =
            waiting.blockers.iter().map(|b| readable(b.owner.as_deref().unwrap_or("?").as_bytes())).collect();
        eprintln!("coracle: waiting position={} behind={}", waiting.position, blockers.join(","));
    });
    if shared {
        acquire = acquire.shared();
    }
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
    guard: LockGuard,
    signals: lock_run::Signals,
) -> Result<(), Failure> {
    let acquired = api::Acquired {
        session: guard.session().id(),
        token: guard.token(),
        valid_for: guard.valid_for().into(),
        mode: guard.mode(),
        ordinal: None,
        count: None,
    };
    let fields = [("token", acquired.token.to_string()), ("session", acquired.session.to_string())];
    connection.output().item(&acquired, &fields)?;
    eprintln!("coracle: held until interrupted lock={}", readable(guard.name().as_bytes()));
    tokio::select! {
        reason = guard.lost() => {
            eprintln!("coracle: lock lost: {reason}");
            Err(Failure::Exit(CLAIM_LOST))
        }
        () = signals.stop() => Ok(guard.release().await?),
    }
}

/// One curl that holds the lock for as long as it runs.
fn curl(connection: &Connection, name: &str, shared: bool, ttl: Span) -> Result<(), Failure> {
    let mode = if shared { "&mode=shared" } else { "" };
    let client = connection.client()?;
    let segment: String = name
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    println!("curl -N -X POST '{}/v1/locks/{segment}/acquire?hold=true&ttl={ttl}{mode}'", client.endpoint());
    Ok(())
}

/// Host name and process id.
fn me() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{}", std::process::id())
}

async fn list(connection: &Connection) -> Result<(), Failure> {
    let locks = connection.client()?.locks().list().await?;
    connection.output().list(&locks, &["LOCK", "HOLDERS", "WAITING", "TOKEN", "OWNER", "SINCE"], |lock| {
        let first = lock.holders.first();
        vec![
            readable(lock.name.as_bytes()),
            lock.holders.len().to_string(),
            lock.waiters.len().to_string(),
            first.map(|holder| holder.token.to_string()).unwrap_or_default(),
            first
                .and_then(|holder| holder.owner.as_deref())
                .map(|o| readable(o.as_bytes()))
                .unwrap_or_default(),
            first.map(|holder| holder.since.to_string()).unwrap_or_default(),
        ]
    })
}

async fn show(connection: &Connection, name: &str) -> Result<(), Failure> {
    let lock = connection.client()?.locks().show(name).await?;
    let output = connection.output();
    if output.format() != output::Format::Table {
        let token = lock.holders.first().map(|holder| holder.token.to_string()).unwrap_or_default();
        return output.item(&lock, &[("token", token)]);
    }
    let holders = lock
        .holders
        .iter()
        .map(|h| (String::from("holder"), &h.owner, h.mode, h.session, h.since, Some(h.token)));
    let waiters = lock
        .waiters
        .iter()
        .map(|w| (format!("waiter {}", w.position), &w.owner, w.mode, w.session, w.since, None));
    let rows: Vec<_> = holders.chain(waiters).collect();
    output.list(
        &rows,
        &["ROLE", "TOKEN", "MODE", "SESSION", "SINCE", "OWNER"],
        |(role, owner, mode, session, since, token)| {
            vec![
                role.clone(),
                token.map(|token| token.to_string()).unwrap_or_default(),
                mode.as_str().to_owned(),
                session.to_string(),
                since.to_string(),
                owner.as_deref().map(|owner| readable(owner.as_bytes())).unwrap_or_default(),
            ]
        },
    )
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
