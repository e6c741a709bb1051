//! Log lines: pretty for people, JSON for machines; on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, ConfigError, LogFormat};

/// Begin to log as configured. A second call in one process changes nothing.
///
/// # Errors
/// A filter that is none.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    // Consensus speaks about its every step, and warns of every heartbeat that is late on a busy machine; what matters
    // of it is logged by our own crate.
    let text = if config.log_level.contains('=') {
        config.log_level.clone()
    } else {
        format!("{},openraft=error,rustls=warn,hyper=warn,h2=warn", config.log_level)
    };
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        ConfigError::Contradiction(format!("log_level is no filter: {error} value={text:?}"))
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match config.log_format {
        LogFormat::Pretty => {
            let ansi = std::io::stderr().is_terminal();
            registry
                .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi))
                .try_init()
        }
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
    };
    if started.is_err() {
        tracing::debug!("a subscriber is already there");
    }
    Ok(())
}
