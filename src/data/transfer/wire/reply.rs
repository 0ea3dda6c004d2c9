//! What the owner of regions answers.

use super::reader::Reader;
use crate::transfer::{End, TransferError};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done, and the checks held.
    Done,
    /// A block has another epoch.
    Stale {
        /// Which block.
        slot: u32,
        /// The epoch that was asked for.
        expected: u64,
    },
    /// There is no such region.
    UnknownRegion,
    /// A span reaches outside of the region.
    OutOfRange,
    /// The region's memory is not reachable this way.
    Unreachable,
}

impl Verdict {
    /// As the asker's error; done is none.
    pub fn error(self, region: u64, peer: &str) -> Option<TransferError> {
        let refused = |why: &str| TransferError::Refused { peer: peer.into(), why: why.into() };
        Some(match self {
            Self::Done => return None,
            Self::Stale { slot, expected } => {
                TransferError::Stale { end: End::Remote, region, slot, expected }
            }
            Self::UnknownRegion => TransferError::UnknownRegion { region },
            Self::OutOfRange => refused("it has a shorter region of that number"),
            Self::Unreachable => refused("its memory cannot be reached this way"),
        })
    }
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The bytes that a read asked for are behind this frame; a verdict on them follows.
    Data {
        /// The request's number.
        id: u64,
    },
    /// How a move or a grant ended.
    Verdict {
        /// The request's number.
        id: u64,
        /// How.
        verdict: Verdict,
    },
    /// A region's memory, with its files beside the frame: the bytes, then the epochs.
    Attached {
        /// Which region.
        region: u64,
        /// Its length.
        length: u64,
        /// Its blocks, one epoch each.
        blocks: u32,
    },
    /// The region of that number is not there, or cannot be attached.
    NotAttached {
        /// Which region.
        region: u64,
        /// Why.
        verdict: Verdict,
    },
    /// The region is deregistered: unmap it.
    Detached {
        /// Which region.
        region: u64,
    },
    /// For the RDMA path: the owner's queue pair, or nothing where it has no device.
    QueuePair {
        /// The path's own words.
        address: Vec<u8>,
    },
    /// For the RDMA path: where a region's memory is for the asker's device.
    RemoteKey {
        /// Which region.
        region: u64,
        /// Its address there.
        address: u64,
        /// Its key; none if there is no such region.
        key: Option<u32>,
    },
}

const DATA: u8 = 65;
const VERDICT: u8 = 66;
const ATTACHED: u8 = 67;
const NOT_ATTACHED: u8 = 68;
const DETACHED: u8 = 69;
const QUEUE_PAIR: u8 = 70;
const REMOTE_KEY: u8 = 71;

/// The length of a verdict's body.
pub const VERDICT_BYTES: usize = 21;

fn put_verdict(out: &mut Vec<u8>, verdict: Verdict) {
    let (code, slot, expected) = match verdict {
        Verdict::Done => (0, 0, 0),
        Verdict::Stale { slot, expected } => (1u8, slot, expected),
        Verdict::UnknownRegion => (2, 0, 0),
        Verdict::OutOfRange => (3, 0, 0),
        Verdict::Unreachable => (4, 0, 0),
    };
    out.push(code);
    out.extend(slot.to_le_bytes());
    out.extend(expected.to_le_bytes());
}

fn verdict(reader: &mut Reader<'_>) -> Option<Verdict> {
    let (code, slot, expected) = (reader.byte()?, reader.u32()?, reader.u64()?);
    Some(match code {
        0 => Verdict::Done,
        1 => Verdict::Stale { slot, expected },
        2 => Verdict::UnknownRegion,
        3 => Verdict::OutOfRange,
        4 => Verdict::Unreachable,
        _ => return None,
    })
}

impl Reply {
    /// Appends the body; returns the frame's kind.
    pub fn encode(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Self::Data { id } => {
                out.extend(id.to_le_bytes());
                DATA
            }
            Self::Verdict { id, verdict } => {
                out.extend(id.to_le_bytes());
                put_verdict(out, *verdict);
                VERDICT
            }
            Self::Attached { region, length, blocks } => {
                out.extend(region.to_le_bytes());
                out.extend(length.to_le_bytes());
                out.extend(blocks.to_le_bytes());
                ATTACHED
            }
            Self::NotAttached { region, verdict } => {
                out.extend(region.to_le_bytes());
                put_verdict(out, *verdict);
                NOT_ATTACHED
            }
            Self::Detached { region } => {
                out.extend(region.to_le_bytes());
                DETACHED
            }
            Self::QueuePair { address } => {
                out.extend((address.len() as u32).to_le_bytes());
                out.extend(address);
                QUEUE_PAIR
            }
            Self::RemoteKey { region, address, key } => {
                out.extend(region.to_le_bytes());
                out.extend(address.to_le_bytes());
                out.push(u8::from(key.is_some()));
                out.extend(key.unwrap_or(0).to_le_bytes());
                REMOTE_KEY
            }
        }
    }

    /// From foreign bytes.
    pub fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let reply = match kind {
            DATA => Self::Data { id: reader.u64()? },
            VERDICT => Self::Verdict { id: reader.u64()?, verdict: verdict(&mut reader)? },
            ATTACHED => Self::Attached {
                region: reader.u64()?,
                length: reader.u64()?,
                blocks: reader.u32()?,
            },
            NOT_ATTACHED => {
                Self::NotAttached { region: reader.u64()?, verdict: verdict(&mut reader)? }
            }
            DETACHED => Self::Detached { region: reader.u64()? },
            QUEUE_PAIR => Self::QueuePair { address: reader.bytes()?.to_vec() },
            REMOTE_KEY => {
                let (region, address) = (reader.u64()?, reader.u64()?);
                let (given, key) = (reader.byte()? != 0, reader.u32()?);
                Self::RemoteKey { region, address, key: given.then_some(key) }
            }
            _ => return None,
        };
        reader.end()?;
        Some(reply)
    }
}
