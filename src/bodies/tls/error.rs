//! Why TLS cannot be spoken as it is set up.

use std::path::PathBuf;

/// Settings that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{setting} {path:?}: {reason}: give a PEM file that holds {wanted}")]
    File {
        /// Which setting names it.
        setting: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Certificate and key are no pair, or cannot be used.
    #[error("{place}.cert_file and {place}.key_file: {reason}: give a certificate and its own key")]
    Pair {
        /// Whose.
        place: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// One of certificate and key is missing.
    #[error("{place}.cert_file and {place}.key_file belong together: give both, or neither")]
    Half {
        /// Whose.
        place: &'static str,
    },
    /// A name that no certificate can have.
    #[error("{place}.server_name {name:?} is no host name: write it as engines.example.com")]
    Name {
        /// Whose.
        place: &'static str,
        /// The name.
        name: String,
    },
    /// The system knows no authorities.
    #[error(
        "the system has no certificates of authorities{reason}: install ca-certificates, or name a file of them (ca_file)"
    )]
    NoAuthorities {
        /// What it says about it.
        reason: String,
    },
    /// The library refuses.
    #[error("{place}: {reason}")]
    Refused {
        /// Whose settings.
        place: &'static str,
        /// Why.
        reason: String,
    },
}
