//! What one request carries: some runs of a part.

use crate::transfer::descriptor::{Check, Run};
use crate::transfer::region::{Layout, Registered};
use crate::transfer::wire::pieces::Pieces;
use crate::transfer::wire::request::Span;
use crate::transfer::work::{Use, Work};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes a request carries, about. Long enough for the answer to cost little, short enough for the
/// connections to share a part.
const CHUNK_BYTES: u64 = 1 << 20;
/// Runs a request carries: what one call of the kernel takes.
const MAX_CHUNK_RUNS: usize = 1000;

/// Checks a request carries; runs are at most a megabyte, so that a few more may be in one.
const MAX_CHUNK_CHECKS: usize = 4096;

/// A part under way: its chunks share the use of the local memory.
struct Posted {
    hold: Use,
    part: usize,
    left: AtomicUsize,
}

/// Some runs of a part, and the epochs of the blocks that they touch.
pub(super) struct Chunk {
    posted: Arc<Posted>,
    runs: Range<usize>,
    checks: Vec<Check>,
    pub bytes: u64,
}

impl Chunk {
    /// Cuts a part; a part without bytes is one empty chunk.
    pub fn cut(hold: Use, part: usize) -> Vec<Self> {
        let planned = hold.work().part(part);
        let mut checks = BlockChecks::new(hold.work().remote().shape().layout, &planned.remote);
        let mut cuts = Vec::new();
        let (mut start, mut bytes, mut found) = (0, 0, Vec::new());
        for (i, run) in planned.runs.iter().enumerate() {
            let full = bytes + run.bytes > CHUNK_BYTES
                || i - start >= MAX_CHUNK_RUNS
                || found.len() >= MAX_CHUNK_CHECKS;
            if full && bytes > 0 {
                cuts.push((start..i, std::mem::take(&mut found), bytes));
                (start, bytes) = (i, 0);
            }
            bytes += run.bytes;
            checks.add(run, cuts.len() as u32 + 1, &mut found);
        }
        cuts.push((start..planned.runs.len(), found, bytes));
        let left = AtomicUsize::new(cuts.len());
        let posted = Arc::new(Posted { hold, part, left });
        let chunk = |(runs, checks, bytes)| Self { posted: posted.clone(), runs, checks, bytes };
        cuts.into_iter().map(chunk).collect()
    }

    /// The same runs, to keep their memory while the chunk itself waits for its answer.
    pub fn twin(&self) -> Self {
        let (posted, runs) = (self.posted.clone(), self.runs.clone());
        Self { posted, runs, checks: Vec::new(), bytes: self.bytes }
    }

    pub fn work(&self) -> &Arc<Work> {
        self.posted.hold.work()
    }

    fn runs(&self) -> &[Run] {
        &self.work().part(self.posted.part).runs[self.runs.clone()]
    }

    /// What must hold at the owner.
    pub fn take_checks(&mut self) -> Vec<Check> {
        std::mem::take(&mut self.checks)
    }

    /// Where the bytes are at the owner.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = Span> {
        self.runs().iter().map(|run| Span { offset: run.remote_offset, bytes: run.bytes as u32 })
    }

    /// Where they are here; none if planning let something through that is not here.
    pub fn pieces(&self) -> Option<Pieces<'_>> {
        let local: &Registered = self.work().local();
        let mut pieces = Pieces::default();
        let whole = self.runs().iter().all(|run| pieces.region(local, run.local_offset, run.bytes));
        whole.then_some(pieces)
    }

    /// The owner said that all went well.
    pub fn done(self) {
        if self.posted.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.work().part_done(self.posted.part);
        }
    }
}

/// Finds the checks of runs, each block's once a chunk.
struct BlockChecks {
    layout: Layout,
    /// By block: its epoch, and the last chunk that has it.
    blocks: Vec<(u64, u32)>,
}

impl BlockChecks {
    fn new(layout: Layout, checks: &[Check]) -> Self {
        let mut blocks = vec![(0, 0); layout.blocks as usize];
        checks.iter().for_each(|check| blocks[check.slot as usize].0 = check.epoch);
        Self { layout, blocks }
    }

    fn add(&mut self, run: &Run, chunk: u32, found: &mut Vec<Check>) {
        let Layout { block_bytes, blocks } = self.layout;
        let first = run.remote_offset / block_bytes;
        for block in first..=(run.remote_offset + run.bytes - 1) / block_bytes {
            let slot = (block % u64::from(blocks)) as u32;
            let (epoch, seen) = &mut self.blocks[slot as usize];
            if std::mem::replace(seen, chunk) != chunk {
                found.push(Check { slot, epoch: *epoch });
            }
        }
    }
}
