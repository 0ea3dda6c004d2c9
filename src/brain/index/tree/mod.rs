//! Who holds which run of blocks: the one structure behind exact and believed residency.
//!
//! A radix tree over chained keys, compressed to runs of blocks that the same endpoints hold in the
//! same way. Since a key stands for its whole prefix, one flat table of first keys ([`heads`]) takes
//! the place of child pointers, and of a run a look-up reads its node and its last key: where that
//! is the query's, so are all before it; else the place where they part is searched for.
//!
//! What it guarantees:
//! - *Exact.* An endpoint is in the sets of a run if and only if it holds every block of it. Runs are
//!   split where that would stop being true, and joined again where both sides are held alike.
//! - *Readers wait for nobody.* A look-up takes no lock and begins again only where a writer got
//!   something done: on a run it was reading ([`node`] has the protocol), or by giving the stripe
//!   more room.
//! - *Writers take turns by prompt.* The tree is cut into stripes by the first block of the prompt;
//!   the table of engines' names into shards of its own. Writers of prompts that begin alike, or
//!   whose beginnings share a stripe, wait for each other; a lock is held for one run of an event.
//! - *Nothing stays.* A block that nobody holds is gone, but for those that a held one descends
//!   from; a stripe that becomes empty gives all its memory back.
//!
//! Slots of blocks never move: a [`BlockRef`] is good for as long as somebody holds the block.
//!
//! What a block takes: 20 bytes (key, name, node) and 9 to 10 for its name in the table, and its share
//! of a run: 64 bytes for the node, 8 to 10 for its head.
//!
//! NOTE(perf): what was tried and lost is told where it would be: see [`heads`], [`names`], [`walk`].

mod heads;
pub(in crate::index) mod heap;
mod names;
mod naming;
mod node;
mod pages;
mod prefetch;
mod room;
mod runs;
pub(in crate::index) mod set;
mod storage;
mod stripe;
#[cfg(test)]
mod tests;
mod walk;

pub(in crate::index) use walk::Walk;

use crate::index::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering, Published};
use crate::{BlockKey, EngineHash, Tier};
use names::Names;
use storage::{BlockPage, Storage};
use stripe::Writer;

/// Number of sets of a run: one for each way in which it can be held.
const PLANES: usize = 6;

/// The ways in which one endpoint holds a block: any of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::index) struct Hold(u8);

impl Hold {
    /// Not at all.
    pub(in crate::index) const NONE: Self = Self(0);
    /// In GPU memory, by its events.
    pub(in crate::index) const GPU: Self = Self(1);
    /// By its events, on any tier.
    pub(in crate::index) const EXACT: Self = Self(0b1111);
    /// By our bookings.
    pub(in crate::index) const BELIEVED: Self = Self(1 << BELIEVED);
    /// Under a name of its own.
    pub(in crate::index) const ALIASED: Self = Self(1 << 5);

    /// On a tier, by its events.
    pub(in crate::index) fn on(tier: Tier) -> Self {
        Self(1 << tier.index())
    }

    /// The fastest tier.
    pub(in crate::index) fn fastest(self) -> Option<Tier> {
        Tier::ALL.into_iter().find(|&tier| self.meets(Self::on(tier)))
    }

    /// Whether they have a way in common.
    pub(in crate::index) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// All ways but those of `other`.
    pub(in crate::index) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn of(plane: usize, held: bool) -> Self {
        Self(u8::from(held) << plane)
    }

    fn has(self, plane: usize) -> bool {
        self.0 >> plane & 1 != 0
    }

    /// The planes that it has.
    fn planes(self) -> impl Iterator<Item = usize> {
        set::bits(self.0.into(), 0).map(|plane| plane as usize)
    }

    fn has_more(self) -> bool {
        self.0 > 1
    }
}

impl std::ops::BitOr for Hold {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Plane of the believed.
const BELIEVED: usize = 4;

/// Stripes, by the first key of the prompt.
#[cfg(not(shuttle))]
const STRIPES: usize = 32;
#[cfg(shuttle)]
const STRIPES: usize = 1;
/// Bits of a slot in a [`BlockRef`].
const SLOT_BITS: u32 = 27;
/// What a block takes: its key, its name and its node, and its name's entry.
const BLOCK_BYTES: usize = 29;
/// What a run takes: its node and its head.
const RUN_BYTES: usize = 76;
/// Blocks of a stripe, at most.
const STRIPE_BLOCKS: u32 = (1 << SLOT_BITS) - 1;

/// A block that somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::index) struct BlockRef(u32);

impl BlockRef {
    fn new(stripe: usize, slot: u32) -> Self {
        Self((stripe as u32) << SLOT_BITS | slot)
    }

    fn stripe(self) -> usize {
        (self.0 >> SLOT_BITS) as usize
    }

    fn slot(self) -> u32 {
        self.0 & STRIPE_BLOCKS
    }

    /// How many blocks it lies behind another of its stripe.
    pub(in crate::index) fn from(self, other: Self) -> u32 {
        self.0 - other.0
    }

    /// The block `blocks` behind it in its run.
    pub(in crate::index) fn plus(self, blocks: u32) -> Self {
        Self(self.0 + blocks)
    }

    #[cfg(test)]
    pub(in crate::index) fn for_test(number: u32) -> Self {
        Self(number)
    }

    /// How many blocks behind `first` it lies, if it is one of the `len` there.
    pub(in crate::index) fn within(self, first: Self, len: u32) -> Option<u32> {
        self.0.checked_sub(first.0).filter(|&behind| behind < len)
    }
}

/// Where a run goes on.
#[derive(Debug, Clone, Copy)]
pub(in crate::index) enum At {
    /// It starts a prompt.
    Start,
    /// Behind a block.
    After(BlockRef),
    /// Behind the block of this name, which [`Tree::claim`] says is this one; nowhere if it is not,
    /// or is not plainly held.
    Claimed(BlockRef, EngineHash),
}

/// What is to be done along a run of keys.
#[derive(Debug, Clone, Copy)]
pub(in crate::index) struct Put {
    /// How the endpoint holds them from now on, besides how it does.
    pub(in crate::index) hold: Hold,
    /// Blocks that it holds in one of these ways are only told of.
    pub(in crate::index) unless: Hold,
    /// So many blocks at the start are only passed by, held or not.
    pub(in crate::index) skip: usize,
    /// The time, coarsely: by it the oldest are told.
    pub(in crate::index) stamp: u32,
}

/// Consecutive blocks of a run, and what became of them.
#[derive(Debug, Clone, Copy)]
pub(in crate::index) struct Placed {
    /// Position of the first in the run that was put.
    pub(in crate::index) position: usize,
    /// The first; the others follow it.
    pub(in crate::index) first: BlockRef,
    /// How many.
    pub(in crate::index) len: u32,
    /// How the endpoint held them before.
    pub(in crate::index) before: Hold,
    /// How it holds them now.
    pub(in crate::index) after: Hold,
    /// Whether all of the names that came with them are those that all share.
    pub(in crate::index) is_shared: bool,
}

/// Consecutive blocks that an endpoint holds in one way.
#[derive(Debug, Clone, Copy)]
pub(in crate::index) struct Seen {
    /// The first; the others follow it.
    pub(in crate::index) first: BlockRef,
    /// How many.
    pub(in crate::index) len: u32,
    /// How they are held.
    pub(in crate::index) hold: Hold,
    /// Whether anything goes on behind them.
    pub(in crate::index) is_leaf: bool,
    /// When they last became somebody's, as [`Put::stamp`] said.
    pub(in crate::index) stored_at: u32,
}

#[derive(Debug)]
struct Stripe {
    published: Arc<Published<Storage>>,
    /// Counts what was published.
    edition: Arc<AtomicU64>,
    writer: Mutex<Writer>,
}

/// The tree.
#[derive(Debug)]
pub(in crate::index) struct Tree {
    stripes: Box<[Stripe]>,
    names: Names,
    /// Bytes of all stripes, kept current by their writers.
    stripe_bytes: Arc<AtomicUsize>,
}

impl Tree {
    /// An empty tree of blocks that engines name.
    pub(in crate::index) fn new() -> Self {
        Self::with(Names::new())
    }

    /// An empty tree of blocks that no engine names.
    pub(in crate::index) fn nameless() -> Self {
        Self::with(Names::none())
    }

    fn with(names: Names) -> Self {
        let stripe_bytes = Arc::new(AtomicUsize::new(0));
        let void = Arc::new(BlockPage::new());
        let stripes = (0..STRIPES).map(|number| {
            let published = Arc::new(Published::new(Arc::new(Storage::new())));
            let edition = Arc::new(AtomicU64::new(0));
            let writer = Writer::new(number, &published, &edition, &stripe_bytes, &void);
            Stripe { published, edition, writer: Mutex::new(writer) }
        });
        Self { stripes: stripes.collect(), names, stripe_bytes }
    }

    fn stripe_of(first: BlockKey) -> usize {
        // Not the bits that the table of heads goes by.
        first.0 as usize % STRIPES
    }

    fn stripe_at(at: At, keys: &[BlockKey]) -> Option<usize> {
        match at {
            At::Start => keys.first().map(|&first| Self::stripe_of(first)),
            At::After(block) | At::Claimed(block, _) => {
                (!keys.is_empty()).then_some(block.stripe())
            }
        }
    }

    /// Has endpoint `who` hold a run of blocks. `names` are the engine's, one a key, or none. Tells
    /// what became of each block, in order, but for those skipped, and returns the last one; `None`
    /// where there are no keys, or no room in the stripe for all of them.
    pub(in crate::index) fn put(
        &self,
        who: u32,
        at: At,
        keys: &[BlockKey],
        names: &[EngineHash],
        put: Put,
        mut placed: impl FnMut(Placed),
    ) -> Option<BlockRef> {
        let stripe = Self::stripe_at(at, keys)?;
        self.stripes[stripe].writer.lock().put(self, who, at, keys, names, put, &mut placed)
    }

    /// Has endpoint `who` hold one block more behind the last of a run, as [`Self::put`] would: what
    /// a decode does, block by block. False, and nothing done, where it takes more than that: where
    /// `block` is not the last of its run or does not go by `parent`, where it is held otherwise or
    /// by others too, where the run has no room.
    pub(in crate::index) fn grow(
        &self,
        who: u32,
        (block, parent): (BlockRef, EngineHash),
        (key, name): (BlockKey, EngineHash),
        hold: Hold,
        stamp: u32,
    ) -> bool {
        let mut writer = self.stripes[block.stripe()].writer.lock();
        writer.grow(self, who, (block.slot(), parent), (key, name), hold, stamp)
    }

    /// Changes how `who` holds `len` blocks from `first` on, which lie in one prompt.
    pub(in crate::index) fn alter(
        &self,
        who: u32,
        first: BlockRef,
        len: u32,
        change: impl Fn(Hold) -> Hold,
        mut placed: impl FnMut(Placed),
    ) {
        let mut writer = self.stripes[first.stripe()].writer.lock();
        writer.alter(self, who, first.slot(), len, &change, &mut placed);
    }

    /// Takes a way of holding from the blocks of these names that `who` holds so under the names
    /// that all share. `spare` is shown each run of such blocks: it says how many of the last are
    /// alike, and whether those are to be spared. Returns how many blocks there were.
    pub(in crate::index) fn remove_named(
        &self,
        who: u32,
        names: &[EngineHash],
        hold: Hold,
        mut spare: impl FnMut(BlockRef, u32) -> (u32, bool),
        mut placed: impl FnMut(Placed),
    ) -> u64 {
        let (mut at, mut removed) = (0, 0);
        while let Some(&name) = names.get(at) {
            at += 1;
            let Some(claimed) = self.claim(name) else { continue };
            let mut writer = self.stripes[claimed.stripe()].writer.lock();
            let block = match writer.is_named(claimed.slot(), name) {
                true => claimed,
                false => {
                    drop(writer);
                    let Some(block) = self.find_name(name) else { continue };
                    writer = self.stripes[block.stripe()].writer.lock();
                    block
                }
            };
            let (first, len) = writer.same_run(who, block.slot(), hold, &names[at..]);
            at += (len as usize).saturating_sub(1);
            removed += u64::from(len);
            let mut end = first + len;
            while end > first {
                let (alike, spared) = spare(writer.block(first), end - first);
                end -= alike;
                if !spared {
                    let change = |held: Hold| held.without(hold);
                    writer.alter(self, who, end, alike, &change, &mut placed);
                }
            }
        }
        removed
    }

    /// These names will be looked for, or given.
    pub(in crate::index) fn prefetch(&self, names: &[EngineHash]) {
        self.names.prefetch(names);
    }

    /// A block that most probably goes by that name among all; none certainly does where there is
    /// no such.
    pub(in crate::index) fn claim(&self, name: EngineHash) -> Option<BlockRef> {
        self.names.find(name.0, |_| true)
    }

    /// The block that goes by that name among all.
    pub(in crate::index) fn find_name(&self, name: EngineHash) -> Option<BlockRef> {
        self.names.find(name.0, |block| self.name(block) == name)
    }

    /// The name by which all go that have none of their own.
    pub(in crate::index) fn name(&self, block: BlockRef) -> EngineHash {
        EngineHash(self.stripes[block.stripe()].published.load().name(block.slot()))
    }

    /// The keys of consecutive blocks that are held, or that lead to such.
    pub(in crate::index) fn keys(&self, first: BlockRef, len: u32) -> Vec<BlockKey> {
        let storage = self.stripes[first.stripe()].published.load();
        let slots = first.slot()..first.slot() + len;
        slots.map(|slot| BlockKey(storage.reader_key(slot).unwrap_or_default())).collect()
    }

    /// The names by which consecutive blocks go among all; 0 is none.
    pub(in crate::index) fn names(&self, first: BlockRef, len: u32) -> Vec<EngineHash> {
        let storage = self.stripes[first.stripe()].published.load();
        let slots = first.slot()..first.slot() + len;
        slots.map(|slot| EngineHash(storage.name(slot))).collect()
    }

    /// The key of a block that the caller's endpoint holds.
    pub(in crate::index) fn key(&self, block: BlockRef) -> BlockKey {
        let storage = self.stripes[block.stripe()].published.load();
        BlockKey(storage.reader_key(block.slot()).unwrap_or_default())
    }

    /// How an endpoint holds a block.
    pub(in crate::index) fn held(&self, who: u32, block: BlockRef) -> Hold {
        self.stripes[block.stripe()].writer.lock().held(who, block.slot())
    }

    /// The last block of a run, if it is there.
    pub(in crate::index) fn locate(&self, at: At, keys: &[BlockKey]) -> Option<BlockRef> {
        let stripe = Self::stripe_at(at, keys)?;
        self.stripes[stripe].writer.lock().locate(at, keys)
    }

    /// How an endpoint holds the last of these blocks, which start a prompt.
    pub(in crate::index) fn held_at(&self, who: u32, keys: &[BlockKey]) -> Hold {
        let block = self.locate(At::Start, keys);
        block.map_or(Hold::NONE, |block| self.held(who, block))
    }

    /// Tells of all that an endpoint holds, run by run, and of what leads there: parents before
    /// children, each with the block before it.
    pub(in crate::index) fn visit(&self, who: u32, mut visit: impl FnMut(Option<BlockRef>, Seen)) {
        for stripe in &self.stripes {
            stripe.writer.lock().visit(who, &mut visit);
        }
    }

    /// The endpoint holds nothing any more.
    pub(in crate::index) fn clear(&self, who: u32, which: Hold) {
        for stripe in &self.stripes {
            stripe.writer.lock().clear(self, who, which);
        }
    }

    /// Blocks that somebody holds.
    pub(in crate::index) fn len(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.writer.lock().len()).sum()
    }

    /// Whether anybody may hold a prompt that starts so.
    pub(in crate::index) fn has_head(&self, first: BlockKey) -> bool {
        self.stripes[Self::stripe_of(first)].published.load().enter(first.0).is_some()
    }

    /// Bytes allocated.
    pub(in crate::index) fn memory_bytes(&self) -> usize {
        let void = heap::arc(std::mem::size_of::<BlockPage>());
        let itself = std::mem::size_of_val(&*self.stripes) + void;
        let shared = heap::arc(std::mem::size_of::<Published<Storage>>())
            + heap::arc(std::mem::size_of::<AtomicU64>());
        let lists = self.stripes.iter().map(|stripe| stripe.writer.lock().heap_bytes());
        itself + self.stripes.len() * shared + lists.sum::<usize>() + self.names.heap_bytes()
    }

    /// How many blocks too many there are for so many bytes; `None` where there is room.
    pub(in crate::index) fn excess_blocks(&self, max_bytes: usize) -> Option<u64> {
        // What stripes have allocated, and names by their usual share: nearly always enough to know.
        if self.stripe_bytes.load(Ordering::Relaxed) / 20 * 29 <= max_bytes {
            return None;
        }
        // Freed slots are not given back, but used again: they do not count.
        let used: usize = self.stripes.iter().map(|stripe| stripe.writer.lock().used_bytes()).sum();
        let excess = used.checked_sub(max_bytes).filter(|&excess| excess > 0)?;
        Some(Self::blocks_of(excess).max(1))
    }

    /// How many blocks take so many bytes.
    pub(in crate::index) fn blocks_of(bytes: usize) -> u64 {
        (bytes / BLOCK_BYTES) as u64
    }
}
