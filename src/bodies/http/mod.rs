//! A small HTTP/1.1 client for what a router reads from engines, metrics pages and
//! descriptions, and for what is sent to collectors.
//!
//! Every read has a deadline for the whole exchange and a limit on the body, so that an engine that
//! hangs or sends without end costs a timeout or a counted error, never memory. Connections are
//! pooled. `https://` is checked against the system's authorities, or by what
//! [`HttpClient::set_tls`] says.
//!
//! Not here: requests of clients, which a gateway relays and streams.

mod client;

pub use client::{HttpClient, HttpError};
