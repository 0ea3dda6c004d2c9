//! HTTP/1.1 to engines, on one connection, one exchange at a time.
//!
//! Ours, and not hyper's client, for one reason: there a connection is a task of its own, and each
//! event of a stream crosses a channel and wakes three tasks. Here whoever relays an answer reads the
//! socket itself: per event one read, and no wake but the socket's (`make bench-gateway`). Heads are
//! parsed by `httparse`; what is ours is framing, which is small and strict (RFC 9112, 6 and 7).

mod connection;
mod decoded;
mod framing;
mod head;

pub(super) use connection::Connection;
pub use decoded::{DecodedAnswer, decode_answer};
pub(super) use head::request_head;

/// Why an exchange with an engine ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("it closed the connection")]
    Closed,
    #[error(transparent)]
    System(#[from] std::io::Error),
    #[error("what it sent is no answer in HTTP/1.1: {0}")]
    Head(String),
    #[error("the framing of its answer is wrong: {0}")]
    Framing(&'static str),
}
