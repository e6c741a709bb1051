//! What the examples share: a local cluster of real processes, to be killed at will.

mod cluster;
mod peer;
mod program;

pub use cluster::{Cluster, Node, free_ports};
pub use peer::{Process, get, installed, serve};
pub use program::{Signal, coracle_binary, flag, option, options, signal};
