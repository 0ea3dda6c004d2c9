//! The least recently used leaf goes: what engines do, and what the others are measured against.

use super::lists::Lists;
use super::{Eviction, Node};
use bytemuck::{Pod, Zeroable};

/// One list in the order of use.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Lru {
    lists: Lists,
}

impl Eviction for Lru {
    fn admit(&mut self, nodes: &mut [Node], slot: u32) {
        self.lists.push(nodes, 0, slot);
    }

    fn expose(&mut self, nodes: &mut [Node], slot: u32) {
        self.lists.push_near_tail(nodes, 0, slot);
    }

    fn touch(&mut self, nodes: &mut [Node], slot: u32, _idle: u32) {
        if nodes[slot as usize].list != 0 {
            self.lists.take(nodes, slot);
            self.lists.push(nodes, 0, slot);
        }
    }

    fn remove(&mut self, nodes: &mut [Node], slot: u32) {
        self.lists.take(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut [Node], _now: u32) -> Option<u32> {
        let slot = self.lists.tail(0)?;
        self.lists.take(nodes, slot);
        Some(slot)
    }
}
