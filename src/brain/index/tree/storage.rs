//! Where a stripe's blocks, nodes and sets lie: pages that never move, and the list of them.
//!
//! A writer that needs more room publishes a new list with the same pages and more; one whose table
//! of heads is full publishes a list with another table. Readers go by the list they found.

use super::heads::Heads;
use super::heap;
use super::node::{More, Node, Span};
use super::prefetch::prefetch;
use super::set::Rows;
use crate::index::sync::{Arc, AtomicU32, AtomicU64, Ordering};
use crate::{BlockKey, EngineHash};

/// Blocks of a page.
pub(super) const PAGE_BLOCKS: usize = PAGE_LINES * LINE_BLOCKS;
/// Blocks of a cache line of names and nodes, and such lines of a page.
const LINE_BLOCKS: usize = 5;
const PAGE_LINES: usize = if cfg!(shuttle) { 1 } else { 102 };
/// Nodes of a page.
pub(super) const PAGE_NODES: usize = if cfg!(shuttle) { 2 } else { 64 };
/// Records of a page.
pub(super) const PAGE_RECORDS: usize = if cfg!(shuttle) { 1 } else { 16 };

/// What writers want to know of five blocks: whoever asks for a block by its name wants its node
/// next, and its neighbours.
#[derive(Debug)]
#[repr(align(64))]
struct Line {
    /// The engine's name that the table of names knows; 0 where it knows none.
    names: [AtomicU64; LINE_BLOCKS],
    /// The node that the block belongs to, plus one: of no node at first.
    nodes: [AtomicU32; LINE_BLOCKS],
}

impl Line {
    /// Constant, so that a page of them is filled as memory.
    const fn new() -> Self {
        Self {
            names: [const { AtomicU64::new(0) }; LINE_BLOCKS],
            nodes: [const { AtomicU32::new(0) }; LINE_BLOCKS],
        }
    }
}

/// Consecutive blocks.
///
/// Laid out by reasoning, not by measurement: names and nodes in arrays of their own would cost a
/// writer one cache line more for each block, keys in the same lines would cost a reader more of them
/// where a prompt parts from a run.
#[derive(Debug)]
pub(super) struct BlockPage {
    keys: [AtomicU64; PAGE_BLOCKS],
    lines: [Line; PAGE_LINES],
}

impl BlockPage {
    pub(super) fn new() -> Self {
        Self {
            keys: [const { AtomicU64::new(0) }; PAGE_BLOCKS],
            lines: [const { Line::new() }; PAGE_LINES],
        }
    }

    #[inline]
    fn at(&self, within: usize) -> (&Line, usize) {
        (&self.lines[within / LINE_BLOCKS], within % LINE_BLOCKS)
    }
}

/// Consecutive nodes.
#[derive(Debug)]
pub(super) struct NodePage(pub(super) [Node; PAGE_NODES]);

/// Consecutive records.
#[derive(Debug)]
pub(super) struct RecordPage(pub(super) [More; PAGE_RECORDS]);

/// The list.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) heads: Arc<Heads>,
    pub(super) blocks: Vec<Arc<BlockPage>>,
    pub(super) nodes: Vec<Arc<NodePage>>,
    pub(super) records: Vec<Arc<RecordPage>>,
    pub(super) rows: Rows,
}

impl Storage {
    pub(super) fn new() -> Self {
        Self {
            heads: Arc::new(Heads::with_room(0)),
            blocks: vec![],
            nodes: vec![],
            records: vec![],
            rows: Rows::default(),
        }
    }

    #[inline]
    fn block(&self, slot: u32) -> (&Line, usize) {
        let slot = slot as usize;
        self.blocks[slot / PAGE_BLOCKS].at(slot % PAGE_BLOCKS)
    }

    /// As [`Self::block`], for a reader whose list may be old.
    #[inline]
    fn reader_block(&self, slot: u32) -> Option<(&Line, usize)> {
        let slot = slot as usize;
        Some(self.blocks.get(slot / PAGE_BLOCKS)?.at(slot % PAGE_BLOCKS))
    }

    #[inline]
    pub(super) fn key(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        self.blocks[slot / PAGE_BLOCKS].keys[slot % PAGE_BLOCKS].load(Ordering::Relaxed)
    }

    pub(super) fn set_keys(&self, first: u32, keys: &[BlockKey]) {
        let (mut slot, mut keys) = (first as usize, keys);
        while !keys.is_empty() {
            let page = &self.blocks[slot / PAGE_BLOCKS].keys[slot % PAGE_BLOCKS..];
            let (here, rest) = keys.split_at(page.len().min(keys.len()));
            for (at, key) in page.iter().zip(here) {
                at.store(key.0, Ordering::Release);
            }
            (slot, keys) = (slot + here.len(), rest);
        }
    }

    /// Goes over the lines of consecutive blocks: each with the block's place in it, as long as
    /// `each` says so.
    #[inline]
    fn lines(&self, slots: std::ops::Range<u32>, mut each: impl FnMut(&Line, usize) -> bool) {
        let (mut slot, end) = (slots.start as usize, slots.end as usize);
        while slot < end {
            let within = slot % PAGE_BLOCKS;
            let mut left = (PAGE_BLOCKS - within).min(end - slot);
            slot += left;
            let mut at = within % LINE_BLOCKS;
            for line in &self.blocks[(slot - 1) / PAGE_BLOCKS].lines[within / LINE_BLOCKS..] {
                let here = (LINE_BLOCKS - at).min(left);
                for at in at..at + here {
                    if !each(line, at) {
                        return;
                    }
                }
                (at, left) = (0, left - here);
                if left == 0 {
                    break;
                }
            }
        }
    }

    /// How many of the blocks from `first` on have these names, up to the first that has not.
    pub(super) fn named_so(&self, first: u32, names: &[EngineHash]) -> usize {
        let mut same = 0;
        self.lines(first..first + names.len() as u32, |line, at| {
            let is_same = line.names[at].load(Ordering::Relaxed) == names[same].0;
            same += usize::from(is_same);
            is_same
        });
        same
    }

    pub(super) fn set_names(&self, first: u32, names: &[EngineHash]) {
        let mut left = names.iter();
        self.lines(first..first + names.len() as u32, |line, at| {
            if let Some(name) = left.next() {
                line.names[at].store(name.0, Ordering::Release);
            }
            true
        });
    }

    /// Takes the names of blocks away: what they were.
    pub(super) fn take_names(&self, first: u32, names: &mut [EngineHash]) {
        let mut left = names.iter_mut();
        self.lines(first..first + left.len() as u32, |line, at| {
            if let Some(name) = left.next() {
                *name = EngineHash(line.names[at].load(Ordering::Relaxed));
                line.names[at].store(0, Ordering::Release);
            }
            true
        });
    }

    /// The key of a block will be set soon.
    #[inline]
    pub(super) fn prefetch_key(&self, slot: u32) {
        let slot = slot as usize;
        if let Some(page) = self.blocks.get(slot / PAGE_BLOCKS) {
            prefetch(std::ptr::from_ref(&page.keys[slot % PAGE_BLOCKS]).addr());
        }
    }

    /// The name of a block; 0 too where there is no such slot.
    #[inline]
    pub(super) fn name(&self, slot: u32) -> u64 {
        let block = self.reader_block(slot);
        block.map_or(0, |(line, at)| line.names[at].load(Ordering::Acquire))
    }

    pub(super) fn set_name(&self, slot: u32, name: u64) {
        let (line, at) = self.block(slot);
        line.names[at].store(name, Ordering::Release);
    }

    pub(super) fn set_block(&self, slot: u32, key: BlockKey, name: EngineHash, node: u32) {
        let slot = slot as usize;
        let page = &self.blocks[slot / PAGE_BLOCKS];
        page.keys[slot % PAGE_BLOCKS].store(key.0, Ordering::Release);
        let (line, at) = page.at(slot % PAGE_BLOCKS);
        line.names[at].store(name.0, Ordering::Release);
        line.nodes[at].store(node.wrapping_add(1), Ordering::Relaxed);
    }

    /// The node that a block belongs to. For the writer only.
    #[inline]
    pub(super) fn node_of(&self, slot: u32) -> u32 {
        let node = |(line, at): (&Line, usize)| line.nodes[at].load(Ordering::Relaxed);
        self.reader_block(slot).map_or(0, node).wrapping_sub(1)
    }

    pub(super) fn set_node_of(&self, slots: std::ops::Range<u32>, node: u32) {
        let node = node.wrapping_add(1);
        self.lines(slots, |line, at| {
            line.nodes[at].store(node, Ordering::Relaxed);
            true
        });
    }

    #[inline]
    pub(super) fn node(&self, node: u32) -> &Node {
        let node = node as usize;
        &self.nodes[node / PAGE_NODES].0[node % PAGE_NODES]
    }

    #[inline]
    pub(super) fn record(&self, record: u32) -> &More {
        let record = record as usize;
        &self.records[record / PAGE_RECORDS].0[record % PAGE_RECORDS]
    }

    /// The node whose run starts with the key, and what a reader first sees of it.
    #[inline]
    pub(super) fn enter(&self, key: u64) -> Option<(u32, Span)> {
        let mut span = None;
        let node = self.heads.find(key, |node| {
            span = self.reader_node(node).and_then(|node| node.enter(key));
            span.is_some()
        })?;
        Some((node, span?))
    }

    /// As [`Self::node`], for a reader whose table may name nodes that its list has no page of.
    #[inline]
    pub(super) fn reader_node(&self, node: u32) -> Option<&Node> {
        let node = node as usize;
        Some(&self.nodes.get(node / PAGE_NODES)?.0[node % PAGE_NODES])
    }

    /// As [`Self::key`], for a reader.
    #[inline]
    pub(super) fn reader_key(&self, slot: u32) -> Option<u64> {
        let slot = slot as usize;
        let page = self.blocks.get(slot / PAGE_BLOCKS)?;
        Some(page.keys[slot % PAGE_BLOCKS].load(Ordering::Acquire))
    }

    /// As [`Self::record`], for a reader.
    #[inline]
    pub(super) fn reader_record(&self, record: u32) -> Option<&More> {
        let record = record as usize;
        Some(&self.records.get(record / PAGE_RECORDS)?.0[record % PAGE_RECORDS])
    }

    /// Bytes allocated, without the page `void` that many share.
    pub(super) fn heap_bytes(&self, void: &Arc<BlockPage>) -> usize {
        let blocks = self.blocks.iter().filter(|page| !Arc::ptr_eq(page, void)).count();
        let pages = blocks * heap::arc(std::mem::size_of::<BlockPage>()).next_multiple_of(64)
            + self.nodes.len() * heap::arc(std::mem::size_of::<NodePage>()).next_multiple_of(64)
            + self.records.len() * heap::arc(std::mem::size_of::<RecordPage>());
        let lists = heap::vec(&self.blocks) + heap::vec(&self.nodes) + heap::vec(&self.records);
        let heads = heap::arc(std::mem::size_of::<Heads>()) + self.heads.heap_bytes();
        heap::arc(std::mem::size_of::<Self>()) + pages + lists + heads + self.rows.heap_bytes()
    }
}
