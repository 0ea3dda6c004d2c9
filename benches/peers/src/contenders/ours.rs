//! Ours, twice: called natively with borrowed slices, and behind a queue like the rivals'.

use super::{Index, Lookups};
use crate::clock::{Bell, cpu_s_of};
use crate::ops::Op;
use crate::ours::{Answer, BlockKey, EngineHash, Ours, chain};
use std::hint::black_box;
use std::sync::Arc;
use std::thread;

pub struct OurTree(Arc<Ours>);

impl OurTree {
    pub fn index(&self) -> &Ours {
        &self.0
    }

    pub fn apply(&self, op: &Op<'_>) {
        match op {
            Op::Store { endpoint, parent, keys, names, .. } => {
                self.0.store(*endpoint, *parent, names, keys);
            }
            Op::Remove { endpoint, names } => self.0.remove(*endpoint, names),
        }
    }

    /// As [`Index::prepare`], with the chain from local hashes to keys inside the lookup.
    pub fn prepare_chained<'a>(&'a self, queries: &'a [Vec<u64>]) -> Box<dyn Lookups + 'a> {
        let (keys, answer) = (Vec::new(), Answer::default());
        Box::new(ChainedLookups { index: &self.0, queries, keys, answer })
    }
}

impl Index for OurTree {
    const NAME: &'static str = "ours";

    fn new(endpoints: u32) -> Self {
        Self(Arc::new(Ours::new(endpoints)))
    }

    fn drive(&mut self, phases: &[Vec<Op<'_>>]) -> Vec<f64> {
        let cost = |ops: &Vec<Op<'_>>| cpu_s_of(|| ops.iter().for_each(|op| self.apply(op)));
        phases.iter().map(cost).collect()
    }

    fn feed(&mut self, op: &Op<'_>) {
        self.apply(op);
    }

    fn prepare<'a>(&'a self, queries: &'a [Vec<u64>]) -> Box<dyn Lookups + 'a> {
        let keys = |query: &Vec<u64>| {
            let mut keys = Vec::new();
            chain(query, &mut keys);
            keys
        };
        let queries = queries.iter().map(keys).collect();
        Box::new(OurLookups { index: &self.0, queries, answer: Answer::default() })
    }
}

struct OurLookups<'a> {
    index: &'a Ours,
    queries: Vec<Vec<BlockKey>>,
    answer: Answer,
}

impl Lookups for OurLookups<'_> {
    fn one(&mut self, query: usize) {
        self.index.lookup(black_box(&self.queries[query]), &mut self.answer);
        black_box(self.answer.depths());
    }

    fn answer(&mut self, query: usize, depths: &mut [u32]) {
        self.one(query);
        self.answer.copy_to(depths);
    }
}

struct ChainedLookups<'a> {
    index: &'a Ours,
    queries: &'a [Vec<u64>],
    keys: Vec<BlockKey>,
    answer: Answer,
}

impl Lookups for ChainedLookups<'_> {
    fn one(&mut self, query: usize) {
        chain(black_box(&self.queries[query]), &mut self.keys);
        self.index.lookup(&self.keys, &mut self.answer);
        black_box(self.answer.depths());
    }

    fn answer(&mut self, query: usize, depths: &mut [u32]) {
        self.one(query);
        self.answer.copy_to(depths);
    }
}

/// Ours, behind the same queue and with owned events, as the rival has it.
pub struct OurQueue(OurTree);

enum Message {
    Store { endpoint: u32, parent: Option<EngineHash>, names: Vec<EngineHash>, keys: Vec<BlockKey> },
    Remove { endpoint: u32, names: Vec<EngineHash> },
    Mark(Arc<Bell>),
}

impl From<&Op<'_>> for Message {
    fn from(op: &Op<'_>) -> Self {
        match op {
            Op::Store { endpoint, parent, keys, names, .. } => Self::Store {
                endpoint: *endpoint,
                parent: *parent,
                names: names.to_vec(),
                keys: keys.to_vec(),
            },
            Op::Remove { endpoint, names } => {
                Self::Remove { endpoint: *endpoint, names: names.clone() }
            }
        }
    }
}

impl Index for OurQueue {
    const NAME: &'static str = "ours_queue";

    fn new(endpoints: u32) -> Self {
        Self(OurTree::new(endpoints))
    }

    fn drive(&mut self, phases: &[Vec<Op<'_>>]) -> Vec<f64> {
        let (queue, waiting) = flume::unbounded();
        let mark = || {
            let bell = Arc::new(Bell::default());
            queue.send(Message::Mark(Arc::clone(&bell))).unwrap();
            bell
        };
        let mut marks = vec![mark()];
        for ops in phases {
            ops.iter().for_each(|op| queue.send(Message::from(op)).unwrap());
            marks.push(mark());
        }
        let index = Arc::clone(&self.0.0);
        let worker = thread::spawn(move || {
            while let Ok(message) = waiting.recv() {
                match message {
                    Message::Store { endpoint, parent, names, keys } => {
                        index.store(endpoint, parent, &names, &keys);
                    }
                    Message::Remove { endpoint, names } => index.remove(endpoint, &names),
                    Message::Mark(bell) => bell.ring(),
                }
            }
        });
        let at: Vec<f64> = marks.iter().map(|bell| bell.wait()).collect();
        drop(queue);
        worker.join().unwrap();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn feed(&mut self, op: &Op<'_>) {
        self.0.apply(op);
    }

    fn prepare<'a>(&'a self, queries: &'a [Vec<u64>]) -> Box<dyn Lookups + 'a> {
        self.0.prepare(queries)
    }
}
