//! Exit codes.

use std::io::Write;
use std::process::ExitCode;

use coracle_client::Error;

pub const ERROR: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOT_FOUND: u8 = 3;
/// A condition failed, or a claim was not granted.
pub const REFUSED: u8 = 4;
/// No node answers, or none can.
pub const UNAVAILABLE: u8 = 5;
pub const WAIT_RAN_OUT: u8 = 124;
pub const CLAIM_LOST: u8 = 125;

/// Why a command ends other than well.
#[derive(Debug)]
pub enum Failure {
    /// A call failed.
    Client(Error),
    /// The arguments make no sense together.
    Usage(String),
    /// Anything else, in words.
    Other(String),
    /// Everything was said already.
    Exit(u8),
}

impl Failure {
    pub fn code(&self) -> u8 {
        match self {
            Failure::Client(error) => code_of(error),
            Failure::Usage(_) => USAGE,
            Failure::Other(_) => ERROR,
            Failure::Exit(code) => *code,
        }
    }

    /// Say it and leave.
    pub fn report(self) -> ExitCode {
        match &self {
            // Whoever does not read it does not want it.
            Failure::Client(Error::Shown(line)) => drop(writeln!(std::io::stdout(), "{line}")),
            Failure::Client(error) => eprintln!("coracle: {error}"),
            Failure::Usage(text) | Failure::Other(text) => eprintln!("coracle: {text}"),
            Failure::Exit(_) => {}
        }
        ExitCode::from(self.code())
    }
}

pub fn code_of(error: &Error) -> u8 {
    match error {
        Error::Problem(problem) => match problem.status {
            404 => NOT_FOUND,
            409 | 412 => REFUSED,
            429 | 502 | 503 | 504 => UNAVAILABLE,
            _ => ERROR,
        },
        Error::Unreachable { .. } => UNAVAILABLE,
        Error::Invalid(_) => USAGE,
        Error::NotAcquired { .. } => WAIT_RAN_OUT,
        Error::SessionLost(_) | Error::ClaimLost { .. } => CLAIM_LOST,
        Error::Shown(_) => 0,
        _ => ERROR,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Client(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // Whoever read our output has enough of it.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure::Exit(0);
        }
        Failure::Other(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        if error.io_error_kind() == Some(std::io::ErrorKind::BrokenPipe) {
            return Failure::Exit(0);
        }
        Failure::Other(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use coracle_client::LossReason;
    use coracle_client::api::{Code, Effect, Problem};

    use super::*;

    #[test]
    fn every_kind_of_error_has_its_code() {
        for (code, exit) in [
            (Code::KeyNotFound, 3),
            (Code::SessionNotFound, 3),
            (Code::LockHeld, 4),
            (Code::RevisionMismatch, 4),
            (Code::FenceStale, 4),
            (Code::NoLeader, 5),
            (Code::CommitTimeout, 5),
            (Code::RateLimited, 5),
            (Code::InvalidArgument, 1),
            (Code::TooLarge, 1),
            (Code::Compacted, 1),
            (Code::Internal, 1),
            (Code::QuotaExceeded, 1),
        ] {
            assert_eq!(code_of(&Error::from(Problem::new(code, ""))), exit, "{code}");
        }
        let unreachable = Error::Unreachable { detail: String::new(), effect: Effect::None };
        assert_eq!(code_of(&unreachable), 5);
        assert_eq!(code_of(&Error::Invalid(String::new())), 2);
        assert_eq!(code_of(&Error::Tls(String::new())), 1);
        assert_eq!(code_of(&Error::NotAcquired { name: String::new(), position: 1 }), 124);
        assert_eq!(code_of(&Error::SessionLost(LossReason::Expired)), 125);
        assert_eq!(code_of(&Error::ClaimLost { name: String::new(), reason: LossReason::Expired }), 125);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        assert_eq!(Failure::Exit(77).code(), 77);
        assert_eq!(Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).code(), 0);
    }
}
