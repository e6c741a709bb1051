//! `kv import`: a directory tree into the store.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;

use coracle_client::Kv;
use coracle_client::api::Value;
use futures::StreamExt;
use serde::Serialize;

use crate::bytes_arg::{bytes, readable};
use crate::connection::Connection;
use crate::exit::{ERROR, Failure};
use crate::files::{DIRECTORY, Found, Tree, walk};
use crate::progress::{Progress, size};

pub const EXAMPLES: &str = "Examples:
  coracle kv import ./etc --prefix app/etc/
  coracle kv import /usr/share/doc --prefix doc/ --skip-too-large

A file a/b becomes the key PREFIXa/b with the file's bytes; names may be any bytes. An empty directory becomes the
key of its path with / at the end. Symbolic links and special files are skipped and counted. Modes and times are not
kept. Files that are in the store already, byte for byte, are not written again: a run that was interrupted can
simply be repeated.";

#[derive(Debug, clap::Args)]
pub struct Import {
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What every key starts with
    #[arg(long, default_value = "", value_name = "PREFIX")]
    prefix: OsString,
    /// Requests at once
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Leave out what is over the limits of the server, in place of refusing all
    #[arg(long)]
    skip_too_large: bool,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    files: u64,
    empty_directories: u64,
    bytes: u64,
    written: u64,
    unchanged: u64,
    /// Symbolic links and special files.
    skipped: u64,
    too_large: u64,
    /// Highest revision of a write; 0 if nothing was written.
    revision: u64,
}

pub async fn run(connection: &Connection, args: Import) -> Result<(), Failure> {
    let client = connection.client_for_many_calls()?;
    let prefix = bytes(&args.prefix);
    let Tree { found, skipped } = walk(&args.directory, prefix)?;
    let limits = client.limits().await?;
    let (fitting, refused): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|f| {
        f.key.len() as u64 <= limits.key_bytes_max && f.size.unwrap_or(0) <= limits.value_bytes_max
    });
    for file in &refused {
        eprintln!(
            "coracle: over the limits: {} bytes (at most {}), key of {} bytes (at most {}) path={}",
            file.size.unwrap_or(0),
            limits.value_bytes_max,
            file.key.len(),
            limits.key_bytes_max,
            readable(file.path.as_os_str().as_encoded_bytes())
        );
    }
    if !refused.is_empty() && !args.skip_too_large {
        eprintln!("coracle: nothing was imported; --skip-too-large leaves these {} out", refused.len());
        return Err(Failure::Exit(ERROR));
    }

    let kv = client.kv();
    let (existing, _) = kv.list(prefix).keys_only().limit(limits.list_items_max).entries().await?;
    let existing: HashSet<Vec<u8>> =
        existing.into_iter().map(|entry| entry.key.into_bytes().to_vec()).collect();

    let mut summary =
        Summary { skipped: skipped.len() as u64, too_large: refused.len() as u64, ..Summary::default() };
    let mut progress = Progress::new("importing", fitting.len() as u64);
    let puts = fitting.into_iter().map(|file| {
        let exists = existing.contains(&file.key);
        import_one(&kv, file, exists)
    });
    let mut puts = futures::stream::iter(puts).buffer_unordered(args.parallel.into());
    while let Some(done) = puts.next().await {
        let done = done?;
        progress.step(done.bytes);
        summary.bytes += done.bytes;
        *(if done.is_file { &mut summary.files } else { &mut summary.empty_directories }) += 1;
        match done.revision {
            Some(revision) => {
                summary.written += 1;
                summary.revision = summary.revision.max(revision);
            }
            None => summary.unchanged += 1,
        }
    }
    progress.finish();
    let fields = [
        ("files", summary.files.to_string()),
        ("empty directories", summary.empty_directories.to_string()),
        ("bytes", size(summary.bytes)),
        ("written", summary.written.to_string()),
        ("unchanged", summary.unchanged.to_string()),
        ("skipped", summary.skipped.to_string()),
        ("too large", summary.too_large.to_string()),
        ("revision", summary.revision.to_string()),
    ];
    connection.output().item(&summary, &fields)
}

struct Imported {
    bytes: u64,
    is_file: bool,
    /// `None` if it was in the store already.
    revision: Option<u64>,
}

async fn import_one(kv: &Kv, file: Found, exists: bool) -> Result<Imported, Failure> {
    let value = match file.size {
        None => Value::new(Vec::new(), DIRECTORY),
        Some(_) => Value::from(tokio::fs::read(&file.path).await.map_err(|error| {
            Failure::Other(format!("{error} path={}", readable(file.path.as_os_str().as_encoded_bytes())))
        })?),
    };
    let (bytes, is_file) = (value.bytes.len() as u64, file.size.is_some());
    if exists
        && let Some(entry) = kv.get(&file.key).await?
        && entry.value.is_some_and(|stored| stored.bytes == value.bytes)
    {
        return Ok(Imported { bytes, is_file, revision: None });
    }
    let put = kv.put(&file.key, value).await?;
    Ok(Imported { bytes, is_file, revision: Some(put.revision) })
}
