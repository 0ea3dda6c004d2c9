//! What a region of device memory sends along so that peers can open it.

use crate::transfer::TransferError;
use crate::transfer::wire::auth;
use std::sync::OnceLock;

/// The handle's fields, one behind the other as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    /// Which process made it: the driver opens no process' own handles.
    pub process: [u8; 8],
    /// The allocation's number within that process.
    pub allocation: u64,
    /// Whose memory it is.
    pub device: [u8; 16],
    /// The driver's handle of the allocation.
    pub memory: [u8; 64],
    /// The driver's handle of the event behind the last writes.
    pub ready: [u8; 64],
    /// Where the region begins in the allocation.
    pub offset: u64,
}

const BYTES: usize = 8 + 8 + 16 + 64 + 64 + 8;

impl Handle {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend(self.process);
        out.extend(self.allocation.to_le_bytes());
        out.extend(self.device);
        out.extend(self.memory);
        out.extend(self.ready);
        out.extend(self.offset.to_le_bytes());
        out
    }

    /// From a peer's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, TransferError> {
        let wrong = || TransferError::Protocol {
            peer: "a region".into(),
            what: format!("a CUDA handle of {} bytes instead of {BYTES}", bytes.len()),
        };
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (taken, rest) = bytes.split_first_chunk::<N>()?;
            *bytes = rest;
            Some(*taken)
        }
        let mut rest = bytes;
        let rest = &mut rest;
        let mut fields = || {
            Some(Self {
                process: take(rest)?,
                allocation: take(rest).map(u64::from_le_bytes)?,
                device: take(rest)?,
                memory: take(rest)?,
                ready: take(rest)?,
                offset: take(rest).map(u64::from_le_bytes)?,
            })
        };
        fields().filter(|_| bytes.len() == BYTES).ok_or_else(wrong)
    }
}

/// A number that no other process has.
pub(super) fn this_process() -> Result<[u8; 8], TransferError> {
    static THIS: OnceLock<[u8; 8]> = OnceLock::new();
    match THIS.get() {
        Some(this) => Ok(*this),
        None => {
            let drawn = auth::random()?;
            Ok(*THIS.get_or_init(|| drawn))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_read_as_they_were_written_and_at_no_other_length() {
        let handle = Handle {
            process: [1; 8],
            allocation: 2,
            device: [3; 16],
            memory: [4; 64],
            ready: [5; 64],
            offset: 6,
        };
        let mut bytes = handle.encode();
        assert_eq!(Handle::decode(&bytes), Ok(handle));
        assert!(Handle::decode(&bytes[1..]).is_err());
        bytes.push(0);
        assert!(Handle::decode(&bytes).is_err());
    }
}
