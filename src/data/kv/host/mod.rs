//! The tier of shared memory: one arena a node, in which every engine process finds what any of
//! them has stored.
//!
//! A get copies without holding anything: it notes a slot's generation under the mutex, copies,
//! looks whether the generation is the same, and hashes what it copied. A put reserves its slots,
//! copies without the mutex, and commits. So whoever dies leaves at worst slots that are being
//! written, which the books take back.

mod bytes;
#[cfg(test)]
mod tests;

use super::books::{BLOCKS_A_HOLD, Chain, Counters, Settings, SharedBooks, pieces_a_block};
use super::catalogue::{Block, Generation, Ticket};
use super::eviction::Algorithm;
use super::{BlockKey, StoreError};
use bytes::{copy_in, copy_out};
use std::path::Path;

pub use bytes::checksum_of;

/// The arena, attached.
pub struct HostTier {
    books: SharedBooks,
}

/// Bytes of a block that has been given up, still in the slot that another is about to get.
pub struct Leaving<'a> {
    /// What it is.
    pub block: Block,
    tier: &'a HostTier,
    slot: u32,
}

impl Leaving<'_> {
    /// Copies its bytes into `out`, as long as the block; false if they are not what was stored.
    pub fn copy(&self, out: &mut [u8]) -> bool {
        copy_out(&self.tier.books, self.slot, &mut [&mut *out]) == self.block.checksum
    }
}

impl HostTier {
    /// Attaches to the arena at `path` (under `/dev/shm`), or makes one of `slots` blocks of up to
    /// `slot_bytes` each.
    ///
    /// # Errors
    /// [`StoreError`]: settings that another process did not make it with, no memory.
    pub fn open(
        path: &Path,
        slots: u64,
        slot_bytes: u64,
        algorithm: Algorithm,
    ) -> Result<Self, StoreError> {
        let algorithm = algorithm as u64;
        let settings = Settings { slots, slot_bytes, memory_bytes: slot_bytes, algorithm };
        Ok(Self { books: SharedBooks::open(path, settings)? })
    }

    /// Its books.
    #[must_use]
    pub const fn books(&self) -> &SharedBooks {
        &self.books
    }

    /// Copies blocks out, each into its own of `pieces` (as many a block for each), and says which
    /// were there. The pieces of one that was not hold anything.
    pub fn get(&self, keys: &[BlockKey], pieces: &mut [&mut [u8]]) -> Vec<bool> {
        let pieces_a_block = pieces_a_block(keys.len(), pieces.len());
        let mut there = vec![false; keys.len()];
        for (part, some) in keys.chunks(BLOCKS_A_HOLD).enumerate() {
            let first = part * BLOCKS_A_HOLD;
            let found = self.books.look_up(some);
            for (at, found) in found.into_iter().enumerate() {
                let Some((slot, generation, block)) = found else { continue };
                let from = (first + at) * pieces_a_block;
                let pieces = &mut pieces[from..from + pieces_a_block];
                there[first + at] = self.read(slot, generation, &block, pieces);
            }
        }
        let hits = there.iter().filter(|&&hit| hit).count();
        Counters::add(&self.books.counters().hits, hits);
        Counters::add(&self.books.counters().misses, keys.len() - hits);
        there
    }

    fn read(
        &self,
        slot: u32,
        generation: Generation,
        block: &Block,
        pieces: &mut [&mut [u8]],
    ) -> bool {
        let counters = self.books.counters();
        let asked: usize = pieces.iter().map(|piece| piece.len()).sum();
        if asked != block.length_bytes as usize {
            // Blocks of another length under this key: an engine with another layout, whose
            // fingerprint does not say so.
            Counters::add(&counters.corrupt, 1);
            return false;
        }
        let checksum = copy_out(&self.books, slot, pieces);
        if self.books.generation(slot) != generation {
            Counters::add(&counters.overtaken, 1);
            return false;
        }
        if checksum != block.checksum {
            self.books.forget_corrupt(slot, generation);
            return false;
        }
        true
    }

    /// Stores the blocks of `chain`, each from its own of `pieces` (as many a block for each), and
    /// says how many it stored. `leaving` hears of blocks that go to make room, while their bytes
    /// are still there.
    ///
    /// # Errors
    /// [`StoreError::TooLong`], with nothing stored.
    pub fn put(
        &self,
        chain: Chain<'_>,
        pieces: &[&[u8]],
        mut leaving: impl FnMut(&[Leaving<'_>]),
    ) -> Result<usize, StoreError> {
        let pieces_a_block = pieces_a_block(chain.keys.len(), pieces.len());
        let blocks: Vec<&[&[u8]]> = pieces.chunks(pieces_a_block.max(1)).collect();
        let slot_bytes = self.books.settings().slot_bytes as usize;
        for block in &blocks {
            let bytes = block.iter().map(|piece| piece.len()).sum();
            if bytes > slot_bytes {
                return Err(StoreError::TooLong { bytes, slot_bytes });
            }
        }
        let mut stored = 0;
        for first in (0..chain.keys.len()).step_by(BLOCKS_A_HOLD) {
            let last = (first + BLOCKS_A_HOLD).min(chain.keys.len());
            let names: Vec<_> =
                (first..last).map(|at| (chain.keys[at], chain.parent_of(at))).collect();
            let (mut tickets, full) = self.books.reserve(&names);
            tickets.iter_mut().for_each(|(at, _)| *at += first);
            let gone: Vec<Leaving<'_>> = tickets
                .iter()
                .filter_map(|(_, ticket)| {
                    let Ticket { slot, evicted, .. } = *ticket;
                    Some(Leaving { block: evicted?, tier: self, slot })
                })
                .collect();
            if !gone.is_empty() {
                leaving(&gone);
            }
            let filled = tickets.iter().map(|(at, ticket)| {
                let pieces = blocks[*at];
                let block = Block {
                    key: chain.keys[*at],
                    parent: chain.parent_of(*at),
                    checksum: copy_in(&self.books, ticket.slot, pieces),
                    length_bytes: pieces.iter().map(|piece| piece.len()).sum::<usize>() as u32,
                    position: chain.position + *at as u32,
                };
                (*ticket, block)
            });
            let filled: Vec<_> = filled.collect();
            stored += self.books.commit(&filled);
            if full {
                // What comes after a block that is not there would be of no use.
                Counters::add(&self.books.counters().refused, chain.keys.len() - last);
                break;
            }
        }
        Ok(stored)
    }
}
