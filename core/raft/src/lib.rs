//! Replication: openraft wrapped, a write-ahead log, a checkpoint, snapshots, peers, the read barrier.

pub mod checkpoint;
pub mod codec;
pub mod files;
pub mod network;
pub mod node;
pub mod snapshot;
pub mod types;
pub mod wal;
