//! Frames: a header of fixed length, a body, and bytes of blocks behind it.

/// The header's length.
pub const HEADER_BYTES: usize = 24;
/// Longest body: the spans of one request.
pub const MAX_BODY_BYTES: u32 = 1 << 20;
/// Most bytes of blocks behind one frame.
pub const MAX_PAYLOAD_BYTES: u64 = 64 << 20;
/// Begins every header. Its last byte is the protocol's version.
const MAGIC: [u8; 4] = *b"KVx\x01";

/// What stands before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the body is; each direction has its own kinds.
    pub kind: u8,
    /// The body's length.
    pub body_bytes: u32,
    /// How many bytes of blocks follow the body.
    pub payload_bytes: u64,
    /// The frame's number on this connection and in this direction, modulo 2^32.
    pub sequence: u32,
}

impl Header {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = self.kind;
        out[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[12..20].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[20..].copy_from_slice(&self.sequence.to_le_bytes());
        out
    }

    /// From foreign bytes; `sequence` is the number that must come next.
    pub fn decode(bytes: &[u8; HEADER_BYTES], sequence: u32) -> Result<Self, String> {
        let mut reader = super::reader::Reader(bytes);
        let magic: Option<[u8; 4]> = reader.take();
        if magic != Some(MAGIC) {
            return Err(format!("a frame begins with {:02x?}, not {MAGIC:02x?}", &bytes[..4]));
        }
        let fields = || {
            let [kind, ..] = reader.take::<4>()?;
            let (body_bytes, payload_bytes) = (reader.u32()?, reader.u64()?);
            Some(Self { kind, body_bytes, payload_bytes, sequence: reader.u32()? })
        };
        let mut fields = fields;
        let header = fields().ok_or("a short header")?;
        if header.sequence != sequence {
            return Err(format!("frame {} came where {sequence} should", header.sequence));
        }
        if header.body_bytes > MAX_BODY_BYTES || header.payload_bytes > MAX_PAYLOAD_BYTES {
            return Err(format!(
                "a frame of {} + {} bytes",
                header.body_bytes, header.payload_bytes
            ));
        }
        Ok(header)
    }
}
