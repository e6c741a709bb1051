//! The peer transport over loopback sockets: greetings, requests, Raft's RPCs, snapshots, TLS, and wires that break.

mod calls;
mod fixture;
mod greeting;
mod raft;
mod raw;
mod snapshot;
mod tls;
