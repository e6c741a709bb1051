//! The edge of Coracle: HTTP, TLS, configuration, telemetry. The only crate with axum.

pub mod config;

use std::future::Future;

pub use config::Config;

/// Why a server ended other than by being asked to. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(#[from] config::ConfigError),
    #[error("cannot listen for clients on {address}: {reason}")]
    Listen { address: std::net::SocketAddr, reason: std::io::Error },
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Start(#[from] coracle_raft::node::StartError),
    #[error("{0}")]
    Join(String),
    #[error("the node stopped by itself: {0}")]
    Stopped(String),
}

/// Run a server until `shutdown` resolves (or SIGTERM or SIGINT arrives), then drain and stop.
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
    let _ = (config, shutdown);
    todo!()
}
