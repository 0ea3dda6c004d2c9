//! The chained block key.
//!
//! `key[i] = link(key[i-1], xxh3_64(tokens of block i as u32 little-endian))`, linked once more
//! with the block's [`BlockExtra`] where it has one, and rooted in a hash of (model, LoRA).
//! 64 bits: at 10^8 distinct blocks the chance of any collision is 3*10^-4, and a collision costs
//! one wrong guess about a cache hit, never wrong output. Not a defence against collisions made on
//! purpose, for the same reason.

use super::extra::{BlockExtra, BlockExtras};
use super::mix::{self, Role};
use super::{Extras, MAX_BLOCK_TOKENS, MAX_PROMPT_TOKENS, PromptError, Scope};
use crate::BlockKey;

/// Computes block keys for one (model, LoRA, block size).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    block_size: u32,
    root: BlockKey,
}

impl Chain {
    /// A chain for blocks of `block_size` tokens of one model and LoRA adapter.
    ///
    /// # Errors
    /// [`PromptError::BlockSize`].
    pub fn new(model: &str, lora: Option<&str>, block_size: u32) -> Result<Self, PromptError> {
        Self::rooted(Role::Tokens, model, lora, block_size)
    }

    /// A chain whose keys meet those of no other role.
    pub(super) fn rooted(
        role: Role,
        model: &str,
        lora: Option<&str>,
        block_size: u32,
    ) -> Result<Self, PromptError> {
        if block_size == 0 || block_size > MAX_BLOCK_TOKENS {
            return Err(PromptError::BlockSize(block_size));
        }
        let model = mix::name(role, model.as_bytes());
        let root =
            lora.map_or(model, |name| mix::link(model, mix::name(Role::Lora, name.as_bytes())));
        Ok(Self { block_size, root: BlockKey(root) })
    }

    /// Tokens a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The parent of block 0.
    #[must_use]
    pub fn root(&self) -> BlockKey {
        self.root
    }

    /// The key of the block that follows `parent` and holds `tokens`.
    #[must_use]
    pub fn next(&self, parent: BlockKey, tokens: &[u32], extra: Option<BlockExtra>) -> BlockKey {
        append(parent, mix::block_of_tokens(tokens), extra)
    }

    /// Keys of all full blocks of `tokens`, in place of what `out` held. Allocates nothing where
    /// `out` has room.
    pub fn block_keys(&self, tokens: &[u32], extras: Extras<'_>, out: &mut Vec<BlockKey>) {
        out.clear();
        self.extend(out, tokens, extras);
    }

    /// Brings the keys of an earlier turn up to `tokens`, hashing only the blocks that are new.
    ///
    /// `keys` must come from this chain, and the blocks that they stand for must be the first
    /// blocks of `tokens` under the same `extras`: a conversation that only grew. That is not
    /// checked, since checking it would be hashing it. Keys past the end of `tokens` are dropped,
    /// so after the call `keys` are those of `tokens` whichever of the two was longer.
    pub fn extend(&self, keys: &mut Vec<BlockKey>, tokens: &[u32], extras: Extras<'_>) {
        let block_tokens = self.block_size as usize;
        keys.truncate(tokens.len() / block_tokens);
        let fresh = &tokens[keys.len() * block_tokens..];
        self.append(keys, fresh, extras);
    }

    /// Appends the keys of the full blocks of `tokens`, which follow those that `keys` stand for.
    pub fn append(&self, keys: &mut Vec<BlockKey>, tokens: &[u32], extras: Extras<'_>) {
        let fresh = tokens.chunks_exact(self.block_size as usize);
        self.append_blocks(keys, fresh.map(mix::block_of_tokens), extras);
    }

    /// Appends the keys of `blocks`, each given by the hash of its content alone.
    pub(super) fn append_blocks(
        &self,
        keys: &mut Vec<BlockKey>,
        mut blocks: impl ExactSizeIterator<Item = u64>,
        extras: Extras<'_>,
    ) {
        keys.reserve(blocks.len());
        let mut parent = keys.last().copied().unwrap_or(self.root);
        let mut extras = BlockExtras::new(extras, self.block_size, keys.len());
        while !extras.is_over() {
            let Some(block) = blocks.next() else { return };
            parent = append(parent, block, extras.next_block());
            keys.push(parent);
        }
        // The rest of nearly every prompt, in a loop that only hashes.
        keys.extend(blocks.map(|block| {
            parent = append(parent, block, None);
            parent
        }));
    }
}

#[inline]
fn append(parent: BlockKey, block: u64, extra: Option<BlockExtra>) -> BlockKey {
    let plain = mix::link(parent.0, block);
    BlockKey(extra.map_or(plain, |BlockExtra(extra)| mix::link(plain, extra)))
}

/// Keys of all full blocks of a prompt of token ids, in place of what `out` held.
///
/// # Errors
/// [`PromptError`] for a block size out of range, an empty or overlong prompt, or multimodal items
/// out of order or past the prompt's end; `out` is then empty.
pub fn token_keys(
    tokens: &[u32],
    block_size: u32,
    scope: &Scope,
    out: &mut Vec<BlockKey>,
) -> Result<(), PromptError> {
    out.clear();
    let chain = Chain::new(&scope.model, scope.lora.as_deref(), block_size)?;
    if tokens.is_empty() {
        return Err(PromptError::Empty);
    }
    if tokens.len() > MAX_PROMPT_TOKENS {
        return Err(PromptError::TooLong(tokens.len()));
    }
    scope.check(tokens.len())?;
    chain.block_keys(tokens, scope.extras(), out);
    Ok(())
}
