//! All integration tests of the replication crate, in one binary.

mod checkpoint;
mod snapshot;
mod wal;
mod node;
