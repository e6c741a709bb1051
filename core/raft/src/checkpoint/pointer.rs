//! CURRENT, the small file that names the live database file, and the names around it.
//!
//! A database is built under a `.new` name, synced, renamed; then CURRENT is replaced by rename; then the old
//! database is unlinked. A crash between any two of these steps leaves either the old or the new state complete, and
//! [`settle`] removes what is left over. A database file that nothing names is removed only if CURRENT is there to
//! name another: state is never deleted because the pointer got lost.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Error, FORMAT};

const CURRENT: &str = "CURRENT";
const CURRENT_NEW: &str = "CURRENT.new";

/// Number of a database file; each replacement takes the next.
pub(super) type Number = u64;

pub(super) fn state_file(dir: &Path, number: Number) -> PathBuf {
    dir.join(format!("state-{number}.redb"))
}

/// The name under which a database file is built.
pub(super) fn new_state_file(dir: &Path, number: Number) -> PathBuf {
    dir.join(format!("state-{number}.redb.new"))
}

fn number_of(name: &str) -> Option<Number> {
    name.strip_prefix("state-")?.strip_suffix(".redb")?.parse().ok()
}

/// What [`settle`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Empty,
    State(Number),
}

/// Finish or undo what a crash interrupted, and say which database file lives.
pub(super) fn settle(dir: &Path) -> Result<Found, Error> {
    fs::create_dir_all(dir).map_err(Error::io("create directory", dir))?;
    let current = dir.join(CURRENT);
    let pending = dir.join(CURRENT_NEW);
    let mut states = Vec::new();
    let mut leftovers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name().to_string_lossy().into_owned();
        if let Some(number) = number_of(&name) {
            states.push(number);
        } else if name.starts_with("state-") && name.ends_with(".redb.new") {
            leftovers.push(dir.join(name));
        }
    }
    let number = match read(&current)? {
        Some(number) => number,
        // The very first database was complete and only the pointer's rename was missing.
        None => match read(&pending) {
            Ok(Some(number)) if states == [number] => {
                fs::rename(&pending, &current).map_err(Error::io("rename", &pending))?;
                number
            }
            _ if states.is_empty() => {
                leftovers.push(pending);
                remove(dir, &leftovers)?;
                return Ok(Found::Empty);
            }
            _ => return Err(Error::damaged(&current, "pointer", "missing, but database files are there")),
        },
    };
    if !states.contains(&number) {
        return Err(Error::damaged(&state_file(dir, number), "file", "missing, but CURRENT names it"));
    }
    leftovers.push(pending);
    leftovers.extend(states.into_iter().filter(|other| *other != number).map(|other| state_file(dir, other)));
    remove(dir, &leftovers)?;
    Ok(Found::State(number))
}

/// Move a finished database file into its place and make CURRENT name it. On return it is the live one, durably.
pub(super) fn adopt(dir: &Path, number: Number) -> Result<(), Error> {
    let pending = dir.join(CURRENT_NEW);
    let mut file = File::create(&pending).map_err(Error::io("create", &pending))?;
    file.write_all(text(number).as_bytes()).map_err(Error::io("write", &pending))?;
    file.sync_all().map_err(Error::io("sync", &pending))?;
    let built = new_state_file(dir, number);
    fs::rename(&built, state_file(dir, number)).map_err(Error::io("rename", &built))?;
    sync_dir(dir)?;
    fs::rename(&pending, dir.join(CURRENT)).map_err(Error::io("rename", &pending))?;
    sync_dir(dir)
}

fn text(number: Number) -> String {
    let line = format!("coracle checkpoint format={FORMAT} state={number}");
    format!("{line} crc={:08x}\n", crc32c::crc32c(line.as_bytes()))
}

fn read(path: &Path) -> Result<Option<Number>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let line = String::from_utf8_lossy(&bytes);
    let field =
        |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
    if let Some(found) = field("format=").and_then(|found| u32::try_from(found).ok()) {
        Error::format(path, found, FORMAT)?;
    }
    match field("state=") {
        Some(number) if line == text(number) => Ok(Some(number)),
        _ => Err(Error::damaged(path, "pointer", "unreadable")),
    }
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}

fn remove(dir: &Path, files: &[PathBuf]) -> Result<(), Error> {
    for file in files {
        match fs::remove_file(file) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", file)(e)),
            _ => {}
        }
    }
    sync_dir(dir)
}
