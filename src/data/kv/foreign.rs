//! Memory that is not Rust's: tensors of an engine, by their addresses.

#![allow(unsafe_code)]

use super::{BlockKey, Chain, Store, StoreError};
use std::slice;

/// Blocks in the memory of whoever calls from another language: as many pieces a block (a layer's
/// part each), all blocks alike.
///
/// The one entrance to this crate that trusts its caller: that each address is that of so many
/// bytes, alive and left alone by others until the call returns. Python's callers vouch for it, as
/// they do with `ctypes.memmove`; `llmd_sched.kv.Store` makes the addresses from arrays that it
/// has checked and holds.
#[derive(Debug, Clone, Copy)]
pub struct ForeignBlocks<'a> {
    /// The first byte of each piece: those of the first block, then those of the second, ...
    pub addresses: &'a [u64],
    /// How long each of a block's pieces is.
    pub piece_bytes: &'a [u64],
}

impl ForeignBlocks<'_> {
    /// Whether there are addresses for `blocks` blocks, and none of them is null.
    fn check(&self, blocks: usize) -> Result<(), StoreError> {
        let given = self.addresses.len();
        let wanted = blocks * self.piece_bytes.len();
        if given != wanted {
            let remedy = "give one a block and piece";
            return Err(StoreError::Config { name: "addresses", value: given as u64, remedy });
        }
        if self.addresses.contains(&0) {
            let remedy = "give addresses of memory";
            return Err(StoreError::Config { name: "address", value: 0, remedy });
        }
        Ok(())
    }

    fn pieces(&self) -> impl Iterator<Item = (u64, usize)> {
        let lengths = self.piece_bytes.iter().map(|&bytes| bytes as usize).cycle();
        self.addresses.iter().copied().zip(lengths)
    }
}

impl Store {
    /// [`Store::get`] into foreign memory.
    ///
    /// # Errors
    /// [`StoreError::Config`] if there are not as many addresses as blocks and pieces.
    pub fn get_foreign(
        &self,
        chain: Chain<'_>,
        blocks: ForeignBlocks<'_>,
    ) -> Result<Vec<bool>, StoreError> {
        blocks.check(chain.keys.len())?;
        // SAFETY: the caller vouches for addresses and lengths (see `ForeignBlocks`); none is null
        // and bytes have no alignment. The slices end with this call.
        let piece =
            |(address, length)| unsafe { slice::from_raw_parts_mut(address as *mut u8, length) };
        let mut pieces: Vec<&mut [u8]> = blocks.pieces().map(piece).collect();
        Ok(self.get(chain, &mut pieces))
    }

    /// [`Store::put`] from foreign memory.
    ///
    /// # Errors
    /// As [`Store::put`], and [`StoreError::Config`] as [`Store::get_foreign`].
    pub fn put_foreign(
        &self,
        chain: Chain<'_>,
        blocks: ForeignBlocks<'_>,
    ) -> Result<usize, StoreError> {
        blocks.check(chain.keys.len())?;
        // SAFETY: as in `get_foreign`.
        let piece =
            |(address, length)| unsafe { slice::from_raw_parts(address as *const u8, length) };
        let pieces: Vec<&[u8]> = blocks.pieces().map(piece).collect();
        self.put(chain, &pieces)
    }

    /// Keeps those of `keys` that are in memory for `lease_ms`; see
    /// [`SharedBooks::pin`](super::books::SharedBooks::pin).
    pub fn pin(&self, keys: &[BlockKey], lease_ms: u64) -> (u64, usize) {
        self.host().books().pin(keys, lease_ms)
    }
}
