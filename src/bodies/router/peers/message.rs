//! A router's totals as bytes: one byte of version, then MessagePack.

use llmd_brain::brain::PeerTotals;

/// What this router writes and reads.
const VERSION: u8 = 1;
/// Longest message; about 75 bytes an endpoint.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// None at all.
    #[error("is empty")]
    Empty,
    /// More than are read.
    #[error("has {0} bytes, more than {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    /// Written by another release.
    #[error("is of version {0}, and this router reads {VERSION}: run one release of it everywhere")]
    Version(u8),
    /// Damaged, or something else.
    #[error("cannot be read: {0}")]
    Body(String),
    /// It goes on after its end.
    #[error("has {0} bytes after its end")]
    Trailing(usize),
}

/// The bytes of a message.
#[must_use]
pub fn encode(totals: &PeerTotals) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + 160 * totals.endpoints.len());
    bytes.push(VERSION);
    // Writing numbers and strings to a vector cannot fail; a message that is cut is refused.
    if let Err(error) = rmp_serde::encode::write(&mut bytes, totals) {
        tracing::error!(%error, "a router's totals cannot be written");
    }
    bytes
}

/// The message of some bytes. Within its limits memory grows only with the bytes that there are.
///
/// # Errors
/// [`MessageError`].
pub fn decode(bytes: &[u8]) -> Result<PeerTotals, MessageError> {
    let Some((&version, mut body)) = bytes.split_first() else { return Err(MessageError::Empty) };
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(MessageError::TooLong(bytes.len()));
    }
    if version != VERSION {
        return Err(MessageError::Version(version));
    }
    let totals =
        rmp_serde::from_read(&mut body).map_err(|error| MessageError::Body(error.to_string()))?;
    if body.is_empty() { Ok(totals) } else { Err(MessageError::Trailing(body.len())) }
}
