//! Everything that can go wrong for a caller.

use coracle_api::{Code, Effect, Problem, Retry};

/// Why a claim or session was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// The server says the session has expired or does not exist.
    Expired,
    /// No renewal got through in time: by our own clock the session may have expired.
    OutOfTime,
    /// The session was closed here.
    Closed,
    /// The claim was taken away while the session lives: broken or transferred.
    Revoked,
}

impl std::fmt::Display for LossReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LossReason::Expired => "the session expired",
            LossReason::OutOfTime => "no renewal got through in time",
            LossReason::Closed => "the session was closed",
            LossReason::Revoked => "it was broken or transferred",
        })
    }
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused or failed, and says why.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// No node gave an answer before the deadline.
    #[error("no node answered in time: {detail}")]
    Unreachable {
        /// The last failure.
        detail: String,
        /// Unknown if at least one attempt may have reached a node.
        effect: Effect,
    },
    /// The answer is not what the API promises.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// The call makes no sense; nothing was sent.
    #[error("invalid call: {0}")]
    Invalid(String),
    /// Certificates or keys cannot be used.
    #[error("tls: {0}")]
    Tls(String),
    #[error("session lost: {0}")]
    SessionLost(LossReason),
    #[error("claim lost: {reason} name={name:?}")]
    ClaimLost { name: String, reason: LossReason },
    /// The wait ran out before it was granted.
    #[error("not granted in time: position={position} name={name:?}")]
    NotAcquired { name: String, position: u64 },
    /// The client is set to show calls instead of making them: the equivalent curl command.
    #[error("{0}")]
    Shown(String),
}

impl Error {
    /// The problem, if the server sent one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// The problem's code, if the server sent one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.problem().map(|problem| problem.code)
    }

    /// Whether the same call may succeed later, made by the caller again. (Within its deadline a call was
    /// retried already.)
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Problem(problem) => problem.retry != Retry::Never,
            Error::Unreachable { .. } | Error::NotAcquired { .. } => true,
            Error::Protocol(_)
            | Error::Invalid(_)
            | Error::Tls(_)
            | Error::SessionLost(_)
            | Error::ClaimLost { .. }
            | Error::Shown(_) => false,
        }
    }

    /// Whether the call may have had an effect.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Error::Problem(problem) => problem.effect,
            Error::Unreachable { effect, .. } => *effect,
            Error::Protocol(_) | Error::SessionLost(_) | Error::ClaimLost { .. } => Effect::Unknown,
            Error::Invalid(_) | Error::Tls(_) | Error::NotAcquired { .. } | Error::Shown(_) => Effect::None,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error::Problem(Box::new(problem))
    }
}
