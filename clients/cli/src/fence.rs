//! `fence`: check a token for a store that cannot do so itself.

use clap::Subcommand;

use crate::bytes_arg::readable;
use crate::connection::Connection;
use crate::exit::Failure;

#[derive(Debug, Subcommand)]
pub enum Fence {
    /// Let a token pass unless a newer one was seen: then the exit code is 4
    #[command(
        after_help = "Example:\n  coracle fence check printer-7 \"$CORACLE_LOCK_TOKEN\" && lp report.pdf"
    )]
    Check {
        resource: String,
        /// The fencing token of whoever wants to write
        #[arg(value_name = "TOKEN")]
        of: u64,
    },
    /// List resources
    #[command(after_help = "Example:\n  coracle fence ls -o ndjson")]
    Ls {
        /// Only names that begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// The newest token that a resource has seen
    #[command(after_help = "Example:\n  coracle fence show printer-7")]
    Show { resource: String },
    /// Forget what a resource has seen
    #[command(after_help = "Example:\n  coracle fence rm printer-7")]
    Rm { resource: String },
}

pub async fn run(connection: &Connection, fence: Fence) -> Result<(), Failure> {
    let client = connection.client()?;
    match fence {
        Fence::Check { resource, of } => {
            let passed = client.fence(&resource).check(of).await?;
            let before = passed.previous.map(|token| token.to_string()).unwrap_or_default();
            connection.output().item(&passed, &[("token", passed.token.to_string()), ("before", before)])
        }
        Fence::Ls { prefix } => {
            let fences = client.fences().list(&prefix).await?;
            connection.output().list(&fences, &["RESOURCE", "TOKEN"], |fence| {
                vec![readable(fence.name.as_bytes()), fence.token.to_string()]
            })
        }
        Fence::Show { resource } => {
            let fence = client.fence(&resource).show().await?;
            connection.output().item(&fence, &[("token", fence.token.to_string())])
        }
        Fence::Rm { resource } => {
            let deleted = client.fence(&resource).delete().await?;
            connection.output().item(&deleted, &[("deleted", deleted.deleted.to_string())])
        }
    }
}
