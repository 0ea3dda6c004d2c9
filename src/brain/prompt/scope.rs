//! What, besides tokens, decides whether two equal token prefixes share KV blocks.

use serde::{Deserialize, Serialize};

/// The identity that a prompt's keys are bound to. Two prompts share keys only within one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Model name as the endpoints were registered with.
    pub model: String,
    /// LoRA adapter name, if the request uses one.
    pub lora: Option<String>,
    /// `cache_salt` of the request: tenants with different salts never share blocks.
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
