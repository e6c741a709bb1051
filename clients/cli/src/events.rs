//! `events`: the changes of all families on one stream.

use crate::connection::Connection;
use crate::exit::Failure;
use crate::kv_watch::follow;

/// Every change of keys, sessions and locks, as it happens
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coracle events\n  coracle events --family locks -o ndjson")]
pub struct Events {
    /// Only this family: kv, sessions, locks
    #[arg(long, value_name = "FAMILY")]
    family: Option<String>,
    /// Only names and keys that start with this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Changes after this revision [default: from now on]
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
}

pub async fn run(connection: &Connection, args: Events) -> Result<(), Failure> {
    let mut events = connection.client()?.events(args.family.as_deref());
    if let Some(prefix) = args.prefix {
        events = events.filter("prefix", prefix);
    }
    let watch = match args.after {
        Some(revision) => events.after(revision),
        None => events.from_now(),
    };
    follow(connection, watch, ToString::to_string).await
}
