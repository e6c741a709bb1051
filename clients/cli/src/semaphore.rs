//! `semaphore`: hold permits, with or without a command under them; look, set the limit, break.

use clap::Subcommand;
use coracle_client::api::SessionId;

use crate::bytes_arg::readable;
use crate::claim;
use crate::connection::Connection;
use crate::exit::Failure;

const EXAMPLES: &str = "Examples:
  coracle semaphore gpu --limit 4 -- ./train.sh           one of four at a time
  coracle semaphore gpu --permits 2 --wait 0 -- ./big.sh  only if two are free (else exit code 4)
  coracle semaphore show gpu
  coracle semaphore hold show --limit 1 -- true           one whose name is one of the subcommands

The command gets CORACLE_SEMAPHORE_NAME, CORACLE_SEMAPHORE_TOKEN and CORACLE_SEMAPHORE_SESSION, and is stopped in time if
the permits are being lost, as under `coracle lock`.";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub struct Semaphore {
    #[command(subcommand)]
    pub action: Option<Action>,
    #[command(flatten)]
    pub hold: Hold,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Hold permits; the same as without this word
    #[command(after_help = "Example:\n  coracle semaphore hold ls --limit 2 -- true")]
    Hold(Hold),
    /// List semaphores
    #[command(after_help = "Example:\n  coracle semaphore ls -o ndjson")]
    Ls,
    /// The limit, who holds permits, and who waits
    #[command(after_help = "Example:\n  coracle semaphore show gpu")]
    Show { name: String },
    /// Set the limit; a lower one takes nothing away
    #[command(after_help = "Example:\n  coracle semaphore limit gpu 8")]
    Limit { name: String, limit: u64 },
    /// End every hold: the next in line get their permits
    #[command(after_help = "Example:\n  coracle semaphore break gpu --reason 'the host is gone'")]
    Break {
        name: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Hand permits to another session
    #[command(
        after_help = "Example:\n  coracle semaphore transfer gpu --from 7587d8aa00000001 --to 7587d8aa00000002"
    )]
    Transfer {
        name: String,
        #[arg(long, value_name = "SESSION")]
        from: SessionId,
        #[arg(long, value_name = "SESSION")]
        to: SessionId,
    },
}

#[derive(Debug, clap::Args)]
pub struct Hold {
    /// Name of the semaphore: any text up to 512 bytes
    #[arg(required = true)]
    pub name: Option<String>,
    /// How many there are; makes the semaphore if it is not there
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// How many to take, all or none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub permits: u64,
    #[command(flatten)]
    pub claim: claim::Terms,
}

pub async fn run(connection: &Connection, semaphore: Semaphore) -> Result<(), Failure> {
    match semaphore.action {
        None => hold(connection, semaphore.hold).await,
        Some(Action::Hold(args)) => hold(connection, args).await,
        Some(Action::Ls) => {
            let all = connection.client()?.semaphores().list().await?;
            connection.output().list(
                &all,
                &["SEMAPHORE", "LIMIT", "FREE", "HOLDERS", "WAITING"],
                |semaphore| {
                    vec![
                        readable(semaphore.name.as_bytes()),
                        semaphore.limit.to_string(),
                        semaphore.free.to_string(),
                        semaphore.holders.len().to_string(),
                        semaphore.waiting.unwrap_or(semaphore.waiters.len() as u64).to_string(),
                    ]
                },
            )
        }
        Some(Action::Show { name }) => show(connection, &name).await,
        Some(Action::Limit { name, limit }) => {
            let set = connection.client()?.semaphores().set_limit(&name, limit).await?;
            connection
                .output()
                .item(&set, &[("limit", set.limit.to_string()), ("free", set.free.to_string())])
        }
        Some(Action::Break { name, reason }) => {
            let broken = connection.client()?.semaphores().break_holds(&name, &reason).await?;
            connection.output().item(&broken, &[("broken", broken.broken.len().to_string())])
        }
        Some(Action::Transfer { name, from, to }) => {
            let done = connection.client()?.semaphores().transfer(&name, from, to).await?;
            connection.output().item(&done, &[("token", done.token.to_string())])
        }
    }
}

async fn hold(connection: &Connection, args: Hold) -> Result<(), Failure> {
    let name = args.name.unwrap_or_default();
    if connection.curl {
        let limit = args.limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
        let more = format!("{limit}&permits={}", args.permits);
        return claim::curl(
            connection,
            &format!("semaphores/{}/acquire", claim::segment(&name)),
            &args.claim,
            &more,
        );
    }
    let mut acquire = connection.client()?.semaphore(name).permits(args.permits);
    if let Some(limit) = args.limit {
        acquire = acquire.limit(limit);
    }
    claim::hold(connection, acquire, args.claim).await
}

async fn show(connection: &Connection, name: &str) -> Result<(), Failure> {
    let semaphore = connection.client()?.semaphores().show(name).await?;
    let mut fields = vec![("limit", semaphore.limit.to_string()), ("free", semaphore.free.to_string())];
    let who = |owner: &Option<String>, session: SessionId| match owner {
        Some(owner) => readable(owner.as_bytes()),
        None => session.to_string(),
    };
    fields.extend(semaphore.holders.iter().map(|holder| {
        let (who, token) = (who(&holder.owner, holder.session), holder.token);
        ("holder", format!("{who} permits={} token={token}", holder.permits))
    }));
    fields.extend(semaphore.waiters.iter().map(|waiter| {
        let who = who(&waiter.owner, waiter.session);
        ("waiter", format!("{who} permits={} position={}", waiter.permits, waiter.position))
    }));
    connection.output().item(&semaphore, &fields)
}
