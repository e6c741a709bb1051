//! Peers: one listener, framed and pipelined connections, the RPCs of Raft and the forwarding of edges.

pub mod tls;
