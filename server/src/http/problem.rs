//! ⑦ From a refusal or circumstance to a problem: the one mapping, exhaustive on purpose.

use std::time::Duration;

use coracle_api::{Code, Problem};
use coracle_raft::node::{Circumstance, MemberError, RenewError};
use coracle_store::{HistoryError, Refusal, Revision, SessionId};

use super::message::Response;
use super::wire;

/// A refused request. Boxed, because answers are mostly good.
#[derive(Debug)]
pub struct Refused(pub Box<Problem>);

/// What every handler answers.
pub type Answer<T = Response> = Result<T, Refused>;

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

/// The problem travels as an extension; the front door writes the body, where the request's id is known.
impl Refused {
    pub fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(Carried(self.0));
        response
    }
}

/// A problem on its way to the front door.
#[derive(Debug, Clone)]
pub struct Carried(pub Box<Problem>);

/// A bad query parameter or its header twin.
pub fn bad_query(name: &str, detail: impl Into<String>) -> Refused {
    Problem::invalid("query", name, detail).into()
}

/// A bad body.
pub fn bad_body(detail: impl Into<String>) -> Refused {
    Problem::invalid("body", "body", detail).into()
}

impl From<Circumstance> for Refused {
    fn from(circumstance: Circumstance) -> Self {
        let problem = match &circumstance {
            Circumstance::NoLeader => Problem::new(
                Code::NoLeader,
                "no leader is known or reachable from this node; nothing was proposed",
            ),
            Circumstance::Overloaded => {
                Problem::new(Code::Overloaded, "too much is queued; nothing was proposed")
            }
            Circumstance::CommitTimeout => Problem::new(
                Code::CommitTimeout,
                "proposed, but not known to be committed in time; a retry with the same Idempotency-Key finds out",
            ),
            Circumstance::Lost => Problem::new(
                Code::CommitTimeout,
                "the connection to the leader was lost after the request was sent to it; a retry with the same Idempotency-Key finds out",
            ),
            Circumstance::Full => Problem::new(
                Code::QuotaExceeded,
                "the disk of the log is full; only what frees space is taken",
            ),
            Circumstance::ShuttingDown => Problem::new(Code::ShuttingDown, "the node is shutting down"),
            Circumstance::Stopped(reason) => {
                Problem::new(Code::NotReady, format!("the node has stopped reason={reason}"))
                    .with("reason", &**reason)
            }
        };
        if circumstance.effect_unknown() { problem.effect_unknown() } else { problem }.into()
    }
}

impl From<RenewError> for Refused {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Expired => {
                Problem::new(Code::SessionExpired, "the session has ended or never was").into()
            }
            RenewError::Circumstance(circumstance) => circumstance.into(),
        }
    }
}

impl From<HistoryError> for Refused {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Compacted(Revision(oldest)) => compacted(oldest),
            HistoryError::Future(Revision(newest)) => {
                let detail = format!("the revision has not happened yet newest={newest}");
                Refused::from(
                    Problem::invalid("query", "revision", detail).with("newest", newest).at_revision(newest),
                )
            }
        }
    }
}

impl From<MemberError> for Refused {
    fn from(error: MemberError) -> Self {
        let problem = match error {
            MemberError::Unknown(id) => Problem::new(Code::MemberNotFound, format!("no such member id={id}"))
                .with("id", id.to_string()),
            MemberError::Exists(id) => {
                Problem::new(Code::AlreadyExists, format!("a member has this name or peer address id={id}"))
                    .with("id", id.to_string())
            }
            MemberError::WouldLoseQuorum => {
                Problem::new(Code::WouldLoseQuorum, "the voters that answer would no longer be a majority")
            }
            MemberError::NotCaughtUp { matched, last } => {
                Problem::new(Code::NotCaughtUp, format!("the learner lags matched={matched} last={last}"))
                    .with("matched", matched)
                    .with("last", last)
            }
            MemberError::Busy => Problem::new(Code::Overloaded, "another membership change is under way"),
            MemberError::Circumstance(circumstance) => return circumstance.into(),
        };
        problem.into()
    }
}

/// The asked-for history is gone.
pub fn compacted(oldest: u64) -> Refused {
    Problem::new(Code::Compacted, format!("the history is compacted compact_revision={oldest}"))
        .with("compact_revision", oldest)
        .into()
}

pub fn session_expired(session: SessionId) -> Problem {
    let session = session.to_string();
    Problem::new(Code::SessionExpired, format!("the session has ended or never was session={session}"))
        .with("session", session)
}

pub fn too_large(limit: &str, max: u64, actual: Option<u64>) -> Refused {
    let shown = actual.map(|a| format!(" actual={a}")).unwrap_or_default();
    let problem = Problem::new(Code::TooLarge, format!("over a limit limit={limit} max={max}{shown}"))
        .with("limit", limit)
        .with("max", max);
    match actual {
        Some(actual) => problem.with("actual", actual).into(),
        None => problem.into(),
    }
}

/// What the log refused, at the revision it was judged at.
pub fn refused(refusal: &Refusal, revision: Revision) -> Refused {
    let problem = match refusal {
        Refusal::Malformed => Problem::new(Code::Internal, "the log does not know this command"),
        Refusal::RevisionMismatch(key, Revision(current)) => {
            let shown = key.name().escape_ascii();
            let detail = format!("the key has another revision key={shown} current_revision={current}");
            Problem::new(Code::RevisionMismatch, detail)
                .with("current_revision", current)
                .with("key", wire::key_text(key))
        }
        Refusal::SessionExpired(session) => session_expired(*session),
        Refusal::SessionExists(session) => {
            let detail = format!("the drawn session id is taken session={session}");
            Problem::new(Code::Internal, detail).with("session", session.to_string())
        }
        Refusal::DuplicateKey(key) => {
            let detail = format!("the transaction changes a key twice key={}", key.name().escape_ascii());
            Problem::new(Code::DuplicateKey, detail).with("key", wire::key_text(key))
        }
        Refusal::TooManyOperations(limit) => {
            Problem::new(Code::TooManyOps, format!("too many operations max={limit}")).with("max", limit)
        }
        Refusal::OutOfBounds(what, max, actual) => *too_large(what, *max, Some(*actual)).0,
        Refusal::QuotaExceeded(used, quota) => {
            let detail = format!("the storage quota is used up used={used} quota={quota}");
            Problem::new(Code::QuotaExceeded, detail).with("used", used).with("quota", quota)
        }
        Refusal::IdempotencyKeyReused => {
            Problem::new(Code::IdempotencyKeyReused, "this Idempotency-Key was used for another request")
        }
        Refusal::GuardFailed(position) => {
            Problem::new(Code::FenceStale, format!("a guard does not hold position={position}"))
                .with("position", position)
        }
        Refusal::TooManyHolds(session, limit) => {
            let detail = format!("the session holds as much as a session may session={session} max={limit}");
            Problem::new(Code::TooLarge, detail)
                .with("limit", "holds_per_session")
                .with("session", session.to_string())
                .with("max", limit)
        }
        Refusal::Program(bytes) => match coracle_recipes::Refusal::decode(bytes) {
            Ok(coracle_recipes::Refusal::Barrier(refusal)) => super::barrier::problem(&refusal),
            Ok(coracle_recipes::Refusal::Lock(refusal)) => super::lock::problem(&refusal),
            Ok(coracle_recipes::Refusal::Semaphore(refusal)) => super::semaphore::problem(&refusal),
            Ok(coracle_recipes::Refusal::Election(refusal)) => super::election::problem(&refusal),
            Ok(coracle_recipes::Refusal::Latch(refusal)) => super::latch::problem(&refusal),
            Ok(coracle_recipes::Refusal::Queue(refusal)) => super::queue::problem(&refusal),
            Ok(coracle_recipes::Refusal::Counter(refusal)) => super::counter::problem(&refusal),
            Ok(coracle_recipes::Refusal::Service(refusal)) => super::service::problem(&refusal),
            Ok(coracle_recipes::Refusal::Group(refusal)) => super::group::problem(&refusal),
            Ok(coracle_recipes::Refusal::Fence(refusal)) => super::fence::problem(&refusal),
            Ok(coracle_recipes::Refusal::Topic(refusal)) => super::topic::problem(&refusal),
            Err(_) => Problem::new(Code::Internal, "the log answered a refusal this version does not know"),
        },
    };
    problem.at_revision(revision.0).into()
}

/// How long to wait before trying again, for codes that carry `Retry-After`.
pub fn retry_after(code: Code) -> Option<Duration> {
    match code {
        Code::RateLimited
        | Code::TooManyWaiters
        | Code::TooManyStreams
        | Code::TooManyInFlight
        | Code::Overloaded
        | Code::NotReady => Some(Duration::from_secs(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
