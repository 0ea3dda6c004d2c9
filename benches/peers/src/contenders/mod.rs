//! The indexes that are compared. Each file is one of them; this is what all can do.
//!
//! An [`Index`] is built by driving it through the phases of a history, which says what each phase
//! cost, in CPU seconds of the thread that did it. Translating the events into the contender's own
//! terms is off the clock; what it does with them, freeing included, is on it.

mod crtc;
mod kv_index;
mod ours;
mod radix_tree;
mod router_event;

pub use crtc::Crtc;
pub use kv_index::KvIndex;
pub use ours::{OurQueue, OurTree};
pub use radix_tree::DynamoRadixTree;

use crate::clock::cpu_s_of;
use crate::ops::Op;
use std::time::Instant;

/// Something that knows who holds what.
pub trait Index: Sized {
    const NAME: &'static str;

    fn new(endpoints: u32) -> Self;

    /// Applies the phases in order; the CPU seconds of each.
    fn drive(&mut self, phases: &[Vec<Op<'_>>]) -> Vec<f64>;

    /// Applies one event, however long that takes; do not mix with [`drive`](Self::drive).
    fn feed(&mut self, op: &Op<'_>);

    /// Gets ready to be asked these queries, which are given as local hashes.
    fn prepare<'a>(&'a self, queries: &'a [Vec<u64>]) -> Box<dyn Lookups + 'a>;
}

/// Built from nothing by a history, and what its phases cost.
pub fn built<I: Index>(endpoints: u32, phases: &[Vec<Op<'_>>]) -> (I, Vec<f64>) {
    let mut index = I::new(endpoints);
    let costs = index.drive(phases);
    (index, costs)
}

/// An index and queries in its own terms.
pub trait Lookups {
    /// Looks the query up and drops the answer.
    fn one(&mut self, query: usize);

    /// Looks the query up; the blocks that each endpoint holds, 0 beforehand.
    fn answer(&mut self, query: usize, depths: &mut [u32]);

    /// CPU seconds of looking `queries` up, `rounds` times over.
    fn pass(&mut self, queries: usize, rounds: usize) -> f64 {
        cpu_s_of(|| {
            for _ in 0..rounds {
                (0..queries).for_each(|query| self.one(query));
            }
        })
    }

    /// Wall nanoseconds of each.
    fn latencies_ns(&mut self, queries: usize) -> Vec<u64> {
        let timed = |query| {
            let start = Instant::now();
            self.one(query);
            start.elapsed().as_nanos() as u64
        };
        (0..queries).map(timed).collect()
    }
}
