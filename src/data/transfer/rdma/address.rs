//! What a side tells the other of its queue pair.

use super::sys::Gid;
use crate::transfer::wire::reader::Reader;

/// How to reach a queue pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub number: u32,
    pub first: u32,
    pub mtu: u32,
    pub lid: u16,
    pub gid: Gid,
}

impl Address {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(30);
        for number in [self.number, self.first, self.mtu] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.lid.to_le_bytes());
        out.extend(self.gid.0);
        out
    }

    /// From foreign bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (number, first, mtu) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let lid = u16::from_le_bytes(reader.take()?);
        let gid = Gid(reader.take()?);
        reader.end()?;
        Some(Self { number, first, mtu, lid, gid })
    }
}
