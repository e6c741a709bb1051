//! Directory trees of regular files: collecting, listing, editing.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The largest value a server takes with its defaults.
const BYTES_MAX: u64 = 1024 * 1024;
/// Room that a key of at most 512 bytes leaves for a path below the prefix.
const PATH_MAX: usize = 480;

/// What was collected.
#[derive(Default)]
pub struct Taken {
    pub files: usize,
    pub bytes: u64,
    /// Files that are not UTF-8.
    pub binary: usize,
    /// Files over a limit of the server.
    pub too_large: usize,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taken { files, bytes, binary, too_large } = self;
        let mib = bytes / 1024 / 1024;
        write!(f, "{files} files, {mib} MiB, {binary} of them binary; {too_large} over a limit left out")
    }
}

/// Copy the regular files of `trees` into `into`, so that the tree holds still while it is compared. At most
/// `files_max`, spread evenly over all of them.
pub fn collect(trees: &[PathBuf], into: &Path, files_max: usize) -> Result<Taken> {
    let mut found = Vec::new();
    for (number, tree) in trees.iter().enumerate() {
        let name = tree.canonicalize()?.file_name().unwrap_or_default().to_os_string();
        for path in files(tree).with_context(|| format!("cannot list {}", tree.display()))? {
            found.push((tree.join(&path), Path::new(&format!("{number}")).join(&name).join(path)));
        }
    }
    let (all, wanted) = (found.len(), files_max.min(found.len()));
    let chosen = |number: &usize| number * wanted / all != (number + 1) * wanted / all;
    let mut taken = Taken::default();
    for (from, path) in (0..all).filter(chosen).map(|number| &found[number]) {
        let Ok(bytes) = fs::read(from) else { continue };
        if bytes.len() as u64 > BYTES_MAX || path.as_os_str().len() > PATH_MAX {
            taken.too_large += 1;
            continue;
        }
        let to = into.join(path);
        fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        fs::write(&to, &bytes)?;
        taken.files += 1;
        taken.bytes += bytes.len() as u64;
        taken.binary += usize::from(std::str::from_utf8(&bytes).is_err());
    }
    Ok(taken)
}

/// Paths of all regular files below `folder`, relative to it, in order. Links are not followed; what is built or
/// kept by git is left out.
pub fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, below.join(entry.file_name()));
            let left_out = path == Path::new(".git") || path == Path::new("target");
            if kind.is_dir() && !left_out {
                open.push(path);
            } else if kind.is_file() {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

/// Changes made to a tree.
pub struct Edits {
    pub rewritten: Vec<PathBuf>,
    pub deleted: Vec<PathBuf>,
}

/// Rewrite one file in forty, and delete one in fifty of the others.
pub fn edit(folder: &Path) -> Result<Edits> {
    let mut edits = Edits { rewritten: Vec::new(), deleted: Vec::new() };
    for (number, path) in files(folder)?.into_iter().enumerate() {
        if number % 40 == 7 {
            let mut bytes = fs::read(folder.join(&path))?;
            bytes.truncate(1000);
            bytes.extend_from_slice(b"\nedited \xff\x00\n");
            fs::write(folder.join(&path), bytes)?;
            edits.rewritten.push(path);
        } else if number % 50 == 11 {
            fs::remove_file(folder.join(&path))?;
            edits.deleted.push(path);
        }
    }
    Ok(edits)
}
