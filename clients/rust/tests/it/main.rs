//! The client against scripted servers: what it sends, when it repeats, what it tells its caller.

mod calls;
mod claims;
mod document;
mod fake;
mod groups;
mod locks;
mod retry;
mod services;
mod sessions;
mod tls;
mod topics;
mod watch;
mod work;
