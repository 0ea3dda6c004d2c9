//! The blocks that one engine has named, and the order in which they were stored.

use super::span::Span;
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

/// Physical copies of a block on each tier. They saturate, which forgets copies, never invents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Copies([u16; Tier::COUNT]);

impl Copies {
    pub(super) fn any(self) -> bool {
        self.0.iter().any(|&copies| copies > 0)
    }

    pub(super) fn fastest(self) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| self.0[tier.index()] > 0)
    }

    pub(super) fn add(&mut self, tier: Tier) {
        let copies = &mut self.0[tier.index()];
        *copies = copies.saturating_add(1);
    }

    /// False where there was none.
    pub(super) fn remove(&mut self, tier: Tier) -> bool {
        let copies = &mut self.0[tier.index()];
        let had = *copies > 0;
        *copies = copies.saturating_sub(1);
        had
    }
}

/// A block that the engine named.
#[derive(Debug)]
pub(super) struct Block {
    /// The engine's name of it.
    pub(super) name: EngineHash,
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
    older: BlockId,
    newer: BlockId,
}

impl Block {
    pub(super) fn new(name: EngineHash, group: u16, keys: Keys, span: Option<Box<Span>>) -> Self {
        Self {
            name,
            keys,
            span,
            copies: Copies::default(),
            group,
            settled: None,
            older: BlockId::NONE,
            newer: BlockId::NONE,
        }
    }

    /// What it counts against the endpoint's bound: its keys, at least one.
    pub(super) fn weight(&self) -> usize {
        self.keys.as_slice().len().max(1)
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

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slab.len() - self.free.len()
    }

    /// Bytes allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slab.capacity() * std::mem::size_of::<Option<Block>>()
            + self.free.capacity() * std::mem::size_of::<BlockId>()
            + self.heap_bytes
    }
}
