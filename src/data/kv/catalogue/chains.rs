//! Which resident block follows which: only what nothing follows may go.

use super::{Catalogue, Slot, State};
use crate::kv::eviction::Eviction;

impl<E: Eviction> Catalogue<'_, E> {
    /// Hangs the block in `slot` behind the one before it, if that is resident. It inherits what
    /// its chain has been through.
    pub(super) fn chain(&mut self, slot: u32) {
        let parent = self.slots[slot as usize].block.parent;
        let before = self.find(parent).filter(|&before| before != slot);
        let generation = before.map_or(0, |before| self.generation(before).0);
        let entry = &mut self.slots[slot as usize];
        entry.children = 0;
        entry.before = before.map_or(0, |before| before + 1);
        entry.before_generation = generation;
        let Some(before) = before else { return };

        let parent = self.nodes[before as usize];
        let node = &mut self.nodes[slot as usize];
        // Found again since it was stored: what follows it now is a later turn.
        node.turn = parent.turn.saturating_add(u32::from(parent.hits > 0));
        node.gap = parent.gap;
        self.slots[before as usize].children += 1;
        self.policy.remove(self.nodes, before);
    }

    /// Takes the block in `slot` from behind the one before it, which may go next then.
    pub(super) fn unchain(&mut self, slot: u32) {
        let Slot { before, before_generation, .. } = self.slots[slot as usize];
        let Some(before) = before.checked_sub(1) else { return };
        let generation = self.generation(before);
        // The block before it may have been forgotten, and its slot given to another.
        if generation.0 != before_generation || generation.state() != State::Ready {
            return;
        }
        let children = &mut self.slots[before as usize].children;
        *children = children.saturating_sub(1);
        // Whoever used a block used those before it, also where they were not asked for.
        let used_at = self.nodes[slot as usize].used_at;
        let parent = &mut self.nodes[before as usize];
        if used_at.wrapping_sub(parent.used_at) <= u32::MAX / 2 {
            parent.used_at = used_at;
        }
        if *children == 0 {
            self.policy.expose(self.nodes, before);
        }
    }
}
