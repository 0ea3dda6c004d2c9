//! Authorities of a test's own, what they sign, and engines behind TLS.

use llmd_bodies::tls::{ClientTls, ClientTlsConfig, ServerTls, ServerTlsConfig, Wire};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// An authority, and a folder for its files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    pub ca_file: PathBuf,
}

/// Files of a certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("tls-{}-{}", std::process::id(), FOLDERS.fetch_add(1, SeqCst));
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Of two with one name, one's signatures would be checked by the other's key.
        params.distinguished_name.push(DnType::CommonName, &name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca_file = folder.join("ca.pem");
        std::fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder, ca_file }
    }

    /// A certificate for this host in files of that name, which may be there already.
    pub fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            cert_file: self.folder.join(format!("{name}.pem")),
            key_file: self.folder.join(format!("{name}.key")),
        };
        std::fs::write(&pair.cert_file, certificate.pem()).unwrap();
        std::fs::write(&pair.key_file, key.serialize_pem()).unwrap();
        pair
    }

    /// Settings of a server that it signed for.
    pub fn server(&self, name: &str) -> ServerTlsConfig {
        self.sign(name, |_| {}).server()
    }

    /// Settings of a client that believes it.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig { ca_file: Some(self.ca_file.clone()), ..ClientTlsConfig::default() }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Pair {
    pub fn server(&self) -> ServerTlsConfig {
        let Self { cert_file, key_file } = self.clone();
        ServerTlsConfig { cert_file, key_file, client_ca_file: None }
    }
}

pub fn client(config: &ClientTlsConfig) -> ClientTls {
    ClientTls::new("client", config).unwrap()
}

/// TLS in front of an engine that speaks none.
pub struct Terminator {
    pub address: SocketAddr,
    shown: Arc<Mutex<ServerTls>>,
    listening: JoinHandle<()>,
}

impl Terminator {
    pub async fn start(engine: SocketAddr, shown: &ServerTlsConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::new(Mutex::new(ServerTls::new("engine", shown).unwrap()));
        let now = Arc::clone(&shown);
        let listening = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let tls = now.lock().unwrap().clone();
                tokio::spawn(async move {
                    let Ok(mut outside) = tls.accept(stream).await else { return };
                    let mut inside = TcpStream::connect(engine).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self { address, shown, listening }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// New connections are shown another certificate.
    pub fn show(&self, other: &ServerTlsConfig) {
        *self.shown.lock().unwrap() = ServerTls::new("engine", other).unwrap();
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// The certificate that a server showed.
pub fn shown_by(wire: &Wire) -> Vec<u8> {
    let Wire::Tls(stream) = wire else { panic!("no TLS") };
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}
