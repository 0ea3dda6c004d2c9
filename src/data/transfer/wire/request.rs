//! What a peer asks of the owner of regions.

use super::reader::Reader;
use crate::transfer::Op;
use crate::transfer::descriptor::Check;

/// A range of the owner's region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From the region's start.
    pub offset: u64,
    /// How long.
    pub bytes: u32,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Send these bytes, or take those behind this frame, if the checks hold before and after.
    Move {
        /// Which of the two.
        op: Op,
        /// The asker's number for it.
        id: u64,
        /// Whose region.
        region: u64,
        /// What must hold.
        checks: Vec<Check>,
        /// Which bytes, in the payload's order.
        spans: Vec<Span>,
    },
    /// Hold these blocks for the asker, who writes to them itself.
    Grant {
        /// The asker's number for it.
        id: u64,
        /// Whose region.
        region: u64,
        /// What to hold.
        checks: Vec<Check>,
    },
    /// The asker writes no more under that grant.
    Release {
        /// The grant's number.
        id: u64,
    },
    /// Hand over a region's memory, so that the asker can map it.
    Attach {
        /// Which.
        region: u64,
    },
    /// A part of a tagged transfer is done.
    Notify {
        /// Which way its bytes went, from the asker's view.
        op: Op,
        /// The transfer's tag.
        tag: u64,
        /// The part's number.
        part: u32,
        /// Its bytes.
        bytes: u64,
    },
    /// For the RDMA path: how to reach the asker's queue pair.
    QueuePair {
        /// The path's own words.
        address: Vec<u8>,
    },
    /// For the RDMA path: how to reach a region's memory.
    RemoteKey {
        /// Which region.
        region: u64,
    },
}

const READ: u8 = 1;
const WRITE: u8 = 2;
const GRANT: u8 = 3;
const RELEASE: u8 = 4;
const ATTACH: u8 = 5;
const NOTIFY: u8 = 6;
const QUEUE_PAIR: u8 = 7;
const REMOTE_KEY: u8 = 8;

fn put_checks(out: &mut Vec<u8>, checks: &[Check]) {
    out.extend((checks.len() as u32).to_le_bytes());
    for check in checks {
        out.extend(check.slot.to_le_bytes());
        out.extend(check.epoch.to_le_bytes());
    }
}

fn checks(reader: &mut Reader<'_>) -> Option<Vec<Check>> {
    let count = reader.count(12)?;
    (0..count).map(|_| Some(Check { slot: reader.u32()?, epoch: reader.u64()? })).collect()
}

/// The body of [`Request::Move`], from what the asker has at hand.
pub fn put_move(
    out: &mut Vec<u8>,
    op: Op,
    id: u64,
    region: u64,
    checks: &[Check],
    spans: impl ExactSizeIterator<Item = Span>,
) -> u8 {
    out.extend(id.to_le_bytes());
    out.extend(region.to_le_bytes());
    put_checks(out, checks);
    out.extend((spans.len() as u32).to_le_bytes());
    for span in spans {
        out.extend(span.offset.to_le_bytes());
        out.extend(span.bytes.to_le_bytes());
    }
    match op {
        Op::Read => READ,
        Op::Write => WRITE,
    }
}

impl Request {
    /// Appends the body; returns the frame's kind.
    pub fn encode(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Self::Move { op, id, region, checks, spans } => {
                put_move(out, *op, *id, *region, checks, spans.iter().copied())
            }
            Self::Grant { id, region, checks } => {
                out.extend(id.to_le_bytes());
                out.extend(region.to_le_bytes());
                put_checks(out, checks);
                GRANT
            }
            Self::Release { id } => {
                out.extend(id.to_le_bytes());
                RELEASE
            }
            Self::Attach { region } => {
                out.extend(region.to_le_bytes());
                ATTACH
            }
            Self::Notify { op, tag, part, bytes } => {
                out.push(u8::from(*op == Op::Write));
                out.extend(tag.to_le_bytes());
                out.extend(part.to_le_bytes());
                out.extend(bytes.to_le_bytes());
                NOTIFY
            }
            Self::QueuePair { address } => {
                out.extend((address.len() as u32).to_le_bytes());
                out.extend(address);
                QUEUE_PAIR
            }
            Self::RemoteKey { region } => {
                out.extend(region.to_le_bytes());
                REMOTE_KEY
            }
        }
    }

    /// From foreign bytes.
    pub fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let request = match kind {
            READ | WRITE => {
                let op = if kind == READ { Op::Read } else { Op::Write };
                let (id, region) = (reader.u64()?, reader.u64()?);
                let checks = checks(&mut reader)?;
                let count = reader.count(12)?;
                let span = |_| Some(Span { offset: reader.u64()?, bytes: reader.u32()? });
                let spans = (0..count).map(span).collect::<Option<_>>()?;
                Self::Move { op, id, region, checks, spans }
            }
            GRANT => Self::Grant {
                id: reader.u64()?,
                region: reader.u64()?,
                checks: checks(&mut reader)?,
            },
            RELEASE => Self::Release { id: reader.u64()? },
            ATTACH => Self::Attach { region: reader.u64()? },
            NOTIFY => Self::Notify {
                op: if reader.byte()? == 0 { Op::Read } else { Op::Write },
                tag: reader.u64()?,
                part: reader.u32()?,
                bytes: reader.u64()?,
            },
            QUEUE_PAIR => Self::QueuePair { address: reader.bytes()?.to_vec() },
            REMOTE_KEY => Self::RemoteKey { region: reader.u64()? },
            _ => return None,
        };
        reader.end()?;
        Some(request)
    }
}
