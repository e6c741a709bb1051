//! What the examples share: a local cluster of real processes, to be killed at will.

mod cluster;
mod program;

pub use cluster::{Cluster, Node};
pub use program::{Signal, coracle_binary, flag, option, options, signal};
