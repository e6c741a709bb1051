//! Client library of Coracle.
//!
//! ```no_run
//! # async fn example() -> Result<(), coracle_client::Error> {
//! use std::time::Duration;
//! use coracle_client::Coracle;
//!
//! let c = Coracle::connect(["http://127.0.0.1:7070"]).await?;
//! c.kv().put("app/color", "blue").await?;
//! let session = c.session().ttl(Duration::from_secs(15)).name("worker-3").open().await?;
//! let lock = c.lock("deploy").session(&session).wait(Duration::from_secs(60)).acquire().await?;
//! lock.run(|fence| { let kv = c.kv(); async move { kv.put("x", "1").fence(fence).await } }).await?;
//! lock.release().await?;
//! # Ok(()) }
//! ```
//!
//! What it takes care of:
//! - several endpoints: it stays with one until that fails, then goes on with the next, with back-off;
//! - one `Idempotency-Key` per logical change, the same on each retry, so that a retry has one effect;
//! - streams that resume after a cut without losing or repeating a change, and say when they had to;
//! - a registration that is renewed, and made again after a loss (`c.service("web").register(..)`);
//! - a session keeper, and loss told three ways: as an event, by cancelling the guarded block, by an error.
//!
//! Deliberately not here: any state machine logic. Waiting lines, tokens and expiry live in the server.

mod all;
mod backoff;
mod barrier;
mod call;
mod client;
mod cluster;
mod counter;
mod election;
mod error;
mod escape;
mod fence;
mod follow;
mod group;
mod guard;
mod inbox;
mod keeper;
mod kv;
mod latch;
mod list;
mod lock;
mod queue;
mod registration;
mod semaphore;
mod service;
mod session;
mod tls;
mod topic;
mod transport;
mod txn;
mod watch;

pub use all::All;
pub use barrier::{Barrier, Enter};
pub use client::{Builder, Coracle};
pub use cluster::ClusterApi;
pub use coracle_api as api;
pub use counter::{AddToCounter, Counter, SetCounter};
pub use election::{Campaign, Elections};
pub use error::{Error, LossReason};
pub use fence::FencedResource;
pub use group::{Group, Join, Membership};
pub use guard::{ClaimGuard, Fence};
pub use inbox::{Nack, Receive};
pub use keeper::{Session, SessionState};
pub use kv::{Delete, DeleteRange, Get, Kv, Put};
pub use latch::Latch;
pub use list::{History, List};
pub use lock::{Acquire, Locks};
pub use queue::{Job, Queue, SendMessage};
pub use registration::{Instance, Registration, RegistrationEnd, RegistrationState};
pub use semaphore::Semaphores;
pub use service::{Pick, Seen, Service, Services};
pub use session::{OpenSession, Sessions};
pub use tls::TlsOptions;
pub use topic::{Consume, Delivery, MessageUpdate, Messages, Publish, Subscribe, Subscription, Topic};
pub use txn::TxnBuilder;
pub use watch::{Update, Watch, WatchBuilder};
