//! `barrier`: meet others, and wait at gates.

use std::time::Duration;

use clap::Subcommand;
use coracle_client::Error;
use coracle_client::api::{Barrier as Shown, BarrierConfig, BarrierKind, Code, SessionId, Span};

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{Failure, REFUSED, WAIT_RAN_OUT};

#[derive(Debug, Subcommand)]
pub enum Barrier {
    /// Make a barrier
    #[command(after_help = "Examples:\n  coracle barrier create step --parties 3 --breaks-after 10m\n  \
                            coracle barrier create start --members api,db,web\n  \
                            coracle barrier create job --kind double --parties 5 --at-least\n  \
                            coracle barrier create go --kind gate")]
    Create(Create),
    /// Come, and wait until all have
    #[command(after_help = "Examples:\n  coracle barrier enter step w1 --wait 10m\n  \
                            coracle barrier enter step w1 --durable      nobody's end takes the arrival back")]
    Enter(Enter),
    /// Be out of a double barrier, and wait until all are
    #[command(after_help = "Example:\n  coracle barrier leave job w1 --wait 10m")]
    Leave {
        name: String,
        id: String,
        /// How long to wait for the others [default: without end]
        #[arg(long, value_name = "DURATION")]
        wait: Option<Span>,
    },
    /// List barriers
    #[command(after_help = "Example:\n  coracle barrier ls -o ndjson")]
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Who is there, and who is missing
    #[command(after_help = "Example:\n  coracle barrier show step")]
    Show { name: String },
    /// Open a gate
    #[command(after_help = "Example:\n  coracle barrier open go")]
    Open { name: String },
    /// Close a gate
    #[command(after_help = "Example:\n  coracle barrier close go")]
    Close { name: String },
    /// Wait until a gate is open
    #[command(after_help = "Example:\n  coracle barrier await go --wait 1h")]
    Await {
        name: String,
        /// How long to wait, 0 to look once [default: without end]
        #[arg(long, value_name = "DURATION")]
        wait: Option<Span>,
    },
    /// Forget a barrier; it breaks for those who wait
    #[command(after_help = "Example:\n  coracle barrier rm step")]
    Rm { name: String },
}

#[derive(Debug, clap::Args)]
pub struct Create {
    pub name: String,
    #[arg(long, value_enum, default_value_t = Kind::Cyclic)]
    pub kind: Kind,
    /// How many have to come
    #[arg(long, value_name = "N")]
    pub parties: Option<u64>,
    /// Only these may come
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub members: Vec<String>,
    /// Of a double barrier: who comes when all are inside joins them
    #[arg(long)]
    pub at_least: bool,
    /// Of a cyclic barrier: it breaks so long after the first has come
    // Not --timeout, which is that of a call.
    #[arg(long, value_name = "DURATION")]
    pub breaks_after: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Gate,
    Cyclic,
    Double,
}

#[derive(Debug, clap::Args)]
pub struct Enter {
    pub name: String,
    /// Who comes
    pub id: String,
    /// How long to wait, 0 to come only if it is the last one [default: without end]
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// How long the arrival outlives this process
    #[arg(long, value_name = "DURATION", default_value = "15s", conflicts_with_all = ["session", "durable"])]
    pub ttl: Span,
    /// The arrival lives with this session
    #[arg(long, value_name = "SESSION", conflicts_with = "durable")]
    pub session: Option<SessionId>,
    /// The arrival stays until its time has come
    #[arg(long)]
    pub durable: bool,
}

pub async fn run(connection: &Connection, barrier: Barrier) -> Result<(), Failure> {
    let client = connection.client()?;
    match barrier {
        Barrier::Create(Create { name, kind, parties, members, at_least, breaks_after: timeout }) => {
            let kind = match kind {
                Kind::Gate => BarrierKind::Gate,
                Kind::Cyclic => BarrierKind::Cyclic,
                Kind::Double => BarrierKind::Double,
            };
            let exact = at_least.then_some(false);
            let config = BarrierConfig { kind, parties, exact, timeout, members };
            show(connection, &client.barrier(name).create(&config).await?)
        }
        Barrier::Enter(args) => enter(connection, args).await,
        Barrier::Leave { name, id, wait } => {
            let wait = wait.map_or(Duration::MAX, Duration::from);
            let leaving = client.barrier(name).leave(&id, wait).await?;
            connection.output().item(&leaving, &[("inside", leaving.inside.to_string())])?;
            if leaving.inside > 0 { Err(Failure::Exit(WAIT_RAN_OUT)) } else { Ok(()) }
        }
        Barrier::Ls { prefix } => {
            let barriers = client.barriers().list(&prefix).await?;
            let header = ["BARRIER", "KIND", "OPEN", "PARTIES", "WAITING", "INSIDE"];
            connection.output().list(&barriers, &header, |barrier| {
                vec![
                    readable(barrier.name.as_bytes()),
                    format!("{:?}", barrier.kind).to_lowercase(),
                    barrier.open.map(|open| open.to_string()).unwrap_or_default(),
                    barrier.parties.map(|parties| parties.to_string()).unwrap_or_default(),
                    barrier.waiting.to_string(),
                    barrier.inside.to_string(),
                ]
            })
        }
        Barrier::Show { name } => show(connection, &client.barrier(name).show().await?),
        Barrier::Open { name } => gate(connection, client.barrier(name).open().await?.open),
        Barrier::Close { name } => gate(connection, client.barrier(name).close().await?.open),
        Barrier::Await { name, wait } => {
            let wait = wait.map_or(Duration::MAX, Duration::from);
            match client.barrier(name).wait_open(wait).await {
                Ok(now) => gate(connection, now.open),
                Err(error) if error.code() == Some(Code::BarrierWaiting) => {
                    eprintln!("coracle: {error}");
                    Err(Failure::Exit(if wait.is_zero() { REFUSED } else { WAIT_RAN_OUT }))
                }
                Err(error) => Err(error.into()),
            }
        }
        Barrier::Rm { name } => {
            let deleted = client.barrier(name).delete().await?;
            connection.output().item(&deleted, &[("deleted", deleted.deleted.to_string())])
        }
    }
}

async fn enter(connection: &Connection, args: Enter) -> Result<(), Failure> {
    let wait = args.wait.map_or(Duration::MAX, Duration::from);
    let mut enter = connection.client()?.barrier(args.name).enter(args.id).wait(wait);
    match args.session {
        Some(session) => enter = enter.session_id(session),
        None if !args.durable => enter = enter.ttl(args.ttl.into()),
        None => {}
    }
    match enter.wait_for_all().await {
        Ok(entered) => {
            let index = entered.index.map(|index| index.to_string()).unwrap_or_default();
            let fields = [("generation", entered.generation.to_string()), ("index", index)];
            connection.output().item(&entered, &fields)
        }
        Err(error @ Error::NotAcquired { .. }) => {
            eprintln!("coracle: {error}");
            Err(Failure::Exit(WAIT_RAN_OUT))
        }
        Err(error) => Err(error.into()),
    }
}

fn gate(connection: &Connection, open: bool) -> Result<(), Failure> {
    let now = serde_json::json!({ "open": open });
    connection.output().item(&now, &[("open", open.to_string())])
}

fn show(connection: &Connection, barrier: &Shown) -> Result<(), Failure> {
    let names = |names: &mut dyn Iterator<Item = &String>| {
        names.map(|id| readable(id.as_bytes())).collect::<Vec<_>>().join(" ")
    };
    let there = |inside: bool| {
        names(&mut barrier.present.iter().filter(|party| party.inside == inside).map(|party| &party.id))
    };
    let mut fields = vec![("generation", barrier.generation.to_string())];
    if let Some(open) = barrier.open {
        fields.push(("open", open.to_string()));
    } else {
        fields.push(("parties", barrier.parties.unwrap_or_default().to_string()));
        fields.push(("waiting", format!("{} {}", barrier.waiting, there(false)).trim_end().to_owned()));
        fields.push(("inside", format!("{} {}", barrier.inside, there(true)).trim_end().to_owned()));
        fields.push(("missing", names(&mut barrier.missing.iter())));
    }
    connection.output().item(barrier, &fields)
}
