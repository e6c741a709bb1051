//! TLS as a client: which authorities to trust, which certificate to show.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::Error;

/// PEM files for TLS. Without a CA file the authorities of the system are trusted.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Authorities that sign server certificates; if given, only these are trusted.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate chain, for servers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// The private key of our certificate.
    pub key_file: Option<PathBuf>,
}

/// The configuration for `options`. The authorities of the system are loaded only if `https` is in use.
pub(crate) fn config(options: &TlsOptions, https: bool) -> Result<ClientConfig, Error> {
    let failed = |error: rustls::Error| Error::Tls(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match &options.ca_file {
        None if https => builder.with_platform_verifier().map_err(failed)?,
        None => builder.with_root_certificates(RootCertStore::empty()),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unusable(file, &error))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = match (&options.cert_file, &options.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert_file), Some(key_file)) => {
            let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unusable(key_file, &error))?;
            builder
                .with_client_auth_cert(certificates(cert_file)?, key)
                .map_err(|error| unusable(cert_file, &error))?
        }
        _ => return Err(Error::Tls("a client certificate needs both its file and its key".to_owned())),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(file, &error))?;
    if certificates.is_empty() {
        return Err(unusable(file, &"it holds no certificate"));
    }
    Ok(certificates)
}

fn unusable(file: &std::path::Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Tls(format!("{reason} file={}", file.display()))
}
