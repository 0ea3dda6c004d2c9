//! Frames: a flags byte, a length of one or eight bytes, a body.

use super::ZmtpError;
use bytes::{Buf, BufMut, Bytes, BytesMut};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Bounds on what a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest message, all frames together, in bytes.
    pub max_message_bytes: usize,
    /// Most frames in one message.
    pub max_message_frames: usize,
    /// Longest command, in bytes.
    pub max_command_bytes: usize,
}

impl Default for Limits {
    /// 64 MiB (a million-token prompt's event is about 6 MB), 16 frames, 64 KiB.
    fn default() -> Self {
        Self { max_message_bytes: 64 << 20, max_message_frames: 16, max_command_bytes: 64 << 10 }
    }
}

/// One frame as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub more: bool,
    pub command: bool,
    pub body: Bytes,
}

/// Takes one whole frame off the front of `input`, if it is there. `message_budget` is what the
/// message in progress may still grow by; a longer frame is refused at its header.
pub(super) fn decode(
    input: &mut BytesMut,
    limits: &Limits,
    message_budget: usize,
) -> Result<Option<Frame>, ZmtpError> {
    let Some(&flags) = input.first() else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 {
        return Err(ZmtpError::Protocol(format!("frame flags {flags:#04x}")));
    }
    let command = flags & COMMAND != 0;
    if command && flags & MORE != 0 {
        return Err(ZmtpError::Protocol("a command with the MORE flag".into()));
    }
    let (header_bytes, length) = if flags & LONG == 0 {
        let Some(&length) = input.get(1) else { return Ok(None) };
        (2, u64::from(length))
    } else {
        let Some(length) = input.get(1..).and_then(<[u8]>::first_chunk::<8>) else {
            return Ok(None);
        };
        (9, u64::from_be_bytes(*length))
    };
    let (what, limit) =
        if command { ("a command", limits.max_command_bytes) } else { ("a frame", message_budget) };
    let body_bytes = match usize::try_from(length) {
        Ok(bytes) if bytes <= limit => bytes,
        _ => return Err(ZmtpError::TooLarge { what, bytes: length, limit }),
    };
    if input.len() - header_bytes < body_bytes {
        return Ok(None);
    }
    input.advance(header_bytes);
    let body = input.split_to(body_bytes).freeze();
    Ok(Some(Frame { more: flags & MORE != 0, command, body }))
}

/// Appends a frame.
pub(super) fn encode(out: &mut BytesMut, more: bool, command: bool, body: &[u8]) {
    let flags = if more { MORE } else { 0 } | if command { COMMAND } else { 0 };
    out.reserve(body.len() + 9);
    match u8::try_from(body.len()) {
        Ok(length) => {
            out.put_u8(flags);
            out.put_u8(length);
        }
        Err(_) => {
            out.put_u8(flags | LONG);
            out.put_u64(body.len() as u64);
        }
    }
    out.put_slice(body);
}

/// Appends a message, one frame an item.
pub(super) fn encode_message(out: &mut BytesMut, frames: &[Bytes]) {
    let last = frames.len().saturating_sub(1);
    for (i, frame) in frames.iter().enumerate() {
        encode(out, i < last, false, frame);
    }
}
