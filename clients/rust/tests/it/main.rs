//! The client against scripted servers: what it sends, when it repeats, what it tells its caller.

mod fake;
mod locks;
mod retry;
mod services;
mod sessions;
mod tls;
mod topics;
mod watch;
