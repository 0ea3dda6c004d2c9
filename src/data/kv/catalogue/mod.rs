//! The books of a tier: which block is in which slot, who is writing where, and what goes next.
//!
//! A catalogue is a view of plain memory, which may be shared between processes; who makes one
//! holds the tier's lock. Generations alone are read without it. Entries of slots are the truth;
//! the index, the chains and the policy's lists follow from them and are built anew
//! ([`rebuild`](Catalogue::rebuild)) after somebody died while holding the lock.
//!
//! A slot goes from free to writing (reserved) to ready (committed) and back. Only leaves are given
//! up, so a resident chain has no holes but those of blocks that proved damaged.

mod audit;
mod chains;
mod index;
mod owned;
mod rebuild;
mod slot;
#[cfg(test)]
mod tests;

use super::BlockKey;
use super::eviction::{Eviction, Node};
use bytemuck::{Pod, Zeroable};
use std::sync::atomic::{AtomicU64, Ordering, fence};

pub use owned::OwnedCatalogue;
pub use slot::{Block, Generation, Slot, State, Ticks};

/// Leaves that an eviction looks at before it gives up because they are all pinned.
const MOST_PINNED_SEEN: usize = 64;

/// Numbers of a catalogue as a whole. All zeros before the first [`Catalogue::rebuild`].
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    /// The first free slot, plus one.
    free: u32,
    /// Free slots.
    pub free_slots: u32,
    /// Slots being written.
    pub writing_slots: u32,
    /// Pins given since they were last counted: never fewer than there are.
    pinned_slots: u32,
    /// Blocks given up for others.
    pub evictions: u64,
    /// Times that the books were built anew after a death.
    pub rebuilds: u64,
    /// Slots taken back from writers that had died.
    pub reclaimed: u64,
}

/// The view of a tier's books that the holder of its lock has.
pub struct Catalogue<'a, E> {
    /// Its numbers.
    pub head: &'a mut Head,
    /// Heads of the index's chains, as slots plus one. A power of two of them.
    pub buckets: &'a mut [u32],
    /// One entry a slot.
    pub slots: &'a mut [Slot],
    /// What the policy knows of each slot.
    pub nodes: &'a mut [Node],
    /// One [`Generation`] a slot; readers outside the lock see these.
    pub generations: &'a [AtomicU64],
    /// Who says which leaf goes.
    pub policy: &'a mut E,
}

/// A slot that its holder may fill in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Which slot.
    pub slot: u32,
    /// While this is its generation, it is the holder's.
    pub generation: Generation,
    /// Whose bytes are in it until the holder writes.
    pub evicted: Option<Block>,
}

/// Where a block can be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is there already.
    Present(u32),
    /// Somebody else is writing it.
    Busy,
    /// Nothing may go for it: all is pinned or being written, or what is worth least is the block
    /// before it.
    Full,
    /// Here.
    Reserved(Ticket),
}

impl<E: Eviction> Catalogue<'_, E> {
    /// The generation of `slot`.
    #[must_use]
    pub fn generation(&self, slot: u32) -> Generation {
        Generation(self.generations[slot as usize].load(Ordering::Acquire))
    }

    fn set_generation(&self, slot: u32, generation: Generation) {
        self.generations[slot as usize].store(generation.0, Ordering::Release);
    }

    /// The slot in which `key` is ready.
    #[must_use]
    pub fn find(&self, key: BlockKey) -> Option<u32> {
        let slot = self.indexed(key)?;
        (self.generation(slot).state() == State::Ready).then_some(slot)
    }

    /// Notes that a prompt found the block in `slot`.
    pub fn touch(&mut self, slot: u32, now: Ticks) {
        let node = &mut self.nodes[slot as usize];
        let idle = now.wrapping_sub(node.used_at);
        // The same prompt again (a look before the fetch, the next rank), or a clock that lags.
        if idle == 0 || idle > Ticks::MAX / 2 {
            return;
        }
        node.hits = node.hits.saturating_add(1);
        node.used_at = now;
        node.gap = idle;
        self.policy.touch(self.nodes, slot, idle);
    }

    /// Makes room for `key`, which comes after `parent` in its chain, in the name of `owner`.
    ///
    /// A policy may find the end of the very chain worth least, because most chains like it are
    /// never asked for again. Then what is resident stays: this is all the admission there is.
    pub fn reserve(
        &mut self,
        key: BlockKey,
        parent: BlockKey,
        owner: u64,
        now: Ticks,
        now_ms: u64,
        alive: impl Fn(u64) -> bool,
    ) -> Place {
        if let Some(slot) = self.indexed(key) {
            match self.generation(slot).state() {
                State::Ready => return Place::Present(slot),
                _ if alive(self.slots[slot as usize].owner) => return Place::Busy,
                _ => self.reclaim(slot),
            }
        }
        let (slot, evicted) = match self.take_free() {
            Some(slot) => (slot, None),
            None => match self.evict(parent, now, now_ms) {
                Some((slot, block)) => (slot, Some(block)),
                None => return Place::Full,
            },
        };
        let generation = self.generation(slot).next(State::Writing);
        self.slots[slot as usize].owner = owner;
        self.set_generation(slot, generation);
        // Whoever sees bytes that the holder writes from here on sees the generation too.
        fence(Ordering::Release);
        self.slots[slot as usize].block.key = key;
        self.slots[slot as usize].pinned_until_ms = 0;
        self.index(slot);
        self.head.writing_slots += 1;
        Place::Reserved(Ticket { slot, generation, evicted })
    }

    /// Lets everybody see `block`, whose bytes are in the slot of `ticket` now. False: the slot is
    /// not the holder's any more.
    pub fn commit(&mut self, ticket: &Ticket, block: Block, now: Ticks) -> bool {
        let Ticket { slot, generation, .. } = *ticket;
        if self.generation(slot) != generation {
            return false;
        }
        let ready = generation.next(State::Ready);
        let entry = &mut self.slots[slot as usize];
        entry.block = block;
        entry.check = Slot::check_of(&block, ready);
        self.nodes[slot as usize] = Node {
            used_at: now,
            position: block.position,
            fingerprint: (block.key.spread() >> 32) as u32,
            ghost: self.nodes[slot as usize].ghost,
            ..Node::default()
        };
        self.chain(slot);
        self.set_generation(slot, ready);
        self.head.writing_slots = self.head.writing_slots.saturating_sub(1);
        self.policy.admit(self.nodes, slot);
        true
    }

    /// Gives back the slot of `ticket` unfilled.
    pub fn abandon(&mut self, ticket: &Ticket) {
        if self.generation(ticket.slot) == ticket.generation {
            self.release(ticket.slot);
        }
    }

    /// Forgets the block in `slot`, whose bytes proved not to be its own, if `generation` is still
    /// what is there.
    pub fn forget(&mut self, slot: u32, generation: Generation) -> bool {
        if self.generation(slot) != generation || generation.state() != State::Ready {
            return false;
        }
        self.policy.remove(self.nodes, slot);
        self.unchain(slot);
        self.unindex(slot);
        self.set_generation(slot, generation.next(State::Free));
        self.push_free(slot);
        true
    }

    /// Keeps the block in `slot` until `until_ms`. False: half of the tier is pinned already.
    pub fn pin(&mut self, slot: u32, until_ms: u64, now_ms: u64) -> bool {
        let limit = self.slots.len() as u32 / 2;
        if self.slots[slot as usize].pinned_until_ms <= now_ms {
            if self.head.pinned_slots >= limit {
                let pinned = self.slots.iter().filter(|it| it.pinned_until_ms > now_ms);
                self.head.pinned_slots = pinned.count() as u32;
            }
            if self.head.pinned_slots >= limit {
                return false;
            }
            self.head.pinned_slots += 1;
        }
        let pinned = &mut self.slots[slot as usize].pinned_until_ms;
        *pinned = until_ms.max(*pinned);
        true
    }

    /// Ends a pin until `until_ms`, unless somebody else has asked for longer.
    pub fn unpin(&mut self, slot: u32, until_ms: u64) {
        let pinned = &mut self.slots[slot as usize].pinned_until_ms;
        if *pinned <= until_ms {
            *pinned = 0;
        }
    }

    /// Takes back every slot whose writer has died.
    pub fn reap(&mut self, alive: impl Fn(u64) -> bool) {
        for slot in 0..self.slots.len() as u32 {
            let writing = self.generation(slot).state() == State::Writing;
            if writing && !alive(self.slots[slot as usize].owner) {
                self.reclaim(slot);
            }
        }
    }

    fn reclaim(&mut self, slot: u32) {
        self.release(slot);
        self.head.reclaimed += 1;
    }

    /// From writing to free.
    fn release(&mut self, slot: u32) {
        self.unindex(slot);
        self.set_generation(slot, self.generation(slot).next(State::Free));
        self.head.writing_slots = self.head.writing_slots.saturating_sub(1);
        self.push_free(slot);
    }

    fn push_free(&mut self, slot: u32) {
        self.nodes[slot as usize].next = self.head.free;
        self.head.free = slot + 1;
        self.head.free_slots += 1;
    }

    fn take_free(&mut self) -> Option<u32> {
        let slot = self.head.free.checked_sub(1)?;
        self.head.free = self.nodes[slot as usize].next;
        self.head.free_slots -= 1;
        Some(slot)
    }

    fn evict(&mut self, parent: BlockKey, now: Ticks, now_ms: u64) -> Option<(u32, Block)> {
        for _ in 0..MOST_PINNED_SEEN {
            let slot = self.policy.victim(self.nodes, now)?;
            if self.slots[slot as usize].pinned_until_ms > now_ms {
                self.policy.admit(self.nodes, slot);
                continue;
            }
            let block = self.slots[slot as usize].block;
            if block.key == parent {
                self.policy.admit(self.nodes, slot);
                return None;
            }
            self.unchain(slot);
            self.unindex(slot);
            self.head.evictions += 1;
            return Some((slot, block));
        }
        None
    }
}
