//! The handshake: both ends prove that they know the key, and say who they are.
//!
//! Challenge and response with HMAC-SHA256 over both nonces, as in ISO/IEC 9798-4's mutual
//! authentication: neither proof can be replayed, nor be mirrored to the other side. It says who
//! connects; it neither encrypts what follows nor protects it from who can alter packets.

use super::frame::Header;
use super::reader::Reader;
use super::socket::{FrameReader, FrameWriter, Socket};
use crate::transfer::TransferError;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Longest body of a handshake's frame.
const MAX_HANDSHAKE_BYTES: u32 = 1024;
const CHALLENGE: u8 = 129;
const ANSWER: u8 = 130;
const WELCOME: u8 = 131;

/// Bytes that nobody guesses.
pub fn random<const N: usize>() -> Result<[u8; N], TransferError> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .map_err(|e| TransferError::os("drawing random bytes", e))?;
    }
    Ok(bytes)
}

/// What an agent says of itself in the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Its incarnation.
    pub incarnation: u64,
    /// The host's boot: equal where both ends run on one kernel.
    pub boot: Vec<u8>,
    /// Its Unix socket in the abstract namespace; empty where it has none.
    pub unix_name: Vec<u8>,
    /// Whether it has an RDMA device.
    pub rdma: bool,
}

impl Introduction {
    /// As bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.incarnation.to_le_bytes());
        for bytes in [&self.boot, &self.unix_name] {
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(bytes);
        }
        out.push(u8::from(self.rdma));
    }

    /// From foreign bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let incarnation = reader.u64()?;
        let boot = reader.bytes()?.to_vec();
        let unix_name = reader.bytes()?.to_vec();
        let rdma = reader.byte()? != 0;
        reader.end()?;
        Some(Self { incarnation, boot, unix_name, rdma })
    }
}

fn proof(key: &[u8], role: &[u8], parts: &[&[u8]]) -> Result<Hmac<Sha256>, TransferError> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).map_err(|e| TransferError::os("taking the key", e))?;
    mac.update(role);
    for part in parts {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    Ok(mac)
}

/// The side that was connected to. Returns the peer's incarnation.
pub fn accept(
    socket: &Socket,
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    key: &[u8],
    own: &Introduction,
) -> Result<u64, TransferError> {
    let peer = || "a peer".to_owned();
    let nonce: [u8; 32] = random()?;
    send(socket, writer, CHALLENGE, &[&nonce])?;
    let body = receive(socket, reader, ANSWER)?;
    let mut fields = Reader(&body);
    let answer = (|| Some((fields.take::<32>()?, fields.u64()?, fields.take::<32>()?)))();
    let Some((theirs, incarnation, answer)) = answer else {
        return Err(TransferError::Protocol { peer: peer(), what: "a short answer".into() });
    };
    let said = incarnation.to_le_bytes();
    if proof(key, b"llmd asks", &[&nonce, &theirs, &said])?.verify_slice(&answer).is_err() {
        return Err(TransferError::Unauthenticated { peer: peer() });
    }
    let mut introduction = Vec::new();
    own.encode(&mut introduction);
    let welcome = proof(key, b"llmd serves", &[&theirs, &nonce, &introduction])?;
    send(socket, writer, WELCOME, &[&welcome.finalize().into_bytes(), &introduction])?;
    Ok(incarnation)
}

/// The side that connects. Returns what the peer says of itself.
pub fn connect(
    socket: &Socket,
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    key: &[u8],
    incarnation: u64,
    peer: &str,
) -> Result<Introduction, TransferError> {
    let short = |what: &str| TransferError::Protocol { peer: peer.into(), what: what.into() };
    let body = receive(socket, reader, CHALLENGE)?;
    let theirs: [u8; 32] = Reader(&body).take().ok_or_else(|| short("a short challenge"))?;
    let nonce: [u8; 32] = random()?;
    let said = incarnation.to_le_bytes();
    let answer = proof(key, b"llmd asks", &[&theirs, &nonce, &said])?.finalize().into_bytes();
    send(socket, writer, ANSWER, &[&nonce, &said, &answer])?;
    // Who does not like the answer closes.
    let body = receive(socket, reader, WELCOME).map_err(|error| match error {
        TransferError::PeerGone { .. } => TransferError::Unauthenticated { peer: peer.into() },
        other => other,
    })?;
    let (welcome, introduction) =
        body.split_first_chunk::<32>().ok_or_else(|| short("a short welcome"))?;
    if proof(key, b"llmd serves", &[&nonce, &theirs, introduction])?.verify_slice(welcome).is_err()
    {
        return Err(TransferError::Unauthenticated { peer: peer.into() });
    }
    Introduction::decode(introduction).ok_or_else(|| short("an introduction without meaning"))
}

fn send(
    socket: &Socket,
    writer: &mut FrameWriter,
    kind: u8,
    parts: &[&[u8]],
) -> Result<(), TransferError> {
    let encode = |out: &mut Vec<u8>| {
        parts.iter().for_each(|part| out.extend(*part));
        kind
    };
    writer.send(socket, &[], None, encode).map_err(|lost| lost.error("the peer", 0))
}

fn receive(socket: &Socket, reader: &mut FrameReader, kind: u8) -> Result<Vec<u8>, TransferError> {
    let header: Header = reader.next(socket).map_err(|lost| lost.error("the peer", 0))?;
    if header.kind != kind || header.payload_bytes > 0 || header.body_bytes > MAX_HANDSHAKE_BYTES {
        let what = format!("frame {} in the handshake, not {kind}", header.kind);
        return Err(TransferError::Protocol { peer: "the peer".into(), what });
    }
    Ok(reader.body().to_vec())
}
