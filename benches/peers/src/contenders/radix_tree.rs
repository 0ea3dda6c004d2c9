//! Dynamo's single-threaded radix tree. It takes events and queries by value.

use super::router_event::{local_hashes, router_event};
use super::{Index, Lookups};
use crate::clock::cpu_s_of;
use crate::ops::Op;
use dynamo_kv_router::RadixTree;
use dynamo_kv_router::protocols::LocalBlockHash;
use std::hint::black_box;

pub struct DynamoRadixTree(RadixTree);

impl Index for DynamoRadixTree {
    const NAME: &'static str = "radix_tree";

    fn new(_endpoints: u32) -> Self {
        Self(RadixTree::new())
    }

    fn drive(&mut self, phases: &[Vec<Op<'_>>]) -> Vec<f64> {
        let cost = |ops: &Vec<Op<'_>>| {
            let events: Vec<_> = ops.iter().map(router_event).collect();
            cpu_s_of(|| events.into_iter().for_each(|event| self.0.apply_event(event).unwrap()))
        };
        phases.iter().map(cost).collect()
    }

    fn feed(&mut self, op: &Op<'_>) {
        self.0.apply_event(router_event(op)).unwrap();
    }

    fn prepare<'a>(&'a self, queries: &'a [Vec<u64>]) -> Box<dyn Lookups + 'a> {
        let queries = queries.iter().map(|query| local_hashes(query)).collect();
        Box::new(RadixTreeLookups { tree: &self.0, queries })
    }
}

struct RadixTreeLookups<'a> {
    tree: &'a RadixTree,
    queries: Vec<Vec<LocalBlockHash>>,
}

impl Lookups for RadixTreeLookups<'_> {
    fn one(&mut self, query: usize) {
        black_box(self.tree.find_matches(black_box(self.queries[query].clone()), false));
    }

    fn answer(&mut self, query: usize, depths: &mut [u32]) {
        for (worker, depth) in self.tree.find_matches(self.queries[query].clone(), false).scores {
            depths[worker.worker_id as usize] = depth;
        }
    }
}
