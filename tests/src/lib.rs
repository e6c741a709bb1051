//! Fixtures for tests of whole clusters: real processes, real sockets, real signals.
//!
//! The program under test is only seen from outside: its command line, its ports, its files, its exit code. Answers
//! are read here as plain JSON, not through the crates that wrote them, so that a mistake in those shows.

pub mod certificates;
pub mod check;
pub mod cluster;
pub mod files;
pub mod history;
pub mod http;
pub mod load;
pub mod log;
pub mod mass;
pub mod node;
pub mod ports;
pub mod program;
pub mod raw;
pub mod refusals;
pub mod replay;
pub mod rounds;
pub mod volume;
pub mod wait;
