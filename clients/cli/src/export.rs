//! `kv export`: keys as a directory tree, all at one revision.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use coracle_client::Kv;
use coracle_client::api::{Code, KvList};
use futures::StreamExt;
use serde::Serialize;

use crate::bytes_arg::{bytes, readable};
use crate::connection::Connection;
use crate::exit::{ERROR, Failure};
use crate::files::{Target, target};
use crate::progress::{Progress, size};

pub const EXAMPLES: &str = "Examples:
  coracle kv export ./copy --prefix app/etc/
  coracle kv export ./copy --prefix app/etc/ --revision 41

A key PREFIXa/b becomes the file a/b below DIR; a key that ends with / becomes a directory. All files show one
revision. Each file appears whole or not at all, and one that is there already, byte for byte, is left alone: a run
that was interrupted can simply be repeated. Files that are not in the store are left alone too. Keys that cannot be
files (a part that is empty, . or .., a zero byte, a file and a folder of one name) are named and the exit code is 1.";

#[derive(Debug, clap::Args)]
pub struct Export {
    /// Created if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Which keys; this part of them is left out of the paths
    #[arg(long, default_value = "", value_name = "PREFIX")]
    prefix: OsString,
    /// As they were at this revision
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
    /// Requests at once
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    files: u64,
    directories: u64,
    bytes: u64,
    written: u64,
    unchanged: u64,
    /// Keys that cannot be files.
    unmappable: u64,
    revision: u64,
}

pub async fn run(connection: &Connection, args: Export) -> Result<(), Failure> {
    let client = connection.client_for_many_calls()?;
    let kv = client.kv();
    let prefix = bytes(&args.prefix);
    let mut list = kv.list(prefix).keys_only().limit(1000);
    if let Some(revision) = args.revision {
        list = list.revision(revision);
    }
    let KvList { items, revision, .. } = list.all().await?;
    let keys: Vec<Vec<u8>> = items.into_iter().map(|entry| entry.key.into_bytes().to_vec()).collect();

    let mut summary = Summary { revision, ..Summary::default() };
    let mut writer = TreeWriter::new(&args.directory)?;
    let files = writer.plan(&keys, prefix.len(), &mut summary)?;
    let mut progress = Progress::new("exporting", files.len() as u64);
    let reads = files.into_iter().map(|(key, path)| {
        let kv = &kv;
        async move { Ok::<_, Failure>((path, read(kv, &key, revision).await?)) }
    });
    let mut reads = futures::stream::iter(reads).buffer_unordered(args.parallel.into());
    while let Some(read) = reads.next().await {
        let (path, content) = read?;
        *(if writer.write(&path, &content)? { &mut summary.written } else { &mut summary.unchanged }) += 1;
        summary.files += 1;
        summary.bytes += content.len() as u64;
        progress.step(content.len() as u64);
    }
    progress.finish();
    let fields = [
        ("files", summary.files.to_string()),
        ("directories", summary.directories.to_string()),
        ("bytes", size(summary.bytes)),
        ("written", summary.written.to_string()),
        ("unchanged", summary.unchanged.to_string()),
        ("unmappable", summary.unmappable.to_string()),
        ("revision", summary.revision.to_string()),
    ];
    connection.output().item(&summary, &fields)?;
    if summary.unmappable > 0 { Err(Failure::Exit(ERROR)) } else { Ok(()) }
}

async fn read(kv: &Kv, key: &[u8], revision: u64) -> Result<Vec<u8>, Failure> {
    match kv.get(key).revision(revision).await {
        Ok(Some(entry)) => Ok(entry.value.map(|value| value.bytes.to_vec()).unwrap_or_default()),
        Ok(None) => Err(Failure::Other(format!("listed but not there key={}", readable(key)))),
        Err(error) if error.code() == Some(Code::Compacted) => Err(Failure::Other(format!(
            "revision {revision} was compacted before all of it was read; run it again to go on"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Writes below one directory and nowhere else.
struct TreeWriter<'a> {
    root: &'a Path,
    /// Directories, relative to the root, known to be real directories.
    checked: HashSet<PathBuf>,
}

impl<'a> TreeWriter<'a> {
    fn new(root: &'a Path) -> Result<Self, Failure> {
        fs::create_dir_all(root).map_err(|error| at(root, &error))?;
        Ok(Self { root, checked: HashSet::new() })
    }

    /// The keys that become files, with their paths. Directories are made at once; keys that cannot be files
    /// are named.
    fn plan(
        &mut self,
        keys: &[Vec<u8>],
        prefix: usize,
        summary: &mut Summary,
    ) -> Result<Vec<(Vec<u8>, PathBuf)>, Failure> {
        let targets: Vec<_> = keys.iter().map(|key| target(&key[prefix..])).collect();
        let folders: HashSet<&Path> = targets
            .iter()
            .flatten()
            .flat_map(|target| match target {
                Target::File(path) => path.parent().unwrap_or(path).ancestors(),
                Target::Directory(path) => path.ancestors(),
            })
            .collect();
        let mut files = Vec::new();
        for (key, target) in keys.iter().zip(&targets) {
            match target {
                Ok(Target::File(path)) if !folders.contains(path.as_path()) => {
                    files.push((key.clone(), path.clone()));
                }
                Ok(Target::Directory(path)) => {
                    self.directory(path)?;
                    summary.directories += 1;
                }
                Ok(Target::File(_)) => {
                    summary.unmappable += 1;
                    eprintln!(
                        "coracle: cannot be a file: there is a folder of that name key={}",
                        readable(key)
                    );
                }
                Err(why) => {
                    summary.unmappable += 1;
                    eprintln!("coracle: cannot be a file: {why} key={}", readable(key));
                }
            }
        }
        Ok(files)
    }

    /// Make a directory and its parents, none of which may be a link.
    fn directory(&mut self, path: &Path) -> Result<(), Failure> {
        let mut parents: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            if self.checked.contains(parent) {
                continue;
            }
            let full = self.root.join(parent);
            match fs::create_dir(&full) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&full, &error)),
                _ => {}
            }
            if !fs::symlink_metadata(&full).map_err(|error| at(&full, &error))?.is_dir() {
                return Err(Failure::Other(format!("not a directory path={}", full.display())));
            }
            self.checked.insert(parent.to_owned());
        }
        Ok(())
    }

    /// Write a file whole or not at all; false if it was there already with this content.
    fn write(&mut self, path: &Path, content: &[u8]) -> Result<bool, Failure> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        let full = self.root.join(path);
        let failed = |error: &io::Error| at(&full, error);
        match fs::symlink_metadata(&full) {
            Ok(there) if there.is_dir() => {
                return Err(Failure::Other(format!("a directory is in the way path={}", full.display())));
            }
            Ok(there) if there.is_file() && there.len() == content.len() as u64 => {
                let same = fs::read(&full).map_err(|error| failed(&error))? == content;
                if same {
                    return Ok(false);
                }
            }
            _ => {}
        }
        let folder = full.parent().unwrap_or(self.root);
        let mut file = tempfile::Builder::new()
            .prefix(".coracle-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(|error| failed(&error))?;
        file.write_all(content).map_err(|error| failed(&error))?;
        file.persist(&full).map_err(|error| failed(&error.error))?;
        Ok(true)
    }
}

fn at(path: &Path, error: &io::Error) -> Failure {
    Failure::Other(format!("{error} path={}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_once_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = TreeWriter::new(root.path()).unwrap();
        assert!(writer.write("a/b/c".as_ref(), b"1").unwrap());
        assert!(!writer.write("a/b/c".as_ref(), b"1").unwrap());
        assert!(writer.write("a/b/c".as_ref(), b"2").unwrap());
        assert_eq!(fs::read(root.path().join("a/b/c")).unwrap(), b"2");
        assert_eq!(fs::read_dir(root.path().join("a/b")).unwrap().count(), 1, "no leftovers");
    }

    #[test]
    fn links_do_not_lead_outside() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("target"), root.path().join("file")).unwrap();
        let mut writer = TreeWriter::new(root.path()).unwrap();
        assert!(writer.write("link/x".as_ref(), b"1").is_err());
        assert!(writer.write("file".as_ref(), b"1").unwrap());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(fs::symlink_metadata(root.path().join("file")).unwrap().is_file());
    }

    #[test]
    fn keys_that_cannot_be_files_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = TreeWriter::new(root.path()).unwrap();
        let mut summary = Summary::default();
        let keys: Vec<Vec<u8>> =
            ["p/a", "p/a/b", "p/../x", "p/d/", "p/e"].iter().map(|key| key.as_bytes().to_vec()).collect();
        let files = writer.plan(&keys, 2, &mut summary).unwrap();
        let paths: Vec<_> = files.iter().map(|(_, path)| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a/b", "e"]);
        assert_eq!((summary.unmappable, summary.directories), (2, 1));
        assert!(root.path().join("d").is_dir());
    }
}
