//! Problem codes: every reason for which a request can fail, with its status and what to do about it.
//!
//! Codes are append-only. Adding one: one row in the table below, one line in the golden list, one page
//! `docs/problems/<code>.md`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a client may sensibly do after a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The same request can never succeed.
    Never,
    /// Send the same request again later, with the same `Idempotency-Key`.
    SameRequest,
    /// Read the current state, decide anew, send another request.
    AfterReread,
    /// The same request can succeed once somebody else changed the state: wait or watch.
    AfterChange,
    /// Send the same request to another node, with the same `Idempotency-Key`.
    OtherNode,
}

/// Whether the request may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing was changed and nothing will be.
    None,
    /// It may or may not have been applied: retry with the same `Idempotency-Key` to find out.
    Unknown,
}

/// The text is no problem code of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown problem code: code={0:?}")]
pub struct UnknownCode(pub String);

macro_rules! codes {
    ($($variant:ident $text:literal $status:literal $retry:ident $effect:ident $title:literal;)*) => {
        /// Why a request failed. The text form is `snake_case` and the last part of the problem's `type`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
            /// Sent by a server newer than this library, or by something between. Never sent by us.
            Unrecognised,
        }

        impl Code {
            /// Every code a server of this version can send.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// `lock_held`
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* Code::Unrecognised => "unrecognised" }
            }

            /// HTTP status, always 400..=599.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)* Code::Unrecognised => 500 }
            }

            /// One short sentence without variables.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* Code::Unrecognised => "Unrecognised problem" }
            }

            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Code::$variant => Retry::$retry,)* Code::Unrecognised => Retry::Never }
            }

            #[must_use]
            pub const fn effect(self) -> Effect {
                match self { $(Code::$variant => Effect::$effect,)* Code::Unrecognised => Effect::Unknown }
            }
        }
    };
}

codes! {
    InvalidArgument "invalid_argument" 400 Never None "An argument is invalid";
    UnknownParameter "unknown_parameter" 400 Never None "A parameter is unknown";
    DuplicateKey "duplicate_key" 400 Never None "A transaction changes one key twice";
    TooManyOps "too_many_ops" 400 Never None "A transaction has too many operations";
    Unauthenticated "unauthenticated" 401 Never None "Authentication is required";
    PermissionDenied "permission_denied" 403 Never None "Permission denied";
    CrossOriginDenied "cross_origin_denied" 403 Never None "A browser sent this from another site";
    HostNotAllowed "host_not_allowed" 421 Never None "The Host header names a host that is not allowed";
    KeyNotFound "key_not_found" 404 AfterChange None "The key does not exist";
    SessionNotFound "session_not_found" 404 Never None "The session does not exist";
    ServiceNotFound "service_not_found" 404 AfterChange None "The service does not exist";
    InstanceNotFound "instance_not_found" 404 AfterChange None "The instance does not exist";
    TopicNotFound "topic_not_found" 404 AfterChange None "The topic does not exist";
    SubscriptionNotFound "subscription_not_found" 404 AfterChange None "The subscription does not exist";
    QueueNotFound "queue_not_found" 404 AfterChange None "The queue does not exist";
    MessageNotFound "message_not_found" 404 Never None "The message does not exist";
    LockNotFound "lock_not_found" 404 AfterChange None "The lock does not exist";
    BarrierNotFound "barrier_not_found" 404 AfterChange None "The barrier does not exist";
    LatchNotFound "latch_not_found" 404 AfterChange None "The latch does not exist";
    MemberNotFound "member_not_found" 404 AfterChange None "The member does not exist";
    UserNotFound "user_not_found" 404 AfterChange None "The user does not exist";
    RoleNotFound "role_not_found" 404 AfterChange None "The role does not exist";
    RouteNotFound "route_not_found" 404 Never None "There is nothing at this path";
    MethodNotAllowed "method_not_allowed" 405 Never None "The path does not take this method";
    NotAcceptable "not_acceptable" 406 Never None "The answer has no such format";
    TooLarge "too_large" 413 Never None "The request is over a limit";
    UnsupportedMediaType "unsupported_media_type" 415 Never None "The content type is not taken here";
    LockHeld "lock_held" 409 AfterChange None "Lock is held";
    PermitsExhausted "permits_exhausted" 409 AfterChange None "No permits are free";
    NotElected "not_elected" 409 AfterChange None "Another candidate leads";
    NotLeader "not_leader" 409 AfterReread None "The session does not lead";
    NotHolder "not_holder" 409 AfterReread None "The session does not hold this";
    WouldDeadlock "would_deadlock" 409 AfterChange None "Waiting would close a cycle of waiters";
    LimitMismatch "limit_mismatch" 409 AfterReread None "The semaphore has another limit";
    BarrierWaiting "barrier_waiting" 409 AfterChange None "The barrier still waits for parties";
    BarrierBroken "barrier_broken" 409 AfterReread None "The barrier is broken";
    LatchClosed "latch_closed" 409 AfterReread None "The latch is closed";
    OutOfRange "out_of_range" 409 AfterReread None "The counter would leave its bounds";
    QueueFull "queue_full" 409 AfterChange None "The queue is full";
    ReceiptStale "receipt_stale" 409 Never None "The receipt is no longer valid";
    InstanceReplaced "instance_replaced" 409 Never None "The instance was registered anew";
    AlreadyExists "already_exists" 409 AfterReread None "It exists already";
    WouldLoseQuorum "would_lose_quorum" 409 AfterChange None "The change would lose the quorum";
    NotCaughtUp "not_caught_up" 409 AfterChange None "The member has not caught up";
    LastAdmin "last_admin" 409 Never None "The last administrator cannot be removed";
    IdempotencyInFlight "idempotency_in_flight" 409 SameRequest None "The same request is still running";
    Compacted "compacted" 410 AfterReread None "The revision is compacted";
    SessionExpired "session_expired" 410 Never None "The session has expired";
    CursorExpired "cursor_expired" 410 AfterReread None "The cursor has expired";
    EpochChanged "epoch_changed" 410 AfterReread None "The cluster was restored since";
    RevisionMismatch "revision_mismatch" 412 AfterReread None "The key has another revision";
    FenceStale "fence_stale" 412 Never None "The fencing token is stale";
    IdempotencyKeyReused "idempotency_key_reused" 422 Never None "The Idempotency-Key was used for another request";
    RateLimited "rate_limited" 429 SameRequest None "Too many requests";
    TooManyWaiters "too_many_waiters" 429 SameRequest None "Too many requests are waiting";
    TooManyStreams "too_many_streams" 429 OtherNode None "Too many streams are open";
    Internal "internal" 500 SameRequest Unknown "Internal error";
    NotImplemented "not_implemented" 501 Never None "Not implemented";
    NoLeader "no_leader" 503 OtherNode None "There is no leader";
    NotReady "not_ready" 503 OtherNode None "The node is not ready";
    Overloaded "overloaded" 503 SameRequest None "The node is overloaded";
    ShuttingDown "shutting_down" 503 OtherNode None "The node is shutting down";
    NoHealthyInstance "no_healthy_instance" 503 AfterChange None "No instance is healthy";
    CommitTimeout "commit_timeout" 504 SameRequest Unknown "The outcome was not known in time";
    QuotaExceeded "quota_exceeded" 507 AfterChange None "The storage quota is used up";
    QueueKindMismatch "queue_kind_mismatch" 409 AfterReread None "The queue is of another kind";
    QueueNotEmpty "queue_not_empty" 409 AfterChange None "The queue is not empty";
    NotConsumer "not_consumer" 409 AfterReread None "The session is not the queue's consumer";
    SessionRequired "session_required" 400 Never None "Consumers are known by their sessions";
    TopicFull "topic_full" 409 AfterChange None "The topic is full";
    SubscriptionBusy "subscription_busy" 409 AfterChange None "Another session receives from the subscription";
    SeqMismatch "seq_mismatch" 412 AfterReread None "The topic has another last seq";
    TooManyInFlight "too_many_in_flight" 429 SameRequest None "Too many deliveries are unsettled";
    SemaphoreNotFound "semaphore_not_found" 404 AfterChange None "The semaphore does not exist";
    ElectionVacant "election_vacant" 404 AfterChange None "Nobody leads";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL
            .iter()
            .find(|code| code.as_str() == text)
            .copied()
            .ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    /// A code of a newer server becomes [`Code::Unrecognised`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Ok(text.parse().unwrap_or(Code::Unrecognised))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Append-only: a line may be added, never changed or removed.
    const GOLDEN: &str = "\
invalid_argument 400 never none
unknown_parameter 400 never none
duplicate_key 400 never none
too_many_ops 400 never none
unauthenticated 401 never none
permission_denied 403 never none
cross_origin_denied 403 never none
host_not_allowed 421 never none
key_not_found 404 after_change none
session_not_found 404 never none
service_not_found 404 after_change none
instance_not_found 404 after_change none
topic_not_found 404 after_change none
subscription_not_found 404 after_change none
queue_not_found 404 after_change none
message_not_found 404 never none
lock_not_found 404 after_change none
barrier_not_found 404 after_change none
latch_not_found 404 after_change none
member_not_found 404 after_change none
user_not_found 404 after_change none
role_not_found 404 after_change none
route_not_found 404 never none
method_not_allowed 405 never none
not_acceptable 406 never none
too_large 413 never none
unsupported_media_type 415 never none
lock_held 409 after_change none
permits_exhausted 409 after_change none
not_elected 409 after_change none
not_leader 409 after_reread none
not_holder 409 after_reread none
would_deadlock 409 after_change none
limit_mismatch 409 after_reread none
barrier_waiting 409 after_change none
barrier_broken 409 after_reread none
latch_closed 409 after_reread none
out_of_range 409 after_reread none
queue_full 409 after_change none
receipt_stale 409 never none
instance_replaced 409 never none
already_exists 409 after_reread none
would_lose_quorum 409 after_change none
not_caught_up 409 after_change none
last_admin 409 never none
idempotency_in_flight 409 same_request none
compacted 410 after_reread none
session_expired 410 never none
cursor_expired 410 after_reread none
epoch_changed 410 after_reread none
revision_mismatch 412 after_reread none
fence_stale 412 never none
idempotency_key_reused 422 never none
rate_limited 429 same_request none
too_many_waiters 429 same_request none
too_many_streams 429 other_node none
internal 500 same_request unknown
not_implemented 501 never none
no_leader 503 other_node none
not_ready 503 other_node none
overloaded 503 same_request none
shutting_down 503 other_node none
no_healthy_instance 503 after_change none
commit_timeout 504 same_request unknown
quota_exceeded 507 after_change none
queue_kind_mismatch 409 after_reread none
queue_not_empty 409 after_change none
not_consumer 409 after_reread none
session_required 400 never none
topic_full 409 after_change none
subscription_busy 409 after_change none
seq_mismatch 412 after_reread none
too_many_in_flight 429 same_request none
semaphore_not_found 404 after_change none
election_vacant 404 after_change none
";

    #[test]
    fn codes_are_append_only() {
        let word = |value: serde_json::Value| value.as_str().unwrap().to_owned();
        let mut listed = String::new();
        for code in Code::ALL {
            let retry = word(serde_json::to_value(code.retry()).unwrap());
            let effect = word(serde_json::to_value(code.effect()).unwrap());
            writeln!(listed, "{code} {} {retry} {effect}", code.status()).unwrap();
        }
        assert_eq!(listed, GOLDEN);
    }

    #[test]
    fn every_code_is_found_by_its_text_and_has_a_title() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!((400..600).contains(&code.status()), "{code}");
            assert!(!code.title().is_empty() && !code.title().ends_with('.'), "{code}");
        }
        assert_eq!("unrecognised".parse::<Code>(), Err(UnknownCode("unrecognised".into())));
        assert_eq!(serde_json::from_str::<Code>("\"of_the_future\"").unwrap(), Code::Unrecognised);
    }
}
