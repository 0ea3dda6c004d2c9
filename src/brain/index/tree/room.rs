//! Which slots are free: runs of slots by length, whole pages, and whatever lies past the last one
//! used.

use super::heap;
use super::storage::PAGE_BLOCKS;
use std::collections::BTreeMap;
use std::ops::Range;

/// Slots of a page.
const PAGE: u32 = PAGE_BLOCKS as u32;
/// Free slots below which nobody looks for free pages.
const FEW: u32 = 2 * PAGE;

/// Slots for runs of blocks.
///
/// Free runs do not reach over the ends of pages, so that a page of which all is free can be given
/// back. They are not joined with their neighbours: where only short ones are left, a run is laid
/// out in pieces ([`Self::take`]).
#[derive(Debug)]
pub(super) struct Room {
    /// First slots of the free runs of each length.
    free: BTreeMap<u32, Vec<u32>>,
    free_slots: u32,
    /// Pages that were given back.
    pages: Vec<u32>,
    next: u32,
    /// Free slots at which to look for free pages.
    look_at: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self { free: BTreeMap::new(), free_slots: 0, pages: vec![], next: 0, look_at: FEW }
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
        if let Some((&length, _)) = self.free.range(slots..).next() {
            let start = self.pop(length);
            self.give(start + slots..start + length);
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
            && let Some((&length, _)) = self.free.last_key_value()
        {
            let start = self.pop(length);
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
            return;
        }
        let mut start = slots.start;
        while start < slots.end {
            let end = slots.end.min((start / PAGE + 1) * PAGE);
            self.free_slots += end - start;
            self.free.entry(end - start).or_default().push(start);
            start = end;
        }
    }

    /// Pages of which all is free, which are the caller's from now on, until their slots are given
    /// out again. Looks for them only where there may be many.
    pub(super) fn give_back(&mut self) -> Vec<u32> {
        if self.free_slots < self.look_at {
            return vec![];
        }
        let mut free_of = vec![0; self.next.div_ceil(PAGE) as usize];
        for (&length, starts) in &self.free {
            for &start in starts {
                free_of[(start / PAGE) as usize] += length;
            }
        }
        let is_free = |start: u32| free_of[(start / PAGE) as usize] == PAGE;
        for starts in self.free.values_mut() {
            starts.retain(|&start| !is_free(start));
        }
        self.free.retain(|_, starts| !starts.is_empty());
        let freed = (0u32..).zip(&free_of).filter(|&(_, &free)| free == PAGE);
        let freed: Vec<u32> = freed.map(|(page, _)| page).collect();
        self.free_slots -= freed.len() as u32 * PAGE;
        self.pages.extend(&freed);
        self.look_at = FEW.max(self.free_slots * 2);
        freed
    }

    fn pop(&mut self, length: u32) -> u32 {
        let Some(starts) = self.free.get_mut(&length) else { return 0 };
        let start = starts.pop().unwrap_or(0);
        if starts.is_empty() {
            self.free.remove(&length);
        }
        self.free_slots -= length;
        start
    }

    pub(super) fn heap_bytes(&self) -> usize {
        // A B-tree's nodes hold 6 to 11 entries; about 8 on average.
        let entry = std::mem::size_of::<(u32, Vec<u32>)>() * 11 / 8 + 4;
        let runs = self.free.len() * entry + self.free.values().map(heap::vec).sum::<usize>();
        runs + heap::vec(&self.pages)
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
