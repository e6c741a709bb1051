//! `compact` and `hash`: forget history, compare replicas.

use crate::connection::Connection;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coracle compact --keep 10000\n  coracle compact --revision 812")]
pub struct Compact {
    /// Forget the history up to this revision
    #[arg(long, value_name = "REVISION", required_unless_present = "keep", conflicts_with = "keep")]
    revision: Option<u64>,
    /// Forget all but the last so many revisions
    #[arg(long, value_name = "N")]
    keep: Option<u64>,
}

pub async fn compact(connection: &Connection, args: Compact) -> Result<(), Failure> {
    let cluster = connection.client()?.cluster();
    let done = match args.revision {
        Some(revision) => cluster.compact(revision).await?,
        None => cluster.compact_to(args.keep.unwrap_or_default()).await?,
    };
    let fields = [("compacted", done.compact_revision.to_string()), ("revision", done.revision.to_string())];
    connection.output().item(&done, &fields)
}

pub async fn hash(connection: &Connection) -> Result<(), Failure> {
    let hash = connection.client()?.cluster().hash().await?;
    let fields = [
        ("hash", hash.hash.clone()),
        ("revision", hash.revision.to_string()),
        ("member", hash.member_id.clone()),
        ("diverged", hash.diverged.to_string()),
    ];
    connection.output().item(&hash, &fields)
}
