//! What can go wrong on a ZMTP connection.

use super::SocketType;

/// Why a ZMTP connection or socket cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ZmtpError {
    /// An address that is not `tcp://host:port`.
    #[error(
        "endpoint {endpoint:?} cannot be used: {reason}; write tcp://host:port, or tcp://*:port to bind"
    )]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The peer does not speak ZMTP 3.
    #[error("the peer does not speak ZMTP 3 ({0}): is this port a ZeroMQ socket?")]
    Greeting(String),
    /// The peer asks for security that is not spoken here.
    #[error(
        "the peer wants the security mechanism {0:?}, only NULL is spoken here: switch the peer's CURVE/PLAIN off"
    )]
    Mechanism(String),
    /// The two socket types never talk to each other.
    #[error(
        "the peer is a {theirs} socket, which never talks to a {ours} socket: check that the ports are not swapped"
    )]
    SocketType {
        /// What this side is.
        ours: SocketType,
        /// What the peer says it is.
        theirs: String,
    },
    /// A frame header or command that the protocol does not allow.
    #[error("protocol violation by the peer: {0}")]
    Protocol(String),
    /// The peer refused the handshake.
    #[error("the peer refused the connection: {0:?}")]
    Refused(String),
    /// A frame or message beyond the limits.
    #[error(
        "the peer announced {what} of {bytes} bytes, the limit is {limit}: raise it only if the peer is trusted"
    )]
    TooLarge {
        /// A frame, a message or a command.
        what: &'static str,
        /// What was announced.
        bytes: u64,
        /// What is allowed.
        limit: usize,
    },
    /// More frames in one message than the limits allow.
    #[error("the peer sent a message of more than {0} frames")]
    TooManyFrames(usize),
    /// The peer closed the connection.
    #[error(
        "the peer closed the connection with {partial_bytes} bytes of an unfinished frame or message"
    )]
    Closed {
        /// Bytes of a frame or message whose rest never came.
        partial_bytes: usize,
    },
    /// The peer answered no heartbeat.
    #[error("nothing heard from the peer for {0} ms, heartbeats included")]
    Silent(u64),
    /// The peer reads nothing.
    #[error("the peer took no byte for {0} ms")]
    Stalled(u64),
    /// Connecting and shaking hands, or an answer, took too long.
    #[error("no answer within {0} ms")]
    Timeout(u64),
    /// A reply for a peer that is gone.
    #[error("the peer to reply to is not connected any more")]
    UnknownPeer,
    /// The operating system.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// Its answer.
        source: std::io::Error,
    },
}

impl ZmtpError {
    pub(super) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { context: context.into(), source }
    }
}
