//! S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: "FIFO queues are all you need for cache eviction",
//! SOSP 2023): a tenth of the room is on probation; what is not found again there leaves early.

use super::lists::Lists;
use super::{Eviction, Node};
use bytemuck::{Pod, Zeroable};

const SMALL: usize = 0;
const MAIN: usize = 1;
/// Chances that a block in the main queue may have left: the paper's two bits.
const MOST_CHANCES: f64 = 3.0;

/// Two queues and traces of what left the first of them. `rank` counts a block's chances.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct S3Fifo {
    lists: Lists,
    /// Blocks that have left the small queue for good: the age of a trace is measured in them.
    departures: u32,
    padding: u32,
}

/// Where a block's trace is kept: by its fingerprint, in whatever slot that names. A later trace
/// in the same place ends an earlier one; the paper's own code does likewise.
fn trace(nodes: &mut [Node], fingerprint: u32) -> &mut u32 {
    let at = fingerprint as usize % nodes.len();
    &mut nodes[at].ghost
}

impl S3Fifo {
    fn leaves(&self) -> u32 {
        self.lists.length(SMALL) + self.lists.length(MAIN)
    }

    /// The first of `list` that has no chance left; each that has one uses it up.
    fn give_up(&mut self, nodes: &mut [Node], list: usize) -> Option<u32> {
        // Each round takes a chance away, so this many rounds find one without.
        for _ in 0..(self.lists.length(list) as usize * (MOST_CHANCES as usize + 1)) {
            let slot = self.lists.tail(list)?;
            self.lists.take(nodes, slot);
            let node = &mut nodes[slot as usize];
            if node.rank < 1.0 {
                return Some(slot);
            }
            node.rank = if list == SMALL { 0.0 } else { node.rank - 1.0 };
            self.lists.push(nodes, MAIN, slot);
        }
        None
    }
}

impl Eviction for S3Fifo {
    fn admit(&mut self, nodes: &mut [Node], slot: u32) {
        let capacity = nodes.len() as u32;
        let Node { fingerprint, .. } = nodes[slot as usize];
        let left = std::mem::take(trace(nodes, fingerprint));
        let known = left != 0 && self.departures.wrapping_sub(left) < capacity;
        nodes[slot as usize].rank = 0.0;
        self.lists.push(nodes, if known { MAIN } else { SMALL }, slot);
    }

    fn expose(&mut self, nodes: &mut [Node], slot: u32) {
        // Found before, so past its probation; and it stood behind the block that has just gone.
        let list = if nodes[slot as usize].hits > 0 { MAIN } else { SMALL };
        self.lists.push_near_tail(nodes, list, slot);
    }

    fn touch(&mut self, nodes: &mut [Node], slot: u32, _idle: u32) {
        let node = &mut nodes[slot as usize];
        node.rank = (node.rank + 1.0).min(MOST_CHANCES);
    }

    fn remove(&mut self, nodes: &mut [Node], slot: u32) {
        self.lists.take(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut [Node], _now: u32) -> Option<u32> {
        let small_first = self.lists.length(SMALL) > self.leaves() / 10;
        if small_first && let Some(slot) = self.give_up(nodes, SMALL) {
            self.departures = self.departures.wrapping_add(1).max(1);
            let Node { fingerprint, .. } = nodes[slot as usize];
            *trace(nodes, fingerprint) = self.departures;
            return Some(slot);
        }
        self.give_up(nodes, MAIN).or_else(|| self.give_up(nodes, SMALL))
    }
}
