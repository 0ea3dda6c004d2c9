//! ZeroMQ's wire protocol, as far as KV events need it: ZMTP 3.0 and 3.1 with the NULL mechanism
//! over TCP (<https://rfc.zeromq.org/spec/23/>, <https://rfc.zeromq.org/spec/37/>).
//!
//! Engines publish KV events on a PUB socket and serve their replay buffer on a ROUTER socket. So
//! there are the two clients ([`Subscription`] is a SUB, [`Dealer`] a DEALER) and the two servers
//! ([`ZmtpPublisher`] is a PUB, [`RouterServer`] a ROUTER). Written by hand and not taken from a
//! crate because an index that trusts events has to know what a general socket hides: the moment
//! when a connection is lost, and that nothing between two messages of one connection is missing.
//!
//! Guarantees:
//! - One client object is one connection. When it ends, `recv` says so ([`ZmtpError::Closed`] and
//!   friends); nothing reconnects behind the caller's back.
//! - Foreign lengths allocate nothing: a frame longer than [`Limits`] is refused at its header, and
//!   within the limits memory grows only with bytes that arrived.
//! - Every `recv` is cancel-safe.
//! - Servers are bounded: peers, subscriptions, queued messages and queued bytes. A publisher
//!   never waits for a slow subscriber; it drops for that one and counts (ZeroMQ's high-water
//!   mark). A router waits, so a replay has no holes.
//!
//! Not here: CURVE and PLAIN security, `ipc://` and `inproc://`, other socket types.

mod client;
mod command;
mod endpoint;
mod error;
mod frame;
mod greeting;
mod link;
mod publisher;
mod router;
mod server;
mod session;

#[cfg(test)]
mod tests;

pub use client::{Dealer, Subscription};
pub use endpoint::Endpoint;
pub use error::ZmtpError;
pub use frame::Limits;
pub use link::LinkConfig;
pub use publisher::{Published, PublisherConfig, PublisherStats, ZmtpPublisher};
pub use router::{Identity, RouterSender, RouterServer};
pub use server::ServerConfig;
pub use session::{Event, PeerInfo, Session, SessionConfig, SocketType};

use bytes::Bytes;

/// One message: its frames, in order. Frames share the memory that they were received into.
pub type Message = Vec<Bytes>;
