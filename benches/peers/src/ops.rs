//! What happens to an index, in nobody's terms: each contender translates it off the clock.

use crate::tree3::{Sequence, Tree3};
use llmd_brain::{BlockKey, EngineHash};
use rustc_hash::FxHashSet;
use std::ops::Range;

/// One event of an engine.
pub enum Op<'a> {
    Store {
        endpoint: u32,
        parent: Option<EngineHash>,
        locals: &'a [u64],
        keys: &'a [BlockKey],
        names: &'a [EngineHash],
    },
    Remove {
        endpoint: u32,
        names: Vec<EngineHash>,
    },
}

impl Op<'_> {
    pub fn blocks(&self) -> usize {
        match self {
            Op::Store { names, .. } => names.len(),
            Op::Remove { names, .. } => names.len(),
        }
    }
}

pub fn blocks_of(ops: &[Op<'_>]) -> usize {
    ops.iter().map(Op::blocks).sum()
}

impl Sequence {
    pub fn store(&self, blocks: Range<usize>) -> Op<'_> {
        Op::Store {
            endpoint: self.endpoint,
            parent: blocks.start.checked_sub(1).map(|above| self.names[above]),
            locals: &self.locals[blocks.clone()],
            keys: &self.keys[blocks.clone()],
            names: &self.names[blocks],
        }
    }

    /// Last block first, as engines evict.
    pub fn remove(&self, blocks: Range<usize>) -> Op<'_> {
        let names = self.names[blocks].iter().rev().copied().collect();
        Op::Remove { endpoint: self.endpoint, names }
    }
}

impl Tree3 {
    /// Every sequence, one event each.
    pub fn whole(&self) -> Vec<Op<'_>> {
        self.sequences.iter().map(|sequence| sequence.store(0..self.shape.depth)).collect()
    }

    /// Three quarters of every sequence, one event each: what the prefills leave.
    pub fn prefilled(&self) -> Vec<Op<'_>> {
        self.sequences.iter().map(|sequence| sequence.store(0..self.tail().start)).collect()
    }

    /// The last quarter of every sequence, one block an event, all sequences in turn: what decoding
    /// them side by side sends.
    pub fn decoded(&self) -> Vec<Op<'_>> {
        let steps = self.tail();
        let step = |at| self.sequences.iter().map(move |sequence| sequence.store(at..at + 1));
        steps.flat_map(step).collect()
    }

    /// The last quarter of every fourth sequence goes.
    pub fn tails_removed(&self) -> Vec<Op<'_>> {
        self.sequences.iter().step_by(4).map(|sequence| sequence.remove(self.tail())).collect()
    }

    /// Every sequence, but each endpoint is told of a block once: engines differ in whether a block
    /// that is said to be stored twice has to be removed twice.
    pub fn stored_once(&self) -> Vec<Op<'_>> {
        let mut held = FxHashSet::default();
        let mut fresh = |sequence: &Sequence| {
            let mut is_new = |name: &EngineHash| held.insert((sequence.endpoint, name.0));
            sequence.names.iter().filter(|name| is_new(name)).count()
        };
        let depth = self.shape.depth;
        let store = |sequence| (sequence, fresh(sequence));
        let stores = self.sequences.iter().map(store).filter(|(_, fresh)| *fresh > 0);
        stores.map(|(sequence, fresh)| sequence.store(depth - fresh..depth)).collect()
    }

    /// After [`stored_once`](Self::stored_once): endpoints lose the first blocks of their sessions
    /// while they keep the rest, as engines do that evict by age alone. Every fourth endpoint loses
    /// the second half of its group's blocks too.
    pub fn heads_removed(&self) -> Vec<Op<'_>> {
        let mut gone = FxHashSet::default();
        let mut removals = Vec::new();
        let depth = self.shape.depth;
        for sequence in self.sequences.iter().step_by(3) {
            let first = if sequence.endpoint % 4 == 0 { depth / 8 } else { depth / 4 };
            let is_new = |name: &EngineHash| gone.insert((sequence.endpoint, name.0));
            let names = sequence.names[first..depth / 2].iter().copied();
            let names: Vec<_> = names.filter(is_new).collect();
            if !names.is_empty() {
                removals.push(Op::Remove { endpoint: sequence.endpoint, names });
            }
        }
        removals
    }

    /// The blocks that a sequence has for itself.
    pub fn tail(&self) -> Range<usize> {
        self.shape.depth * 3 / 4..self.shape.depth
    }
}
