//! Child processes that die with us: a lock's command must not outlive who watches over its lock.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::exit::Failure;

/// Exit code of a command that cannot be executed, as of a shell.
const NOT_EXECUTABLE: u8 = 126;
const NO_SUCH_COMMAND: u8 = 127;

/// `__exec --parent PID --signal N -- CMD...`
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Who started us: if that changed already, we are an orphan and must not start.
    #[arg(long)]
    parent: i32,
    /// What to get when the parent dies.
    #[arg(long)]
    signal: i32,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// A command that, once spawned, is in its own process group and gets `signal` when this process dies.
///
/// The child is this program for a moment: only the child itself can ask for a signal at its parent's
/// death, and the standard library runs no safe code between fork and exec.
pub fn command(signal: Signal, argv: &[OsString]) -> std::io::Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command
        .arg("__exec")
        .arg(format!("--parent={}", std::process::id()))
        .arg(format!("--signal={}", signal.as_raw()))
        .arg("--")
        .args(argv)
        .process_group(0);
    Ok(command)
}

/// Turn this process into the command. Comes back only with a failure.
pub fn become_command(exec: &Exec) -> Failure {
    let Some(signal) = Signal::from_named_raw(exec.signal) else {
        return Failure::Usage(format!("no such signal signal={}", exec.signal));
    };
    if let Err(error) = set_parent_process_death_signal(Some(signal)) {
        return Failure::Other(error.to_string());
    }
    // The parent may have died before the line above took effect.
    if getppid().map(Pid::as_raw_pid) != Some(exec.parent) {
        return Failure::Exit(crate::exit::CLAIM_LOST);
    }
    let Some((program, arguments)) = exec.command.split_first() else {
        return Failure::Usage("no command".into());
    };
    let error = std::process::Command::new(program).args(arguments).exec();
    eprintln!("coracle: cannot execute {}: {error}", program.display());
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    Failure::Exit(if missing { NO_SUCH_COMMAND } else { NOT_EXECUTABLE })
}

/// The exit code of a child, as a shell would tell it: 128 + signal if it was killed.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_children() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        assert_eq!(exit_code(ExitStatus::from_raw(15)), 143);
    }
}
