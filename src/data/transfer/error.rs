//! What can go wrong with a transfer.

use super::{Op, PathKind};

/// Which end of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The agent that posts.
    Local,
    /// The peer whose memory is read or written.
    Remote,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Remote => "remote",
        })
    }
}

/// Why a transfer, or what prepares one, failed. After any of these the bytes at the destination
/// are undefined, and nothing writes to them any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// A block holds other content than the one that was meant.
    #[error(
        "the {end} block {slot} of region {region:#x} is no more of epoch {expected}: ask again \
         where the content is, or compute it"
    )]
    Stale {
        /// Whose block.
        end: End,
        /// Its region.
        region: u64,
        /// Its number within the region.
        slot: u32,
        /// The epoch that the descriptor named.
        expected: u64,
    },
    /// A block cannot get other content while transfers use it.
    #[error(
        "block {slot} is in use by {transfers} transfers: take another block, or cancel them and \
         wait for their end"
    )]
    InUse {
        /// Its number within the region.
        slot: u32,
        /// How many transfers hold it.
        transfers: u64,
    },
    /// A descriptor reaches outside of its region.
    #[error(
        "{bytes} bytes at offset {offset} reach outside of the {end} region's {length} bytes: \
         descriptors are offsets from the region's start"
    )]
    OutOfRange {
        /// Whose region.
        end: End,
        /// Where the descriptor starts.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// The region's length.
        length: u64,
    },
    /// A descriptor covers parts of two blocks, or nothing.
    #[error(
        "{bytes} bytes at offset {offset} are not within one {end} block of {block_bytes} bytes: \
         give a descriptor a block, adjacent ones are merged"
    )]
    NotOneBlock {
        /// Whose block.
        end: End,
        /// Where the descriptor starts.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// What the region calls a block.
        block_bytes: u64,
    },
    /// Two descriptors of one transfer expect different contents of a block.
    #[error("descriptors expect epochs {first} and {second} of the {end} block {slot}: one is old")]
    TwoEpochs {
        /// Whose block.
        end: End,
        /// Its number within the region.
        slot: u32,
        /// What one descriptor says.
        first: u64,
        /// What another says.
        second: u64,
    },
    /// A part touches more blocks than the peer can be asked about at once.
    #[error("a part touches {blocks} blocks, at most {limit} can be: post it as several parts")]
    TooManyBlocks {
        /// How many.
        blocks: usize,
        /// How many may be.
        limit: usize,
    },
    /// A region's memory and its layout disagree.
    #[error(
        "{length} bytes are no whole number of layers of {blocks} blocks of {block_bytes} bytes"
    )]
    Layout {
        /// The memory's length.
        length: u64,
        /// Blocks in a layer.
        blocks: u32,
        /// Bytes of a block in a layer.
        block_bytes: u64,
    },
    /// The owner has no such region, or no more.
    #[error("the peer has no region {region:#x} (any more): get its present descriptor")]
    UnknownRegion {
        /// The region.
        region: u64,
    },
    /// The region's owner restarted.
    #[error(
        "the region belongs to incarnation {expected:#x}, but the peer is {found:#x}, it \
         restarted: what it held is gone, connect and exchange regions again"
    )]
    Restarted {
        /// The incarnation that the region's descriptor names.
        expected: u64,
        /// The one that answers.
        found: u64,
    },
    /// No path can carry this.
    #[error("no path carries this {op} to {peer}: {why}")]
    NoPath {
        /// What was asked for.
        op: Op,
        /// The peer.
        peer: String,
        /// Each path with its reason.
        why: String,
    },
    /// The path that was required cannot carry this.
    #[error("{required} is required to {peer}, but {why}")]
    Required {
        /// What was required.
        required: PathKind,
        /// The peer.
        peer: String,
        /// Why that path is not there.
        why: String,
    },
    /// The peer, or the connection to it, is gone.
    #[error("lost {peer}: {why}; connect again")]
    PeerGone {
        /// The peer.
        peer: String,
        /// What was seen.
        why: String,
    },
    /// The peer answered nothing for too long; the connection is closed.
    #[error("{peer} answered nothing for {waited_ms} ms: connect again, or raise stall_timeout")]
    Stalled {
        /// The peer.
        peer: String,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The peer does not know the key.
    #[error("{peer} failed the handshake: give both ends the same key")]
    Unauthenticated {
        /// The peer.
        peer: String,
    },
    /// An address that others can reach, and no key.
    #[error("listening on {address} without a key lets anyone read KV blocks: set a key")]
    KeyRequired {
        /// The address.
        address: String,
    },
    /// The peer sent what the protocol has no place for; the connection is closed.
    #[error("{peer} broke the protocol: {what}")]
    Protocol {
        /// The peer.
        peer: String,
        /// What it sent.
        what: String,
    },
    /// The peer refused for a reason of its own.
    #[error("{peer} refused: {why}")]
    Refused {
        /// The peer.
        peer: String,
        /// Its words.
        why: String,
    },
    /// The transfer was cancelled, or its handle dropped.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// A part was posted twice, or does not exist.
    #[error("part {part} of {parts} was posted already or does not exist")]
    NoSuchPart {
        /// The part.
        part: usize,
        /// How many there are.
        parts: usize,
    },
    /// A device or its driver failed.
    #[error("{device}: {what}")]
    Device {
        /// Which.
        device: String,
        /// What it said.
        what: String,
    },
    /// The operating system refused.
    #[error("{doing}: {why}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        why: String,
    },
}

impl TransferError {
    /// The system's refusal of `doing`.
    pub fn os(doing: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Os { doing, why: why.to_string() }
    }
}
