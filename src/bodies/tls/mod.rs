//! TLS, as a server and as a client: settings, what is made of them once, and a stream that may or
//! may not be encrypted.
//!
//! Cryptography is `ring`'s. A client believes the system's authorities unless a file names others;
//! the system's are read when the first connection needs them, so that who speaks no TLS needs none.
//! What a file holds is read when its settings are made: connections that are open keep what they
//! began with.
//!
//! Not here: when handshakes end, and how many there may be at once; their callers bound both.

mod client;
mod error;
mod pem;
mod server;
mod settings;
mod wire;

pub use client::ClientTls;
pub use error::TlsError;
pub use server::ServerTls;
pub use settings::{ClientTlsConfig, ServerTlsConfig};
pub use wire::Wire;
