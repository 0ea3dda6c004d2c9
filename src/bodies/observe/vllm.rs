//! vLLM's KV events (`vllm/distributed/kv_events.py`).
//!
//! Releases differ in two ways that are both read here: up to some point events are positional
//! arrays (BlockStored grew from five fields to eleven), later maps tagged `"type"`; and a batch is
//! an array, which newer sources declare as a map. Block hashes are integers, or raw bytes under
//! `VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0`.

use super::decoded::{DecodeError, DecodeLimits, Decoded};
use super::wire::{self, Dialect, Field};

const DIALECT: Dialect = Dialect {
    stored: &[
        Field::BlockHashes,
        Field::ParentBlockHash,
        Field::TokenIds,
        Field::BlockSize,
        Field::LoraId,
        Field::Medium,
        Field::LoraName,
        Field::ExtraKeys,
        Field::GroupIdx,
        Field::SpecKind,
        Field::SlidingWindow,
    ],
    removed: &[Field::BlockHashes, Field::Medium, Field::GroupIdx],
};

/// Decodes the payload of one message.
///
/// Removals that follow each other come out as one where they are from the same tier and group.
/// Unknown fields and event types are skipped and counted, and so are stores that contradict
/// themselves. Never panics; memory stays within a small multiple of the payload and `limits`.
///
/// ```
/// use llmd_bodies::observe::{DecodeLimits, vllm};
/// use llmd_brain::index::KvEvent;
/// // [1.5, [["AllBlocksCleared"]], 0]
/// let payload = b"\x93\xcb\x3f\xf8\0\0\0\0\0\0\x91\x91\xb0AllBlocksCleared\x00";
/// let decoded = vllm::decode(payload, &DecodeLimits::default())?;
/// assert_eq!(decoded.batch.events, [KvEvent::Cleared]);
/// # Ok::<(), llmd_bodies::observe::DecodeError>(())
/// ```
///
/// # Errors
/// [`DecodeError`] where the payload is not an event batch, or a removal in it cannot be read: what
/// the engine holds is then no longer known.
pub fn decode(payload: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    wire::decode(payload, &DIALECT, limits)
}
