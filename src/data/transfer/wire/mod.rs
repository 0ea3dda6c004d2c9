//! What agents say to each other, over TCP and over Unix sockets: the handshake, requests, replies.
//!
//! Little-endian, framed, and every frame numbered: one that is lost, repeated or out of order ends
//! the connection instead of being taken for another. Whatever a peer sends is bounded before it is
//! read; the decoders are fuzzed (`tests/rust/transfer/fuzz.rs`).

pub mod auth;
pub mod dial;
pub mod frame;
pub mod pieces;
pub mod reader;
pub mod reply;
pub mod request;
pub mod socket;
