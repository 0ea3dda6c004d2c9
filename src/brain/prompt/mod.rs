//! Prompts as block keys: what a cache hit is looked up by.
//!
//! A prompt is cut into blocks of `block_size` tokens (or, where there are no tokens, of
//! [`text::BYTES_PER_TOKEN`]` * block_size` UTF-8 bytes), and each full block gets a [`BlockKey`]:
//! a hash chained over everything before it, so that equal keys mean equal prefixes at equal
//! positions. Model, LoRA, multimodal items and cache salt are mixed in. A partial last block has
//! no key: no engine caches it.
//!
//! The same chain is computed from a request ([`token_keys`]) and from the token ids of an
//! engine's events ([`Chain::next`] with [`BlockExtra::new`]), so the engine's own hash
//! function, seed and block size need not be known. [`vllm`] reproduces vLLM's own block hashes
//! all the same: they are what names a block *to* the engine.
//!
//! Guaranteed: the keys of a prefix are a prefix of the keys; changing a token or a part of the
//! scope changes the key of its block and of every later one; keys of text and keys of tokens
//! never meet; all of it up to a collision of 64-bit hashes, and the same on every machine.
//!
//! Not here: tokenisation, and who holds a block (see [`crate::index`]).
//!
//! ```
//! use llmd_brain::prompt::{Scope, token_keys};
//!
//! let scope = Scope { model: "qwen3-32b".into(), ..Scope::default() };
//! let prompt: Vec<u32> = (0..100).collect();
//! let mut keys = Vec::new();
//! token_keys(&prompt, 16, &scope, &mut keys)?;
//! assert_eq!(keys.len(), 6); // the last 4 tokens do not fill a block
//!
//! let mut shorter = Vec::new();
//! token_keys(&prompt[..40], 16, &scope, &mut shorter)?;
//! assert_eq!(shorter, keys[..2]);
//! # Ok::<(), llmd_brain::prompt::PromptError>(())
//! ```
//!
//! [`BlockKey`]: crate::BlockKey

mod chain;
mod extra;
mod growing;
mod mix;
mod scope;
pub mod text;
pub mod vllm;

pub use chain::{Chain, token_keys};
pub use extra::BlockExtra;
pub use growing::GrowingPrompt;
pub use scope::{Extras, MultimodalItem, Scope};

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
    /// Keys of other blocks than the router's.
    #[error(
        "the keys are of blocks of {keys} tokens, and the router's have {router}: make them with this router's prompt_keys()"
    )]
    OtherBlockSize {
        /// Tokens a block of the keys.
        keys: u32,
        /// Tokens a block of the router.
        router: u32,
    },
    /// More tokens than any engine takes; guards memory against foreign input.
    #[error(
        "the prompt has {0} tokens, more than the limit of {MAX_PROMPT_TOKENS}: shorten it to what the engine's max_model_len allows"
    )]
    TooLong(usize),
    /// A token id that is negative or does not fit 32 bits.
    #[error("token id {value} at position {position} is out of range: ids are 0 to 4294967295")]
    TokenOutOfRange {
        /// Where it stands in the prompt.
        position: usize,
        /// What it was.
        value: i64,
    },
    /// Multimodal items that are not sorted by where they begin.
    #[error(
        "multimodal item {item} begins at token {offset_tokens}, before the item that precedes it in the list: sort the items by offset_tokens"
    )]
    MultimodalOrder {
        /// Position in [`Scope::multimodal`].
        item: usize,
        /// Where it begins.
        offset_tokens: u32,
    },
    /// A multimodal item whose placeholders reach past the prompt.
    #[error(
        "multimodal item {item} ends at token {end_tokens} of a prompt of {prompt_tokens} tokens: give offset_tokens and length_tokens of its placeholders in this prompt"
    )]
    MultimodalPastEnd {
        /// Position in [`Scope::multimodal`].
        item: usize,
        /// First token after it.
        end_tokens: u64,
        /// Length of the prompt.
        prompt_tokens: usize,
    },
}

/// Largest block that is accepted, in tokens.
pub const MAX_BLOCK_TOKENS: u32 = 65_536;
/// Longest prompt that is accepted, in tokens.
pub const MAX_PROMPT_TOKENS: usize = 1 << 26;
