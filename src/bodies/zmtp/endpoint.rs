//! ZeroMQ addresses.

use super::ZmtpError;
use std::fmt;
use std::str::FromStr;

/// A `tcp://host:port` address. A wildcard host (`*`, `0.0.0.0`, `[::]`) can be bound, and becomes
/// connectable by [`on_host`](Self::on_host).
///
/// ```
/// use llmd_bodies::zmtp::Endpoint;
/// let of_rank_0: Endpoint = "tcp://*:5557".parse()?;
/// let of_rank_1 = of_rank_0.for_rank(1)?.on_host("10.0.0.7");
/// assert_eq!(of_rank_1.to_string(), "tcp://10.0.0.7:5558");
/// # Ok::<(), llmd_bodies::zmtp::ZmtpError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// From its parts; an IPv6 host without brackets.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Host name, address or wildcard; IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port; 0 asks the operating system for one when bound.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host means "every interface".
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "*" | "0.0.0.0" | "::")
    }

    /// The same address with a wildcard replaced by where the engine is reached.
    #[must_use]
    pub fn on_host(&self, host: &str) -> Self {
        let host = if self.is_wildcard() { host } else { &self.host };
        Self { host: host.to_owned(), port: self.port }
    }

    /// The address of a data-parallel rank: engines count ports up from rank 0's.
    ///
    /// # Errors
    /// [`ZmtpError::Endpoint`] past port 65535.
    pub fn for_rank(&self, dp_rank: u32) -> Result<Self, ZmtpError> {
        let port = u32::from(self.port).checked_add(dp_rank).and_then(|p| u16::try_from(p).ok());
        match port {
            Some(port) => Ok(Self { host: self.host.clone(), port }),
            None => Err(ZmtpError::Endpoint {
                endpoint: format!("{self} + rank {dp_rank}"),
                reason: "the port of that rank is past 65535",
            }),
        }
    }

    /// What to hand to the operating system to bind.
    pub(super) fn bind_address(&self) -> (&str, u16) {
        (if self.host == "*" { "0.0.0.0" } else { &self.host }, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = ZmtpError;

    fn from_str(endpoint: &str) -> Result<Self, ZmtpError> {
        let refuse = |reason| Err(ZmtpError::Endpoint { endpoint: endpoint.to_owned(), reason });
        let Some(address) = endpoint.strip_prefix("tcp://") else {
            return refuse("only tcp:// is spoken here");
        };
        let Some((host, port)) = address.rsplit_once(':') else {
            return refuse("it has no port");
        };
        let Ok(port) = (if port == "*" { Ok(0) } else { port.parse() }) else {
            return refuse("the port is not a number from 0 to 65535");
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => match rest.strip_suffix(']') {
                Some(host) => host,
                None => return refuse("the bracket of the IPv6 address is not closed"),
            },
            None if host.contains(':') => return refuse("an IPv6 address needs brackets"),
            None => host,
        };
        if host.is_empty() || host.contains('/') {
            return refuse("it has no host");
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "tcp://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "tcp://{}:{}", self.host, self.port)
        }
    }
}
