//! The follower: a process that turns the changes of a prefix into files, and records every event.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use coracle_client::api::{Event, Key};
use coracle_client::{Coracle, Update};
use coracle_examples::option;
use futures::StreamExt as _;

use crate::record::{SYNCED, Seen};

pub async fn run() -> Result<()> {
    let urls = std::env::var("CORACLE_URL").context("CORACLE_URL is missing")?;
    let (prefix, end) = (option("--prefix")?, option("--end")?);
    let folder = PathBuf::from(option("--into")?);
    fs::create_dir_all(&folder)?;
    let mut mirror = Mirror { folder, files: option("--files")?, log: File::create(option("--log")?)? };

    let client = Coracle::connect([urls]).await?;
    let mut watch = client.kv().watch_prefix(&prefix).from_snapshot();
    while let Some(update) = watch.next().await {
        match update? {
            Update::Snapshot { items, .. } => {
                for entry in items {
                    let value = entry.value.context("a snapshot without values")?;
                    mirror.write(&entry.key, &value.bytes)?;
                }
            }
            Update::Synced { .. } => writeln!(mirror.log, "{SYNCED}")?,
            Update::Change { revision, events, .. } => {
                for (place, event) in events.iter().enumerate() {
                    mirror.log.write_all(Seen::new(revision, place, event).line().as_bytes())?;
                    if event.key.as_ref().is_some_and(|key| key.as_bytes() == end.as_bytes()) {
                        return Ok(());
                    }
                    mirror.take(event)?;
                }
            }
            // Never in this scenario: everything is kept. The driver fails when it reads this line.
            Update::Gap { from, to } => writeln!(mirror.log, "gap from={from} to={to}")?,
            // Nothing is lost: the watch goes on by itself.
            Update::Reconnecting { detail } => writeln!(mirror.log, "# {}", detail.replace('\n', " "))?,
            _ => {}
        }
    }
    bail!("the watch ended before the end mark came")
}

struct Mirror {
    folder: PathBuf,
    /// Prefix of the keys that are files.
    files: String,
    log: File,
}

impl Mirror {
    fn take(&self, event: &Event) -> Result<()> {
        let key = event.key.as_ref().context("an event without a key")?;
        match (event.op.as_str(), &event.value) {
            ("put", Some(value)) => self.write(key, &value.bytes),
            ("delete", _) => {
                if let Some(path) = self.path(key)? {
                    fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
                }
                Ok(())
            }
            (op, _) => bail!("an event that is neither put nor delete: {op}"),
        }
    }

    fn write(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let Some(path) = self.path(key)? else { return Ok(()) };
        fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The file of a key; none if the key is no file. Keys come from the network: no path leaves the folder.
    fn path(&self, key: &Key) -> Result<Option<PathBuf>> {
        use std::os::unix::ffi::OsStrExt as _;

        let Some(name) = key.as_bytes().strip_prefix(self.files.as_bytes()) else { return Ok(None) };
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(inside && !name.is_empty(), "a key that is no path: {key:?}");
        Ok(Some(self.folder.join(path)))
    }
}
