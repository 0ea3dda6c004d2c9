//! The tier on a disk: a file of slots, and a file with a record of what is in each.
//!
//! Its books are in shared memory like the host tier's, so all processes of a node share them; the
//! records are there for when that memory has gone. Bytes are written before their record, the
//! record before the books say so. Nothing is flushed: after a crash of the machine a record may
//! lie about its bytes, which their checksum shows. What the disk refuses or garbles is a miss.
//!
//! Bytes go past the page cache (O_DIRECT) where the file system allows it: the host tier is the
//! cache, and a second one would cost memory and copies.
//!
//! Not foyer, a hybrid cache with a disk engine: it keeps its index in one process, and a cache of
//! a node's engines needs one that they share and that survives any of them. Slots, not a log of
//! segments: blocks of a store are of one size, so there is nothing to compact.

mod batch;
mod files;
pub mod record;
#[cfg(test)]
mod tests;

use super::books::{BLOCKS_A_HOLD, Counters, Found, Settings, SharedBooks};
use super::catalogue::Block;
use super::eviction::Algorithm;
use super::host::checksum_of;
use super::{BlockKey, StoreError};
use batch::{Batches, Piece, Way};
use files::Files;
use memmap2::MmapMut;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

/// Longest memory for blocks on their way.
const SCRATCH_BYTES: usize = 16 << 20;

/// The tier, attached.
pub struct DiskTier {
    books: SharedBooks,
    files: Files,
    batches: Batches,
    /// Memory for blocks on their way, between calls: to map it anew would cost a fault a page.
    scratch: Mutex<Option<MmapMut>>,
}

impl DiskTier {
    /// Attaches to the files in `folder`, or makes them, with their books in shared memory at
    /// `books`. Where the books are new, whatever the files still hold is entered into them.
    ///
    /// # Errors
    /// [`StoreError`]: other settings than the files', or files that cannot be made.
    pub fn open(
        books: &Path,
        folder: &Path,
        slots: u64,
        slot_bytes: u64,
        algorithm: Algorithm,
    ) -> Result<Self, StoreError> {
        let algorithm = algorithm as u64;
        let settings = Settings { slots, slot_bytes, memory_bytes: 0, algorithm };
        let books = SharedBooks::open(books, settings)?;
        let files = Files::open(folder, books.epoch(), slots, slot_bytes)?;
        let tier = Self { books, files, batches: Batches::new(), scratch: Mutex::default() };
        if tier.books.filled().load(Ordering::Acquire) == 0 {
            tier.recover();
        }
        Ok(tier)
    }

    /// Its books.
    #[must_use]
    pub const fn books(&self) -> &SharedBooks {
        &self.books
    }

    /// Whether it goes past the page cache.
    #[must_use]
    pub const fn direct(&self) -> bool {
        self.files.direct
    }

    /// Whether the kernel lets it queue its requests.
    #[must_use]
    pub fn uring() -> bool {
        Batches::uring()
    }

    /// Enters what the records say into new books.
    fn recover(&self) {
        let blocks = self.files.records();
        let Some(mut guard) = self.books.enter() else { return };
        {
            let mut books = guard.catalogue();
            for (slot, block) in blocks {
                books.adopt(slot, block);
            }
        }
        guard.rebuild();
        self.books.filled().store(1, Ordering::Release);
    }

    /// Reads blocks, and gives each that is there, by its place in `keys`, to `each`.
    pub fn get(&self, keys: &[BlockKey], mut each: impl FnMut(usize, &Block, &[u8])) {
        let counters = self.books.counters();
        let mut hits = 0;
        let blocks_a_time = self.blocks_a_time();
        let mut scratch = self.take_scratch();
        let found = keys.chunks(BLOCKS_A_HOLD).flat_map(|some| self.books.look_up(some));
        let found: Vec<(usize, Found)> =
            found.enumerate().filter_map(|(at, found)| Some((at, found?))).collect();
        for few in found.chunks(blocks_a_time) {
            let Some(scratch) = self.scratch(&mut scratch, few.len()) else { break };
            let slot_bytes = self.files.slot_bytes;
            let places = scratch.chunks_mut(slot_bytes);
            let mut pieces: Vec<Piece<'_>> = few
                .iter()
                .zip(places)
                .map(|((_, (slot, _, block)), place)| Piece {
                    offset: self.files.offset(*slot),
                    bytes: &mut place[..self.files.rounded(block.length_bytes)],
                })
                .collect();
            self.batches.run(&self.files.blocks, Way::Read, &mut pieces, |nth, read, bytes| {
                let (at, (slot, generation, block)) = few[nth];
                let bytes = &bytes[..block.length_bytes as usize];
                if !read {
                    Counters::add(&counters.failed_io, 1);
                } else if self.books.generation(slot) != generation {
                    Counters::add(&counters.overtaken, 1);
                } else if checksum_of(bytes) != block.checksum {
                    self.books.forget_corrupt(slot, generation);
                } else {
                    hits += 1;
                    each(at, &block, bytes);
                }
            });
        }
        self.give_scratch_back(scratch);
        Counters::add(&counters.hits, hits);
        Counters::add(&counters.misses, keys.len() - hits);
    }

    /// Writes `blocks`, whose bytes `copy` copies (false: they are not to be had), and says how
    /// many it stored.
    pub fn put(&self, blocks: &[Block], mut copy: impl FnMut(usize, &mut [u8]) -> bool) -> usize {
        let mut stored = 0;
        let at_once = self.blocks_a_time().min(BLOCKS_A_HOLD);
        let mut scratch = self.take_scratch();
        for (part, some) in blocks.chunks(at_once).enumerate() {
            let names: Vec<_> = some.iter().map(|block| (block.key, block.parent)).collect();
            let (tickets, _) = self.books.reserve(&names);
            let Some(scratch) = self.scratch(&mut scratch, tickets.len()) else {
                let tickets: Vec<_> = tickets.into_iter().map(|(_, ticket)| ticket).collect();
                self.books.abandon(&tickets);
                break;
            };
            let places = scratch.chunks_mut(self.files.slot_bytes);
            let (mut given_back, mut taken, mut pieces) = (Vec::new(), Vec::new(), Vec::new());
            for ((at, ticket), place) in tickets.into_iter().zip(places) {
                let block = some[at];
                if !copy(part * at_once + at, &mut place[..block.length_bytes as usize]) {
                    given_back.push(ticket);
                    continue;
                }
                let bytes = &mut place[..self.files.rounded(block.length_bytes)];
                pieces.push(Piece { offset: self.files.offset(ticket.slot), bytes });
                taken.push((ticket, block));
            }
            let mut filled = Vec::new();
            self.batches.run(&self.files.blocks, Way::Write, &mut pieces, |nth, written, _| {
                let (ticket, block) = taken[nth];
                if written && self.files.record(ticket.slot, ticket.generation, &block).is_ok() {
                    filled.push((ticket, block));
                } else {
                    Counters::add(&self.books.counters().failed_io, 1);
                    given_back.push(ticket);
                }
            });
            self.books.abandon(&given_back);
            stored += self.books.commit(&filled);
        }
        self.give_scratch_back(scratch);
        stored
    }

    fn blocks_a_time(&self) -> usize {
        (SCRATCH_BYTES / self.files.slot_bytes).clamp(1, 4 * BLOCKS_A_HOLD)
    }

    fn take_scratch(&self) -> Option<MmapMut> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn give_scratch_back(&self, scratch: Option<MmapMut>) {
        *self.scratch.lock().unwrap_or_else(PoisonError::into_inner) = scratch;
    }

    /// Memory for `blocks`, aligned as O_DIRECT wants it: mapped, so it begins at a page.
    fn scratch<'a>(&self, held: &'a mut Option<MmapMut>, blocks: usize) -> Option<&'a mut [u8]> {
        if held.is_none() {
            *held = MmapMut::map_anon(self.blocks_a_time() * self.files.slot_bytes).ok();
        }
        held.as_mut().map(|all| &mut all[..blocks * self.files.slot_bytes])
    }
}
