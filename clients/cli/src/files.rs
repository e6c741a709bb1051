//! Files as keys and keys as files, for any bytes in names.
//!
//! A file `a/b` below the directory is the key `prefix` + `a/b`. An empty directory `a/` is the key
//! `prefix` + `a/` without a value; other directories are there because something is in them. Symbolic
//! links, sockets, pipes and devices have no place in the store and are skipped and counted; modes, owners
//! and times are not kept.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Content type of the key of an empty directory.
pub const DIRECTORY: &str = "application/x-directory";

/// One thing to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    pub key: Vec<u8>,
    /// Size of a file; `None` for an empty directory.
    pub size: Option<u64>,
}

/// A directory tree as it was found.
#[derive(Debug, Default)]
pub struct Tree {
    /// In key order.
    pub found: Vec<Found>,
    /// Symbolic links and the like.
    pub skipped: Vec<PathBuf>,
}

/// Everything below `root`. Symbolic links are not followed, except `root` itself.
pub fn walk(root: &Path, prefix: &[u8]) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let mut folders = vec![(root.to_owned(), prefix.to_vec())];
    while let Some((folder, base)) = folders.pop() {
        let mut empty = true;
        for item in fs::read_dir(&folder).map_err(|error| at(&folder, &error))? {
            let item = item.map_err(|error| at(&folder, &error))?;
            empty = false;
            let path = item.path();
            let mut key = base.clone();
            key.extend_from_slice(item.file_name().as_bytes());
            let kind = item.file_type().map_err(|error| at(&path, &error))?;
            if kind.is_dir() {
                key.push(b'/');
                folders.push((path, key));
            } else if kind.is_file() {
                let size = item.metadata().map_err(|error| at(&path, &error))?.len();
                tree.found.push(Found { path, key, size: Some(size) });
            } else {
                tree.skipped.push(path);
            }
        }
        if empty && folder != root {
            tree.found.push(Found { path: folder, key: base, size: None });
        }
    }
    tree.found.sort_by(|a, b| a.key.cmp(&b.key));
    tree.skipped.sort();
    Ok(tree)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{error} path={}", path.display()))
}

/// What a key is below the directory of an export.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    File(PathBuf),
    Directory(PathBuf),
}

/// Why a key cannot be a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmappable {
    Empty,
    /// It starts with `/`, or holds `//`.
    EmptyPart,
    /// It holds a part `.` or `..`.
    DotPart,
    Nul,
    /// A part is longer than 255 bytes.
    LongPart,
}

impl std::fmt::Display for Unmappable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unmappable::Empty => "nothing is left of it without the prefix",
            Unmappable::EmptyPart => "it has an empty part",
            Unmappable::DotPart => "it has a part . or ..",
            Unmappable::Nul => "it holds a zero byte",
            Unmappable::LongPart => "it has a part longer than 255 bytes",
        })
    }
}

/// The path, relative to the directory of the export, of a key without its prefix. Nothing it answers can
/// lead outside of that directory.
pub fn target(key: &[u8]) -> Result<Target, Unmappable> {
    let (parts, directory) = match key.strip_suffix(b"/") {
        Some(parts) => (parts, true),
        None => (key, false),
    };
    if parts.is_empty() {
        return Err(if directory { Unmappable::EmptyPart } else { Unmappable::Empty });
    }
    for part in parts.split(|byte| *byte == b'/') {
        match part {
            b"" => return Err(Unmappable::EmptyPart),
            b"." | b".." => return Err(Unmappable::DotPart),
            part if part.contains(&0) => return Err(Unmappable::Nul),
            part if part.len() > 255 => return Err(Unmappable::LongPart),
            _ => {}
        }
    }
    let path = PathBuf::from(OsStr::from_bytes(parts));
    Ok(if directory { Target::Directory(path) } else { Target::File(path) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_a_file() {
        for (key, why) in [
            (&b""[..], Unmappable::Empty),
            (b"/", Unmappable::EmptyPart),
            (b"/etc/passwd", Unmappable::EmptyPart),
            (b"a//b", Unmappable::EmptyPart),
            (b"a//", Unmappable::EmptyPart),
            (b"..", Unmappable::DotPart),
            (b"a/../../b", Unmappable::DotPart),
            (b"./a", Unmappable::DotPart),
            (b"a/./", Unmappable::DotPart),
            (b"a\0b", Unmappable::Nul),
            (&[b'x'; 256], Unmappable::LongPart),
        ] {
            assert_eq!(target(key), Err(why), "{}", key.escape_ascii());
        }
        assert_eq!(target(b"a/b"), Ok(Target::File("a/b".into())));
        assert_eq!(target(b"a/b/"), Ok(Target::Directory("a/b".into())));
        assert_eq!(target(b"...\n\\"), Ok(Target::File("...\n\\".into())));
    }

    /// Names that a file can have: any bytes but `/` and zero.
    fn name() -> impl Strategy<Value = Vec<u8>> {
        let byte = any::<u8>().prop_filter("no slash, no zero", |byte| *byte != b'/' && *byte != 0);
        proptest::collection::vec(byte, 1..20)
            .prop_filter("a step within the path", |name| name != b"." && name != b"..")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_tree_survives_as_keys(
            files in proptest::collection::btree_map(
                proptest::collection::vec(name(), 1..4), any::<bool>(), 0..12),
            prefix in proptest::collection::vec(any::<u8>(), 0..6),
        ) {
            let root = tempfile::tempdir().unwrap();
            let mut expect = BTreeMap::new();
            for (parts, is_file) in &files {
                let relative = PathBuf::from(OsStr::from_bytes(&parts.join(&b'/')));
                let path = root.path().join(&relative);
                let made = if *is_file {
                    fs::create_dir_all(path.parent().unwrap()).and_then(|()| fs::write(&path, b"x"))
                } else {
                    fs::create_dir_all(&path)
                };
                if made.is_ok() {
                    expect.insert(relative, *is_file);
                }
            }
            let tree = walk(root.path(), &prefix).unwrap();
            prop_assert!(tree.skipped.is_empty());
            let mut seen = BTreeMap::new();
            for found in tree.found {
                let (path, is_file) = match target(found.key.strip_prefix(&prefix[..]).unwrap()).unwrap() {
                    Target::File(path) => (path, true),
                    Target::Directory(path) => (path, false),
                };
                prop_assert_eq!(&found.path, &root.path().join(&path));
                prop_assert_eq!(found.size.is_some(), is_file);
                seen.insert(path, is_file);
            }
            // Every file is there; a directory is there itself, or by what is in it.
            for (path, is_file) in expect {
                let is_there = if is_file {
                    seen.get(&path) == Some(&true)
                } else {
                    seen.keys().any(|other| other.starts_with(&path))
                };
                prop_assert!(is_there, "{path:?}");
            }
        }
    }

    #[test]
    fn links_are_skipped() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f"), b"123").unwrap();
        std::os::unix::fs::symlink("f", root.path().join("l")).unwrap();
        std::os::unix::fs::symlink("/", root.path().join("outside")).unwrap();
        let tree = walk(root.path(), b"p/").unwrap();
        assert_eq!(tree.found.len(), 1);
        assert_eq!((&tree.found[0].key[..], tree.found[0].size), (&b"p/f"[..], Some(3)));
        assert_eq!(tree.skipped.len(), 2);
    }
}
