//! A run of blocks that the same endpoints hold in the same way.
//!
//! One cache line, read without a lock by this protocol. What a node says is true of it together:
//! every endpoint in its sets holds all of its blocks. A writer may *add* (a block at the end while
//! the members hold it too, a member who holds all blocks) in one store, at any moment: a reader
//! who sees half of it credits less, and never wrongly, as long as it reads the length before the
//! sets. Before it *takes away* (a member, blocks at the end, the node itself) a writer raises the
//! version; a reader who may have seen any of that finds another version afterwards, and begins
//! again. So a reader never waits for a writer: it begins again only where one got something done.
//! Where a run starts, and its first key, never change while the node lives.

use super::set::{RowSource, SlotSet, Words};
use super::{Hold, PLANES};
use crate::index::sync::{AtomicU32, AtomicU64, Ordering};

/// No block, or no node.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Node {
    /// Version in the high half, blocks in the low half; none in a node that is free.
    span: AtomicU64,
    head: AtomicU64,
    /// Who holds it in GPU memory, which nearly always is all there is to say.
    gpu: SlotSet,
    start: AtomicU32,
    /// The record of all other sets, plus one; 0 for none.
    more: AtomicU32,
    /// Slots from `start` on that are the node's, used or not.
    pub(super) room: AtomicU32,
    /// The slot of the block before the first.
    pub(super) parent: AtomicU32,
    /// Nodes that go on behind the last block.
    pub(super) children: AtomicU32,
    /// The writer's tick when it last became somebody's.
    pub(super) stored_at: AtomicU32,
}

/// All sets of a node but the first.
#[derive(Debug, Default)]
pub(super) struct More {
    sets: [SlotSet; PLANES - 1],
}

/// What a reader saw of a node, to be believed if [`Node::is_still`] says so afterwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    seen: u64,
    pub(super) start: u32,
}

impl Span {
    pub(super) fn len(self) -> u32 {
        self.seen as u32
    }
}

impl Node {
    /// A reader's first look; `None` where the node is not that of the key.
    #[inline]
    pub(super) fn enter(&self, key: u64) -> Option<Span> {
        let seen = self.span.load(Ordering::Acquire);
        let span = Span { seen, start: self.start.load(Ordering::Acquire) };
        (self.head.load(Ordering::Acquire) == key && span.len() > 0).then_some(span)
    }

    /// Whether everything that a reader saw since it entered belongs together.
    #[inline]
    pub(super) fn is_still(&self, span: Span) -> bool {
        self.span.load(Ordering::Acquire) >> 32 == span.seen >> 32
    }

    /// Whether it has not even grown.
    #[inline]
    pub(super) fn is_same(&self, span: Span) -> bool {
        self.span.load(Ordering::Acquire) == span.seen
    }

    #[inline]
    pub(super) fn gpu(&self) -> Words {
        self.gpu.words()
    }

    /// Which record has its other sets.
    #[inline]
    pub(super) fn more(&self) -> Option<u32> {
        self.more.load(Ordering::Acquire).checked_sub(1)
    }

    // From here on: what only the writer calls, who has the stripe's lock.

    pub(super) fn start(&self) -> u32 {
        self.start.load(Ordering::Relaxed)
    }

    pub(super) fn len(&self) -> u32 {
        self.span.load(Ordering::Relaxed) as u32
    }

    pub(super) fn end(&self) -> u32 {
        self.start() + self.len()
    }

    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    pub(super) fn parent(&self) -> u32 {
        self.parent.load(Ordering::Relaxed)
    }

    pub(super) fn children(&self) -> u32 {
        self.children.load(Ordering::Relaxed)
    }

    pub(super) fn add_children(&self, more: i32) {
        let children = self.children().wrapping_add_signed(more);
        self.children.store(children, Ordering::Relaxed);
    }

    /// Something is about to be taken away.
    pub(super) fn warn(&self) {
        let span = self.span.load(Ordering::Relaxed);
        self.span.store(span.wrapping_add(1 << 32), Ordering::Release);
    }

    /// Blocks that all members hold were added, up to so many.
    pub(super) fn grow_to(&self, len: u32) {
        let version = self.span.load(Ordering::Relaxed) >> 32;
        self.span.store(version << 32 | u64::from(len), Ordering::Release);
    }

    /// Only so many blocks are left.
    pub(super) fn shrink_to(&self, len: u32) {
        self.warn();
        self.grow_to(len);
    }

    /// Becomes the run that its other fields already speak of: from now on it may be entered.
    pub(super) fn begin(&self, start: u32, len: u32, head: u64) {
        self.start.store(start, Ordering::Release);
        self.head.store(head, Ordering::Release);
        self.grow_to(len);
    }
}

/// What a writer needs to change a node's sets.
pub(super) trait SetSource: RowSource {
    fn record(&self, record: u32) -> &More;
    /// A record of empty sets.
    fn take_record(&mut self) -> u32;
    /// To be given out again: its sets are empty.
    fn free_record(&mut self, record: u32);
}

impl More {
    /// One of the other sets: of plane 1 and up.
    #[inline]
    pub(super) fn words(&self, plane: usize) -> Words {
        self.sets[plane - 1].words()
    }

    fn is_empty(&self) -> bool {
        self.sets.iter().all(|set| set.words().is_empty())
    }
}

/// Runs `change` on a set that the source's borrow must not cover.
macro_rules! on_set {
    ($node:expr, $source:expr, $plane:expr, |$set:ident, $inner:ident| $change:expr) => {{
        if $plane == 0 {
            let ($set, $inner) = (&$node.gpu, &mut *$source);
            $change
        } else if let Some(record) = $node.more() {
            // The record is shared, so it outlives the borrow of the source.
            let record = $source.shared_record(record);
            let ($set, $inner) = (&record.sets[$plane - 1], &mut *$source);
            $change
        }
    }};
}

/// A source whose records can be held while it is changed.
pub(super) trait SharedSource: SetSource {
    type Record: std::ops::Deref<Target = More>;
    fn shared_record(&self, record: u32) -> Self::Record;
}

impl Node {
    /// How one endpoint holds it.
    pub(super) fn held_by(&self, slot: u32, source: &impl SetSource) -> Hold {
        let rows = source.rows();
        let mut held = Hold::of(0, self.gpu().contains(slot, rows));
        if let Some(more) = self.more() {
            let more = source.record(more);
            for plane in 1..PLANES {
                held = held | Hold::of(plane, more.words(plane).contains(slot, rows));
            }
        }
        held
    }

    /// Whether one endpoint holds it in this way, and nobody else in any.
    pub(super) fn is_only(&self, slot: u32, held: Hold, source: &impl SetSource) -> bool {
        let plane = |plane: usize, words: Words| match held.has(plane) {
            true => words.is_only(slot),
            false => words.is_empty(),
        };
        plane(0, self.gpu())
            && match self.more() {
                None => held == Hold::GPU,
                Some(more) => {
                    let more = source.record(more);
                    (1..PLANES).all(|p| plane(p, more.words(p)))
                }
            }
    }

    /// Whether nobody holds it in any way.
    pub(super) fn is_nobodys(&self, source: &impl SetSource) -> bool {
        self.gpu().is_empty() && self.more().is_none_or(|more| source.record(more).is_empty())
    }

    /// Whether the same endpoints hold both in the same way.
    pub(super) fn is_held_as(&self, other: &Self, source: &impl SetSource) -> bool {
        let rows = source.rows();
        if !self.gpu().equal(other.gpu(), rows) {
            return false;
        }
        match (self.more(), other.more()) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => {
                let (ours, theirs) = (source.record(ours), source.record(theirs));
                (1..PLANES).all(|p| ours.words(p).equal(theirs.words(p), rows))
            }
            _ => false, // A record is there only while somebody is in it.
        }
    }

    /// Becomes held as another is. Nobody can find this node yet.
    pub(super) fn copy_sets(&self, from: &Self, source: &mut impl SharedSource) {
        self.gpu.copy_from(&from.gpu, source);
        if let Some(more) = from.more() {
            let copy = source.take_record();
            let (from, to) = (source.shared_record(more), source.shared_record(copy));
            for (from, to) in from.sets.iter().zip(&to.sets) {
                to.copy_from(from, source);
            }
            self.more.store(copy + 1, Ordering::Release);
        }
    }

    /// From now on one endpoint holds it in this way.
    pub(super) fn set_held(&self, slot: u32, to: Hold, source: &mut impl SharedSource) {
        let from = self.held_by(slot, source);
        let (added, taken) = (to.without(from), from.without(to));
        if to.has_more() && self.more().is_none() {
            let record = source.take_record();
            self.more.store(record + 1, Ordering::Release);
        }
        // Adds first, so that whoever moves between sets is in one of them at every moment.
        for plane in added.planes() {
            on_set!(self, source, plane, |set, source| {
                let outgrown = set.outgrown(slot, source.rows());
                set.insert(slot, source);
                if let Some(row) = outgrown {
                    self.warn();
                    source.free_row(row);
                }
            });
        }
        if taken == Hold::NONE {
            return;
        }
        self.warn();
        for plane in taken.planes() {
            on_set!(self, source, plane, |set, source| set.remove(slot, source));
        }
        self.give_back_record(source);
    }

    fn give_back_record(&self, source: &mut impl SharedSource) {
        if let Some(record) = self.more()
            && source.record(record).is_empty()
        {
            self.more.store(0, Ordering::Release);
            source.free_record(record);
        }
    }

    /// The node is free from now on. It must not be found any more.
    pub(super) fn retire(&self, source: &mut impl SharedSource) {
        self.shrink_to(0);
        self.gpu.clear(source);
        if let Some(record) = self.more() {
            for set in &source.shared_record(record).sets {
                set.clear(source);
            }
            self.give_back_record(source);
        }
    }
}
