//! Files of certificates and keys.

use super::error::TlsError;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

const CERTIFICATES: &str = "certificates";
const KEY: &str = "a private key";

/// All certificates of a file; there is at least one.
pub(super) fn certificates(
    setting: &str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |reason: String| bad(setting, path, reason, CERTIFICATES);
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad(error.to_string()))?;
    if all.is_empty() { Err(bad("it holds none".to_owned())) } else { Ok(all) }
}

/// The first private key of a file.
pub(super) fn key(setting: &str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| bad(setting, path, error.to_string(), KEY))
}

/// The authorities of a file.
pub(super) fn authorities(setting: &str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(setting, path)? {
        store
            .add(certificate)
            .map_err(|error| bad(setting, path, error.to_string(), CERTIFICATES))?;
    }
    Ok(store)
}

/// The system's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
pub(super) fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Some systems keep some that no library reads.
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let reason = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(TlsError::NoAuthorities { reason });
    }
    Ok(store)
}

fn bad(setting: &str, path: &Path, reason: String, wanted: &'static str) -> TlsError {
    TlsError::File { setting: setting.to_owned(), path: path.to_owned(), reason, wanted }
}
