//! Connecting: a socket, the handshake, and what the peer said of itself.

use super::auth::{self, Introduction};
use super::socket::{FrameReader, FrameWriter, Socket};
use crate::transfer::TransferError;
use std::time::Duration;

/// What an agent needs to connect and to be connected to.
#[derive(Debug)]
pub struct Identity {
    /// What both ends must know.
    pub key: Vec<u8>,
    /// What it says of itself.
    pub introduction: Introduction,
    /// How long a silent peer is waited for.
    pub stall_timeout: Duration,
}

impl Identity {
    /// The timeout for messages.
    pub fn stall_ms(&self) -> u64 {
        self.stall_timeout.as_millis() as u64
    }
}

/// A connection that passed the handshake.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub socket: Socket,
    /// Its incoming frames.
    pub reader: FrameReader,
    /// Its outgoing frames.
    pub writer: FrameWriter,
    /// Who is there.
    pub introduction: Introduction,
    /// How messages call the peer.
    pub name: String,
}

/// Shakes hands as the side that connects.
pub fn dial(socket: Socket, identity: &Identity, name: &str) -> Result<Dialed, TransferError> {
    socket
        .set_up(identity.stall_timeout)
        .map_err(|e| TransferError::os("setting up a connection", e))?;
    let (mut reader, mut writer) = (FrameReader::default(), FrameWriter::default());
    let Identity { key, introduction: Introduction { incarnation, .. }, .. } = identity;
    let introduction = auth::connect(&socket, &mut reader, &mut writer, key, *incarnation, name)?;
    Ok(Dialed { socket, reader, writer, introduction, name: name.to_owned() })
}
