//! The server's side of a handshake.

use super::error::TlsError;
use super::pem;
use super::settings::ServerTlsConfig;
use super::wire::Wire;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// A certificate to serve with; HTTP/2 and HTTP/1.1 are offered.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
}

impl ServerTls {
    /// Reads the files of the settings at `place`.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn new(place: &'static str, given: &ServerTlsConfig) -> Result<Self, TlsError> {
        let refused = |reason: String| TlsError::Refused { place, reason };
        let provider = Arc::new(ring::default_provider());
        let chain = pem::certificates(&format!("{place}.cert_file"), &given.cert_file)?;
        let key = pem::key(&format!("{place}.key_file"), &given.key_file)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(error.to_string()))?;
        let builder = match &given.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let store = pem::authorities(&format!("{place}.client_ca_file"), path)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
                        .build()
                        .map_err(|error| refused(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::Pair { place, reason: error.to_string() })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Makes a handshake. It takes as long as the client wants: the caller bounds it.
    ///
    /// # Errors
    /// The connection broke off, or the client is not who it should be.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<Wire> {
        Ok(Wire::Tls(Box::new(self.acceptor.accept(stream).await?.into())))
    }
}
