//! Prompts as block keys: what a cache hit is looked up by.
//!
//! A prompt is cut into blocks of `block_size` tokens (or, where there are no tokens, of
//! [`text::BYTES_PER_TOKEN`]` * block_size` UTF-8 bytes), and each full block gets a [`BlockKey`]:
//! a hash chained over everything before it, so that equal keys mean equal prefixes at equal
//! positions. Model, LoRA, multimodal items and cache salt are mixed in. A partial last block has
//! no key: no engine caches it.
//!
//! The same chain is computed from a request and from the token ids of an engine's events, so the
//! engine's own hash function, seed and block size need not be known. [`vllm`] reproduces vLLM's
//! own block hashes all the same: they are what names a block *to* the engine.
//!
//! Not here: tokenisation, and who holds a block (see [`crate::index`]).

mod chain;
mod scope;
pub mod text;
pub mod vllm;

pub use chain::{BlockExtra, Chain};
pub use scope::{MultimodalItem, Scope};

/// Why a prompt cannot be turned into block keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// A block size outside `1..=MAX_BLOCK_TOKENS`.
    #[error(
        "block_size {0} is out of range: use 1 to {MAX_BLOCK_TOKENS} tokens, best the engine's own (vLLM: 16)"
    )]
    BlockSize(u32),
    /// No tokens and no text.
    #[error("the prompt is empty: give at least one token id or one byte of text")]
    Empty,
    /// More tokens than any engine takes; guards memory against foreign input.
    #[error("the prompt has {0} tokens, more than the limit of {MAX_PROMPT_TOKENS}")]
    TooLong(usize),
    /// A token id that is negative or does not fit 32 bits.
    #[error("token id {value} at position {position} is out of range: ids are 0 to 4294967295")]
    TokenOutOfRange {
        /// Where it stands in the prompt.
        position: usize,
        /// What it was.
        value: i64,
    },
}

/// Largest block that is accepted, in tokens.
pub const MAX_BLOCK_TOKENS: u32 = 65_536;
/// Longest prompt that is accepted, in tokens.
pub const MAX_PROMPT_TOKENS: usize = 1 << 26;
