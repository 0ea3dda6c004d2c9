//! An engine as the gateway reaches it: its address, how it has been doing, and connections to it.

use super::vigil::Vigil;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Authority;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An engine behind one address.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Tells upstreams apart, also from earlier ones with the same address.
    pub(super) number: u64,
    /// Base URL, as the fleet knows it.
    pub(super) address: String,
    /// Host and port to connect to.
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether it is spoken to by TLS.
    pub(super) is_secure: bool,
    /// What `Host` says.
    pub(super) authority: HeaderValue,
    /// What stands before every path; empty or `/prefix`.
    prefix: String,
    /// Why it could not be asked what it is, until it was.
    pub(super) obstacle: Mutex<Option<String>>,
    /// How it has been doing.
    pub(super) vigil: Vigil,
    /// What became of tries.
    pub(super) counts: UpstreamCounts,
}

/// What became of tries at an engine.
#[derive(Debug, Default)]
pub(super) struct UpstreamCounts {
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) connections: AtomicU64,
}

/// Why an address cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {url:?}: {reason}: write it as http://host:port or https://host:port")]
pub struct BadAddress {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Upstream {
    pub(super) fn new(address: &str) -> Result<Self, BadAddress> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let bad = |reason| BadAddress { url: address.to_owned(), reason };
        let uri: Uri = address.parse().map_err(|_| bad("it cannot be parsed"))?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("only HTTP is spoken to engines")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("no host"))?;
        let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err(bad("a user name has no place in it"));
        }
        Ok(Self {
            number: NUMBERS.fetch_add(1, Relaxed),
            address: address.to_owned(),
            // An IPv6 address stands in brackets there.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            is_secure,
            authority: HeaderValue::from_str(authority).map_err(|_| bad("the host cannot be"))?,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            obstacle: Mutex::default(),
            vigil: Vigil::default(),
            counts: UpstreamCounts::default(),
        })
    }

    /// What stands before a client's path at this engine.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_paths_are_put_behind_its_own() {
        let engine = Upstream::new("http://engine:8000/base/").unwrap();
        assert_eq!((engine.host.as_str(), engine.port), ("engine", 8000));
        assert_eq!(engine.authority, "engine:8000");
        assert_eq!(engine.prefix(), "/base");
        let plain = Upstream::new("http://[::1]").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("::1", 80));
        assert_eq!(plain.prefix(), "");
        let secure = Upstream::new("https://engine").unwrap();
        assert!(secure.is_secure && !plain.is_secure && secure.port == 443);
    }

    #[test]
    fn what_cannot_be_is_named_with_the_remedy() {
        for bad in ["", "nonsense", "ftp://a:1", "http://u:p@a:1"] {
            let message = Upstream::new(bad).unwrap_err().to_string();
            assert!(message.contains("http://host:port"), "{message}");
        }
    }
}
