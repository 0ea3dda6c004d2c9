//! Keys from text, for prompts without tokens.
//!
//! Text is cut by bytes, not by characters or words: chunks need not mean anything, only be equal
//! where the text is. Without a tokenizer a block's worth of text is a guess ([`BYTES_PER_TOKEN`]),
//! good enough to see that two prompts share a prefix and how long it roughly is.

use super::chain::Chain;
use super::mix::{self, Role};
use super::{MAX_PROMPT_TOKENS, PromptError, Scope};
use crate::BlockKey;

/// UTF-8 bytes that stand for one token, the usual rule of thumb for English under a vocabulary
/// of about 100,000.
pub const BYTES_PER_TOKEN: usize = 4;

/// Estimated length of `text` in tokens: a token every [`BYTES_PER_TOKEN`] bytes, rounded up.
#[must_use]
pub fn estimated_tokens(text: &str) -> usize {
    text.len().div_ceil(BYTES_PER_TOKEN)
}

/// Keys of all full chunks of `block_size * BYTES_PER_TOKEN` bytes, in place of what `out` held.
///
/// Offsets and lengths of multimodal items count estimated tokens here: an item that stands after
/// `n` bytes of text begins at token `n / BYTES_PER_TOKEN`.
///
/// # Errors
/// [`PromptError`] for a block size out of range, empty or overlong text, or multimodal items out
/// of order; `out` is then empty.
///
/// ```
/// use llmd_brain::prompt::{Scope, text};
///
/// let (mut a, mut b) = (Vec::new(), Vec::new());
/// let system = "You are a helpful assistant. ".repeat(10);
/// text::text_keys(&format!("{system}What is 2 + 2?"), 16, &Scope::default(), &mut a)?;
/// text::text_keys(&format!("{system}Name a colour."), 16, &Scope::default(), &mut b)?;
/// assert_eq!(a, b); // four chunks of 64 bytes, all within the 290 bytes that both begin with
/// assert_eq!(a.len(), 4);
/// # Ok::<(), llmd_brain::prompt::PromptError>(())
/// ```
pub fn text_keys(
    text: &str,
    block_size: u32,
    scope: &Scope,
    out: &mut Vec<BlockKey>,
) -> Result<(), PromptError> {
    out.clear();
    let chain = Chain::rooted(Role::Text, &scope.model, scope.lora.as_deref(), block_size)?;
    if text.is_empty() {
        return Err(PromptError::Empty);
    }
    if estimated_tokens(text) > MAX_PROMPT_TOKENS {
        return Err(PromptError::TooLong(estimated_tokens(text)));
    }
    scope.check_order()?;
    let chunks = text.as_bytes().chunks_exact(block_size as usize * BYTES_PER_TOKEN);
    chain.append_blocks(out, chunks.map(mix::block_of_text), scope.extras());
    Ok(())
}
