//! What tiers do with books: many blocks in one hold of the mutex.

use super::{Counters, SharedBooks, now_ms, now_ticks};
use crate::kv::BlockKey;
use crate::kv::catalogue::{Block, Generation, Place, State, Ticket};

/// Blocks looked up, reserved or committed in one hold of the mutex.
pub const BLOCKS_A_HOLD: usize = 64;

/// A block that was found: its slot, the slot's generation, and what is in it.
pub type Found = (u32, Generation, Block);

/// A chain of blocks, from one of a prompt's blocks on.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    /// Keys of blocks that follow one another.
    pub keys: &'a [BlockKey],
    /// The key of the block before the first; `None`: it is a prompt's first.
    pub parent: Option<BlockKey>,
    /// Blocks before the first.
    pub position: u32,
}

impl Chain<'_> {
    /// The block before the one at `at`.
    pub fn parent_of(&self, at: usize) -> BlockKey {
        match at {
            0 => self.parent.unwrap_or(BlockKey::NONE),
            at => self.keys[at - 1],
        }
    }
}

/// How many of `pieces` each of `keys` has.
///
/// # Panics
/// If they are not as many for each.
pub fn pieces_a_block(keys: usize, pieces: usize) -> usize {
    let each = pieces / keys.max(1);
    assert_eq!(each * keys, pieces, "{pieces} pieces are not as many for each of {keys} blocks");
    each
}

impl SharedBooks {
    /// How many of `keys`, from the first, are there now.
    #[must_use]
    pub fn matched(&self, keys: &[BlockKey]) -> usize {
        let mut matched = 0;
        for some in keys.chunks(BLOCKS_A_HOLD) {
            let Some(mut guard) = self.enter() else { break };
            let books = guard.catalogue();
            let found = some.iter().take_while(|&&key| books.find(key).is_some()).count();
            matched += found;
            if found < some.len() {
                break;
            }
        }
        matched
    }

    /// What is there of `keys`, which counts as a use. The last first, because of blocks used at
    /// the same time the one touched last goes last, and a chain should go from its end.
    pub fn look_up(&self, keys: &[BlockKey]) -> Vec<Option<Found>> {
        let now = now_ticks();
        let mut all = vec![None; keys.len()];
        let Some(mut guard) = self.enter() else { return all };
        let mut books = guard.catalogue();
        for (found, &key) in all.iter_mut().zip(keys).rev() {
            if let Some(slot) = books.find(key) {
                books.touch(slot, now);
                let block = books.slots[slot as usize].block;
                *found = Some((slot, books.generation(slot), block));
            }
        }
        all
    }

    /// Forgets a block whose bytes are not its own, and counts it.
    pub fn forget_corrupt(&self, slot: u32, generation: Generation) {
        Counters::add(&self.counters().corrupt, 1);
        if let Some(mut guard) = self.enter() {
            guard.catalogue().forget(slot, generation);
        }
    }

    /// Gives slots back that were not filled.
    pub fn abandon(&self, tickets: &[Ticket]) {
        if tickets.is_empty() {
            return;
        }
        if let Some(mut guard) = self.enter() {
            let mut books = guard.catalogue();
            tickets.iter().for_each(|ticket| books.abandon(ticket));
        }
    }

    /// Slots for blocks, each given with the block before it: with the place in `blocks` that each
    /// is for, and whether there was no slot for one, and so none for those after it.
    pub fn reserve(&self, blocks: &[(BlockKey, BlockKey)]) -> (Vec<(usize, Ticket)>, bool) {
        let counters = self.counters();
        let (now, now_ms) = (now_ticks(), now_ms());
        let alive = |owner| self.alive(owner);
        let Some(mut guard) = self.enter() else { return (Vec::new(), true) };
        let mut books = guard.catalogue();
        let (mut tickets, mut present, mut reaped) = (Vec::new(), 0, false);
        let mut at = 0;
        while let Some(&(key, parent)) = blocks.get(at) {
            match books.reserve(key, parent, self.owner(), now, now_ms, alive) {
                Place::Reserved(ticket) => tickets.push((at, ticket)),
                Place::Present(_) | Place::Busy => present += 1,
                // Slots of writers that died are found when they are needed.
                Place::Full if books.head.writing_slots > tickets.len() as u32 && !reaped => {
                    books.reap(alive);
                    reaped = true;
                    continue;
                }
                Place::Full => break,
            }
            at += 1;
        }
        Counters::add(&counters.present, present);
        Counters::add(&counters.refused, blocks.len() - at);
        (tickets, at < blocks.len())
    }

    /// Lets everybody see blocks whose bytes are in their slots now, and says how many.
    pub fn commit(&self, filled: &[(Ticket, Block)]) -> usize {
        let now = now_ticks();
        let Some(mut guard) = self.enter() else {
            // Their slots are kept until this process ends. The mutex was not to be had for longer
            // than anything lasts here.
            return 0;
        };
        let mut books = guard.catalogue();
        let stored = filled.iter().filter(|(ticket, block)| books.commit(ticket, *block, now));
        let stored = stored.count();
        Counters::add(&self.counters().stored, stored);
        stored
    }

    /// Keeps those of `keys` that are there for `lease_ms` more, and says until when (in the
    /// node's milliseconds) and how many. A lease ends by itself: nobody has to give it back.
    pub fn pin(&self, keys: &[BlockKey], lease_ms: u64) -> (u64, usize) {
        let now = now_ms();
        let until = now + lease_ms;
        let Some(mut guard) = self.enter() else { return (until, 0) };
        let mut books = guard.catalogue();
        let pinned = keys
            .iter()
            .filter(|&&key| books.find(key).is_some_and(|slot| books.pin(slot, until, now)));
        (until, pinned.count())
    }

    /// Ends the lease until `until` that [`Self::pin`] gave, where nobody took a longer one.
    pub fn unpin(&self, keys: &[BlockKey], until: u64) {
        let Some(mut guard) = self.enter() else { return };
        let mut books = guard.catalogue();
        for &key in keys {
            if let Some(slot) = books.find(key) {
                books.unpin(slot, until);
            }
        }
    }

    /// Blocks that are there.
    #[must_use]
    pub fn blocks(&self) -> usize {
        let slots = 0..self.settings().slots as u32;
        slots.filter(|&slot| self.generation(slot).state() == State::Ready).count()
    }
}
