//! Replication: openraft wrapped, a write-ahead log, a checkpoint, snapshots, peers, the read barrier.
//!
//! The only crate that names openraft and redb. The edge asks a [`Node`]; what the node applies is a
//! [`coracle_store::Store`]. Stations ③ (propose), ④ (log), and the thread to ⑤ (apply) and ⑥ (wake).

pub mod checkpoint;
mod clock;
pub mod codec;
mod disk;
pub mod files;
mod forward;
mod gather;
mod identity;
mod inner;
pub mod leader;
mod machine;
mod members;
pub mod network;
pub mod node;
mod opening;
mod peers;
mod priority;
mod progress;
mod propose;
mod read_barrier;
mod returns;
mod shared;
pub mod snapshot;
pub mod types;
mod upkeep;
pub mod wake;
pub mod wal;

pub use node::{Circumstance, MemberError, Node, Options, RenewError, Start, StartError, Status, Watch};
