//! From records back to what an engine holds.

use super::{ImportError, MoreCopies, Run};
use crate::index::plain::PlainView;
use crate::index::publisher::Publisher;
use crate::index::tree::{At, BlockRef, Hold};
use crate::{BlockKey, EngineHash};

/// Where in the tree the runs of the records so far are.
#[derive(Debug, Default)]
pub(in crate::index) struct Loader {
    runs: Vec<Loaded>,
    records: u64,
    blocks: u64,
}

#[derive(Debug)]
struct Loaded {
    /// Its blocks, in pieces of the tree: how many come before, the first, how many.
    pieces: Vec<(u32, BlockRef, u32)>,
    /// The last block on the way to its end that is held.
    held: Option<BlockRef>,
    /// The keys from there to its end.
    since: Vec<BlockKey>,
}

impl Loader {
    /// Blocks held so far.
    pub(in crate::index) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Another record is about to be imported.
    pub(in crate::index) fn begin(&mut self) {
        self.records += 1;
    }

    /// Imports a run.
    pub(in crate::index) fn run(
        &mut self,
        view: &mut PlainView,
        run: &Run,
        out: &mut Publisher<'_>,
    ) -> Result<(), ImportError> {
        if run.names.len() != if run.tiers.is_empty() { 0 } else { run.keys.len() } {
            let (record, names, keys) = (self.records, run.names.len(), run.keys.len());
            return Err(ImportError::Names { record, names, keys });
        }
        let (held, mut keys) = match run.parent {
            None => (None, vec![]),
            Some(parent) => self.loaded(parent, 0).map(|it| (it.held, it.since.clone()))?,
        };
        let skip = keys.len();
        keys.extend_from_slice(&run.keys);
        let Some((&tier, slower)) = run.tiers.split_first() else {
            self.runs.push(Loaded { pieces: vec![], held, since: keys });
            return Ok(());
        };
        let mut names = vec![EngineHash(0); skip];
        names.extend_from_slice(&run.names);
        let at = held.map_or(At::Start, At::After);
        let stored = view.store_past(at, &names, &keys, skip, tier, out);
        if stored < run.keys.len() as u64 {
            return Err(ImportError::Full);
        }
        let piece = |placed: &crate::index::tree::Placed| {
            (placed.position.saturating_sub(skip) as u32, placed.first, placed.len)
        };
        let pieces: Vec<_> = out.pieces.iter().map(piece).collect();
        self.blocks += stored;
        let last = pieces.last().map(|&(_, first, len)| first.plus(len - 1));
        self.runs.push(Loaded { pieces, held: last, since: vec![] });
        for &tier in slower {
            for (i, &name) in run.names.iter().enumerate() {
                let block = self.block(self.runs.len() as u32 - 1, i as u64)?;
                view.add_copies(block, name, tier, 1, out);
            }
        }
        Ok(())
    }

    /// Imports further copies.
    pub(in crate::index) fn copies(
        &self,
        view: &mut PlainView,
        more: &MoreCopies,
        out: &mut Publisher<'_>,
    ) -> Result<(), ImportError> {
        for (i, &name) in more.names.iter().enumerate() {
            let block = self.block(more.run, u64::from(more.offset) + i as u64)?;
            if !out.tree.held(out.who, block).meets(Hold::EXACT) {
                return Err(self.unknown(more.run, i as u64));
            }
            view.add_copies(block, name, more.tier, more.copies, out);
        }
        Ok(())
    }

    fn loaded(&self, run: u32, block: u64) -> Result<&Loaded, ImportError> {
        self.runs.get(run as usize).ok_or_else(|| self.unknown(run, block))
    }

    fn block(&self, run: u32, block: u64) -> Result<BlockRef, ImportError> {
        let pieces = &self.loaded(run, block)?.pieces;
        let after = pieces.partition_point(|&(before, ..)| u64::from(before) <= block);
        let piece = after.checked_sub(1).map(|at| pieces[at]);
        piece
            .filter(|&(before, _, len)| block < u64::from(before) + u64::from(len))
            .map(|(before, first, _)| first.plus(block as u32 - before))
            .ok_or_else(|| self.unknown(run, block))
    }

    fn unknown(&self, run: u32, block: u64) -> ImportError {
        ImportError::UnknownRun { record: self.records, run, block }
    }
}
