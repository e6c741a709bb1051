//! All integration tests of the replication crate, in one binary.

mod checkpoint;
mod faulty;
mod network;
mod node;
mod snapshot;
mod wal;
