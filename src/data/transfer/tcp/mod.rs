//! TCP: several connections to a peer, blocks gathered and scattered by the kernel.
//!
//! A part is cut into chunks of about a megabyte, and each connection takes the next one when it has
//! room: a slow connection carries less, and none waits for another.

mod chunk;
mod path;
mod stream;

pub use path::TcpPath;

use super::TransferError;
use super::wire::dial::Identity;
use super::wire::socket::Socket;
use std::net::{SocketAddr, TcpStream};

/// Opens a connection, before its handshake.
pub(super) fn connect(address: SocketAddr, identity: &Identity) -> Result<Socket, TransferError> {
    let stream = TcpStream::connect_timeout(&address, identity.stall_timeout);
    stream.map(Socket::Tcp).map_err(|error| TransferError::PeerGone {
        peer: address.to_string(),
        why: error.to_string(),
    })
}
