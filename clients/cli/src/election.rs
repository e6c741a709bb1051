//! `elect`: lead while a command runs; `election`: look, observe, have somebody resign.

use clap::Subcommand;
use coracle_client::api::{Election as Seen, SessionId};
use futures::StreamExt;

use crate::bytes_arg::readable;
use crate::claim;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::kv_watch::follow;

const EXAMPLES: &str = "Examples:
  coracle elect cron -- ./cron.sh                    on one machine of all that run this
  coracle elect cron --value 10.0.0.7:80             lead until Ctrl-C, and say where
  coracle elect cron --priority 10 --wait 0 -- true  only if nobody leads (else exit code 4)

The command gets CORACLE_ELECTION_NAME, CORACLE_ELECTION_TOKEN and CORACLE_ELECTION_SESSION, and is stopped in time if
the leadership is being lost, as under `coracle lock`.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Elect {
    /// Name of the election: any text up to 512 bytes
    name: String,
    /// What to say as the leader [default: host and process id]
    #[arg(long, value_name = "TEXT")]
    value: Option<String>,
    /// Higher is elected first
    #[arg(long, value_name = "0-255", default_value_t = 0)]
    priority: u8,
    #[command(flatten)]
    claim: claim::Terms,
}

#[derive(Debug, Subcommand)]
pub enum Election {
    /// List elections in which somebody leads
    #[command(after_help = "Example:\n  coracle election ls")]
    Ls,
    /// Who leads, what it says, and who would follow
    #[command(
        after_help = "Examples:\n  coracle election show cron\n  coracle election show cron -o raw    what the leader says"
    )]
    Show { name: String },
    /// Follow an election
    #[command(after_help = "Example:\n  coracle election observe cron")]
    Observe { name: String },
    /// Have a session stop leading, or leave the line
    #[command(after_help = "Example:\n  coracle election resign cron --session 7587d8aa00000001 --rejoin")]
    Resign {
        name: String,
        #[arg(long, value_name = "ID")]
        session: SessionId,
        /// Stand again, behind all others of the same priority
        #[arg(long)]
        rejoin: bool,
    },
    /// Make another session the leader
    #[command(
        after_help = "Example:\n  coracle election transfer cron --from 7587d8aa00000001 --to 7587d8aa00000002"
    )]
    Transfer {
        name: String,
        #[arg(long, value_name = "SESSION")]
        from: SessionId,
        #[arg(long, value_name = "SESSION")]
        to: SessionId,
    },
}

pub async fn elect(connection: &Connection, args: Elect) -> Result<(), Failure> {
    let value = args.value.unwrap_or_else(claim::me);
    if connection.curl {
        let more = format!("&priority={}", args.priority);
        return claim::curl(
            connection,
            &format!("elections/{}/campaign", claim::segment(&args.name)),
            &args.claim,
            &more,
        );
    }
    let campaign = connection.client()?.election(args.name).campaign(value).priority(args.priority);
    claim::hold(connection, campaign, args.claim).await
}

pub async fn run(connection: &Connection, election: Election) -> Result<(), Failure> {
    let client = connection.client()?;
    let output = connection.output();
    match election {
        Election::Ls => {
            let all = client.elections().list().await?;
            output.list(&all, &["ELECTION", "LEADER", "TOKEN", "SAYS", "CANDIDATES"], |election| {
                let leader = election.leader.as_ref();
                vec![
                    readable(election.name.as_bytes()),
                    leader.map(|leader| leader.session.to_string()).unwrap_or_default(),
                    leader.map(|leader| leader.token.to_string()).unwrap_or_default(),
                    leader.map(|leader| readable(&leader.value.bytes)).unwrap_or_default(),
                    election.waiting.unwrap_or(election.candidates.len() as u64).to_string(),
                ]
            })
        }
        Election::Show { name } => {
            let seen = client.election(name).show().await?;
            output.item(&seen, &fields(&seen))
        }
        Election::Observe { name } => {
            let updates = client.election(name).observe().from_snapshot();
            follow(connection, updates.boxed(), |seen| {
                fields(seen)
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>()
                    .join("  ")
            })
            .await
        }
        Election::Resign { name, session, rejoin } => {
            let done = client.election(name).resign(session, rejoin).await?;
            let leader = done.leader.map_or_else(|| "nobody".to_owned(), |leader| leader.to_string());
            output.item(&done, &[("leader", leader)])
        }
        Election::Transfer { name, from, to } => {
            let done = client.election(name).transfer(from, to).await?;
            output.item(&done, &[("token", done.token.to_string())])
        }
    }
}

fn fields(election: &Seen) -> Vec<(&'static str, String)> {
    let mut fields = match &election.leader {
        None => vec![("leader", "nobody".to_owned())],
        Some(leader) => vec![
            ("says", readable(&leader.value.bytes)),
            ("leader", leader.session.to_string()),
            ("token", leader.token.to_string()),
            ("since", leader.since.to_string()),
        ],
    };
    fields.extend(election.candidates.iter().map(|candidate| {
        let who = candidate.owner.as_deref().map(|owner| readable(owner.as_bytes()));
        let who = who.unwrap_or_else(|| candidate.session.to_string());
        ("candidate", format!("{who} priority={} position={}", candidate.priority, candidate.position))
    }));
    fields
}
