//! The settings of either side.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a server shows its clients, and asks of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTlsConfig {
    /// PEM: the server's certificate, then those that lead to its authority.
    pub cert_file: PathBuf,
    /// PEM: the certificate's private key.
    pub key_file: PathBuf,
    /// PEM: authorities. With it, a client needs a certificate that one of them signed.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

/// Whom a client believes, and what it shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTlsConfig {
    /// PEM: the authorities that are believed; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM: a certificate to show, for servers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// PEM: the certificate's private key.
    pub key_file: Option<PathBuf>,
    /// The name that servers' certificates must have; without it, the host of each address.
    pub server_name: Option<String>,
    /// Believes anybody. Whoever is on the way can read and change everything.
    pub danger_accept_any_certificate: bool,
}
