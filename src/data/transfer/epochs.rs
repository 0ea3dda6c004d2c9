//! Epochs of a region's blocks: what a block holds, as a number that changes when the content does.
//!
//! One word a block, in memory that peers of the host map read-only. The lower half counts who holds
//! the block (a transfer that writes to it, or that reads from it locally): an owner cannot advance
//! a held block. A reader elsewhere holds nothing; it looks at the epoch before and after it copied,
//! as under a sequence lock, so that readers never hold up an owner that needs the block.

use super::descriptor::Check;
use super::shm::Segment;
use super::{End, TransferError};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Low bits of a word: how many hold the block.
const HOLD_BITS: u32 = 16;
const HOLDS: u64 = (1 << HOLD_BITS) - 1;
/// The epoch of every block of a region that is closed. No block lives through that many others.
const CLOSED: u64 = u64::MAX >> HOLD_BITS;

/// The epochs of one region. Blocks start at epoch 1.
#[derive(Debug)]
pub struct Epochs {
    words: Segment,
    blocks: usize,
}

impl Epochs {
    pub(super) fn new(blocks: u32) -> Result<Self, TransferError> {
        let words = Segment::new(blocks as usize * 8)?;
        words.words().iter().for_each(|word| word.store(1 << HOLD_BITS, Ordering::Relaxed));
        Ok(Self { words, blocks: blocks as usize })
    }

    /// A peer's epochs, mapped.
    pub(super) fn attached(words: Segment, blocks: u32) -> Self {
        Self { words, blocks: blocks as usize }
    }

    pub(super) fn blocks(&self) -> u32 {
        self.blocks as u32
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.words
    }

    /// The words of blocks. Numbers from a peer are checked here.
    fn word(&self, slot: u32) -> Option<&AtomicU64> {
        self.words.words()[..self.blocks].get(slot as usize)
    }

    /// The epoch of a block; none if there is no such block.
    pub fn get(&self, slot: u32) -> Option<u64> {
        self.word(slot).map(|word| word.load(Ordering::Acquire) >> HOLD_BITS)
    }

    /// Gives a block its next epoch. What was read of it before this returns may not be trusted by
    /// readers; what the owner writes after it belongs to the new epoch.
    pub(super) fn advance(&self, slot: u32) -> Result<u64, TransferError> {
        let Some(word) = self.word(slot) else {
            return Err(TransferError::Stale { end: End::Local, region: 0, slot, expected: 0 });
        };
        let seen = word.load(Ordering::Relaxed);
        let next = (seen >> HOLD_BITS) + 1;
        let free = seen & !HOLDS;
        match word.compare_exchange(free, next << HOLD_BITS, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                // The owner's writes of new content stay behind the new epoch: a reader that saw
                // any of them sees it too.
                fence(Ordering::Release);
                Ok(next)
            }
            Err(held) => Err(TransferError::InUse { slot, transfers: held & HOLDS }),
        }
    }

    /// The first check that does not hold.
    pub(super) fn stale<'a>(&self, checks: &'a [Check]) -> Option<&'a Check> {
        checks.iter().find(|check| self.get(check.slot) != Some(check.epoch))
    }

    /// The same, after bytes were copied.
    pub(super) fn stale_since<'a>(&self, checks: &'a [Check]) -> Option<&'a Check> {
        // Loads of the bytes stay before the loads of the epochs.
        fence(Ordering::Acquire);
        self.stale(checks)
    }

    /// Holds every block that `checks` names, or none and says which is stale.
    pub(super) fn hold<'a>(&self, checks: &'a [Check]) -> Result<(), &'a Check> {
        for (i, check) in checks.iter().enumerate() {
            let held = self.word(check.slot).and_then(|word| {
                word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
                    let fits = seen >> HOLD_BITS == check.epoch && seen & HOLDS < HOLDS;
                    fits.then_some(seen + 1)
                })
                .ok()
            });
            if held.is_none() {
                self.release(&checks[..i]);
                return Err(check);
            }
        }
        Ok(())
    }

    /// Lets go what [`Epochs::hold`] held.
    pub(super) fn release(&self, checks: &[Check]) {
        for word in checks.iter().filter_map(|check| self.word(check.slot)) {
            word.fetch_sub(1, Ordering::Release);
        }
    }

    /// Makes every epoch that a descriptor can name stale. Holds stay, and end as they do.
    pub(super) fn close(&self) {
        for word in &self.words.words()[..self.blocks] {
            word.fetch_or(CLOSED << HOLD_BITS, Ordering::AcqRel);
        }
    }

    /// How many blocks are held, for tests of leaks.
    pub fn held_blocks(&self) -> usize {
        let held = |word: &&AtomicU64| word.load(Ordering::Acquire) & HOLDS != 0;
        self.words.words()[..self.blocks].iter().filter(held).count()
    }
}
