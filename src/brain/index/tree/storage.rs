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
use std::ops::Range;

/// Blocks of a page.
pub(super) const PAGE_BLOCKS: usize = if cfg!(shuttle) { 4 } else { 512 };
/// Nodes of a page.
pub(super) const PAGE_NODES: usize = if cfg!(shuttle) { 2 } else { 64 };
/// Records of a page.
pub(super) const PAGE_RECORDS: usize = if cfg!(shuttle) { 1 } else { 16 };

/// Consecutive blocks: 20 bytes each.
///
/// NOTE(perf): names and nodes in lines of their own, five blocks each, save whoever finds a block by
/// its name one cache line, which is on its way together with the other, and cost 0.8 bytes a block
/// and a division by five wherever a block is looked at.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct BlockPage {
    keys: [AtomicU64; PAGE_BLOCKS],
    /// The engine's name that the table of names knows; 0 where it knows none.
    names: [AtomicU64; PAGE_BLOCKS],
    /// The node that the block belongs to, plus one: of no node at first.
    nodes: [AtomicU32; PAGE_BLOCKS],
}

impl BlockPage {
    pub(super) fn new() -> Self {
        // Constants, so that a page is filled as memory.
        Self {
            keys: [const { AtomicU64::new(0) }; PAGE_BLOCKS],
            names: [const { AtomicU64::new(0) }; PAGE_BLOCKS],
            nodes: [const { AtomicU32::new(0) }; PAGE_BLOCKS],
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
    fn page(&self, slot: u32) -> (&BlockPage, usize) {
        let slot = slot as usize;
        (&self.blocks[slot / PAGE_BLOCKS], slot % PAGE_BLOCKS)
    }

    /// Goes over consecutive blocks page by page: `each` gets the page, which of its blocks they
    /// are, and how many came before.
    #[inline]
    fn pages(&self, slots: Range<u32>, mut each: impl FnMut(&BlockPage, Range<usize>, usize)) {
        let mut done = 0;
        while done < slots.len() {
            let (page, from) = self.page(slots.start + done as u32);
            let here = (PAGE_BLOCKS - from).min(slots.len() - done);
            each(page, from..from + here, done);
            done += here;
        }
    }

    #[inline]
    pub(super) fn key(&self, slot: u32) -> u64 {
        let (page, at) = self.page(slot);
        page.keys[at].load(Ordering::Relaxed)
    }

    pub(super) fn set_keys(&self, first: u32, keys: &[BlockKey]) {
        self.pages(first..first + keys.len() as u32, |page, at, done| {
            for (to, key) in page.keys[at].iter().zip(&keys[done..]) {
                to.store(key.0, Ordering::Release);
            }
        });
    }

    /// How many of the blocks from `first` on have these names, up to the first that has not.
    pub(super) fn named_so(&self, first: u32, names: &[EngineHash]) -> usize {
        let mut same = 0;
        self.pages(first..first + names.len() as u32, |page, at, done| {
            if same == done {
                let pairs = page.names[at].iter().zip(&names[done..]);
                let alike =
                    |(of, name): &(&AtomicU64, &EngineHash)| of.load(Ordering::Relaxed) == name.0;
                same += pairs.take_while(alike).count();
            }
        });
        same
    }

    /// How many of `len` blocks from `first` on have no name, up to the first that has one.
    pub(super) fn unnamed(&self, first: u32, len: usize) -> usize {
        (first..first + len as u32).take_while(|&slot| self.name(slot) == 0).count()
    }

    pub(super) fn set_names(&self, first: u32, names: &[EngineHash]) {
        self.pages(first..first + names.len() as u32, |page, at, done| {
            for (to, name) in page.names[at].iter().zip(&names[done..]) {
                to.store(name.0, Ordering::Release);
            }
        });
    }

    /// Takes the names of blocks away: what they were.
    pub(super) fn take_names(&self, first: u32, names: &mut [EngineHash]) {
        self.pages(first..first + names.len() as u32, |page, at, done| {
            for (from, name) in page.names[at].iter().zip(&mut names[done..]) {
                *name = EngineHash(from.load(Ordering::Relaxed));
                from.store(0, Ordering::Release);
            }
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
        let slot = slot as usize;
        let page = self.blocks.get(slot / PAGE_BLOCKS);
        page.map_or(0, |page| page.names[slot % PAGE_BLOCKS].load(Ordering::Acquire))
    }

    pub(super) fn set_name(&self, slot: u32, name: u64) {
        let (page, at) = self.page(slot);
        page.names[at].store(name, Ordering::Release);
    }

    pub(super) fn set_block(&self, slot: u32, key: BlockKey, name: EngineHash, node: u32) {
        let (page, at) = self.page(slot);
        page.keys[at].store(key.0, Ordering::Release);
        page.names[at].store(name.0, Ordering::Release);
        page.nodes[at].store(node.wrapping_add(1), Ordering::Relaxed);
    }

    /// The node that a block belongs to; none too where there is no such slot. For the writer only.
    #[inline]
    pub(super) fn node_of(&self, slot: u32) -> u32 {
        let slot = slot as usize;
        let page = self.blocks.get(slot / PAGE_BLOCKS);
        let node = page.map_or(0, |page| page.nodes[slot % PAGE_BLOCKS].load(Ordering::Relaxed));
        node.wrapping_sub(1)
    }

    pub(super) fn set_node_of(&self, slots: Range<u32>, node: u32) {
        let node = node.wrapping_add(1);
        self.pages(slots, |page, at, _| {
            for of in &page.nodes[at] {
                of.store(node, Ordering::Relaxed);
            }
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
