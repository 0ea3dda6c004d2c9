//! Belady's rule (IBM Systems Journal 1966), which knows the future: the leaf goes that is asked
//! for again last. What no policy can beat; the oracle that the others are measured against.

use llmd_data::kv::eviction::{Eviction, Node};
use std::collections::BTreeSet;

/// The number of a prompt that never comes.
pub const NEVER: u32 = u32::MAX;

/// Leaves in the order of their next use.
pub struct Belady {
    /// The next prompt that asks for the block that is touched or stored next. The player sets it.
    pub upcoming: u32,
    next_use: Vec<u32>,
    leaves: BTreeSet<(u32, u32)>,
}

impl Belady {
    pub fn new(slots: usize) -> Self {
        Self { upcoming: NEVER, next_use: vec![NEVER; slots], leaves: BTreeSet::new() }
    }

    fn hold(&mut self, nodes: &mut [Node], slot: u32) {
        nodes[slot as usize].list = 1;
        self.leaves.insert((self.next_use[slot as usize], slot));
    }
}

impl Eviction for Belady {
    fn admit(&mut self, nodes: &mut [Node], slot: u32) {
        // The catalogue also gives back what it would not let go; that has not been asked for.
        if nodes[slot as usize].hits == 0 && self.upcoming != 0 {
            self.next_use[slot as usize] = std::mem::take(&mut self.upcoming);
        }
        self.hold(nodes, slot);
    }

    fn expose(&mut self, nodes: &mut [Node], slot: u32) {
        self.hold(nodes, slot);
    }

    fn touch(&mut self, nodes: &mut [Node], slot: u32, _idle: u32) {
        let leaf = nodes[slot as usize].list != 0;
        self.remove(nodes, slot);
        self.next_use[slot as usize] = std::mem::take(&mut self.upcoming);
        if leaf {
            self.hold(nodes, slot);
        }
    }

    fn remove(&mut self, nodes: &mut [Node], slot: u32) {
        nodes[slot as usize].list = 0;
        self.leaves.remove(&(self.next_use[slot as usize], slot));
    }

    fn victim(&mut self, nodes: &mut [Node], _now: u32) -> Option<u32> {
        let (_, slot) = self.leaves.pop_last()?;
        nodes[slot as usize].list = 0;
        Some(slot)
    }
}
