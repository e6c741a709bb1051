//! The edge of Coracle: HTTP, TLS, configuration, telemetry. The only crate that serves HTTP.
//!
//! Stations ①, ⑥ and ⑦ of a request: `accept` takes connections, `http::front` checks and admits, `http` routes and
//! decodes, `http::watch` and `http::turn` wake who waits, `http::respond` and `http::problem` answer.

pub mod config;
mod edge;
mod http;
pub mod telemetry;

mod accept;
mod activity;
mod join;
mod lines;
mod metrics;
mod pools;
mod start;

pub use config::Config;
pub use http::openapi::text as openapi;
pub use start::{RunError, Server, run};
