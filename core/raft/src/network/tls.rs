//! TLS by rustls, and the one stream type both the plain and the encrypted path run on.

use std::path::PathBuf;

/// Certificates between peers: each verifies the other against the CA, in both directions.
#[derive(Debug, Clone)]
pub struct PeerTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}
