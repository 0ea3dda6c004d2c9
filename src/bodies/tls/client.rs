//! The client's side of a handshake.

use super::error::TlsError;
use super::pem;
use super::settings::ClientTlsConfig;
use super::wire::Wire;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::io::{Error, ErrorKind};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Whom to believe, and what to show. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    config: Arc<OnceLock<Result<Arc<ClientConfig>, TlsError>>>,
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files of the settings at `place`.
    ///
    /// # Errors
    /// [`TlsError`], naming the file or the name.
    pub fn new(place: &'static str, given: &ClientTlsConfig) -> Result<Self, TlsError> {
        if *given == ClientTlsConfig::default() {
            return Ok(Self::default());
        }
        if given.danger_accept_any_certificate {
            tracing::warn!(
                "{place}.danger_accept_any_certificate is set: NO certificate is checked, whoever is on the way can read and change everything"
            );
        }
        let name = |name: &String| {
            ServerName::try_from(name.clone())
                .map_err(|_| TlsError::Name { place, name: name.clone() })
        };
        let server_name = given.server_name.as_ref().map(name).transpose()?;
        let config = client_config(place, given)?;
        Ok(Self { config: Arc::new(OnceLock::from(Ok(config))), server_name })
    }

    /// What the library needs.
    ///
    /// # Errors
    /// [`TlsError::NoAuthorities`].
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let system = || client_config("tls", &ClientTlsConfig::default());
        self.config.get_or_init(system).clone()
    }

    /// The name that a server must have, where it is not its host's.
    #[must_use]
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// Makes a handshake with `host`. It takes as long as the server wants: the caller bounds it.
    ///
    /// # Errors
    /// The connection broke off, or the server is not who it should be.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> std::io::Result<Wire> {
        let invalid = |reason: String| Error::new(ErrorKind::InvalidInput, reason);
        let config = self.config().map_err(|error| invalid(error.to_string()))?;
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| invalid(format!("{host:?} is no name that a certificate can have")))?,
        };
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(remedied)?;
        Ok(Wire::Tls(Box::new(stream.into())))
    }
}

/// Says what to do about what operators meet most.
fn remedied(error: Error) -> Error {
    let told = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
    let remedy = match told {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            // An authority that was made anew has the name of the old one, and another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "ca_file names the authorities that are believed"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "server_name says which name is expected"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "give the server a new one"
            }
            _ => return error,
        },
        _ => return error,
    };
    Error::new(error.kind(), format!("{error} ({remedy})"))
}

fn client_config(
    place: &'static str,
    given: &ClientTlsConfig,
) -> Result<Arc<ClientConfig>, TlsError> {
    let refused = |reason: String| TlsError::Refused { place, reason };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?;
    let builder = if given.danger_accept_any_certificate {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        let store = match &given.ca_file {
            Some(path) => pem::authorities(&format!("{place}.ca_file"), path)?,
            None => pem::system_authorities()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        builder.with_webpki_verifier(verifier)
    };
    let config = match (&given.cert_file, &given.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = pem::certificates(&format!("{place}.cert_file"), cert)?;
            let key = pem::key(&format!("{place}.key_file"), key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError::Pair { place, reason: error.to_string() })?
        }
        _ => return Err(TlsError::Half { place }),
    };
    Ok(Arc::new(config))
}

/// Believes every certificate. Signatures are checked, as without them there is no handshake.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
