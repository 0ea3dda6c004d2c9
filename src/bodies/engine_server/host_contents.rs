//! What the blocks that are cached anywhere consist of: an event of the host tier tells it, and by
//! then the request that computed the block is gone.

use super::job::{Origin, StoredRun};
use llmd_brain::prompt::vllm::FullHash;
use std::collections::HashMap;
use std::sync::Arc;

/// Blocks of both tiers, bounded by what the tiers hold. Never iterated.
#[derive(Debug, Default)]
pub(super) struct HostContents {
    blocks: HashMap<FullHash, Content>,
    /// Blocks without a copy: forgotten at the end of the batch, unless they moved to the host.
    doomed: Vec<FullHash>,
}

#[derive(Debug)]
pub(super) struct Content {
    copies: u32,
    pub(super) position: u32,
    pub(super) parent: Option<FullHash>,
    pub(super) tokens: Box<[u32]>,
    pub(super) origin: Arc<Origin>,
}

impl HostContents {
    /// One more copy of each block of a run.
    pub(super) fn stored(&mut self, run: &StoredRun<'_>, origin: &Arc<Origin>) {
        let block_tokens = run.tokens.len() / run.hashes.len().max(1);
        let mut parent = run.parent;
        for (offset, (&hash, tokens)) in
            run.hashes.iter().zip(run.tokens.chunks(block_tokens.max(1))).enumerate()
        {
            let content = self.blocks.entry(hash).or_insert_with(|| Content {
                copies: 0,
                position: run.first_block + offset as u32,
                parent,
                tokens: tokens.into(),
                origin: Arc::clone(origin),
            });
            content.copies += 1;
            parent = Some(hash);
        }
    }

    /// One copy less.
    pub(super) fn removed(&mut self, hash: FullHash) {
        if let Some(content) = self.blocks.get_mut(&hash) {
            content.copies = content.copies.saturating_sub(1);
            if content.copies == 0 {
                self.doomed.push(hash);
            }
        }
    }

    /// A copy on the host.
    pub(super) fn moved_to_host(&mut self, hash: FullHash) {
        if let Some(content) = self.blocks.get_mut(&hash) {
            content.copies += 1;
        }
    }

    pub(super) fn get(&self, hash: &FullHash) -> Option<&Content> {
        self.blocks.get(hash)
    }

    /// Forgets what has no copy left.
    pub(super) fn end_of_batch(&mut self) {
        for hash in self.doomed.drain(..) {
            if self.blocks.get(&hash).is_some_and(|content| content.copies == 0) {
                self.blocks.remove(&hash);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.doomed.clear();
    }
}

impl Content {
    /// The block as a run of one.
    pub(super) fn as_run<'a>(&'a self, hash: &'a FullHash) -> StoredRun<'a> {
        StoredRun {
            first_block: self.position,
            parent: self.parent,
            hashes: std::slice::from_ref(hash),
            tokens: &self.tokens,
        }
    }
}
