//! The blocks that one engine has named, and the order in which they were stored.

use super::copies::Copies;
use super::span::Span;
use super::tree::heap;
use crate::{BlockKey, EngineHash, Tier};

/// Place of a block in [`Blocks`], valid until it is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlockId(u32);

impl BlockId {
    const NONE: Self = Self(u32::MAX);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Router blocks that an engine block completes, in order.
#[derive(Debug)]
pub(super) enum Keys {
    /// One: block sizes are equal, or this is the last of the engine blocks that make one up.
    One([BlockKey; 1]),
    /// Several for a larger engine block; none for one that ends inside of a router block.
    Many(Box<[BlockKey]>),
}

impl Keys {
    pub(super) fn none() -> Self {
        Self::Many(Box::default())
    }

    pub(super) fn as_slice(&self) -> &[BlockKey] {
        match self {
            Self::One(key) => key,
            Self::Many(keys) => keys,
        }
    }
}

/// A block that the engine named.
#[derive(Debug)]
pub(super) struct Block {
    /// The engine's name of it; none for one that only leads to others.
    pub(super) name: Option<EngineHash>,
    /// What it completes.
    pub(super) keys: Keys,
    /// Its place within a router block that takes several engine blocks.
    pub(super) span: Option<Box<Span>>,
    /// What is held of it; none for one that only blocks after it keep known.
    pub(super) copies: Copies,
    /// Position of its group in the view.
    pub(super) group: u16,
    /// The tier under which its keys are counted now.
    pub(super) settled: Option<Tier>,
    /// The block before it; none for the first of a prompt.
    pub(super) parent: Option<BlockId>,
    /// How many known blocks have it as their parent.
    pub(super) children: u32,
    older: BlockId,
    newer: BlockId,
}

impl Block {
    pub(super) fn new(
        name: Option<EngineHash>,
        group: u16,
        keys: Keys,
        span: Option<Box<Span>>,
        parent: Option<BlockId>,
    ) -> Self {
        Self {
            name,
            keys,
            span,
            copies: Copies::default(),
            group,
            settled: None,
            parent,
            children: 0,
            older: BlockId::NONE,
            newer: BlockId::NONE,
        }
    }

    fn heap_bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::One(_) => 0,
            Keys::Many(keys) => std::mem::size_of_val(&**keys),
        };
        keys + self.span.as_ref().map_or(0, |span| span.memory_bytes())
    }
}

/// A slab of blocks with a list through those that are held, from the oldest store to the newest.
#[derive(Debug)]
pub(super) struct Blocks {
    slab: Vec<Option<Block>>,
    free: Vec<BlockId>,
    oldest: BlockId,
    newest: BlockId,
    heap_bytes: usize,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self {
            slab: Vec::new(),
            free: Vec::new(),
            oldest: BlockId::NONE,
            newest: BlockId::NONE,
            heap_bytes: 0,
        }
    }

    pub(super) fn get(&self, id: BlockId) -> Option<&Block> {
        self.slab.get(id.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: BlockId) -> Option<&mut Block> {
        self.slab.get_mut(id.index())?.as_mut()
    }

    pub(super) fn insert(&mut self, block: Block) -> BlockId {
        self.heap_bytes += block.heap_bytes();
        if let Some(id) = self.free.pop() {
            self.slab[id.index()] = Some(block);
            return id;
        }
        self.slab.push(Some(block));
        BlockId((self.slab.len() - 1) as u32)
    }

    /// Takes out a block that is not in the list.
    pub(super) fn take(&mut self, id: BlockId) -> Option<Block> {
        let block = self.slab.get_mut(id.index())?.take()?;
        self.free.push(id);
        self.heap_bytes -= block.heap_bytes().min(self.heap_bytes);
        Some(block)
    }

    pub(super) fn oldest(&self) -> Option<BlockId> {
        (self.oldest != BlockId::NONE).then_some(self.oldest)
    }

    /// Appends to the list.
    pub(super) fn push_newest(&mut self, id: BlockId) {
        let older = self.newest;
        if let Some(block) = self.get_mut(id) {
            (block.older, block.newer) = (older, BlockId::NONE);
        }
        match self.get_mut(older) {
            Some(block) => block.newer = id,
            None => self.oldest = id,
        }
        self.newest = id;
    }

    /// Takes out of the list.
    pub(super) fn unlink(&mut self, id: BlockId) {
        let Some(&Block { older, newer, .. }) = self.get(id) else { return };
        match self.get_mut(older) {
            Some(block) => block.newer = newer,
            None => self.oldest = newer,
        }
        match self.get_mut(newer) {
            Some(block) => block.older = older,
            None => self.newest = older,
        }
    }

    /// Of every block, in the order of their places.
    pub(super) fn ids(&self) -> Vec<BlockId> {
        let places = (0..self.slab.len() as u32).map(BlockId);
        places.filter(|&id| self.get(id).is_some()).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// Bytes allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        heap::vec(&self.slab) + heap::vec(&self.free) + self.heap_bytes
    }
}
