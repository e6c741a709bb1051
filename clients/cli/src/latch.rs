//! `latch`: make, count down, wait.

use std::time::Duration;

use clap::Subcommand;
use coracle_client::api::{Code, Latch as Shown, Span};

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::{Failure, REFUSED, WAIT_RAN_OUT};

#[derive(Debug, Subcommand)]
pub enum Latch {
    /// Make a latch that opens when so many, or all of these, have counted down
    #[command(after_help = "Examples:\n  coracle latch create nightly 3\n  \
                            coracle latch create deploy --members api,db,web")]
    Create {
        name: String,
        #[arg(required_unless_present = "members")]
        count: Option<u64>,
        /// Only these count down
        #[arg(long, value_delimiter = ',', value_name = "IDS", conflicts_with = "count")]
        members: Vec<String>,
    },
    /// Count down; the same id counts once
    #[command(after_help = "Example:\n  coracle latch down nightly backup")]
    Down { name: String, id: String },
    /// Wait until a latch is open, also one that is not made yet
    #[command(after_help = "Example:\n  coracle latch await nightly --wait 2h")]
    Await {
        name: String,
        /// How long to wait, 0 to look once [default: without end]
        #[arg(long, value_name = "DURATION")]
        wait: Option<Span>,
    },
    /// List latches
    #[command(after_help = "Example:\n  coracle latch ls -o ndjson")]
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// How many are still to count down, and who
    #[command(after_help = "Example:\n  coracle latch show nightly")]
    Show { name: String },
    /// Forget a latch
    #[command(after_help = "Example:\n  coracle latch rm nightly")]
    Rm { name: String },
}

pub async fn run(connection: &Connection, latch: Latch) -> Result<(), Failure> {
    let client = connection.client()?;
    match latch {
        Latch::Create { name, count, members } => {
            let latch = client.latch(name);
            show(
                connection,
                &match count {
                    Some(count) => latch.create(count).await?,
                    None => latch.create_for(members).await?,
                },
            )
        }
        Latch::Down { name, id } => {
            let done = client.latch(name).count_down(&id).await?;
            let fields = [("left", done.left.to_string()), ("counted", done.counted.to_string())];
            connection.output().item(&done, &fields)
        }
        Latch::Await { name, wait } => {
            let wait = wait.map_or(Duration::MAX, Duration::from);
            match client.latch(name).wait(wait).await {
                Ok(latch) => show(connection, &latch),
                Err(error) if error.code() == Some(Code::LatchClosed) => {
                    eprintln!("coracle: {error}");
                    Err(Failure::Exit(if wait.is_zero() { REFUSED } else { WAIT_RAN_OUT }))
                }
                Err(error) => Err(error.into()),
            }
        }
        Latch::Ls { prefix } => {
            let latches = client.latches().list(&prefix).await?;
            connection.output().list(&latches, &["LATCH", "LEFT", "OF", "OPEN"], |latch| {
                let name = readable(latch.name.as_bytes());
                vec![name, latch.left.to_string(), latch.count.to_string(), latch.open.to_string()]
            })
        }
        Latch::Show { name } => show(connection, &client.latch(name).show().await?),
        Latch::Rm { name } => {
            let deleted = client.latch(name).delete().await?;
            connection.output().item(&deleted, &[("deleted", deleted.deleted.to_string())])
        }
    }
}

fn show(connection: &Connection, latch: &Shown) -> Result<(), Failure> {
    let missing: Vec<String> = latch.missing.iter().map(|id| readable(id.as_bytes())).collect();
    let fields = [
        ("left", latch.left.to_string()),
        ("of", latch.count.to_string()),
        ("open", latch.open.to_string()),
        ("missing", missing.join(" ")),
    ];
    connection.output().item(latch, &fields)
}
