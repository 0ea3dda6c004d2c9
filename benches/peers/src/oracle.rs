//! What is true, in the plainest way: a trie of blocks and the set of holders of each.
//!
//! Its blocks are told apart by their path from the root, not by any chained hash, so it shares
//! nothing with the indexes that it judges but the workload.

use crate::ops::Op;
use rustc_hash::FxHashMap;

/// Depths that are not 0, by endpoint.
pub type Answer = Vec<(u32, u32)>;

#[derive(Default)]
pub struct Oracle {
    endpoints: u32,
    /// Node of the block with this content below a node; the root is 0.
    children: FxHashMap<(u32, u64), u32>,
    /// For each node, a bit for each endpoint that holds it.
    holders: Vec<Vec<u64>>,
    /// Node that an endpoint's engine calls by this name.
    named: FxHashMap<(u32, u64), u32>,
}

impl Oracle {
    pub fn new(endpoints: u32) -> Self {
        Self { endpoints, holders: vec![Vec::new()], ..Self::default() }
    }

    pub fn after(endpoints: u32, phases: &[Vec<Op<'_>>]) -> Self {
        let mut oracle = Self::new(endpoints);
        phases.iter().for_each(|ops| oracle.apply(ops));
        oracle
    }

    pub fn apply(&mut self, ops: &[Op<'_>]) {
        for op in ops {
            match op {
                Op::Store { endpoint, parent, locals, names, .. } => {
                    let mut node = parent.map_or(0, |name| self.named[&(*endpoint, name.0)]);
                    for (&local, name) in locals.iter().zip(*names) {
                        node = self.child(node, local);
                        self.holders[node as usize][*endpoint as usize / 64] |=
                            1 << (endpoint % 64);
                        self.named.insert((*endpoint, name.0), node);
                    }
                }
                Op::Remove { endpoint, names } => {
                    for name in names {
                        // A name is said to be removed twice where two sequences shared a block.
                        if let Some(node) = self.named.get(&(*endpoint, name.0)) {
                            self.holders[*node as usize][*endpoint as usize / 64] &=
                                !(1 << (endpoint % 64));
                        }
                    }
                }
            }
        }
    }

    /// How many blocks from the first each endpoint holds.
    pub fn answer(&self, query: &[u64]) -> Answer {
        let mut answer = Vec::new();
        let mut holding: Vec<u32> = (0..self.endpoints).collect();
        let mut node = 0;
        for (depth, &local) in query.iter().enumerate() {
            let child = self.children.get(&(node, local)).copied();
            holding.retain(|&endpoint| {
                let holds = child.is_some_and(|child| self.holds(endpoint, child));
                if !holds && depth > 0 {
                    answer.push((endpoint, depth as u32));
                }
                holds
            });
            match child {
                Some(child) if !holding.is_empty() => node = child,
                _ => break,
            }
        }
        answer.extend(holding.into_iter().map(|endpoint| (endpoint, query.len() as u32)));
        answer
    }

    pub fn answers(&self, queries: &[Vec<u64>]) -> Vec<Answer> {
        queries.iter().map(|query| self.answer(query)).collect()
    }

    /// Pairs of an endpoint and a block that it holds.
    pub fn entries(&self) -> u64 {
        self.holders.iter().flatten().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Blocks that somebody holds.
    pub fn distinct_blocks(&self) -> u64 {
        self.holders.iter().filter(|words| words.iter().any(|&word| word != 0)).count() as u64
    }

    fn holds(&self, endpoint: u32, node: u32) -> bool {
        self.holders[node as usize][endpoint as usize / 64] >> (endpoint % 64) & 1 == 1
    }

    fn child(&mut self, node: u32, local: u64) -> u32 {
        let next = self.holders.len() as u32;
        let child = *self.children.entry((node, local)).or_insert(next);
        if child == next {
            self.holders.push(vec![0; self.endpoints.div_ceil(64) as usize]);
        }
        child
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree3::Sequence;

    #[test]
    fn a_hole_ends_the_match_of_whoever_has_it_and_of_nobody_else() {
        let [a, b] = [0, 1].map(|endpoint| Sequence::new(endpoint, vec![10, 11, 12, 13]));
        let mut oracle = Oracle::new(2);
        oracle.apply(&[a.store(0..4), b.store(0..3), a.remove(1..2)]);
        let mut answer = oracle.answer(&[10, 11, 12, 13, 14]);
        answer.sort_unstable();
        assert_eq!(answer, [(0, 1), (1, 3)]);
        assert_eq!(oracle.answer(&[11, 12]), []);
        assert_eq!((oracle.entries(), oracle.distinct_blocks()), (6, 4));
    }
}
