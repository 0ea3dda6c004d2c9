//! What, besides tokens, decides whether two equal token prefixes share KV blocks.

use super::PromptError;
use serde::{Deserialize, Serialize};

/// The identity that a prompt's keys are bound to. Two prompts share keys only within one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Model name as the endpoints were registered with.
    pub model: String,
    /// LoRA adapter name, if the request uses one.
    pub lora: Option<String>,
    /// `cache_salt` of the request: tenants with different salts never share blocks. An empty salt
    /// is none, as in vLLM.
    pub cache_salt: Option<String>,
    /// Multimodal items, in the order of their offsets.
    pub multimodal: Vec<MultimodalItem>,
}

/// An image, audio clip or video in a prompt: its placeholder tokens are equal for every item, so
/// its content hash has to tell the blocks that it covers apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultimodalItem {
    /// The engine's identifier of the content (vLLM: `mm_hash`).
    pub identifier: String,
    /// First placeholder token.
    pub offset_tokens: u32,
    /// Number of placeholder tokens.
    pub length_tokens: u32,
}

impl MultimodalItem {
    /// First token after the item.
    #[must_use]
    pub fn end_tokens(&self) -> u64 {
        u64::from(self.offset_tokens) + u64::from(self.length_tokens)
    }
}

/// The part of a [`Scope`] that enters block by block; model and LoRA are in a chain's root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extras<'a> {
    /// Mixed into the first block, and through the chain into all.
    pub cache_salt: Option<&'a str>,
    /// Mixed into every block that they overlap; sorted by offset.
    pub multimodal: &'a [MultimodalItem],
}

impl Scope {
    /// What enters block by block.
    #[must_use]
    pub fn extras(&self) -> Extras<'_> {
        Extras { cache_salt: self.cache_salt.as_deref(), multimodal: &self.multimodal }
    }

    /// Checks the multimodal items against a prompt of `prompt_tokens` tokens.
    ///
    /// # Errors
    /// [`PromptError::MultimodalOrder`], [`PromptError::MultimodalPastEnd`].
    pub fn check(&self, prompt_tokens: usize) -> Result<(), PromptError> {
        self.check_order()?;
        for (item, it) in self.multimodal.iter().enumerate() {
            if it.end_tokens() > prompt_tokens as u64 {
                let end_tokens = it.end_tokens();
                return Err(PromptError::MultimodalPastEnd { item, end_tokens, prompt_tokens });
            }
        }
        Ok(())
    }

    /// Checks that the multimodal items are sorted by offset.
    pub(super) fn check_order(&self) -> Result<(), PromptError> {
        for (before, pair) in self.multimodal.windows(2).enumerate() {
            if pair[1].offset_tokens < pair[0].offset_tokens {
                let offset_tokens = pair[1].offset_tokens;
                return Err(PromptError::MultimodalOrder { item: before + 1, offset_tokens });
            }
        }
        Ok(())
    }
}
