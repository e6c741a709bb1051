//! The edge against a node of its own, over real sockets.

mod client;
mod conversations;
mod document;
mod framing;
mod hostile;
mod limit_table;
mod limits;
mod lists;
mod server;
mod startup;
mod streams;
mod table;
mod tls;
mod topics;
mod waits;
