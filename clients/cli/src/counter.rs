//! `counter`: read, add, set.

use clap::Subcommand;
use coracle_client::api::Counted;

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::Failure;

#[derive(Debug, Subcommand)]
pub enum Counter {
    /// Read a counter; one that nobody wrote is 0
    #[command(after_help = "Example:\n  coracle counter get sold")]
    Get { name: String },
    /// List counters
    #[command(after_help = "Example:\n  coracle counter ls -o ndjson")]
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Add to a counter
    #[command(after_help = "Examples:\n  coracle counter add sold\n  \
                            coracle counter add seats 2 --max 100      exit code 4 if there are not two left\n  \
                            coracle counter add ids 100 -o raw         the last of a hundred ids that are yours alone")]
    Add {
        name: String,
        /// Below zero to subtract
        #[arg(default_value = "1", allow_negative_numbers = true)]
        delta: i64,
        /// Refused if the sum would be below this
        #[arg(long, allow_negative_numbers = true)]
        min: Option<i64>,
        /// Refused if the sum would be above this
        #[arg(long, allow_negative_numbers = true)]
        max: Option<i64>,
    },
    /// Set a counter
    #[command(
        after_help = "Examples:\n  coracle counter set sold 0\n  coracle counter set sold 7 --if-match 41"
    )]
    Set {
        name: String,
        #[arg(allow_negative_numbers = true)]
        value: i64,
        /// Only if this revision changed it last
        #[arg(long, value_name = "REVISION", conflicts_with = "if_absent")]
        if_match: Option<u64>,
        /// Only if nobody wrote it
        #[arg(long)]
        if_absent: bool,
    },
    /// Forget a counter: it is 0 again
    #[command(after_help = "Example:\n  coracle counter rm sold")]
    Rm { name: String },
}

pub async fn run(connection: &Connection, counter: Counter) -> Result<(), Failure> {
    let client = connection.client()?;
    match counter {
        Counter::Get { name } => {
            let now = client.counter(&name).get().await?;
            let fields =
                [("value", now.value.to_string()), ("changed by revision", now.mod_revision.to_string())];
            connection.output().item(&now, &fields)
        }
        Counter::Ls { prefix } => {
            let counters = client.counters().list(&prefix).await?;
            connection.output().list(&counters, &["COUNTER", "VALUE", "CHANGED BY"], |counter| {
                let name = readable(counter.name.as_bytes());
                vec![name, counter.value.to_string(), counter.mod_revision.to_string()]
            })
        }
        Counter::Add { name, delta, min, max } => {
            let mut add = client.counter(&name).add(delta);
            if let Some(min) = min {
                add = add.min(min);
            }
            if let Some(max) = max {
                add = add.max(max);
            }
            counted(connection, add.await?)
        }
        Counter::Set { name, value, if_match, if_absent } => {
            let mut set = client.counter(&name).set(value);
            if let Some(revision) = if_match {
                set = set.if_match(revision);
            }
            if if_absent {
                set = set.if_absent();
            }
            counted(connection, set.await?)
        }
        Counter::Rm { name } => counted(connection, client.counter(&name).delete().await?),
    }
}

fn counted(connection: &Connection, counted: Counted) -> Result<(), Failure> {
    let fields = [("value", counted.value.to_string()), ("before", counted.previous.to_string())];
    connection.output().item(&counted, &fields)
}
