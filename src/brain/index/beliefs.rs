//! What one endpoint is believed to hold because we sent it there.

use super::tree::BlockRef;
use super::tree::heap;
use crate::Time;
use std::collections::BTreeMap;

/// "No entry" in the links.
const NONE: u32 = u32::MAX;

/// Consecutive blocks that were booked together.
#[derive(Debug, Clone, Copy)]
struct Belief {
    first: BlockRef,
    len: u32,
    expiry: Time,
    older: u32,
    newer: u32,
}

/// A bounded LRU list of blocks with a time to live, kept by runs: of a run the last block is the
/// oldest. Expiry never falls from the oldest to the newest, so the oldest is both the first to
/// expire and the first to be evicted.
#[derive(Debug)]
pub(super) struct Beliefs {
    by_first: BTreeMap<BlockRef, u32>,
    entries: Vec<Belief>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    blocks: usize,
    capacity: usize,
}

impl Beliefs {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            by_first: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            blocks: 0,
            capacity,
        }
    }

    /// Blocks believed.
    pub(super) fn len(&self) -> usize {
        self.blocks
    }

    /// Most blocks kept from now on; [`Self::pop_excess`] makes it true.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// When the first entry expires.
    pub(super) fn first_expiry(&self) -> Option<Time> {
        self.entries.get(self.oldest as usize).map(|belief| belief.expiry)
    }

    /// Believes consecutive blocks, or makes them the newest again. Of one prompt the last are to
    /// be booked first.
    pub(super) fn book(&mut self, first: BlockRef, len: u32, expiry: Time) {
        self.remove(first, len);
        self.blocks += len as usize;
        let newest = self.entries.get_mut(self.newest as usize);
        let latest = newest.as_ref().map_or(Time::ZERO, |newest| newest.expiry);
        let expiry = expiry.max(latest);
        if let Some(newest) = newest
            && newest.expiry == expiry
            && newest.first == first.plus(len)
        {
            // The run that was booked last goes on from here: one entry.
            self.by_first.remove(&newest.first);
            (newest.first, newest.len) = (first, newest.len + len);
            self.by_first.insert(first, self.newest);
            return;
        }
        let at = self.entry(Belief { first, len, expiry, older: self.newest, newer: NONE });
        self.link(at);
    }

    /// Believes none of these blocks any more.
    pub(super) fn remove(&mut self, first: BlockRef, len: u32) {
        let end = first.plus(len);
        while let Some((_, &at)) = self.by_first.range(..end).next_back() {
            let belief = self.entries[at as usize];
            let belief_end = belief.first.plus(belief.len);
            if belief_end <= first {
                return;
            }
            let kept_before = first.within(belief.first, belief.len).unwrap_or(0);
            let kept_after = end.within(belief.first, belief.len).map_or(0, |cut| belief.len - cut);
            self.blocks -= (belief.len - kept_before - kept_after) as usize;
            if kept_after > 0 {
                // Later blocks of a run are older than those before them.
                let (first, len) = (end, kept_after);
                let after = Belief { first, len, newer: at, ..belief };
                let after = self.entry(after);
                self.link(after);
            }
            if kept_before > 0 {
                self.entries[at as usize].len = kept_before;
            } else {
                self.take_out(at);
            }
        }
    }

    /// Takes out the oldest blocks if their time has come.
    pub(super) fn pop_expired(&mut self, now: Time) -> Option<(BlockRef, u32)> {
        if self.first_expiry()? <= now { self.pop_oldest() } else { None }
    }

    /// Takes out the oldest blocks that are more than the capacity allows.
    pub(super) fn pop_excess(&mut self) -> Option<(BlockRef, u32)> {
        let excess = self.blocks.checked_sub(self.capacity).filter(|&excess| excess > 0)?;
        let oldest = self.entries.get(self.oldest as usize)?;
        let len = oldest.len.min(u32::try_from(excess).unwrap_or(u32::MAX));
        let first = oldest.first.plus(oldest.len - len);
        self.remove(first, len);
        Some((first, len))
    }

    /// Takes out the oldest blocks; gives the memory back with the last.
    pub(super) fn pop_oldest(&mut self) -> Option<(BlockRef, u32)> {
        let &Belief { first, len, .. } = self.entries.get(self.oldest as usize)?;
        self.remove(first, len);
        if self.blocks == 0 {
            *self = Self::new(self.capacity);
        }
        Some((first, len))
    }

    /// No entry lives longer than until `latest`.
    pub(super) fn cap_expiry(&mut self, latest: Time) {
        let mut at = self.newest;
        while let Some(belief) = self.entries.get_mut(at as usize) {
            if belief.expiry <= latest {
                break;
            }
            belief.expiry = latest;
            at = belief.older;
        }
    }

    /// Bytes allocated; of the tree's nodes, which are two thirds full on average, as estimated.
    pub(super) fn memory_bytes(&self) -> usize {
        let entry = std::mem::size_of::<(BlockRef, u32)>() * 3 / 2 + 4;
        heap::vec(&self.entries) + heap::vec(&self.free) + self.by_first.len() * entry
    }

    fn entry(&mut self, belief: Belief) -> u32 {
        if let Some(at) = self.free.pop() {
            self.entries[at as usize] = belief;
            at
        } else {
            self.entries.push(belief);
            (self.entries.len() - 1) as u32
        }
    }

    /// Puts an entry between the neighbours that it names, one of them at most: the other follows.
    fn link(&mut self, at: u32) {
        let Belief { first, newer, .. } = self.entries[at as usize];
        self.by_first.insert(first, at);
        let older = match self.entries.get_mut(newer as usize) {
            Some(newer) => std::mem::replace(&mut newer.older, at),
            None => std::mem::replace(&mut self.newest, at),
        };
        self.entries[at as usize].older = older;
        match self.entries.get_mut(older as usize) {
            Some(older) => older.newer = at,
            None => self.oldest = at,
        }
    }

    fn take_out(&mut self, at: u32) {
        let Belief { first, older, newer, .. } = self.entries[at as usize];
        self.by_first.remove(&first);
        match self.entries.get_mut(older as usize) {
            Some(belief) => belief.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(belief) => belief.older = older,
            None => self.newest = older,
        }
        self.free.push(at);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn block(number: u32) -> BlockRef {
        BlockRef::for_test(number)
    }

    #[test]
    fn booking_again_refreshes_and_the_oldest_goes_first() {
        let mut beliefs = Beliefs::new(2);
        beliefs.book(block(1), 1, at(10));
        beliefs.book(block(20), 1, at(11));
        beliefs.book(block(1), 1, at(12));
        beliefs.book(block(30), 1, at(13));

        assert_eq!(beliefs.pop_excess(), Some((block(20), 1)));
        assert_eq!(beliefs.pop_excess(), None);
        assert_eq!(beliefs.first_expiry(), Some(at(12)));
        assert_eq!(beliefs.pop_expired(at(11)), None);
        assert_eq!(beliefs.pop_expired(at(12)), Some((block(1), 1)));
        beliefs.remove(block(30), 1);
        assert_eq!(beliefs.first_expiry(), None);
    }

    #[test]
    fn capping_shortens_only_what_lives_longer() {
        let mut beliefs = Beliefs::new(9);
        beliefs.book(block(1), 1, at(10));
        beliefs.book(block(20), 1, at(500));
        beliefs.cap_expiry(at(20));

        assert_eq!(beliefs.pop_expired(at(19)), Some((block(1), 1)));
        assert_eq!(beliefs.pop_expired(at(19)), None);
        assert_eq!(beliefs.pop_expired(at(20)), Some((block(20), 1)));
        assert_eq!(beliefs.memory_bytes(), 0);
    }

    #[test]
    fn a_clock_that_goes_back_keeps_the_order() {
        let mut beliefs = Beliefs::new(9);
        beliefs.book(block(1), 1, at(10));
        beliefs.book(block(20), 1, at(5));
        assert_eq!(beliefs.pop_expired(at(9)), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Book(u32, u32),
        Remove(u32, u32),
        Excess(usize),
        Expire(u64),
    }

    proptest! {
        #[test]
        fn runs_are_kept_as_a_list_of_blocks_would_be(steps in prop::collection::vec(prop_oneof![
            4 => (0..40u32, 1..12u32).prop_map(|(first, len)| Step::Book(first, len)),
            2 => (0..40u32, 1..6u32).prop_map(|(first, len)| Step::Remove(first, len)),
            1 => (0..30usize).prop_map(Step::Excess),
            1 => (0..20u64).prop_map(Step::Expire),
        ], 1..60)) {
            let mut beliefs = Beliefs::new(1_000);
            let mut naive: Vec<(u32, Time)> = vec![];
            let mut now = 0;
            for step in steps {
                now += 1;
                match step {
                    Step::Book(first, len) => {
                        beliefs.book(block(first), len, at(now));
                        naive.retain(|&(known, _)| !(first..first + len).contains(&known));
                        naive.extend((first..first + len).rev().map(|number| (number, at(now))));
                    }
                    Step::Remove(first, len) => {
                        beliefs.remove(block(first), len);
                        naive.retain(|&(known, _)| !(first..first + len).contains(&known));
                    }
                    Step::Excess(capacity) => {
                        beliefs.set_capacity(capacity);
                        let mut popped = vec![];
                        while let Some((first, len)) = beliefs.pop_excess() {
                            popped.extend((0..len).rev().map(|i| first.plus(i)));
                        }
                        let excess = naive.len().saturating_sub(capacity);
                        let oldest: Vec<_> =
                            naive.drain(..excess).map(|(number, _)| block(number)).collect();
                        prop_assert_eq!(popped, oldest);
                    }
                    Step::Expire(ago) => {
                        let due = at(now.saturating_sub(ago));
                        let mut popped = vec![];
                        while let Some((first, len)) = beliefs.pop_expired(due) {
                            popped.extend((0..len).rev().map(|i| first.plus(i)));
                        }
                        let count = naive.iter().take_while(|&&(_, expiry)| expiry <= due).count();
                        let oldest: Vec<_> =
                            naive.drain(..count).map(|(number, _)| block(number)).collect();
                        prop_assert_eq!(popped, oldest);
                    }
                }
                prop_assert_eq!(beliefs.len(), naive.len());
                prop_assert_eq!(beliefs.first_expiry(), naive.first().map(|&(_, expiry)| expiry));
            }
        }
    }
}
