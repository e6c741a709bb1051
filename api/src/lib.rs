//! Wire types of the HTTP API, shared by the server and the Rust client.
//!
//! Rules that hold for every type here:
//! - Answers are read tolerantly: a field this version does not know is ignored, so that `/v1` can grow.
//! - Request bodies are read strictly: an unknown field is an error, so that a typo is never silent.
//! - Integers are JSON numbers below 2^53; ids are strings; bytes are text where they can be ([`Value`]).
//! - No type here depends on the store or on Raft: this crate is the border between inside and outside.

mod barrier;
mod cluster;
mod code;
mod counter;
mod delivery;
mod election;
mod fence;
mod frame;
mod group;
mod hold;
mod id;
mod instant;
mod key;
mod kv;
mod latch;
mod limits;
mod lock;
mod page;
mod problem;
pub mod queue;
#[cfg(feature = "schema")]
pub mod schema;
mod semaphore;
mod service;
mod session;
mod size;
mod span;
mod topic;
mod txn;
mod value;

pub use barrier::{Barrier, BarrierConfig, BarrierKind, Entered, Entering, Gate, Leaving, Party};
pub use cluster::{
    Cluster, HistoryCompacted, Member, MemberAdd, MemberAdded, MemberState, Role, StateHash, Version,
};
pub use code::{Code, Effect, Retry, UnknownCode};
pub use counter::{Counted, Counter};
pub use delivery::{Overflow, Receipts, Settled, SettledMany};
pub use election::{Candidate, Elected, Election, Leader, Resigned};
pub use fence::{Fence, FencePassed};
pub use frame::{ByeReason, Event, Frame};
pub use group::{Group, GroupMember, Joined, Left};
pub use hold::{Deliveries, Granted, HoldFrame};
pub use id::{InvalidSessionId, SessionId};
pub use instant::{Instant, InvalidInstant};
pub use key::Key;
pub use kv::{Deleted, Entry, KvHistory, KvList, KvVersion, Prefix, Put};
pub use latch::{CountedDown, Latch, LatchConfig};
pub use limits::Limits;
pub use lock::{
    AcquireMany, Acquired, AcquiredMany, AcquiredOne, Blocker, Broken, Holder, Lock, LockConfig, LockRef,
    Mode, Released, Renewed, Waiter, Waiting, WaitsFor,
};
pub use page::Page;
pub use problem::{InvalidField, PROBLEM_JSON, Problem};
pub use semaphore::{PermitHolder, PermitWaiter, PermitsAcquired, PermitsBroken, Semaphore, SemaphoreConfig};
pub use service::{
    Instance, InstanceRenewed, InvalidRatio, Liveness, Picked, PrometheusGroup, Ratio, Registration, Service,
    ServiceConfig, ServiceInstances, Status, authority,
};
pub use session::{
    Attached, Claim, Hold, Lost, OnExpire, Progress, Session, SessionClosed, SessionCreate, SessionCreated,
    SessionRenew, SessionRenewed, SessionState, Wait,
};
pub use size::{ByteSize, InvalidByteSize};
pub use span::{InvalidSpan, Span};
pub use topic::{
    DeadLetter, Gap, PublishBatch, PublishItem, Published, Subscription, SubscriptionConfig,
    SubscriptionMode, Topic, TopicConfig, TopicDeleted, TopicDelivery, TopicFrame, TopicMessage,
    TopicMessages, TopicReceived,
};
pub use txn::{
    Compare, Comparison, Condition, Holding, Operation, OperationResult, Outgoing, Txn, TxnResult,
};
pub use value::{InvalidValue, OCTET_STREAM, TEXT, Value, is_json};
