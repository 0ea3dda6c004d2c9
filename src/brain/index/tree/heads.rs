//! First key of a run -> the node of the run.
//!
//! Keys are chained, so a key names its whole prefix, and one flat table serves for the child
//! pointers of all nodes. Open addressing with linear probing; an entry never moves while the table
//! lives, and one that is taken out leaves a grave behind, so a reader who passes by finds every
//! entry that was there all the time. A table that is full is replaced whole.

use crate::index::sync::{AtomicU64, Ordering};

const EMPTY: u64 = 0;
/// The low half of an entry is the node plus one; the highest marks a grave.
const GRAVE: u64 = u32::MAX as u64;
/// Slots of the smallest table.
const LEAST: usize = 16;

/// The table. An entry is half of its key and its node: whoever finds one asks the node for the
/// rest of the key.
#[derive(Debug)]
pub(super) struct Heads {
    entries: Box<[AtomicU64]>,
}

impl Heads {
    /// A table with room for so many, at two thirds of its slots.
    pub(super) fn with_room(nodes: usize) -> Self {
        let slots = (nodes + nodes / 2).max(LEAST);
        Self { entries: (0..slots).map(|_| AtomicU64::new(EMPTY)).collect() }
    }

    /// Entries and graves that it takes before it has to be replaced.
    pub(super) fn room(&self) -> usize {
        self.entries.len() * 3 / 4
    }

    /// The node that `is_it` affirms, among those that may have the key.
    #[inline]
    pub(super) fn find(&self, key: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(key);
        for at in self.probe(key) {
            let entry = self.entries[at].load(Ordering::Acquire);
            if entry == EMPTY {
                return None;
            }
            if entry & !GRAVE == tag && entry & GRAVE != GRAVE {
                let node = entry as u32 - 1;
                if is_it(node) {
                    return Some(node);
                }
            }
        }
        None
    }

    /// Returns whether it filled an empty slot, and not a grave. There must be room.
    pub(super) fn insert(&self, key: u64, node: u32) -> bool {
        for at in self.probe(key) {
            let entry = self.entries[at].load(Ordering::Relaxed);
            if entry == EMPTY || entry & GRAVE == GRAVE {
                self.entries[at].store(tag(key) | u64::from(node + 1), Ordering::Release);
                return entry == EMPTY;
            }
        }
        false
    }

    /// Takes the key's entry of this node out. Returns how many slots are empty again.
    pub(super) fn remove(&self, key: u64, node: u32) -> usize {
        let entry = tag(key) | u64::from(node + 1);
        let Some(mut at) =
            self.probe(key).find(|&at| self.entries[at].load(Ordering::Relaxed) == entry)
        else {
            return 0;
        };
        let last = self.entries.len() - 1;
        let after = if at == last { 0 } else { at + 1 };
        if self.entries[after].load(Ordering::Relaxed) != EMPTY {
            self.entries[at].store(GRAVE, Ordering::Release);
            return 0;
        }
        // Nobody's way leads on from here: this grave, and those before it, are needed no more.
        self.entries[at].store(EMPTY, Ordering::Release);
        let mut emptied = 1;
        loop {
            at = if at == 0 { last } else { at - 1 };
            if self.entries[at].load(Ordering::Relaxed) & GRAVE != GRAVE {
                return emptied;
            }
            self.entries[at].store(EMPTY, Ordering::Release);
            emptied += 1;
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        std::mem::size_of_val(&*self.entries)
    }

    /// Every slot once, from the key's own on.
    #[inline]
    fn probe(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let slots = self.entries.len();
        let home = (((key >> 32) * slots as u64) >> 32) as usize;
        (home..slots).chain(0..home)
    }
}

/// The half of a key that its entry keeps.
#[inline]
fn tag(key: u64) -> u64 {
    key << 32
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_found_while_others_come_and_go() {
        let heads = Heads::with_room(10);
        // All of one home slot.
        let keys: Vec<u64> = (1..=8).map(|low| 5 << 32 | low).collect();
        let found = |key: u64| heads.find(key, |_| true);
        for (node, &key) in (0..).zip(&keys) {
            assert!(heads.insert(key, node));
        }
        assert_eq!(found(keys[7]), Some(7));
        assert_eq!(heads.remove(keys[2], 2), 0);
        assert_eq!(found(keys[2]), None);
        assert_eq!(found(keys[7]), Some(7));
        assert!(!heads.insert(keys[2], 20), "a grave is used again");
        assert_eq!(found(keys[2]), Some(20));

        assert_eq!(heads.remove(keys[6], 6), 0);
        assert_eq!(heads.remove(keys[7], 7), 2, "with the last of the way the graves go");
        assert_eq!(heads.remove(keys[7], 7), 0);
        for (node, &key) in [0, 1, 20, 3, 4, 5].iter().zip(&keys) {
            heads.remove(key, *node);
        }
        assert!(heads.entries.iter().all(|entry| entry.load(Ordering::Relaxed) == EMPTY));
    }
}
