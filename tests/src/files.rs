//! Copies of data directories, and damage to them.

use std::fs;
use std::path::{Path, PathBuf};

/// Copies a folder with all that is in it.
///
/// # Panics
/// If it cannot.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Puts a copy in the place of a folder.
///
/// # Panics
/// If it cannot.
pub fn restore(copied: &Path, place: &Path) {
    let _ = fs::remove_dir_all(place);
    copy(copied, place);
}

/// Files below a folder whose name ends so, in order.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn ending(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(ending(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Offset behind the last byte of a file that is not zero.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn written(path: &Path) -> usize {
    let bytes = fs::read(path).expect("a file");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Changes one byte.
///
/// # Panics
/// If it cannot.
pub fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[offset] ^= 0x40;
    fs::write(path, bytes).expect("written");
}

/// Writes these bytes at an offset.
///
/// # Panics
/// If it cannot.
pub fn overwrite(path: &Path, offset: usize, with: &[u8]) {
    let mut bytes = fs::read(path).expect("a file");
    let end = offset + with.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[offset..end].copy_from_slice(with);
    fs::write(path, bytes).expect("written");
}
