//! Peers: one listener, framed and pipelined connections, the RPCs of Raft and the forwarding of edges.
//!
//! ③ carries forwarded proposals and read barriers to the leader, ④ carries log entries to the followers.
//!
//! - [`Peers`] dials: one connection per peer and [`Class`] of traffic, so that a large append delays no heartbeat.
//!   It implements openraft's network factory through [`Dialer`].
//! - [`Server`] listens: it answers with what [`Service`] says, in the order of arrival where order matters.
//! - Every connection starts with a [`Hello`] from both sides; a [`Reject`] reaches [`Local::refused`].
//!
//! Invariants: a length is checked before anything is allocated; no task per request; every request has a deadline;
//! a request that was certainly not written fails as [`CallError::Unreachable`], and as nothing else.
//!
//! Not here: what is forwarded (opaque bytes, see `node`), who the members are (told by [`Peers::learn`]), and any
//! serialisation of openraft's own.

mod client;
mod counters;
mod der;
mod dial;
mod hello;
mod link;
mod link_state;
mod messages;
mod out;
mod raft;
mod server;
mod service;
mod snapshot;
pub mod stream;
pub mod tls;
mod wire;

pub use client::{Answer, CallError, Peers};
pub use counters::Traffic;
pub use hello::{Class, Greeting, Hello, PROTOCOL, Reject};
pub use out::ReplySender;
pub use raft::{Connection, Dialer};
pub use server::{Limits, Server};
pub use service::{BoxFuture, Local, RaftService, Service, Unavailable};
pub use snapshot::{Incoming, Outgoing};
