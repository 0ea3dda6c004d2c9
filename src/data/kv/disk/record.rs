//! What the disk says of itself: one header a file, and one record a slot. They are read back after
//! a restart, and whatever is wrong with one makes it no record.

use crate::kv::catalogue::{Block, Generation};
use bytemuck::{Pod, Zeroable};
use xxhash_rust::xxh3::xxh3_64;

const HEADER_MAGIC: u64 = u64::from_le_bytes(*b"llmdkvd1");
const RECORD_MAGIC: u64 = u64::from_le_bytes(*b"llmdkvr1");
/// Where the first record is.
pub const RECORDS_AT: u64 = 4096;
/// Bytes from one record to the next; a power of two, so that none lies in two pages.
pub const RECORD_BYTES: usize = 128;

/// What the file of records begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    magic: u64,
    /// Drawn when the files were made: records that another life of them left do not count.
    pub epoch: u64,
    /// How many slots.
    pub slots: u64,
    /// Bytes of each.
    pub slot_bytes: u64,
    check: u64,
}

impl Header {
    /// The header of new files.
    pub fn new(epoch: u64, slots: u64, slot_bytes: u64) -> Self {
        let mut header = Self { magic: HEADER_MAGIC, epoch, slots, slot_bytes, check: 0 };
        header.check = header.checksum();
        header
    }

    fn checksum(&self) -> u64 {
        xxh3_64(bytemuck::bytes_of(&Self { check: 0, ..*self }))
    }

    /// As bytes of a file.
    pub fn encode(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    /// The header in `bytes`, if it is one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header: Self = bytemuck::pod_read_unaligned(bytes.get(..size_of::<Self>())?);
        (header.magic == HEADER_MAGIC && header.check == header.checksum()).then_some(header)
    }
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Record {
    magic: u64,
    epoch: u64,
    slot: u64,
    generation: u64,
    block: Block,
    check: u64,
}

/// The record of `block` in `slot`, under `epoch`. `generation` tells it from earlier ones.
pub fn encode(epoch: u64, slot: u32, generation: Generation, block: &Block) -> [u8; RECORD_BYTES] {
    let mut record = Record {
        magic: RECORD_MAGIC,
        epoch,
        slot: slot.into(),
        generation: generation.0,
        block: *block,
        check: 0,
    };
    record.check = xxh3_64(bytemuck::bytes_of(&record));
    let mut bytes = [0; RECORD_BYTES];
    bytes[..size_of::<Record>()].copy_from_slice(bytemuck::bytes_of(&record));
    bytes
}

/// The block that `bytes` say is in `slot`; `None` if they say nothing that can be believed: torn,
/// damaged, of another place or of another epoch.
pub fn decode(bytes: &[u8], epoch: u64, slot: u32, slot_bytes: u64) -> Option<Block> {
    let record: Record = bytemuck::pod_read_unaligned(bytes.get(..size_of::<Record>())?);
    let whole = record.magic == RECORD_MAGIC
        && record.check == xxh3_64(bytemuck::bytes_of(&Record { check: 0, ..record }));
    let own = record.epoch == epoch && record.slot == u64::from(slot);
    let fits = u64::from(record.block.length_bytes) <= slot_bytes;
    (whole && own && fits).then_some(record.block)
}
