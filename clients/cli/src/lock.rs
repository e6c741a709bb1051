//! `lock`: hold one, with or without a command under it; look, break, transfer.

use clap::Subcommand;
use coracle_client::api::SessionId;

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::{claim, output};

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
    #[command(flatten)]
    pub claim: claim::Terms,
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

async fn hold(connection: &Connection, args: Hold) -> Result<(), Failure> {
    let name = args.name.unwrap_or_default();
    if connection.curl {
        let mode = if args.shared { "&mode=shared" } else { "" };
        return claim::curl(
            connection,
            &format!("locks/{}/acquire", claim::segment(&name)),
            &args.claim,
            mode,
        );
    }
    let lock = connection.client()?.lock(name);
    claim::hold(connection, if args.shared { lock.shared() } else { lock }, args.claim).await
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
