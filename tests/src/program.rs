//! Where the program under test is.

use std::path::PathBuf;

/// `CORACLE_BIN`, or the `coracle` that `cargo build -p coracle` left beside the running test, of the same profile.
///
/// # Panics
/// If there is none: nothing can be tested then.
#[must_use]
pub fn path() -> PathBuf {
    if let Some(path) = std::env::var_os("CORACLE_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a running test has a path");
    let found =
        test.ancestors().skip(1).take(2).map(|folder| folder.join("coracle")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no coracle beside {}: run `cargo build -p coracle` first, or set CORACLE_BIN", test.display())
    })
}
