//! `kv`: keys and values.

use std::ffi::OsString;
use std::io::Write;

use clap::Subcommand;
use coracle_client::api::{Entry, SessionId, Span};

use crate::bytes_arg::{bytes, readable};
use crate::connection::Connection;
use crate::exit::{Failure, NOT_FOUND};
use crate::output::Format;
use crate::value_arg::ValueArg;
use crate::{export, import, kv_edit, kv_list, kv_watch};

#[derive(Debug, Subcommand)]
pub enum Kv {
    /// Print the value of a key
    #[command(after_help = "Examples:\n  coracle kv get app/color\n  coracle kv get app/color -o json\n  \
                            coracle kv get app/color --revision 41")]
    Get(Get),
    /// Create or replace a key
    #[command(
        after_help = "Examples:\n  coracle kv put app/color blue\n  coracle kv put app/logo < logo.png\n  \
                            coracle kv put app/color red --if-match 41\n  coracle kv put alive/me 1 --ttl 30s"
    )]
    Put(Put),
    /// Delete a key, or all keys with a prefix
    #[command(after_help = "Examples:\n  coracle kv del app/color\n  coracle kv del --prefix app/")]
    Del(Del),
    /// List keys
    #[command(
        after_help = "Examples:\n  coracle kv ls\n  coracle kv ls app/ --folder\n  coracle kv ls app/ --count"
    )]
    Ls(kv_list::Ls),
    /// Show keys as a tree
    #[command(after_help = "Example:\n  coracle kv tree app/")]
    Tree(kv_list::Tree),
    /// Follow a key, or all keys with a prefix
    #[command(
        after_help = "Examples:\n  coracle kv watch app/color\n  coracle kv watch --prefix app/ --snapshot\n  \
                            coracle kv watch --prefix app/ --after 41 -o ndjson"
    )]
    Watch(kv_watch::Watch),
    /// Show the kept versions of a key
    #[command(after_help = "Example:\n  coracle kv history app/color")]
    History(kv_list::History),
    /// Change a value in an editor; refused if somebody else changed it meanwhile
    #[command(after_help = "Example:\n  EDITOR=vim coracle kv edit app/config")]
    Edit(kv_edit::Edit),
    /// Put a directory tree into the store
    #[command(after_help = import::EXAMPLES)]
    Import(import::Import),
    /// Write keys as a directory tree
    #[command(after_help = export::EXAMPLES)]
    Export(export::Export),
}

#[derive(Debug, clap::Args)]
pub struct Get {
    key: OsString,
    /// As it was at this revision
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
    /// From the answering node alone: fast, may be old
    #[arg(long)]
    stale: bool,
}

#[derive(Debug, clap::Args)]
pub struct Put {
    key: OsString,
    #[command(flatten)]
    value: ValueArg,
    /// Only if the key was last changed by this revision
    #[arg(long, value_name = "REVISION", conflicts_with = "if_absent")]
    if_match: Option<u64>,
    /// Only if the key does not exist
    #[arg(long)]
    if_absent: bool,
    /// The key goes away after this, unless its session is renewed
    #[arg(long, value_name = "DURATION", conflicts_with = "session")]
    ttl: Option<Span>,
    /// The key lives with this session
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["key", "prefix"])))]
pub struct Del {
    key: Option<OsString>,
    /// All keys that start with this
    #[arg(long, value_name = "PREFIX", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    prefix: Option<String>,
    /// Only if the key was last changed by this revision
    #[arg(long, value_name = "REVISION", requires = "key")]
    if_match: Option<u64>,
}

pub async fn run(connection: &Connection, kv: Kv) -> Result<(), Failure> {
    match kv {
        Kv::Get(args) => get(connection, args).await,
        Kv::Put(args) => put(connection, args).await,
        Kv::Del(args) => del(connection, args).await,
        Kv::Ls(args) => kv_list::ls(connection, args).await,
        Kv::Tree(args) => kv_list::tree(connection, args).await,
        Kv::History(args) => kv_list::history(connection, args).await,
        Kv::Watch(args) => kv_watch::run(connection, args).await,
        Kv::Edit(args) => kv_edit::run(connection, args).await,
        Kv::Import(args) => import::run(connection, args).await,
        Kv::Export(args) => export::run(connection, args).await,
    }
}

async fn get(connection: &Connection, args: Get) -> Result<(), Failure> {
    let mut get = connection.client()?.kv().get(bytes(&args.key));
    if let Some(revision) = args.revision {
        get = get.revision(revision);
    }
    if args.stale {
        get = get.stale();
    }
    let entry = get.await?.ok_or_else(|| not_found(bytes(&args.key)))?;
    let value = entry.value.clone().map(|value| value.bytes).unwrap_or_default();
    // A value is its bytes, also on a terminal, unless another form is asked for.
    match connection.output().format_or(Format::Raw) {
        Format::Raw => {
            let mut out = std::io::stdout().lock();
            out.write_all(&value)?;
            out.flush()?;
            Ok(())
        }
        _ => connection.output().item(&entry, &fields(&entry)),
    }
}

/// Say that a key does not exist.
pub fn not_found(key: &[u8]) -> Failure {
    eprintln!("coracle: key not found key={}", readable(key));
    Failure::Exit(NOT_FOUND)
}

fn fields(entry: &Entry) -> Vec<(&'static str, String)> {
    let value = entry.value.as_ref();
    vec![
        ("value", value.map(|value| readable(&value.bytes)).unwrap_or_default()),
        ("key", readable(entry.key.as_bytes())),
        ("content type", value.map(|value| value.content_type.clone()).unwrap_or_default()),
        ("create revision", entry.create_revision.to_string()),
        ("mod revision", entry.mod_revision.to_string()),
        ("version", entry.version.to_string()),
        ("session", entry.session.map(|session| session.to_string()).unwrap_or_default()),
    ]
}

async fn put(connection: &Connection, args: Put) -> Result<(), Failure> {
    let mut put = connection.client()?.kv().put(bytes(&args.key), args.value.read()?);
    if let Some(revision) = args.if_match {
        put = put.if_match(revision);
    }
    if args.if_absent {
        put = put.if_absent();
    }
    if let Some(ttl) = args.ttl {
        put = put.ttl(ttl.into());
    }
    if let Some(session) = args.session {
        put = put.session_id(session);
    }
    let done = put.await?;
    let mut fields = vec![
        ("revision", done.revision.to_string()),
        ("version", done.version.to_string()),
        ("key", readable(done.key.as_bytes())),
    ];
    fields.extend(done.session.map(|session| ("session", session.to_string())));
    connection.output().item(&done, &fields)
}

async fn del(connection: &Connection, args: Del) -> Result<(), Failure> {
    let kv = connection.client()?.kv();
    let done = match (args.key, args.prefix) {
        (Some(key), _) => {
            let mut delete = kv.delete(bytes(&key));
            if let Some(revision) = args.if_match {
                delete = delete.if_match(revision);
            }
            let done = delete.await?;
            if done.deleted == 0 {
                return Err(not_found(bytes(&key)));
            }
            done
        }
        (None, prefix) => kv.delete_prefix(prefix.unwrap_or_default()).await?,
    };
    let fields = [("deleted", done.deleted.to_string()), ("revision", done.revision.to_string())];
    connection.output().item(&done, &fields)
}
