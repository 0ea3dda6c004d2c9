//! One shard: an open-addressing table whose buckets are cache lines, compared eight entries at once.

use super::super::{BlockRef, heap};
use wide::u32x8;

/// Entries of a bucket.
const WIDTH: usize = 8;
/// A shard that is full grows by one in so many.
const GROWTH: usize = 3;
/// Buckets past the last home, for what the last homes have no room for.
const SPARE: usize = 4;

/// Tags and blocks, the empty entries last: blocks count from 1 here, and 0 is none.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Bucket {
    tags: [u32; WIDTH],
    blocks: [u32; WIDTH],
}

impl Bucket {
    fn is_full(&self) -> bool {
        self.blocks[WIDTH - 1] != 0
    }

    fn len(&self) -> usize {
        // None is behind an empty one.
        (lanes_of(&self.blocks, 0) | 1 << WIDTH).trailing_zeros() as usize
    }

    fn may_have(&self, tag: u32) -> bool {
        lanes_of(&self.tags, tag) != 0
    }

    /// Where the block of that tag is which `is_it` affirms.
    #[cold]
    fn find(&self, tag: u32, is_it: &mut dyn FnMut(BlockRef) -> bool) -> Option<usize> {
        let mut entries = self.tags.iter().zip(&self.blocks);
        entries
            .position(|(&other, &block)| other == tag && block != 0 && is_it(BlockRef(block - 1)))
    }

    fn set(&mut self, at: usize, tag: u32, block: u32) {
        (self.tags[at % WIDTH], self.blocks[at % WIDTH]) = (tag, block);
    }

    /// Takes an entry out: the last one takes its place.
    fn take(&mut self, at: usize) -> (u32, u32) {
        let last = self.len() - 1;
        self.tags.swap(at, last);
        self.blocks.swap(at, last);
        (self.tags[last], std::mem::take(&mut self.blocks[last]))
    }
}

/// Bits of the lanes that equal `number`: a few instructions, where the plain loop compiles to a
/// comparison and an addition for each lane.
#[inline]
fn lanes_of(lanes: &[u32; WIDTH], number: u32) -> u32 {
    u32x8::new(*lanes).simd_eq(u32x8::splat(number)).to_bitmask()
}

/// The bucket where the search for a tag starts, of so many.
pub(super) fn home(tag: u32, homes: usize) -> usize {
    ((u64::from(tag) * homes as u64) >> 32) as usize
}

#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Shard {
    /// Home buckets, and past them those that the last ones overflow to.
    pub(super) buckets: Vec<Bucket>,
    /// For each bucket, how many entries lie past it that would have been put there, or before it:
    /// where none do, a search ends. Those that once were [`MANY`] stay that.
    ///
    /// NOTE(perf): without these counts a search ends at a bucket with room, and whoever takes an entry
    /// out has to move others up: twice the instructions and lines of a removal.
    passed: Vec<u8>,
    pub(super) homes: usize,
    len: usize,
}

/// So many that they are not counted any more.
const MANY: u8 = u8::MAX;

impl Shard {
    /// Looks for a block of that tag which `is_it` affirms.
    pub(super) fn find(
        &self,
        tag: u32,
        mut is_it: impl FnMut(BlockRef) -> bool,
    ) -> Option<BlockRef> {
        let mut number = home(tag, self.homes);
        loop {
            let bucket = self.buckets.get(number)?;
            if bucket.may_have(tag)
                && let Some(at) = bucket.find(tag, &mut is_it)
            {
                return Some(BlockRef(bucket.blocks[at] - 1));
            }
            if self.passed[number] == 0 {
                return None;
            }
            number += 1;
        }
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        let needed = (self.len + more) * 16 / 15;
        if needed > self.homes * WIDTH {
            self.resize((self.homes + self.homes / GROWTH).max(needed / WIDTH) + 1);
        }
    }

    /// False where `is_it` affirms one of the same tag. There must be room: see [`Self::reserve`].
    pub(super) fn insert(
        &mut self,
        tag: u32,
        block: BlockRef,
        mut is_it: impl FnMut(BlockRef) -> bool,
    ) -> bool {
        let home = home(tag, self.homes);
        let (mut number, mut room) = (home, None);
        let to = loop {
            let Some(bucket) = self.buckets.get(number) else {
                self.overflow();
                continue;
            };
            if bucket.may_have(tag) && bucket.find(tag, &mut is_it).is_some() {
                return false;
            }
            if room.is_some() || !bucket.is_full() {
                let to = *room.get_or_insert(number);
                // Behind it there may be one of the same name still.
                if self.passed[number] == 0 {
                    break to;
                }
            }
            number += 1;
        };
        let bucket = &mut self.buckets[to];
        bucket.set(bucket.len(), tag, block.0 + 1);
        self.pass(home, to);
        self.len += 1;
        true
    }

    /// An entry goes past the buckets from its home to its own.
    fn pass(&mut self, home: usize, to: usize) {
        for passed in &mut self.passed[home..to] {
            *passed = passed.saturating_add(1);
        }
    }

    pub(super) fn remove(&mut self, tag: u32, block: BlockRef) {
        let home = home(tag, self.homes);
        let mut number = home;
        loop {
            let Some(bucket) = self.buckets.get_mut(number) else { return };
            let is_it = lanes_of(&bucket.tags, tag) & lanes_of(&bucket.blocks, block.0 + 1);
            if is_it != 0 {
                bucket.take(is_it.trailing_zeros() as usize);
                break;
            }
            if self.passed[number] == 0 {
                return;
            }
            number += 1;
        }
        for passed in &mut self.passed[home..number] {
            *passed -= u8::from(*passed != MANY);
        }
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if self.len * 2 < self.homes * WIDTH && self.homes > 8 {
            self.resize(self.len / 6 + 1);
        }
    }

    #[cold]
    fn overflow(&mut self) {
        self.buckets.reserve_exact(SPARE);
        self.buckets.resize(self.buckets.len() + SPARE, Bucket::default());
        self.passed.reserve_exact(SPARE);
        self.passed.resize(self.buckets.len(), 0);
    }

    fn resize(&mut self, homes: usize) {
        let fresh = vec![Bucket::default(); homes + SPARE];
        let old = std::mem::replace(&mut self.buckets, fresh);
        self.passed = vec![0; homes + SPARE];
        self.homes = homes;
        // How many each has so far, close together.
        let mut lens = vec![0u8; homes + SPARE];
        for bucket in &old {
            for (&tag, &block) in bucket.tags.iter().zip(&bucket.blocks) {
                if block == 0 {
                    break;
                }
                let mut to = home(tag, homes);
                if lens[to] as usize == WIDTH {
                    to = self.next_with_room(to, &mut lens);
                }
                let at = lens[to];
                lens[to] = at + 1;
                self.buckets[to].set(at as usize, tag, block);
            }
        }
    }

    /// Where an entry goes whose home is full.
    #[cold]
    fn next_with_room(&mut self, home: usize, lens: &mut Vec<u8>) -> usize {
        let has_room = |&len: &u8| (len as usize) < WIDTH;
        let to = match lens[home..].iter().position(has_room) {
            Some(after) => home + after,
            None => {
                self.overflow();
                lens.resize(self.buckets.len(), 0);
                self.buckets.len() - SPARE
            }
        };
        self.pass(home, to);
        to
    }

    pub(super) fn heap_bytes(&self) -> usize {
        heap::vec(&self.buckets) + heap::vec(&self.passed)
    }
}
