//! How a stripe's runs change: they begin, are cut, are joined, change hands and go.

use super::node::NONE;
use super::storage::Storage;
use super::stripe::Writer;
use super::{Hold, Tree};
use crate::EngineHash;
use crate::index::sync::{Arc, Ordering};
use std::ops::Range;

impl Writer {
    /// A new run of `len` blocks in the first of these slots.
    pub(super) fn begin_leaf(
        &mut self,
        parent: Option<u32>,
        slots: Range<u32>,
        len: u32,
        head: u64,
        who: u32,
        hold: Hold,
    ) {
        let number = self.take_node();
        let storage = Arc::clone(&self.storage);
        let node = storage.node(number);
        node.room.store(slots.end - slots.start, Ordering::Relaxed);
        node.children.store(0, Ordering::Relaxed);
        node.stored_at.store(self.stamp, Ordering::Relaxed);
        let last = parent.map_or(NONE, |parent| {
            self.give_back_reserve(parent);
            self.node(parent).add_children(1);
            self.node(parent).end() - 1
        });
        node.parent.store(last, Ordering::Relaxed);
        node.set_held(who, hold, self);
        self.storage.set_node_of(slots.start..slots.start + len, number);
        node.begin(slots.start, len, head);
        self.insert_head(head, number);
    }

    /// A run that others go on from does not grow.
    pub(super) fn give_back_reserve(&mut self, node: u32) {
        let node = self.node(node);
        let (end, room) = (node.end(), node.start() + node.room.load(Ordering::Relaxed));
        node.room.store(node.len(), Ordering::Relaxed);
        self.give_room(end..room);
    }

    /// Cuts a run: the node keeps its first blocks, a new one gets the rest.
    pub(super) fn split(&mut self, front: u32, len: u32) -> u32 {
        let back = self.take_node();
        let storage = Arc::clone(&self.storage);
        let (front_node, back_node) = (storage.node(front), storage.node(back));
        let start = front_node.start() + len;
        back_node.copy_sets(front_node, self);
        let room = front_node.room.load(Ordering::Relaxed) - len;
        back_node.room.store(room, Ordering::Relaxed);
        back_node.parent.store(start - 1, Ordering::Relaxed);
        back_node.children.store(front_node.children(), Ordering::Relaxed);
        let stored_at = front_node.stored_at.load(Ordering::Relaxed);
        back_node.stored_at.store(stored_at, Ordering::Relaxed);
        self.storage.set_node_of(start..front_node.end(), back);
        let head = self.storage.key(start);
        back_node.begin(start, front_node.len() - len, head);
        self.insert_head(head, back);
        front_node.children.store(1, Ordering::Relaxed);
        front_node.room.store(len, Ordering::Relaxed);
        front_node.shrink_to(len);
        back
    }

    /// Joins a run with the only one that goes on from it, where the same hold both alike and
    /// their slots meet. Returns whether it did.
    pub(super) fn join_runs(&mut self, front: u32) -> bool {
        let storage = Arc::clone(&self.storage);
        let node = storage.node(front);
        if node.len() == 0 || node.children() != 1 {
            return false;
        }
        let back = storage.node_of(node.end());
        if back == NONE {
            return false;
        }
        let next = storage.node(back);
        let meets = next.start() == node.end() && next.parent() == node.end() - 1;
        if !meets || !node.is_held_as(next, self) {
            return false;
        }
        self.storage.set_node_of(next.start()..next.end(), front);
        node.children.store(next.children(), Ordering::Relaxed);
        let room = node.len() + next.room.load(Ordering::Relaxed);
        node.room.store(room, Ordering::Relaxed);
        node.grow_to(node.len() + next.len());
        self.remove_head(back);
        next.retire(self);
        self.nodes.give(back);
        true
    }

    /// From now on `who` holds these blocks of a node in this way.
    pub(super) fn assign(
        &mut self,
        tree: &Tree,
        number: u32,
        blocks: Range<u32>,
        who: u32,
        to: Hold,
    ) {
        let storage = Arc::clone(&self.storage);
        let node = storage.node(number);
        let from = node.held_by(who, self);
        if from == to {
            return;
        }
        if to == Hold::NONE
            && blocks.start > 0
            && blocks.end == node.len()
            && node.children() == 0
            && node.is_only(who, from, self)
        {
            let start = node.start();
            let end = start + node.room.load(Ordering::Relaxed);
            node.room.store(blocks.start, Ordering::Relaxed);
            node.shrink_to(blocks.start);
            self.live_blocks -= u64::from(blocks.end - blocks.start);
            self.forget_blocks(tree, start + blocks.start..start + blocks.end);
            self.give_room(start + blocks.start..end);
            return;
        }
        if blocks.end < node.len() {
            self.split(number, blocks.end);
        }
        let number = if blocks.start > 0 { self.split(number, blocks.start) } else { number };
        let storage = Arc::clone(&self.storage);
        let node = storage.node(number);
        let len = u64::from(node.len());
        if node.is_nobodys(self) {
            self.live_blocks += len;
        }
        node.set_held(who, to, self);
        if to.meets(Hold::EXACT | Hold::BELIEVED) {
            node.stored_at.store(self.stamp, Ordering::Relaxed);
        }
        if node.is_nobodys(self) {
            self.live_blocks -= len;
            if node.children() == 0 {
                return self.delete(tree, number);
            }
            self.forget_names(tree, node.start()..node.end());
        }
        let before = storage.node_of(node.parent());
        let number = if before != NONE && self.join_runs(before) { before } else { number };
        self.join_runs(number);
    }

    /// Deletes a leaf that nobody holds, and those before it that are here for its sake only.
    pub(super) fn delete(&mut self, tree: &Tree, number: u32) {
        let storage = Arc::clone(&self.storage);
        let mut number = number;
        loop {
            let node = storage.node(number);
            let (start, end) = (node.start(), node.end());
            let room = start + node.room.load(Ordering::Relaxed);
            let parent = storage.node_of(node.parent());
            self.remove_head(number);
            node.retire(self);
            self.nodes.give(number);
            self.forget_blocks(tree, start..end);
            self.give_room(start..room);
            if self.nodes.live() == 0 {
                return self.start_over();
            }
            if parent == NONE {
                return;
            }
            let node = storage.node(parent);
            node.add_children(-1);
            if node.children() > 0 || !node.is_nobodys(self) {
                self.join_runs(parent);
                return;
            }
            number = parent;
        }
    }

    /// Gives all memory back.
    pub(super) fn start_over(&mut self) {
        let number = self.number;
        self.publish(|storage| *storage = Storage::new());
        let counted_bytes = self.counted_bytes;
        let fresh = Self::new(number, &self.published, &self.edition, &self.all_bytes, &self.void);
        *self = Self { counted_bytes, stamp: self.stamp, ..fresh };
    }

    pub(super) fn forget_blocks(&mut self, tree: &Tree, slots: Range<u32>) {
        self.forget_names(tree, slots.clone());
        self.storage.set_node_of(slots, NONE);
    }

    pub(super) fn forget_names(&self, tree: &Tree, slots: Range<u32>) {
        let mut slots = slots;
        while !slots.is_empty() {
            // As many at once as go into the batch of the table.
            let mut names = [EngineHash(0); 128];
            let names = &mut names[..slots.len().min(128)];
            self.storage.take_names(slots.start, names);
            if names.iter().any(|name| name.0 != 0) {
                tree.names.remove(names, self.block(slots.start));
            }
            slots.start += names.len() as u32;
        }
    }
}
