//! What one endpoint is believed to hold because we sent it there.

use super::hash::BuildNameHasher;
use crate::{BlockKey, Time};
use std::collections::HashMap;

/// "No entry" in the links.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Belief {
    key: BlockKey,
    expiry: Time,
    older: u32,
    newer: u32,
}

/// A bounded LRU list of blocks with a time to live. Expiry never falls from the oldest to the
/// newest, so the oldest is both the first to expire and the first to be evicted.
#[derive(Debug)]
pub(super) struct Beliefs {
    by_key: HashMap<BlockKey, u32, BuildNameHasher>,
    entries: Vec<Belief>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    capacity: usize,
}

impl Beliefs {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            by_key: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn contains(&self, key: BlockKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Most entries kept from now on; [`Self::pop_excess`] makes it true.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// When the first entry expires.
    pub(super) fn first_expiry(&self) -> Option<Time> {
        self.entries.get(self.oldest as usize).map(|belief| belief.expiry)
    }

    /// Believes, or makes the newest again. True where it was not believed before.
    pub(super) fn book(&mut self, key: BlockKey, expiry: Time) -> bool {
        let newest = self.entries.get(self.newest as usize).map_or(Time::ZERO, |b| b.expiry);
        let expiry = expiry.max(newest);
        if let Some(&at) = self.by_key.get(&key) {
            self.unlink(at);
            self.entries[at as usize].expiry = expiry;
            self.push_newest(at);
            return false;
        }
        let belief = Belief { key, expiry, older: NONE, newer: NONE };
        let at = if let Some(at) = self.free.pop() {
            self.entries[at as usize] = belief;
            at
        } else {
            self.entries.push(belief);
            (self.entries.len() - 1) as u32
        };
        self.push_newest(at);
        self.by_key.insert(key, at);
        true
    }

    /// Believes it no more. True where it was believed.
    pub(super) fn remove(&mut self, key: BlockKey) -> bool {
        let Some(at) = self.by_key.remove(&key) else { return false };
        self.unlink(at);
        self.free.push(at);
        true
    }

    /// Takes out the oldest entry if its time has come.
    pub(super) fn pop_expired(&mut self, now: Time) -> Option<BlockKey> {
        if self.first_expiry()? <= now { self.pop_oldest() } else { None }
    }

    /// Takes out the oldest entry if there are more than the capacity allows.
    pub(super) fn pop_excess(&mut self) -> Option<BlockKey> {
        if self.len() > self.capacity { self.pop_oldest() } else { None }
    }

    /// Takes out the oldest entry; gives the memory back with the last.
    pub(super) fn pop_oldest(&mut self) -> Option<BlockKey> {
        let key = self.entries.get(self.oldest as usize)?.key;
        self.remove(key);
        if self.by_key.is_empty() {
            *self = Self::new(self.capacity);
        }
        Some(key)
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

    /// Bytes allocated, one tag byte a bucket as hashbrown lays it out.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * std::mem::size_of::<Belief>()
            + self.free.capacity() * std::mem::size_of::<u32>()
            + self.by_key.capacity() * 8 / 7 * (std::mem::size_of::<(BlockKey, u32)>() + 1)
    }

    fn unlink(&mut self, at: u32) {
        let Belief { older, newer, .. } = self.entries[at as usize];
        match self.entries.get_mut(older as usize) {
            Some(belief) => belief.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(belief) => belief.older = older,
            None => self.newest = older,
        }
    }

    fn push_newest(&mut self, at: u32) {
        let older = self.newest;
        let belief = &mut self.entries[at as usize];
        belief.older = older;
        belief.newer = NONE;
        match self.entries.get_mut(older as usize) {
            Some(belief) => belief.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn booking_again_refreshes_and_the_oldest_goes_first() {
        let mut beliefs = Beliefs::new(2);
        assert!(beliefs.book(BlockKey(1), at(10)));
        assert!(beliefs.book(BlockKey(2), at(11)));
        assert!(!beliefs.book(BlockKey(1), at(12)));
        assert!(beliefs.book(BlockKey(3), at(13)));

        assert_eq!(beliefs.pop_excess(), Some(BlockKey(2)));
        assert_eq!(beliefs.pop_excess(), None);
        assert_eq!(beliefs.first_expiry(), Some(at(12)));
        assert_eq!(beliefs.pop_expired(at(11)), None);
        assert_eq!(beliefs.pop_expired(at(12)), Some(BlockKey(1)));
        assert!(beliefs.remove(BlockKey(3)));
        assert_eq!(beliefs.first_expiry(), None);
    }

    #[test]
    fn capping_shortens_only_what_lives_longer() {
        let mut beliefs = Beliefs::new(9);
        beliefs.book(BlockKey(1), at(10));
        beliefs.book(BlockKey(2), at(500));
        beliefs.cap_expiry(at(20));

        assert_eq!(beliefs.pop_expired(at(19)), Some(BlockKey(1)));
        assert_eq!(beliefs.pop_expired(at(19)), None);
        assert_eq!(beliefs.pop_expired(at(20)), Some(BlockKey(2)));
        assert_eq!(beliefs.memory_bytes(), 0);
    }

    #[test]
    fn a_clock_that_goes_back_keeps_the_order() {
        let mut beliefs = Beliefs::new(9);
        beliefs.book(BlockKey(1), at(10));
        beliefs.book(BlockKey(2), at(5));
        assert_eq!(beliefs.pop_expired(at(9)), None);
    }
}
