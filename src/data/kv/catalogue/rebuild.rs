//! Building the books anew from the slots' entries, when whoever held the lock died with it.

use super::{Block, BlockKey, Catalogue, Generation, Slot, State};
use crate::kv::eviction::{Eviction, Node};
use std::sync::atomic::Ordering;

impl<E: Eviction> Catalogue<'_, E> {
    /// Enters `block`, found where `slot` keeps its bytes, if nothing else is there. The books are
    /// in order again after a [`rebuild`](Self::rebuild).
    pub fn adopt(&mut self, slot: u32, block: Block) {
        let generation = self.generation(slot);
        if generation.state() != State::Free || block.key == BlockKey::NONE {
            return;
        }
        let ready = generation.next(State::Ready);
        let entry = &mut self.slots[slot as usize];
        entry.block = block;
        entry.check = Slot::check_of(&block, ready);
        self.nodes[slot as usize].position = block.position;
        self.set_generation(slot, ready);
    }

    /// Makes index, chains, free slots and the policy's lists from the entries alone. `start` makes
    /// the policy as it is with nothing in its hands. Entries that do not agree with themselves,
    /// and those whose writer is not `alive`, become free. Whoever dies in here leaves it to the
    /// next.
    pub fn rebuild(&mut self, start: impl FnOnce(&mut E), alive: impl Fn(u64) -> bool) {
        self.head.free = 0;
        (self.head.free_slots, self.head.writing_slots, self.head.pinned_slots) = (0, 0, 0);
        self.buckets.fill(0);
        start(self.policy);

        let mut ready = Vec::new();
        for slot in (0..self.slots.len() as u32).rev() {
            let node = &mut self.nodes[slot as usize];
            *node = Node { prev: 0, next: 0, list: 0, rank: 0.0, ghost: 0, ..*node };
            let generation = Generation(self.generations[slot as usize].load(Ordering::Acquire));
            let entry = &mut self.slots[slot as usize];
            (entry.next_in_bucket, entry.before, entry.children) = (0, 0, 0);
            self.head.pinned_slots += u32::from(entry.pinned_until_ms > 0);
            let keep = match generation.state() {
                State::Free => false,
                State::Writing => entry.block.key != BlockKey::NONE && alive(entry.owner),
                State::Ready => entry.check == Slot::check_of(&entry.block, generation),
            };
            if keep && self.indexed(self.slots[slot as usize].block.key).is_none() {
                self.index(slot);
                if generation.state() == State::Ready {
                    ready.push(slot);
                } else {
                    self.head.writing_slots += 1;
                }
                continue;
            }
            if generation.state() != State::Free {
                self.set_generation(slot, generation.next(State::Free));
                self.head.reclaimed += u64::from(generation.state() == State::Writing);
            }
            self.push_free(slot);
        }
        for &slot in &ready {
            self.rechain(slot);
        }
        // In the order of use, so that policies which go by it lose no more than their lessons.
        ready.retain(|&slot| self.slots[slot as usize].children == 0);
        ready.sort_by_key(|&slot| self.nodes[slot as usize].used_at);
        for slot in ready {
            self.policy.admit(self.nodes, slot);
        }
    }

    fn rechain(&mut self, slot: u32) {
        let parent = self.slots[slot as usize].block.parent;
        let Some(before) = self.find(parent).filter(|&before| before != slot) else { return };
        let generation = self.generation(before).0;
        let entry = &mut self.slots[slot as usize];
        (entry.before, entry.before_generation) = (before + 1, generation);
        self.slots[before as usize].children += 1;
    }
}
