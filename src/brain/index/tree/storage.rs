//! Where a stripe's blocks, nodes and sets lie: pages that never move, and the list of them.
//!
//! A writer that needs more room publishes a new list with the same pages and more; one whose table
//! of heads is full publishes a list with another table. Readers go by the list they found.

use super::heads::Heads;
use super::heap;
use super::node::{More, Node, Span};
use super::set::Rows;
use crate::index::sync::{Arc, AtomicU32, AtomicU64, Ordering};

/// Blocks of a page.
pub(super) const PAGE_BLOCKS: usize = 512;
/// Nodes of a page.
pub(super) const PAGE_NODES: usize = 64;
/// Records of a page.
pub(super) const PAGE_RECORDS: usize = 16;

/// What is known of one block. Key and name lie together: whoever asks for a block by its name
/// wants its key, or its neighbour's name, next.
#[derive(Debug, Default)]
struct Block {
    key: AtomicU64,
    /// The engine's name of it that the table of names knows; 0 where it knows none.
    name: AtomicU64,
}

/// Consecutive blocks.
#[derive(Debug)]
pub(super) struct BlockPage {
    blocks: [Block; PAGE_BLOCKS],
    nodes: [AtomicU32; PAGE_BLOCKS],
}

impl BlockPage {
    pub(super) fn new() -> Self {
        Self {
            blocks: std::array::from_fn(|_| Block::default()),
            nodes: std::array::from_fn(|_| AtomicU32::new(super::node::NONE)),
        }
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
    fn block(&self, slot: u32) -> &Block {
        let slot = slot as usize;
        &self.blocks[slot / PAGE_BLOCKS].blocks[slot % PAGE_BLOCKS]
    }

    #[inline]
    pub(super) fn key(&self, slot: u32) -> u64 {
        self.block(slot).key.load(Ordering::Relaxed)
    }

    pub(super) fn set_key(&self, slot: u32, key: u64) {
        self.block(slot).key.store(key, Ordering::Release);
    }

    /// The name of a block; 0 too where there is no such slot (a reader's list may be old).
    #[inline]
    pub(super) fn name(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        let page = self.blocks.get(slot / PAGE_BLOCKS);
        page.map_or(0, |page| page.blocks[slot % PAGE_BLOCKS].name.load(Ordering::Acquire))
    }

    pub(super) fn set_name(&self, slot: u32, name: u64) {
        self.block(slot).name.store(name, Ordering::Release);
    }

    /// The node that a block belongs to. For the writer only.
    #[inline]
    pub(super) fn node_of(&self, slot: u32) -> u32 {
        let slot = slot as usize;
        match self.blocks.get(slot / PAGE_BLOCKS) {
            Some(page) => page.nodes[slot % PAGE_BLOCKS].load(Ordering::Relaxed),
            None => super::node::NONE,
        }
    }

    pub(super) fn set_node_of(&self, slots: std::ops::Range<u32>, node: u32) {
        let (mut at, end) = (slots.start as usize, slots.end as usize);
        while at < end {
            let within = at % PAGE_BLOCKS;
            let to = end.min(at - within + PAGE_BLOCKS);
            let page = &self.blocks[at / PAGE_BLOCKS].nodes[within..within + to - at];
            for of in page {
                of.store(node, Ordering::Relaxed);
            }
            at = to;
        }
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
        Some(page.blocks[slot % PAGE_BLOCKS].key.load(Ordering::Acquire))
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
        let pages = blocks * heap::arc(std::mem::size_of::<BlockPage>())
            + self.nodes.len() * heap::arc(std::mem::size_of::<NodePage>()).next_multiple_of(64)
            + self.records.len() * heap::arc(std::mem::size_of::<RecordPage>());
        let lists = heap::vec(&self.blocks) + heap::vec(&self.nodes) + heap::vec(&self.records);
        let heads = heap::arc(std::mem::size_of::<Heads>()) + self.heads.heap_bytes();
        heap::arc(std::mem::size_of::<Self>()) + pages + lists + heads + self.rows.heap_bytes()
    }
}
