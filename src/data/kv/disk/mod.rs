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
use batch::{Batches, Request, Stage, Way};
use files::Files;
use memmap2::MmapMut;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

/// Memory for blocks on their way, where it is enough for two at least.
const SCRATCH_BYTES: usize = 32 << 20;
/// As many blocks on their way or looked at as are of use.
const MOST_BUFFERS: usize = 128;

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
        let found = keys.chunks(BLOCKS_A_HOLD).flat_map(|some| self.books.look_up(some));
        let found: Vec<(usize, Found)> =
            found.enumerate().filter_map(|(at, found)| Some((at, found?))).collect();
        let request = |(_, (slot, _, block)): &(usize, Found)| self.request(*slot, block);
        let requests: Vec<Request> = found.iter().map(request).collect();
        let mut hits = 0;
        self.run(Way::Read, &requests, |nth, stage, bytes| {
            let Stage::Ended(read) = stage else { return true };
            let (at, (slot, generation, block)) = found[nth];
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
            true
        });
        Counters::add(&counters.hits, hits);
        Counters::add(&counters.misses, keys.len() - hits);
    }

    /// Writes `blocks`, whose bytes `copy` copies (false: they are not to be had), and says how
    /// many it stored.
    pub fn put(&self, blocks: &[Block], mut copy: impl FnMut(usize, &mut [u8]) -> bool) -> usize {
        let mut stored = 0;
        for (part, some) in blocks.chunks(BLOCKS_A_HOLD).enumerate() {
            let names: Vec<_> = some.iter().map(|block| (block.key, block.parent)).collect();
            let (tickets, _) = self.books.reserve(&names);
            let requests: Vec<Request> =
                tickets.iter().map(|(at, ticket)| self.request(ticket.slot, &some[*at])).collect();
            let mut filled = Vec::new();
            self.run(Way::Write, &requests, |nth, stage, bytes| {
                let (at, ticket) = tickets[nth];
                let block = some[at];
                match stage {
                    Stage::Next => {
                        let bytes = &mut bytes[..block.length_bytes as usize];
                        return copy(part * BLOCKS_A_HOLD + at, bytes);
                    }
                    Stage::Ended(true)
                        if self.files.record(ticket.slot, ticket.generation, &block).is_ok() =>
                    {
                        filled.push((ticket, block));
                    }
                    Stage::Ended(_) => Counters::add(&self.books.counters().failed_io, 1),
                }
                true
            });
            stored += self.books.commit(&filled);
            // Of what was not written, whatever the reason; what was committed is not the ticket's.
            let tickets: Vec<_> = tickets.into_iter().map(|(_, ticket)| ticket).collect();
            if filled.len() < tickets.len() {
                self.books.abandon(&tickets);
            }
        }
        stored
    }

    fn request(&self, slot: u32, block: &Block) -> Request {
        Request { offset: self.files.offset(slot), bytes: self.files.rounded(block.length_bytes) }
    }

    /// Runs `requests` through scratch memory; where there is none, each fails.
    fn run(
        &self,
        way: Way,
        requests: &[Request],
        step: impl FnMut(usize, Stage, &mut [u8]) -> bool,
    ) {
        if requests.is_empty() {
            return;
        }
        let slot_bytes = self.files.slot_bytes;
        let held = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let buffers = (SCRATCH_BYTES / slot_bytes).clamp(2, MOST_BUFFERS);
        let taken = held().take();
        // Mapped, so it begins at a page, as O_DIRECT wants it.
        let Some(mut memory) = taken.or_else(|| MmapMut::map_anon(buffers * slot_bytes).ok())
        else {
            Counters::add(&self.books.counters().failed_io, requests.len());
            return;
        };
        self.batches.run(&self.files.blocks, way, &mut memory, slot_bytes, requests, step);
        *held() = Some(memory);
    }
}
