//! Copies beyond the first, by runs of blocks.

use super::tree::BlockRef;
use std::collections::BTreeMap;

/// How many more copies than one there are, for runs of blocks that have equally many: an engine
/// that computes a prompt twice at once has two of each of its blocks.
#[derive(Debug, Default)]
pub(super) struct ExtraCopies {
    /// Runs that do not overlap, by their first block: length and copies, at least one.
    runs: BTreeMap<BlockRef, (u32, u32)>,
}

impl ExtraCopies {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// So many copies more of each of these blocks.
    pub(super) fn add(&mut self, first: BlockRef, len: u32, more: u32) {
        // A prompt that is computed again and again: the same runs each time, so that joining them
        // with their neighbours, which the first time did, is not worth looking for them.
        if let Some((run, copies)) = self.runs.get_mut(&first)
            && *run == len
        {
            *copies = copies.saturating_add(more);
            return;
        }
        self.cut_at(first);
        self.cut_at(first.plus(len));
        let (mut at, end) = (first, first.plus(len));
        while at < end {
            let next = self.runs.range_mut(at..end).next().map(|(&next, run)| (next, run));
            match next {
                Some((next, (run, copies))) if next == at => {
                    *copies = copies.saturating_add(more);
                    at = at.plus(*run);
                }
                next => {
                    let until = next.map_or(end, |(next, _)| next);
                    self.runs.insert(at, (until.from(at), more));
                    at = until;
                }
            }
        }
        self.heal(first, len);
    }

    /// Of the last of these blocks, as many as are alike: how many they are, and whether each had
    /// an extra copy, which is taken.
    pub(super) fn take_end(&mut self, first: BlockRef, len: u32) -> (u32, bool) {
        let end = first.plus(len);
        let Some((&start, &(run, _))) = self.runs.range(..end).next_back() else {
            return (len, false);
        };
        let run_end = start.plus(run);
        if run_end < end {
            return (end.from(run_end.max(first)), false);
        }
        let from = start.max(first);
        self.cut_at(from);
        self.cut_at(end);
        if let Some((_, copies)) = self.runs.get_mut(&from) {
            *copies -= 1;
            if *copies == 0 {
                self.runs.remove(&from);
            }
        }
        let taken = end.from(from);
        self.heal(from, taken);
        (taken, true)
    }

    /// The extra copies of these blocks: runs with equally many, each with its offset, length and
    /// number of copies.
    pub(super) fn of(
        &self,
        first: BlockRef,
        len: u32,
    ) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        let end = first.plus(len);
        let before = self.runs.range(..first).next_back();
        let inside = self.runs.range(first..end);
        before.into_iter().chain(inside).filter_map(move |(&start, &(run, copies))| {
            let (from, to) = (start.max(first), start.plus(run).min(end));
            (from < to).then(|| (from.from(first), to.from(from), copies))
        })
    }

    /// Takes all extra copies of a block out: how many there were.
    pub(super) fn take_all(&mut self, block: BlockRef) -> u32 {
        self.cut_at(block);
        self.cut_at(block.plus(1));
        self.runs.remove(&block).map_or(0, |(_, copies)| copies)
    }

    /// Forgets the extra copies of these blocks.
    pub(super) fn forget(&mut self, first: BlockRef, len: u32) {
        self.cut_at(first);
        self.cut_at(first.plus(len));
        while let Some((&start, _)) = self.runs.range(first..first.plus(len)).next() {
            self.runs.remove(&start);
        }
    }

    /// Bytes allocated; of a B-tree's nodes, which are two thirds full on average, as estimated.
    pub(super) fn memory_bytes(&self) -> usize {
        self.runs.len() * (std::mem::size_of::<(BlockRef, (u32, u32))>() * 3 / 2 + 4)
    }

    /// No run reaches over `block`: one that does is cut before it.
    fn cut_at(&mut self, block: BlockRef) {
        if let Some((&start, run)) = self.runs.range_mut(..block).next_back()
            && start.plus(run.0) > block
        {
            let after = (start.plus(run.0).from(block), run.1);
            run.0 = block.from(start);
            self.runs.insert(block, after);
        }
    }

    /// Joins runs around and in these blocks that meet and have equally many copies.
    fn heal(&mut self, first: BlockRef, len: u32) {
        let before = self.runs.range(..first).next_back().map(|(&start, _)| start);
        let mut at = before.unwrap_or(first);
        while at <= first.plus(len)
            && let Some((&start, &(run, copies))) = self.runs.range(at..=first.plus(len)).next()
        {
            let end = start.plus(run);
            match self.runs.get(&end) {
                Some(&(more, same)) if same == copies => {
                    self.runs.remove(&end);
                    self.runs.insert(start, (run + more, copies));
                    at = start;
                }
                _ => at = end,
            }
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn runs_count_as_single_blocks_would() {
        let (mut extra, mut naive, mut rng) = (ExtraCopies::default(), [0u32; 64], Rng::new(3));
        for _ in 0..20_000 {
            let first = rng.below(60) as u32;
            let len = 1 + rng.below(u64::from(64 - first).min(9)) as u32;
            let block = BlockRef::for_test;
            match rng.below(6) {
                0..=2 => {
                    let more = 1 + rng.below(2) as u32;
                    extra.add(block(first), len, more);
                    let range = first as usize..(first + len) as usize;
                    naive[range].iter_mut().for_each(|n| *n += more);
                }
                3..=4 => {
                    let (taken, had) = extra.take_end(block(first), len);
                    let end = first + len;
                    for i in end - taken..end {
                        assert_eq!(naive[i as usize] > 0, had);
                        naive[i as usize] -= u32::from(had);
                    }
                    assert!((1..=len).contains(&taken));
                }
                _ if first.is_multiple_of(2) => {
                    assert_eq!(extra.take_all(block(first)), naive[first as usize]);
                    naive[first as usize] = 0;
                }
                _ => {
                    extra.forget(block(first), len);
                    naive[first as usize..(first + len) as usize].fill(0);
                }
            }
        }
        let mut seen = [0; 64];
        for (offset, len, copies) in extra.of(BlockRef::for_test(3), 50) {
            seen[3 + offset as usize..][..len as usize].fill(copies);
        }
        assert_eq!(seen[3..53], naive[3..53]);
        for (i, &copies) in (0..).zip(&naive) {
            assert_eq!(extra.take_all(BlockRef::for_test(i)), copies);
        }
        assert!(extra.is_empty());
    }
}
