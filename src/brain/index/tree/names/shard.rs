//! One shard: an open-addressing table whose buckets are cache lines, compared eight entries at once.

use super::super::BlockRef;
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
        WIDTH - lanes_of(&self.blocks, 0).count_ones() as usize
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

/// As [`lanes_of`], of the lanes that are not more.
#[inline]
fn lanes_up_to(lanes: &[u32; WIDTH], number: u32) -> u32 {
    u32x8::new(*lanes).simd_le(u32x8::splat(number)).to_bitmask()
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
    pub(super) homes: usize,
    len: usize,
}

impl Shard {
    /// Looks for an entry of that tag which `is_it` affirms: its place, or the first bucket on the
    /// way that has room.
    fn search(
        &self,
        tag: u32,
        mut is_it: impl FnMut(BlockRef) -> bool,
    ) -> Result<(usize, usize), usize> {
        let mut number = home(tag, self.homes);
        while let Some(bucket) = self.buckets.get(number) {
            if bucket.may_have(tag)
                && let Some(at) = bucket.find(tag, &mut is_it)
            {
                return Ok((number, at));
            }
            if !bucket.is_full() {
                return Err(number);
            }
            number += 1;
        }
        Err(number)
    }

    pub(super) fn find(&self, tag: u32, is_it: impl FnMut(BlockRef) -> bool) -> Option<BlockRef> {
        let (bucket, at) = self.search(tag, is_it).ok()?;
        Some(BlockRef(self.buckets[bucket].blocks[at] - 1))
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        let needed = (self.len + more) * 16 / 15;
        if needed > self.homes * WIDTH {
            self.resize((self.homes + self.homes / GROWTH).max(needed / WIDTH) + 1);
        }
    }

    /// False where `is_it` affirms one of the same tag.
    pub(super) fn insert(
        &mut self,
        tag: u32,
        block: BlockRef,
        mut is_it: impl FnMut(BlockRef) -> bool,
    ) -> bool {
        let mut number = home(tag, self.homes);
        loop {
            let Some(bucket) = self.buckets.get_mut(number) else {
                self.overflow();
                continue;
            };
            if bucket.may_have(tag) && bucket.find(tag, &mut is_it).is_some() {
                return false;
            }
            if !bucket.is_full() {
                bucket.set(bucket.len(), tag, block.0 + 1);
                self.len += 1;
                return true;
            }
            number += 1;
        }
    }

    #[cold]
    fn overflow(&mut self) {
        self.buckets.reserve_exact(SPARE);
        self.buckets.resize(self.buckets.len() + SPARE, Bucket::default());
    }

    pub(super) fn remove(&mut self, tag: u32, block: BlockRef) {
        let mut hole = home(tag, self.homes);
        let was_full = loop {
            let Some(bucket) = self.buckets.get_mut(hole) else { return };
            let is_full = bucket.is_full();
            let is_it = lanes_of(&bucket.tags, tag) & lanes_of(&bucket.blocks, block.0 + 1);
            if is_it != 0 {
                bucket.take(is_it.trailing_zeros() as usize);
                break is_full;
            }
            if !is_full {
                return;
            }
            hole += 1;
        };
        self.len -= 1;
        if was_full {
            self.move_up(hole);
        }
        if self.len == 0 {
            *self = Self::default();
        } else if self.len * 2 < self.homes * WIDTH && self.homes > 8 {
            self.resize(self.len / 6 + 1);
        }
    }

    /// Whoever found a bucket full that no longer is, or one on the way from it, may move up.
    fn move_up(&mut self, hole: usize) {
        let (mut hole, mut next) = (hole, hole + 1);
        while let Some(bucket) = self.buckets.get_mut(next) {
            let is_full = bucket.is_full();
            // The tags whose homes are the hole or before it.
            let last = ((hole as u64 + 1) << 32).div_ceil(self.homes as u64) - 1;
            let last = u32::try_from(last).unwrap_or(u32::MAX);
            let moves = lanes_up_to(&bucket.tags, last) & !lanes_of(&bucket.blocks, 0);
            if moves != 0 {
                let (tag, block) = bucket.take(moves.trailing_zeros() as usize);
                self.buckets[hole].set(WIDTH - 1, tag, block);
                hole = next;
            }
            if !is_full {
                return;
            }
            next += 1;
        }
    }

    fn resize(&mut self, homes: usize) {
        let fresh = vec![Bucket::default(); homes + SPARE];
        let old = std::mem::replace(&mut self.buckets, fresh);
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

    #[cold]
    fn next_with_room(&mut self, from: usize, lens: &mut Vec<u8>) -> usize {
        let has_room = |&len: &u8| (len as usize) < WIDTH;
        match lens[from..].iter().position(has_room) {
            Some(after) => from + after,
            None => {
                self.overflow();
                lens.resize(self.buckets.len(), 0);
                self.buckets.len() - SPARE
            }
        }
    }
}
