//! SGLang's KV events (`sglang/srt/disaggregation/kv_events.py`, wheels 0.5.5 to 0.5.23).
//!
//! Up to 0.5.15 and some later releases events are positional arrays: BlockStored has five fields,
//! a medium may follow; since then they are maps like vLLM's, with the salt of the request as a
//! field of its own. Hashes are signed 64-bit integers. Not run live: read against bytes that
//! msgspec encoded from the wheels' own struct definitions.

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
        Field::CacheSalt,
    ],
    removed: &[Field::BlockHashes, Field::Medium],
};

/// Decodes the payload of one message, by the rules of [`vllm::decode`](super::vllm::decode).
///
/// # Errors
/// [`DecodeError`] where the payload is not an event batch, or a removal in it cannot be read.
pub fn decode(payload: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    wire::decode(payload, &DIALECT, limits)
}
