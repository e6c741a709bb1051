//! `kv watch`: changes as they happen.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

use coracle_client::Update;
use coracle_client::api::{Entry, Event, Frame};
use futures::{Stream, StreamExt};
use serde::Serialize;

use crate::bytes_arg::{bytes, readable};
use crate::connection::Connection;
use crate::exit::Failure;
use crate::kv_list::short;
use crate::output::{self, Format};

#[derive(Debug, clap::Args)]
pub struct Watch {
    /// The key, or the prefix with --prefix
    #[arg(default_value = "")]
    key: OsString,
    /// All keys that start with it
    #[arg(long)]
    prefix: bool,
    /// Changes after this revision
    #[arg(long, value_name = "REVISION", conflicts_with = "snapshot")]
    after: Option<u64>,
    /// First the current state
    #[arg(long)]
    snapshot: bool,
}

pub async fn run(connection: &Connection, args: Watch) -> Result<(), Failure> {
    let kv = connection.client()?.kv();
    let key = bytes(&args.key);
    let watch = match (args.prefix, key.is_empty()) {
        (true, _) => kv.watch_prefix(key),
        (false, false) => kv.watch(key),
        (false, true) => return Err(Failure::Usage("give a key, or --prefix for all keys".into())),
    };
    let watch = match (args.after, args.snapshot) {
        (Some(revision), _) => watch.after(revision),
        (None, true) => watch.from_snapshot(),
        (None, false) => watch.from_now(),
    };
    follow(connection, watch, entry_lines).await
}

/// Print updates until the stream ends or we are interrupted.
pub async fn follow<I: Serialize + Clone>(
    connection: &Connection,
    mut updates: impl Stream<Item = Result<Update<I>, coracle_client::Error>> + Unpin,
    lines: impl Fn(&I) -> String,
) -> Result<(), Failure> {
    let json = matches!(connection.output().format(), Format::Json | Format::Ndjson);
    while let Some(update) = updates.next().await {
        let update = update?;
        remark(&update);
        let mut out = std::io::stdout().lock();
        if json {
            if let Some(frame) = as_frame(update) {
                output::line(&mut out, &frame)?;
            }
            continue;
        }
        match update {
            Update::Snapshot { items, .. } => {
                for item in &items {
                    writeln!(out, "{}", lines(item))?;
                }
            }
            Update::Change { revision, events, .. } => {
                for event in &events {
                    writeln!(out, "{revision}  {}", event_line(event))?;
                }
            }
            _ => {}
        }
        out.flush()?;
    }
    Ok(())
}

/// What a reader of the data alone would miss, on stderr.
fn remark<I>(update: &Update<I>) {
    match update {
        Update::Gap { from, to } => {
            eprintln!(
                "coracle: changes after {from} up to {to} are no longer kept; the current state follows"
            );
        }
        Update::Lagged { .. } => eprintln!("coracle: too slow, continuing"),
        Update::Bye { .. } => eprintln!("coracle: the node said goodbye, continuing elsewhere"),
        Update::Reconnecting { detail } => eprintln!("coracle: reconnecting: {detail}"),
        _ => {}
    }
}

/// The frame an update came from; our own remarks have none.
fn as_frame<I>(update: Update<I>) -> Option<Frame<I>> {
    Some(match update {
        Update::Snapshot { revision, items, more, .. } => Frame::Snapshot { revision, items, more },
        Update::Synced { revision } => Frame::Synced { revision },
        Update::Change { revision, time, events } => Frame::Change { revision, time, events },
        Update::Progress { revision } => Frame::Progress { revision },
        Update::Gap { from, to } => Frame::Gap { from, to },
        _ => return None,
    })
}

fn entry_lines(entry: &Entry) -> String {
    let value = entry.value.as_ref().map(|value| short(&value.bytes)).unwrap_or_default();
    format!("{}  {} = {value}", entry.mod_revision, readable(entry.key.as_bytes()))
}

fn event_line(event: &Event) -> String {
    let what = match (&event.key, &event.name) {
        (Some(key), _) => readable(key.as_bytes()),
        (None, Some(name)) => format!("{}/{}", event.family, readable(name.as_bytes())),
        (None, None) => event.family.clone(),
    };
    let mut line = format!("{} {what}", event.op);
    if let Some(value) = &event.value {
        let _ = write!(line, " = {}", short(&value.bytes));
    }
    if let Some(session) = event.session {
        let _ = write!(line, "  session={session}");
    }
    if let Some(token) = event.token {
        let _ = write!(line, "  token={token}");
    }
    if let Some(cause) = &event.cause {
        let _ = write!(line, "  cause={}", readable(cause.as_bytes()));
    }
    line
}
