//! smg's index of KV events (`kv-index`), by its interface that allocates nothing.

use super::{Index, Lookups};
use crate::clock::cpu_s_of;
use crate::ops::Op;
use kv_index::{ChainBlockMap, ChainIndex, ContentHash, SequenceHash, StoredBlock};
use std::hint::black_box;

pub struct KvIndex {
    index: ChainIndex,
    /// What each endpoint's event lane keeps.
    maps: Vec<ChainBlockMap>,
}

impl Index for KvIndex {
    const NAME: &'static str = "kv_index";

    fn new(endpoints: u32) -> Self {
        let index = ChainIndex::with_max_workers(endpoints as usize);
        for endpoint in 0..endpoints {
            assert_eq!(index.intern_worker(&endpoint.to_string()).unwrap(), endpoint);
        }
        Self { index, maps: (0..endpoints).map(|_| ChainBlockMap::new()).collect() }
    }

    fn drive(&mut self, phases: &[Vec<Op<'_>>]) -> Vec<f64> {
        let cost = |ops: &Vec<Op<'_>>| {
            let events: Vec<_> = ops.iter().map(Event::from).collect();
            cpu_s_of(|| events.iter().for_each(|event| self.apply(event)))
        };
        phases.iter().map(cost).collect()
    }

    fn feed(&mut self, op: &Op<'_>) {
        self.apply(&Event::from(op));
    }

    fn prepare<'a>(&'a self, queries: &'a [Vec<u64>]) -> Box<dyn Lookups + 'a> {
        let depths = vec![0; self.maps.len()];
        Box::new(KvIndexLookups { index: &self.index, queries, depths })
    }
}

/// An event in its terms, whose slices it borrows.
enum Event {
    Store { endpoint: u32, parent: Option<SequenceHash>, blocks: Vec<StoredBlock> },
    Remove { endpoint: u32, names: Vec<SequenceHash> },
}

impl From<&Op<'_>> for Event {
    fn from(op: &Op<'_>) -> Self {
        match op {
            Op::Store { endpoint, parent, locals, names, .. } => {
                let block = |(&local, name): (&u64, &llmd_brain::EngineHash)| StoredBlock {
                    seq_hash: SequenceHash(name.0),
                    content_hash: ContentHash(local),
                };
                let blocks = locals.iter().zip(*names).map(block).collect();
                let parent = parent.map(|name| SequenceHash(name.0));
                Self::Store { endpoint: *endpoint, parent, blocks }
            }
            Op::Remove { endpoint, names } => {
                let names = names.iter().map(|name| SequenceHash(name.0)).collect();
                Self::Remove { endpoint: *endpoint, names }
            }
        }
    }
}

impl KvIndex {
    /// Most that it takes.
    pub const MAX_ENDPOINTS: u32 = 1024;

    pub fn index(&self) -> &ChainIndex {
        &self.index
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Store { endpoint, parent, blocks } => {
                let map = &mut self.maps[*endpoint as usize];
                self.index.apply_stored(*endpoint, blocks, *parent, map).unwrap();
            }
            Event::Remove { endpoint, names } => {
                self.index.apply_removed(*endpoint, names, &mut self.maps[*endpoint as usize]);
            }
        }
    }
}

struct KvIndexLookups<'a> {
    index: &'a ChainIndex,
    queries: &'a [Vec<u64>],
    depths: Vec<u32>,
}

impl Lookups for KvIndexLookups<'_> {
    fn one(&mut self, query: usize) {
        let depths = &mut self.depths;
        depths.fill(0);
        let report = |endpoint: u32, depth| depths[endpoint as usize] = depth;
        self.index.score_into(black_box(&self.queries[query]), |&local| local, false, report);
        black_box(&self.depths);
    }

    fn answer(&mut self, query: usize, depths: &mut [u32]) {
        let report = |endpoint: u32, depth| depths[endpoint as usize] = depth;
        self.index.score_into(&self.queries[query], |&local| local, false, report);
    }
}
