//! The two files of a disk tier.

use super::record::{self, Header, RECORD_BYTES, RECORDS_AT};
use crate::kv::StoreError;
use crate::kv::catalogue::{Block, Generation};
use crate::memory::ByteLocks;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What direct IO wants lengths and offsets to be multiples of.
const PAGE: usize = 4096;
/// Records that are read at a time.
const RECORDS_A_READ: usize = 4096;

/// The files, open.
pub struct Files {
    /// One slot after another.
    pub blocks: File,
    /// The header, and one record a slot; through the page cache.
    records: File,
    /// Whether `blocks` goes past the page cache.
    pub direct: bool,
    epoch: u64,
    slots: u32,
    /// Bytes of a slot.
    pub slot_bytes: usize,
}

impl Files {
    /// Opens the files in `folder`, or makes them under `epoch`. A header that cannot be believed
    /// is as none: what the files held is lost.
    pub fn open(
        folder: &Path,
        epoch: u64,
        slots: u64,
        slot_bytes: u64,
    ) -> Result<Self, StoreError> {
        let failed = |action, path: PathBuf| move |source| StoreError::Io { action, path, source };
        std::fs::create_dir_all(folder).map_err(failed("make", folder.into()))?;
        let open = |name: &str, flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.custom_flags(flags).open(folder.join(name))
        };
        let path = folder.join("records");
        let records = open("records", 0).map_err(failed("open", path.clone()))?;
        let (blocks, direct) = match open("blocks", libc::O_DIRECT) {
            Ok(blocks) => (blocks, true),
            // File systems in memory, and some of networks, have no direct IO.
            Err(_) => (open("blocks", 0).map_err(failed("open", folder.join("blocks")))?, false),
        };
        let mut header = Header::new(epoch, slots, slot_bytes);
        // Of processes that make the files at the same time, one writes the header. Who does not
        // get the lock reads it a moment too early at worst, and then holds other records for
        // stale: blocks lost, none mistaken.
        let first = ByteLocks(&records).try_lock(0).unwrap_or(false);
        let mut bytes = [0; size_of::<Header>()];
        let there = records.read_exact_at(&mut bytes, 0).is_ok();
        match Header::decode(&bytes).filter(|_| there) {
            Some(found) if (found.slots, found.slot_bytes) != (slots, slot_bytes) => {
                let other_slots = found.slots != slots;
                let (name, theirs, ours) = if other_slots {
                    ("slots", found.slots, slots)
                } else {
                    ("slot_bytes", found.slot_bytes, slot_bytes)
                };
                return Err(StoreError::Mismatch { path, name, theirs, ours });
            }
            Some(found) => header = found,
            // A disk that takes no header takes no blocks either, which is for puts to count.
            None if first => drop(records.write_all_at(header.encode(), 0)),
            None => {}
        }
        if first {
            let _ = ByteLocks(&records).unlock(0);
        }
        let (slots, slot_bytes) = (slots as u32, slot_bytes as usize);
        Ok(Self { blocks, records, direct, epoch: header.epoch, slots, slot_bytes })
    }

    /// Where a slot's bytes begin.
    pub fn offset(&self, slot: u32) -> u64 {
        u64::from(slot) * self.slot_bytes as u64
    }

    /// What is read or written for a block of `length_bytes`.
    pub fn rounded(&self, length_bytes: u32) -> usize {
        (length_bytes as usize).next_multiple_of(PAGE).min(self.slot_bytes)
    }

    /// Writes down that `block` is in `slot`.
    pub fn record(&self, slot: u32, generation: Generation, block: &Block) -> io::Result<()> {
        let bytes = record::encode(self.epoch, slot, generation, block);
        self.records.write_all_at(&bytes, RECORDS_AT + u64::from(slot) * RECORD_BYTES as u64)
    }

    /// What the records say is where.
    pub fn records(&self) -> Vec<(u32, Block)> {
        let mut blocks = Vec::new();
        let mut bytes = vec![0; RECORDS_A_READ * RECORD_BYTES];
        for first in (0..self.slots).step_by(RECORDS_A_READ) {
            let at = RECORDS_AT + u64::from(first) * RECORD_BYTES as u64;
            let length = read_up_to(&self.records, &mut bytes, at);
            for (number, bytes) in bytes[..length].chunks_exact(RECORD_BYTES).enumerate() {
                let slot = first + number as u32;
                let block = record::decode(bytes, self.epoch, slot, self.slot_bytes as u64);
                blocks.extend(block.filter(|_| slot < self.slots).map(|block| (slot, block)));
            }
            if length < bytes.len() {
                break;
            }
        }
        blocks
    }
}

/// Reads until `bytes` are full or the file ends, and says how much that was.
fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> usize {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], at + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    length
}
