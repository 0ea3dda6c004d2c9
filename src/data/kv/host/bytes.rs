//! Bytes of slots: copied in, copied out, and hashed on the way.

#![allow(unsafe_code)]

use crate::kv::books::SharedBooks;
use std::sync::atomic::{Ordering, fence};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// The checksum of a block in one piece.
#[must_use]
pub fn checksum_of(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The checksum of a block whose bytes are those of `pieces` in turn.
fn checksum<'a>(pieces: impl ExactSizeIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = Xxh3Default::new();
    for piece in pieces {
        hash.update(piece);
    }
    hash.digest()
}

/// Fills `slot`, which is reserved for the caller, and gives the checksum of `pieces`.
pub fn copy_in(books: &SharedBooks, slot: u32, pieces: &[&[u8]]) -> u64 {
    let memory = books.slot_memory(slot);
    let slot_bytes = books.settings().memory_bytes as usize;
    let mut at = 0;
    for piece in pieces {
        assert!(at + piece.len() <= slot_bytes, "a block fits its slot");
        // SAFETY: `at + piece.len()` is within the slot's memory, and `piece`, which is the
        // process's own, does not overlap it. The slot is reserved: no other writer touches it.
        // Readers that come late may read it meanwhile, as raw bytes that they throw away when
        // they see the generation (see `copy_out`).
        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), memory.add(at), piece.len()) };
        at += piece.len();
    }
    match pieces {
        [piece] => xxh3_64(piece),
        pieces => checksum(pieces.iter().copied()),
    }
}

/// Copies what is in `slot` into `pieces`, and gives the checksum of what arrived there. The
/// caller compares generations afterwards; what it read before is ordered before that.
pub fn copy_out(books: &SharedBooks, slot: u32, pieces: &mut [&mut [u8]]) -> u64 {
    let memory = books.slot_memory(slot);
    let slot_bytes = books.settings().memory_bytes as usize;
    let mut at = 0;
    for piece in pieces.iter_mut() {
        assert!(at + piece.len() <= slot_bytes, "a block fits its slot");
        // SAFETY: within the slot's memory as in `copy_in`, and `piece` is the caller's alone.
        // Another process may write the slot at the same time: no Rust reference to it exists, its
        // bytes have no invalid value, and what was copied is used only if neither the generation
        // changed nor the checksum of the copy is another.
        unsafe { std::ptr::copy_nonoverlapping(memory.add(at), piece.as_mut_ptr(), piece.len()) };
        at += piece.len();
    }
    fence(Ordering::Acquire);
    match pieces {
        [piece] => xxh3_64(piece),
        pieces => checksum(pieces.iter().map(|piece| &**piece)),
    }
}
