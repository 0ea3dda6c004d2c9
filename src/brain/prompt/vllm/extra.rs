//! The tagged extra keys that vLLM hashes with a block.

use crate::prompt::MultimodalItem;
use crate::prompt::extra::Items;

/// What a block's hash depends on besides its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraKey<'a> {
    /// The LoRA adapter, on every block.
    Lora(LoraAdapter<'a>),
    /// A multimodal item that overlaps the block.
    Multimodal {
        /// The engine's identifier of the content.
        identifier: &'a str,
        /// Offset of its first placeholder from the block's first token; negative where it began
        /// in an earlier block.
        offset: i64,
    },
    /// `cache_salt` of the request, on the first block.
    CacheSalt(&'a str),
    /// SHA-256 of the block's rows of the prompt embeddings, on every block.
    PromptEmbeds(&'a [u8; 32]),
}

/// A LoRA adapter as vLLM hashes it. The path is not in its events: only who configured the engine
/// knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoraAdapter<'a> {
    /// `lora_name`.
    pub name: &'a str,
    /// `lora_path`.
    pub path: &'a str,
}

/// What the hashes of one request depend on besides its tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestExtras<'a> {
    /// LoRA adapter.
    pub lora: Option<LoraAdapter<'a>>,
    /// Multimodal items, sorted by offset.
    pub multimodal: &'a [MultimodalItem],
    /// `cache_salt`; an empty one is none.
    pub cache_salt: Option<&'a str>,
    /// For a prompt of embeddings, the SHA-256 of each block's rows. Blocks past the list have no
    /// rows, and the SHA-256 of nothing, as in vLLM.
    pub prompt_embeds: Option<&'a [[u8; 32]]>,
}

/// SHA-256 of nothing.
const SHA256_OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Walks a request's extra keys block by block, as vLLM's `generate_block_hash_extra_keys` lists
/// them.
pub(super) struct BlockKeys<'a> {
    extras: &'a RequestExtras<'a>,
    items: Items<'a>,
    block_tokens: u64,
    block: usize,
    keys: Vec<ExtraKey<'a>>,
}

impl<'a> BlockKeys<'a> {
    /// From block number `first_block` on.
    pub fn new(extras: &'a RequestExtras<'a>, block_tokens: u32, first_block: usize) -> Self {
        Self {
            extras,
            items: Items::new(extras.multimodal),
            block_tokens: u64::from(block_tokens),
            block: first_block,
            keys: Vec::new(),
        }
    }

    /// The extra keys of the next block.
    pub fn next_block(&mut self) -> &[ExtraKey<'a>] {
        let keys = &mut self.keys;
        keys.clear();
        keys.extend(self.extras.lora.map(ExtraKey::Lora));
        let start = self.block as u64 * self.block_tokens;
        self.items.overlapping(start, start + self.block_tokens, |identifier, offset| {
            keys.push(ExtraKey::Multimodal { identifier, offset });
        });
        let salt = self.extras.cache_salt.filter(|salt| self.block == 0 && !salt.is_empty());
        keys.extend(salt.map(ExtraKey::CacheSalt));
        if let Some(digests) = self.extras.prompt_embeds {
            keys.push(ExtraKey::PromptEmbeds(
                digests.get(self.block).unwrap_or(&SHA256_OF_NOTHING),
            ));
        }
        self.block += 1;
        keys
    }
}
