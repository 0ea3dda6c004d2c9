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

/// How finely the age of a trace is told: in this part of the tier's blocks that have left since.
const TRACE_AGES: u32 = 64;

/// Where a block's trace is kept, and what tells it from others there. A later trace in the same
/// place ends an earlier one; the paper's own code does likewise.
fn trace(nodes: &mut [Node], fingerprint: u32) -> (&mut u32, u32) {
    let spread = u64::from(fingerprint).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let at = (spread >> 32) as usize % nodes.len();
    // Never 0, which is no trace.
    (&mut nodes[at].ghost, spread as u32 >> 16 | 1)
}

impl S3Fifo {
    /// What a trace says of when its block left, in its upper half.
    fn age(&self, nodes: &[Node]) -> u32 {
        let unit = (nodes.len() as u32 / TRACE_AGES).max(1);
        (self.departures / unit) & 0xFFFF
    }

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
        let now = self.age(nodes);
        let (place, tag) = trace(nodes, nodes[slot as usize].fingerprint);
        let known =
            *place & 0xFFFF == tag && (now.wrapping_sub(*place >> 16) & 0xFFFF) < TRACE_AGES;
        if known {
            *place = 0;
        }
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
            self.departures = self.departures.wrapping_add(1);
            let now = self.age(nodes);
            let (place, tag) = trace(nodes, nodes[slot as usize].fingerprint);
            *place = now << 16 | tag;
            return Some(slot);
        }
        self.give_up(nodes, MAIN).or_else(|| self.give_up(nodes, SMALL))
    }
}
