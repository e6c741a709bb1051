//! Programs: where the server's is, how ours are called, how any of them is signalled.

use std::path::PathBuf;
use std::process::Child;

use anyhow::{Context, Result};
pub use rustix::process::Signal;

/// The `coracle` program: `CORACLE_BIN`, or beside the running one.
///
/// # Errors
/// It is at neither place.
pub fn coracle_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CORACLE_BIN") {
        return std::path::absolute(path).context("CORACLE_BIN is not a path");
    }
    let own = std::env::current_exe()?;
    // A test of ours runs in `deps`, one folder below.
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("coracle"));
    beside
        .into_iter()
        .find(|path| path.is_file())
        .context("no coracle program beside this one: run `cargo build -p coracle`, or set CORACLE_BIN")
}

/// Whether `--name` is among the arguments.
#[must_use]
pub fn flag(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
}

/// The values of every `--name VALUE`.
#[must_use]
pub fn options(name: &str) -> Vec<String> {
    let arguments: Vec<String> = std::env::args().collect();
    arguments.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].clone()).collect()
}

/// The value of `--name VALUE`.
///
/// # Errors
/// It is missing.
pub fn option(name: &str) -> Result<String> {
    options(name).pop().with_context(|| format!("{name} is missing"))
}

/// Send a signal to a child that has not been waited for.
///
/// # Errors
/// The operating system refuses.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.context("not a process id")?, signal)?;
    Ok(())
}
