//! GreedyDual-Size-Frequency (Cherkasova: "Improving WWW proxies performance with
//! Greedy-Dual-Size-Frequency caching policy", HP Labs 1998), with recompute cost a byte: a block's
//! rank is the rank of the last that went, plus its uses times what computing it again costs.
//!
//! All blocks are of one size, and the cost of one grows with the tokens before it: attention's
//! part of a prefill. Blocks of like uses and like cost form a list each, in which ranks are in the
//! order of use; so the least of all is the least of the lists' ends, and no heap is needed.

use super::lists::Lists;
use super::{Eviction, Node};
use bytemuck::{Pod, Zeroable};

const USES: u32 = 8;
const COSTS: u32 = 8;

/// Lists by uses and cost.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Gdsf {
    lists: Lists,
    /// The rank of the last block that went.
    inflation: f64,
}

/// Blocks before it at which a block costs twice as much as a prompt's first: about where
/// attention's operations equal the linear layers' in models of 8 to 70 billion weights, in blocks
/// of 16 tokens.
const DOUBLED_AT: f64 = 1024.0;

fn uses_class(node: &Node) -> u32 {
    (node.hits + node.turn + 1).ilog2().min(USES - 1)
}

fn cost_class(node: &Node) -> u32 {
    ((f64::from(node.position) / DOUBLED_AT * 2.0) as u32).min(COSTS - 1)
}

fn list_of(node: &Node) -> usize {
    (uses_class(node) * COSTS + cost_class(node)) as usize
}

fn gain(node: &Node) -> f64 {
    f64::from(1u32 << uses_class(node)) * (1.0 + f64::from(cost_class(node)) / 2.0)
}

impl Eviction for Gdsf {
    fn admit(&mut self, nodes: &mut [Node], slot: u32) {
        let node = &mut nodes[slot as usize];
        node.rank = self.inflation + gain(node);
        let list = list_of(node);
        self.lists.push(nodes, list, slot);
    }

    fn expose(&mut self, nodes: &mut [Node], slot: u32) {
        let list = list_of(&nodes[slot as usize]);
        self.lists.push_near_tail(nodes, list, slot);
    }

    fn touch(&mut self, nodes: &mut [Node], slot: u32, _idle: u32) {
        if nodes[slot as usize].list == 0 {
            let node = &mut nodes[slot as usize];
            node.rank = self.inflation + gain(node);
            return;
        }
        self.lists.take(nodes, slot);
        self.admit(nodes, slot);
    }

    fn remove(&mut self, nodes: &mut [Node], slot: u32) {
        self.lists.take(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut [Node], _now: u32) -> Option<u32> {
        let all = (USES * COSTS) as usize;
        let slot = self.lists.least(all, |_, slot| nodes[slot as usize].rank)?;
        self.inflation = self.inflation.max(nodes[slot as usize].rank);
        self.lists.take(nodes, slot);
        Some(slot)
    }
}
