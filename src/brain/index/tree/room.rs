//! Which slots are free: runs of slots, whole pages, and whatever lies past the last one used.

use super::heap;
use super::storage::PAGE_BLOCKS;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Slots of a page.
const PAGE: u32 = PAGE_BLOCKS as u32;
/// Free slots below which nobody looks for free pages.
const FEW: u32 = 2 * PAGE;

/// Slots for runs of blocks.
///
/// Free runs that meet are one, but do not reach over the ends of pages, so that a page of which all
/// is free can be given back. Where only short ones are left, a run is laid out in pieces
/// ([`Self::take`]).
///
/// NOTE(perf): free runs were not joined before. Engines evict a prompt from its end, a few blocks at a
/// time, and each of those few stayed a run of its own: at a steady churn a prompt of 24 blocks was
/// laid out in four pieces, each with its node and its head.
#[derive(Debug)]
pub(super) struct Room {
    /// First slot of each free run, by the slot behind its last: runs are taken from, and grow, at
    /// their beginning, which leaves them where they are in here.
    free: BTreeMap<u32, u32>,
    /// The same runs, by length and then by first slot.
    by_length: BTreeSet<(u32, u32)>,
    free_slots: u32,
    /// Pages that were given back.
    pages: Vec<u32>,
    next: u32,
    /// Free slots at which to look for free pages.
    look_at: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            free: BTreeMap::new(),
            by_length: BTreeSet::new(),
            free_slots: 0,
            pages: vec![],
            next: 0,
            look_at: FEW,
        }
    }
}

impl Room {
    /// Slots that were ever used: those past them need pages.
    pub(super) fn used(&self) -> u32 {
        self.next
    }

    /// Slots that are not free.
    pub(super) fn live(&self) -> u32 {
        self.next - self.free_slots - self.pages.len() as u32 * PAGE
    }

    /// Consecutive slots: as many as asked for, or fewer where free ones are plenty but scattered.
    pub(super) fn take(&mut self, slots: u32) -> Range<u32> {
        if let Some(&(length, start)) = self.by_length.range((slots, 0)..).next() {
            self.begin_at(start..start + length, start + slots);
            return start..start + slots;
        }
        if slots <= PAGE
            && let Some(page) = self.pages.pop()
        {
            let start = page * PAGE;
            self.give(start + slots..start + PAGE);
            return start..start + slots;
        }
        if self.free_slots / 4 > self.next / 16
            && let Some(&(length, start)) = self.by_length.last()
        {
            self.begin_at(start..start + length, start + length);
            return start..start + length;
        }
        let start = self.next;
        self.next += slots;
        start..self.next
    }

    pub(super) fn give(&mut self, slots: Range<u32>) {
        if slots.is_empty() {
            return;
        }
        if slots.end == self.next {
            self.next = slots.start;
            // What is free before it is past the last one used now.
            while let Some(&start) = self.free.get(&self.next) {
                self.begin_at(start..self.next, self.next);
                self.next = start;
            }
            return;
        }
        let mut start = slots.start;
        while start < slots.end {
            let end = slots.end.min((start / PAGE + 1) * PAGE);
            self.give_in_page(start, end);
            start = end;
        }
    }

    /// Slots of one page are free, and one run with those that they meet.
    fn give_in_page(&mut self, mut start: u32, end: u32) {
        if !start.is_multiple_of(PAGE)
            && let Some(&before) = self.free.get(&start)
        {
            self.begin_at(before..start, start);
            start = before;
        }
        match self.free.range(end + 1..).next() {
            Some((&behind, &after)) if after == end && !end.is_multiple_of(PAGE) => {
                self.begin_at(after..behind, start);
            }
            _ => self.begin_at(end..end, start),
        }
    }

    /// Pages of which all is free, which are the caller's from now on, until their slots are given
    /// out again. Looks for them only where there may be many.
    pub(super) fn give_back(&mut self) -> Vec<u32> {
        if self.free_slots < self.look_at {
            return vec![];
        }
        let whole = self.by_length.range((PAGE, 0)..).map(|&(_, start)| start);
        let whole: Vec<u32> = whole.collect();
        for &start in &whole {
            self.begin_at(start..start + PAGE, start + PAGE);
        }
        let freed: Vec<u32> = whole.iter().map(|start| start / PAGE).collect();
        self.pages.extend(&freed);
        self.look_at = FEW.max(self.free_slots * 2);
        freed
    }

    /// A free run, or none, begins at `start` from now on; it is none where that is its end.
    fn begin_at(&mut self, run: Range<u32>, start: u32) {
        let end = run.end;
        if !run.is_empty() {
            self.by_length.remove(&(end - run.start, run.start));
        }
        self.free_slots = self.free_slots + (end - start) - (end - run.start);
        if start == end {
            self.free.remove(&end);
        } else {
            self.by_length.insert((end - start, start));
            self.free.insert(end, start);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        // B-trees' nodes hold 6 to 11 entries; about 8 on average. Each of the two has 8 bytes a run.
        let entry = std::mem::size_of::<(u32, u32)>() * 11 / 8 + 4;
        2 * self.free.len() * entry + heap::vec(&self.pages)
    }
}

/// Numbers from 0 on, given out one at a time.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    free: Vec<u32>,
    next: u32,
}

impl Numbers {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    pub(super) fn give(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Numbers that were ever used.
    pub(super) fn used(&self) -> u32 {
        self.next
    }

    pub(super) fn live(&self) -> u32 {
        self.next - self.free.len() as u32
    }

    pub(super) fn heap_bytes(&self) -> usize {
        heap::vec(&self.free)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn runs_are_used_again_whole_in_part_or_in_pieces() {
        let mut room = Room::default();
        let runs: Vec<_> = (0..4).map(|_| room.take(10)).collect();
        room.give(runs[1].clone());
        assert_eq!(room.take(10), runs[1]);
        room.give(runs[1].clone());
        assert_eq!(room.take(4), 10..14);
        assert_eq!(room.take(6), 14..20);

        room.give(runs[0].clone());
        room.give(runs[2].clone());
        assert_eq!(room.take(15), 20..30, "half is free: in pieces");
        room.give(30..40);
        assert_eq!(room.used(), 30, "the last slots are forgotten");
        room.give(14..20);
        room.give(20..30);
        assert_eq!(room.used(), 14, "and those before them");
    }

    #[test]
    fn free_runs_that_meet_are_one() {
        let mut room = Room::default();
        assert_eq!(room.take(40), 0..40);
        room.give(20..24);
        room.give(12..16);
        room.give(16..20);
        assert_eq!(room.take(12), 12..24);

        let page = room.take(3 * PAGE);
        room.take(1);
        room.give(page);
        let longest = room.take(2 * PAGE);
        assert_eq!(longest.len() as u32, PAGE, "but for the ends of pages");
        assert_eq!(longest.start % PAGE, 0);
    }

    #[test]
    fn pages_of_which_all_is_free_are_given_back_and_used_again() {
        let mut room = Room::default();
        let run = room.take(20 * PAGE);
        room.take(1);
        assert!(room.give_back().is_empty());
        room.give(run.start..run.end - 1);
        assert_eq!(room.live(), 2);
        assert_eq!(room.give_back(), (0..19).collect::<Vec<_>>());
        assert_eq!(room.live(), 2);

        assert_eq!(room.take(PAGE), 18 * PAGE..19 * PAGE);
        assert_eq!(room.take(5), 19 * PAGE..19 * PAGE + 5, "a run that is free goes first");
        assert_eq!(room.take(PAGE), 17 * PAGE..18 * PAGE);
        assert_eq!(room.live(), 2 * PAGE + 7);
    }
}
