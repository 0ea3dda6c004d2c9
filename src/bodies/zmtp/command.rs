//! Commands: frames by which the sockets themselves talk.

use super::{SocketType, ZmtpError, frame};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A command of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Ends the handshake.
    Ready { socket_type: String, identity: Bytes },
    /// The handshake is refused.
    Error(String),
    /// Messages whose first frame starts with this.
    Subscribe(Bytes),
    /// No longer.
    Cancel(Bytes),
    /// To be answered with a pong that carries the same context.
    Ping(Bytes),
    /// The answer.
    Pong,
    /// Anything else: skipped, as RFC 37 leaves room for more.
    Unknown,
}

/// Longest ping context that a peer may ask to have echoed (RFC 37).
const MAX_PING_CONTEXT_BYTES: usize = 16;

pub(super) fn parse(mut body: Bytes) -> Result<Command, ZmtpError> {
    let name = take_short(&mut body).ok_or_else(|| broken("a command without a name"))?;
    Ok(match &name[..] {
        b"READY" => ready(body)?,
        b"ERROR" => {
            let reason = take_short(&mut body).unwrap_or_default();
            Command::Error(String::from_utf8_lossy(&reason).into_owned())
        }
        b"SUBSCRIBE" => Command::Subscribe(body),
        b"CANCEL" => Command::Cancel(body),
        b"PING" => {
            if body.len() < 2 || body.len() - 2 > MAX_PING_CONTEXT_BYTES {
                return Err(broken("a PING of the wrong length"));
            }
            body.advance(2);
            Command::Ping(body)
        }
        b"PONG" => Command::Pong,
        _ => Command::Unknown,
    })
}

/// Metadata of READY: `name-length name value-length(u32) value`, repeated. Names are
/// case-insensitive.
fn ready(mut body: Bytes) -> Result<Command, ZmtpError> {
    let (mut socket_type, mut identity) = (String::new(), Bytes::new());
    while !body.is_empty() {
        let name = take_short(&mut body).ok_or_else(|| broken("READY ends in a name"))?;
        if body.len() < 4 {
            return Err(broken("READY ends in a value's length"));
        }
        let length = body.get_u32() as usize;
        if length > body.len() {
            return Err(broken("READY ends in a value"));
        }
        let value = body.split_to(length);
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            socket_type = String::from_utf8_lossy(&value).into_owned();
        } else if name.eq_ignore_ascii_case(b"Identity") {
            if value.len() > 255 {
                return Err(broken("an identity of more than 255 bytes"));
            }
            identity = value;
        }
    }
    Ok(Command::Ready { socket_type, identity })
}

fn take_short(body: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(*body.first()?);
    (body.len() > length).then(|| {
        body.advance(1);
        body.split_to(length)
    })
}

fn broken(what: &str) -> ZmtpError {
    ZmtpError::Protocol(what.into())
}

pub(super) fn encode_ready(out: &mut BytesMut, socket_type: SocketType, identity: &[u8]) {
    let mut body = BytesMut::from(&b"\x05READY"[..]);
    let mut property = |name: &[u8], value: &[u8]| {
        body.put_u8(name.len() as u8);
        body.put_slice(name);
        body.put_u32(value.len() as u32);
        body.put_slice(value);
    };
    property(b"Socket-Type", socket_type.name().as_bytes());
    if matches!(socket_type, SocketType::Dealer | SocketType::Router) {
        property(b"Identity", identity);
    }
    frame::encode(out, false, true, &body);
}

/// ZMTP 3.1 subscribes by a command; 3.0 by a message that starts with 1.
pub(super) fn encode_subscribe(out: &mut BytesMut, minor: u8, topic: &[u8]) {
    if minor >= 1 {
        frame::encode(out, false, true, &[&b"\x09SUBSCRIBE"[..], topic].concat());
    } else {
        frame::encode(out, false, false, &[&b"\x01"[..], topic].concat());
    }
}

/// With a time to live of 0, "none": a peer would apply it to our silence, and a client that is
/// busy receiving has no reason to speak.
pub(super) fn encode_ping(out: &mut BytesMut) {
    frame::encode(out, false, true, b"\x04PING\0\0");
}

pub(super) fn encode_pong(out: &mut BytesMut, context: &[u8]) {
    frame::encode(out, false, true, &[&b"\x04PONG"[..], context].concat());
}
