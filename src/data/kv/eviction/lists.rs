//! Lists of slots through their nodes: what all policies here are made of.

use super::{NONE, Node};
use bytemuck::{Pod, Zeroable};

/// How many lists a policy may have.
pub const LISTS: usize = 64;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Ends {
    /// The one that goes last, plus one; 0: the list is empty.
    head: u32,
    /// The one that goes first, plus one.
    tail: u32,
    length: u32,
}

/// Several lists, each from the block that goes last to the one that goes first. Zeros are lists
/// without a slot.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Lists([Ends; LISTS]);

impl Lists {
    pub fn length(&self, list: usize) -> u32 {
        self.0[list].length
    }

    /// The slot of `list` that goes first.
    pub fn tail(&self, list: usize) -> Option<u32> {
        self.0[list].tail.checked_sub(1)
    }

    /// Puts `slot` where it goes last.
    pub fn push(&mut self, nodes: &mut [Node], list: usize, slot: u32) {
        let head = self.0[list].head.wrapping_sub(1);
        self.link(nodes, list, slot, NONE, head);
    }

    /// Puts `slot` where it goes after those that were used before it, as far as a few steps show.
    /// A block whose followers have gone was mostly used with them, and they were the next to go.
    pub fn push_near_tail(&mut self, nodes: &mut [Node], list: usize, slot: u32) {
        const STEPS: u32 = 16;
        let used_at = nodes[slot as usize].used_at;
        let (mut prev, mut next) = (self.0[list].tail.wrapping_sub(1), NONE);
        let mut steps = 0;
        while prev != NONE && nodes[prev as usize].used_at < used_at && steps < STEPS {
            next = prev;
            prev = nodes[prev as usize].prev;
            steps += 1;
        }
        self.link(nodes, list, slot, prev, next);
    }

    fn link(&mut self, nodes: &mut [Node], list: usize, slot: u32, prev: u32, next: u32) {
        let node = &mut nodes[slot as usize];
        (node.prev, node.next, node.list) = (prev, next, list as u32 + 1);
        let ends = &mut self.0[list];
        match prev {
            NONE => ends.head = slot + 1,
            prev => nodes[prev as usize].next = slot,
        }
        match next {
            NONE => ends.tail = slot + 1,
            next => nodes[next as usize].prev = slot,
        }
        ends.length += 1;
    }

    /// Takes `slot` out of the list that it is in, if it is in one.
    pub fn take(&mut self, nodes: &mut [Node], slot: u32) {
        let Node { prev, next, list, .. } = nodes[slot as usize];
        let Some(list) = list.checked_sub(1) else { return };
        let ends = &mut self.0[list as usize];
        match prev {
            NONE => ends.head = next.wrapping_add(1),
            prev => nodes[prev as usize].next = next,
        }
        match next {
            NONE => ends.tail = prev.wrapping_add(1),
            next => nodes[next as usize].prev = prev,
        }
        ends.length -= 1;
        nodes[slot as usize].list = 0;
    }

    /// The slot that is worth least to `value` among the first to go of each list.
    pub fn least(&self, lists: usize, mut value: impl FnMut(usize, u32) -> f64) -> Option<u32> {
        let mut least = None;
        for list in 0..lists {
            let Some(slot) = self.tail(list) else { continue };
            let worth = value(list, slot);
            if least.is_none_or(|(_, than)| worth < than) {
                least = Some((slot, worth));
            }
        }
        least.map(|(slot, _)| slot)
    }
}
