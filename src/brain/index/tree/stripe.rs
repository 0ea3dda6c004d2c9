//! The writing half of a stripe, under the stripe's lock: what endpoints store and remove, and what
//! they hold. `runs` has how runs change for that, `pages` where their room comes from.

use super::node::{NONE, Node};
use super::room::{Numbers, Room};
use super::set::WIDTHS;
use super::storage::{BlockPage, Storage};
use super::{At, BLOCK_BYTES, BlockRef, Hold, Placed, Put, RUN_BYTES, STRIPE_BLOCKS, Seen, Tree};
use crate::index::sync::{Arc, AtomicU64, AtomicUsize, Ordering, Published};
use crate::{BlockKey, EngineHash};
use std::collections::BTreeSet;

/// Slots that a run gets beyond what it needs where it seems to be growing (a decode).
///
/// A guess between nodes a prompt (fewer with more) and slack (less with fewer); not tuned.
const GROWTH: u32 = 32;

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) number: usize,
    /// The newest list, and where readers find it.
    pub(super) storage: Arc<Storage>,
    pub(super) published: Arc<Published<Storage>>,
    pub(super) edition: Arc<AtomicU64>,
    /// The page in place of those that were given back.
    pub(super) void: Arc<BlockPage>,
    pub(super) room: Room,
    pub(super) nodes: Numbers,
    pub(super) records: Numbers,
    pub(super) rows: [Numbers; WIDTHS],
    /// Slots of the table of heads that are not empty.
    pub(super) heads_used: usize,
    /// Blocks that somebody holds.
    pub(super) live_blocks: u64,
    /// The time, as it was last told.
    pub(super) stamp: u32,
    /// Bytes of pages that were counted for all stripes, and the count.
    pub(super) counted_bytes: usize,
    pub(super) all_bytes: Arc<AtomicUsize>,
}

/// A place in a run: `offset` of its blocks are before it.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    node: u32,
    offset: u32,
}

impl Writer {
    pub(super) fn new(
        number: usize,
        published: &Arc<Published<Storage>>,
        edition: &Arc<AtomicU64>,
        all_bytes: &Arc<AtomicUsize>,
        void: &Arc<BlockPage>,
    ) -> Self {
        let storage = Arc::clone(&published.load());
        Self {
            number,
            storage,
            published: Arc::clone(published),
            edition: Arc::clone(edition),
            void: Arc::clone(void),
            room: Room::default(),
            nodes: Numbers::default(),
            records: Numbers::default(),
            rows: Default::default(),
            heads_used: 0,
            live_blocks: 0,
            stamp: 0,
            counted_bytes: 0,
            all_bytes: Arc::clone(all_bytes),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.live_blocks
    }

    /// Bytes of what is not free, names included.
    pub(super) fn used_bytes(&self) -> usize {
        self.room.live() as usize * BLOCK_BYTES + self.nodes.live() as usize * RUN_BYTES
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let rows = self.rows.iter().map(Numbers::heap_bytes).sum::<usize>();
        let numbers = self.nodes.heap_bytes() + self.records.heap_bytes() + rows;
        self.storage.heap_bytes(&self.void) + self.room.heap_bytes() + numbers
    }

    pub(super) fn node(&self, node: u32) -> &Node {
        self.storage.node(node)
    }

    pub(super) fn block(&self, slot: u32) -> BlockRef {
        BlockRef::new(self.number, slot)
    }

    fn find(&self, key: u64) -> Option<u32> {
        self.storage.enter(key).map(|(node, _)| node)
    }

    /// How many of `keys` are the blocks of the node from `offset` on, in order.
    fn common(&self, node: u32, offset: u32, keys: &[BlockKey]) -> u32 {
        let node = self.node(node);
        let most = ((node.len() - offset) as usize).min(keys.len());
        let same = |i: usize| self.storage.key(node.start() + offset + i as u32) == keys[i].0;
        super::walk::agreeing(most, same) as u32
    }

    pub(super) fn held(&self, who: u32, slot: u32) -> Hold {
        match self.storage.node_of(slot) {
            NONE => Hold::NONE,
            node => self.node(node).held_by(who, self),
        }
    }

    pub(super) fn locate(&self, at: At, keys: &[BlockKey]) -> Option<BlockRef> {
        let mut cursor = match at {
            At::Start => None,
            At::After(block) | At::Claimed(block, _) => Some(self.behind(block.slot())?),
        };
        let mut done = 0;
        loop {
            let Cursor { node, offset } = match cursor {
                Some(at) if at.offset < self.node(at.node).len() => at,
                _ => Cursor { node: self.find(keys.get(done)?.0)?, offset: 0 },
            };
            let common = self.common(node, offset, &keys[done..]);
            done += common as usize;
            if done == keys.len() {
                return Some(self.block(self.node(node).start() + offset + common - 1));
            }
            if offset + common < self.node(node).len() {
                return None;
            }
            cursor = None;
        }
    }

    /// The run of slots around `slot` that `who` holds in this way, under the names that all
    /// share, and whose names follow in `names`, in either direction: first slot and number.
    pub(super) fn same_run(
        &self,
        who: u32,
        slot: u32,
        hold: Hold,
        names: &[EngineHash],
    ) -> (u32, u32) {
        let number = self.storage.node_of(slot);
        if number == NONE {
            return (slot, 0);
        }
        let node = self.node(number);
        let held = node.held_by(who, self);
        if !held.meets(hold) || held.meets(Hold::ALIASED) {
            return (slot, 0);
        }
        let (mut first, mut end) = (slot, slot + 1);
        for &EngineHash(name) in names {
            if name == 0 {
                break;
            }
            if first > node.start() && self.storage.name(first - 1) == name {
                first -= 1;
            } else if end < node.end() && self.storage.name(end) == name {
                end += 1;
            } else {
                break;
            }
        }
        (first, end - first)
    }

    pub(super) fn visit(&self, who: u32, visit: &mut impl FnMut(Option<BlockRef>, Seen)) {
        let live = (0..self.nodes.used()).filter(|&node| self.node(node).len() > 0);
        let held = live.filter(|&node| self.node(node).held_by(who, self) != Hold::NONE);
        let mut runs = BTreeSet::new();
        for node in held {
            let mut way = Some(node);
            while let Some(node) = way
                && runs.insert((self.depth(node), node))
            {
                way = self.parent_of(node);
            }
        }
        for (_, number) in runs {
            let node = self.node(number);
            let before = (node.parent() != NONE).then(|| self.block(node.parent()));
            let seen = Seen {
                first: self.block(node.start()),
                len: node.len(),
                hold: node.held_by(who, self),
                is_leaf: node.children() == 0,
                stored_at: node.stored_at.load(Ordering::Relaxed),
            };
            visit(before, seen);
        }
    }

    fn parent_of(&self, node: u32) -> Option<u32> {
        let before = self.node(node).parent();
        (before != NONE).then(|| self.storage.node_of(before))
    }

    /// Runs on the way to a node.
    fn depth(&self, node: u32) -> u32 {
        std::iter::successors(self.parent_of(node), |&node| self.parent_of(node)).count() as u32
    }

    #[allow(clippy::too_many_arguments)] // The tree's own method, with the tree.
    pub(super) fn put(
        &mut self,
        tree: &Tree,
        who: u32,
        at: At,
        keys: &[BlockKey],
        names: &[EngineHash],
        put: Put,
        placed: &mut impl FnMut(Placed),
    ) -> Option<BlockRef> {
        self.stamp = put.stamp;
        let mut cursor = match at {
            At::Start => None,
            At::After(block) => Some(self.behind(block.slot())?),
            At::Claimed(block, name) => {
                if !self.is_named(block.slot(), name) {
                    return None;
                }
                let cursor = self.behind(block.slot())?;
                let held = self.node(cursor.node).held_by(who, self);
                if !held.meets(Hold::EXACT) || held.meets(Hold::ALIASED) {
                    return None;
                }
                Some(cursor)
            }
        };
        let growing = cursor.is_some();
        let mut done = 0;
        while done < keys.len() {
            let left = &keys[done..];
            let names = names.get(done..).unwrap_or_default();
            if let Some(Cursor { node, offset }) = cursor
                && offset < self.node(node).len()
            {
                let common = self.common(node, offset, left);
                if common == 0 {
                    self.split(node, offset);
                    continue;
                }
                let skipped = put.skip.saturating_sub(done).min(common as usize) as u32;
                let len = if skipped > 0 { skipped } else { common };
                let first = self.node(node).start() + offset;
                let len = match skipped {
                    0 => self.join(tree, who, first, len, names, put, done, placed),
                    _ => len,
                };
                done += len as usize;
                cursor = self.behind(first + len - 1);
                continue;
            }
            let goes_on = cursor.is_none_or(|at| self.node(at.node).children() > 0);
            if goes_on && let Some(next) = self.find(left[0].0) {
                cursor = Some(Cursor { node: next, offset: 0 });
                continue;
            }
            let skipped = put.skip.saturating_sub(done).min(left.len());
            let (left, hold) = match skipped {
                0 => (left, put.hold),
                _ => (&left[..skipped], Hold::NONE),
            };
            let (first, len) = self.append(tree, who, cursor, left, names, hold, growing)?;
            if skipped == 0 {
                let after = self.held(who, first);
                let (position, first, before) = (done, self.block(first), Hold::NONE);
                let is_shared = !after.meets(Hold::ALIASED);
                placed(Placed { position, first, len, before, after, is_shared });
            }
            done += len as usize;
            cursor = self.behind(first + len - 1);
        }
        let Cursor { node, offset } = cursor?;
        Some(self.block(self.node(node).start() + offset - 1))
    }

    /// The place behind a block.
    fn behind(&self, slot: u32) -> Option<Cursor> {
        let node = self.storage.node_of(slot);
        (node != NONE).then(|| Cursor { node, offset: slot + 1 - self.node(node).start() })
    }

    /// `who` joins blocks that are there: as many of the `len` from `first` on as are alike.
    #[allow(clippy::too_many_arguments)]
    fn join(
        &mut self,
        tree: &Tree,
        who: u32,
        first: u32,
        len: u32,
        names: &[EngineHash],
        put: Put,
        position: usize,
        placed: &mut impl FnMut(Placed),
    ) -> u32 {
        let before = self.held(who, first);
        let block = self.block(first);
        let is_shared = false;
        let mut of = Placed { position, first: block, len, before, after: before, is_shared };
        if before.meets(put.unless) {
            let names = &names[..names.len().min(len as usize)];
            of.is_shared = self.named_so(first, names) == names.len();
            placed(of);
            return len;
        }
        let mut after = before | put.hold;
        if put.hold.meets(Hold::EXACT) {
            after = after.without(Hold::BELIEVED);
        }
        if !names.is_empty() {
            let names = &names[..len as usize];
            let aliased;
            (of.len, aliased) = match self.named_so(first, names) {
                0 => self.give_names(tree, first, names),
                named_so => (named_so as u32, false),
            };
            let alike = (of.len..len)
                .take_while(|&i| self.is_aliased(tree, first + i, names[i as usize]) == aliased);
            of.len += alike.count() as u32;
            if aliased {
                after = after | Hold::ALIASED;
            }
        }
        of.after = after;
        let node = self.storage.node_of(first);
        let lo = first - self.node(node).start();
        self.assign(tree, node, lo..lo + of.len, who, after);
        placed(of);
        of.len
    }

    /// New blocks behind the cursor, where nothing goes on with the first key: as many as fit
    /// together. `None` where the stripe has no room.
    #[allow(clippy::too_many_arguments)]
    fn append(
        &mut self,
        tree: &Tree,
        who: u32,
        cursor: Option<Cursor>,
        keys: &[BlockKey],
        names: &[EngineHash],
        hold: Hold,
        growing: bool,
    ) -> Option<(u32, u32)> {
        let reserve = cursor.and_then(|Cursor { node: number, .. }| {
            let node = self.node(number);
            let own = node.start() + node.room.load(Ordering::Relaxed);
            (node.children() == 0 && node.end() < own).then_some((number, node.end()..own))
        });
        let slots = match &reserve {
            Some((_, slots)) => slots.clone(),
            None => {
                let wanted = keys.len() as u32;
                let room = if growing && wanted < GROWTH { GROWTH } else { wanted };
                if self.room.used().checked_add(room).is_none_or(|used| used > STRIPE_BLOCKS) {
                    return None;
                }
                let slots = self.room.take(room);
                self.page_blocks(&slots);
                slots
            }
        };
        let most = (slots.end - slots.start).min(keys.len() as u32);
        self.storage.set_keys(slots.start, &keys[..most as usize]);
        let (mut len, mut hold) = (most, hold);
        if hold != Hold::NONE && !names.is_empty() {
            let shared;
            (len, shared) = self.name(tree, slots.start, &names[..most as usize]);
            // What is named otherwise is put, and named, next.
            self.forget_names(tree, slots.start + len..slots.start + most);
            if !shared {
                hold = hold | Hold::ALIASED;
            }
        }
        if hold != Hold::NONE {
            self.live_blocks += u64::from(len);
        }
        if let Some((number, _)) = reserve {
            let node = self.node(number);
            if hold != Hold::NONE && node.is_only(who, hold, self) {
                self.storage.set_node_of(slots.start..slots.start + len, number);
                node.stored_at.store(self.stamp, Ordering::Relaxed);
                node.grow_to(node.len() + len);
                return Some((slots.start, len));
            }
            node.room.store(node.len(), Ordering::Relaxed);
        }
        let parent = cursor.map(|Cursor { node, .. }| node);
        self.begin_leaf(parent, slots.clone(), len, keys[0].0, who, hold);
        Some((slots.start, len))
    }

    /// See [`Tree::grow`].
    pub(super) fn grow(
        &mut self,
        tree: &Tree,
        who: u32,
        (last, parent): (u32, EngineHash),
        (key, name): (BlockKey, EngineHash),
        hold: Hold,
        stamp: u32,
    ) -> bool {
        let slot = last + 1;
        self.storage.prefetch_key(slot);
        let number = self.storage.node_of(last);
        if number == NONE || !self.is_named(last, parent) {
            return false;
        }
        let node = self.node(number);
        let len = node.len();
        let may_grow = node.end() == slot
            && node.children() == 0
            && len < node.room.load(Ordering::Relaxed)
            && node.is_only(who, hold, self);
        if !may_grow || name.0 == 0 {
            return false;
        }
        let is_it = |other: BlockRef| tree.name(other) == name;
        if !tree.names.insert_one(name, self.block(slot), is_it) {
            return false;
        }
        self.storage.set_block(slot, key, name, number);
        node.stored_at.store(stamp, Ordering::Relaxed);
        node.grow_to(len + 1);
        (self.stamp, self.live_blocks) = (stamp, self.live_blocks + 1);
        true
    }

    pub(super) fn alter(
        &mut self,
        tree: &Tree,
        who: u32,
        first: u32,
        len: u32,
        change: &impl Fn(Hold) -> Hold,
        placed: &mut impl FnMut(Placed),
    ) {
        // From the end: a leaf that shrinks is the cheapest change.
        let mut end = first + len;
        while end > first {
            let number = self.storage.node_of(end - 1);
            if number == NONE {
                end -= 1;
                continue;
            }
            let node = self.node(number);
            let (start, from) = (node.start(), first.max(node.start()));
            let before = node.held_by(who, self);
            let after = change(before);
            if before != after {
                self.assign(tree, number, from - start..end - start, who, after);
                let (position, len) = ((from - first) as usize, end - from);
                let first = self.block(from);
                placed(Placed { position, first, len, before, after, is_shared: false });
            }
            end = from;
        }
    }

    pub(super) fn clear(&mut self, tree: &Tree, who: u32, which: Hold) {
        for number in 0..self.nodes.used() {
            // The stripe may have started over meanwhile.
            if number >= self.nodes.used() {
                return;
            }
            let node = self.node(number);
            if node.len() == 0 {
                continue;
            }
            let (held, len) = (node.held_by(who, self), node.len());
            self.assign(tree, number, 0..len, who, held.without(which));
        }
    }
}
